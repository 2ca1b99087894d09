"""The front of a network: uint8 pixels as they are decoded, to what the model was trained on."""

from __future__ import annotations

from decimal import Decimal

import onnx
from onnx import TensorProto

from provisioning.config import Backbone
from provisioning.network.backbone.graph.ports import Ports
from provisioning.network.backbone.graph.stitch import Stitch

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601, as Pillow's and OpenCV's grey."""


def prepend_front(backbone: Backbone, model: onnx.ModelProto, ports: Ports, *, tiles: str) -> None:
    """Put cast, channel order, axis order, scale, mean and std before the model, giving its input `ports.image`.

    A model that takes uint8 gets the pixels unscaled.
    """
    stitch = Stitch(model, "front")
    raw = ports.image_type == TensorProto.UINT8
    value = tiles if raw else stitch.add("Cast", tiles, to=TensorProto.FLOAT)
    value = _channels(stitch, value, backbone.channels, raw=raw)
    if backbone.layout == "nchw":
        value = stitch.add("Transpose", value, perm=[0, 3, 1, 2])
    if not raw:
        value = _affine(stitch, value, backbone, ports.channels)
    if ports.image_type == TensorProto.FLOAT16:
        value = stitch.add("Cast", value, to=TensorProto.FLOAT16)
    stitch.add("Identity", value)
    stitch.nodes[-1].output[0] = ports.image
    theirs = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*stitch.nodes, *theirs])


def _channels(stitch: Stitch, value: str, channels: str, *, raw: bool) -> str:
    if channels == "bgr":
        return stitch.add("Gather", value, stitch.constant([2, 1, 0], "int64"), axis=3)
    if channels == "gray":
        pixels = stitch.add("Cast", value, to=TensorProto.FLOAT) if raw else value
        luma = stitch.add("MatMul", pixels, stitch.constant([[w] for w in LUMA]))
        return _as_bytes(stitch, luma) if raw else luma
    return value


def _as_bytes(stitch: Stitch, value: str) -> str:
    """Round to the nearest byte, as Pillow does."""
    half = stitch.add("Add", value, stitch.constant(0.5))
    return stitch.add("Cast", stitch.add("Floor", half), to=TensorProto.UINT8)


def _affine(stitch: Stitch, value: str, backbone: Backbone, channels: int) -> str:
    """(x * scale - mean) / std as one multiplication and one addition, folded in exact decimals."""
    mean, std = _each(backbone.mean, 0, channels), _each(backbone.std, 1, channels)
    factor = [backbone.scale / s for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    if any(f != 1 for f in factor):
        value = stitch.add("Mul", value, _per_channel(stitch, factor, backbone.layout))
    if any(offset):
        value = stitch.add("Add", value, _per_channel(stitch, offset, backbone.layout))
    return value


def _each(values: tuple[Decimal, ...], default: int, channels: int) -> tuple[Decimal, ...]:
    full = values or (Decimal(default),)
    return full * channels if len(full) == 1 else full


def _per_channel(stitch: Stitch, values: list[Decimal], layout: str) -> str:
    plain = [float(v) for v in values]
    return stitch.constant([[[v]] for v in plain] if layout == "nchw" else plain)
