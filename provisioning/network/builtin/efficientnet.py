"""EfficientNet-Lite0 up to one of its blocks, pooled: ground described so that turns and tilts are withstood.

Source: M. Tan, Q. Le, "EfficientNet" (ICML 2019), in the Lite variant (2020: ReLU6, no squeeze-and-excitation), trained
on ImageNet. Each batch normalisation is folded into the convolution before it, in float64. Why this block, this pooling
and this normalisation of pixels: the tables in docs/backbones.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from provisioning.network.builtin.graph import Graph, model_of

Weights = Mapping[str, NDArray[Any]]

SIDE = 224
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Of the depthwise convolution of each block."""
EPSILON = 1e-3
"""Of the batch normalisations."""
POOLED_BLOCKS = 13
"""Blocks that are computed; the later ones know classes of things better, and places less well (measured)."""


class Layer(NamedTuple):
    """A convolution with its batch normalisation, by the names of their weights; ReLU6 after it unless linear."""

    conv: str
    norm: str
    stride: int = 1
    linear: bool = False


def descriptor(weights: Weights, *, blocks: int = POOLED_BLOCKS) -> onnx.ModelProto:
    """Return the graph "pixels" float32 [batch, 3, 224, 224] -> "descriptor" [batch, d], the mean of the last map.

    weights: those of efficientnet_lite_pytorch's EfficientNet, by its names; pixels: (level - 127) / 128, RGB.
    """
    g = Graph()
    image, side = _layer(g, weights, Layer("_conv_stem", "_bn0", 2), "pixels", SIDE)
    for number in range(blocks):
        image, side = _block(g, weights, number, image, side)
    pooled = g.add("GlobalAveragePool", image)
    g.nodes.append(helper.make_node("Flatten", [pooled], ["descriptor"], name="descriptor"))
    channels = len(weights[f"_blocks.{blocks - 1}._project_conv.weight"])
    return model_of(
        g,
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["batch", channels]),
    )


def _block(g: Graph, weights: Weights, number: int, image: str, side: int) -> tuple[str, int]:
    """Append an inverted residual block: wide, deep, narrow; with a shortcut where the shape stays."""
    at = f"_blocks.{number}."
    layers = (
        Layer(f"{at}_expand_conv", f"{at}_bn0"),
        Layer(f"{at}_depthwise_conv", f"{at}_bn1", STRIDES[number]),
        Layer(f"{at}_project_conv", f"{at}_bn2", linear=True),
    )
    found = image
    for layer in layers if number else layers[1:]:
        found, side = _layer(g, weights, layer, found, side)
    if number and STRIDES[number] == 1 and _channels_in(weights, at) == len(weights[f"{layers[2].conv}.weight"]):
        found = g.add("Add", found, image)
    return found, side


def _channels_in(weights: Weights, at: str) -> int:
    return int(weights[f"{at}_expand_conv.weight"].shape[1])


def _layer(g: Graph, weights: Weights, layer: Layer, image: str, side: int) -> tuple[str, int]:
    """Append a convolution padded as TensorFlow's "SAME": what is odd goes to the end."""
    kernels, offsets = _folded(weights, layer)
    out, of_each_group, kernel = kernels.shape[:3]
    small = -(-side // layer.stride)
    missing = max(0, (small - 1) * layer.stride + kernel - side)
    begin, end = missing // 2, missing - missing // 2
    found = g.add(
        "Conv",
        image,
        g.weight(kernels),
        g.weight(offsets),
        kernel_shape=[kernel, kernel],
        strides=[layer.stride, layer.stride],
        pads=[begin, begin, end, end],
        group=out if of_each_group == 1 else 1,
    )
    return found if layer.linear else g.add("Clip", found, g.real(0), g.real(6)), small


def _folded(weights: Weights, layer: Layer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernels float32 [out, in, k, k] and offsets float32 [out] of a convolution with what normalises it."""
    parts = ("weight", "bias", "running_mean", "running_var")
    gain, bias, mean, variance = (weights[f"{layer.norm}.{part}"].astype(np.float64) for part in parts)
    scale = gain / np.sqrt(variance + EPSILON)
    kernels = weights[f"{layer.conv}.weight"].astype(np.float64) * scale[:, None, None, None]
    return kernels.astype(np.float32), (bias - mean * scale).astype(np.float32)
