"""A network gives the same descriptor for the same tile every time, or is refused: no noise, no dropout.

Normalisation by the batch is not looked for here: at a batch of 1 it is the same every time, and a gate measures it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from provisioning.base.errors import BackboneError
from provisioning.network.typing.graph import label

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def require_reproducible(model: onnx.ModelProto, file: str) -> None:
    """Raise BackboneError where the model draws random numbers, or drops values as in training."""
    if found := list(_irreproducible(model)):
        raise BackboneError(
            "the model does not give the same for the same image: it draws random numbers or is in training mode",
            file=file,
            facts={"nodes": ", ".join(found[:5]), "in all": len(found)},
            next_step="export it in evaluation mode (in torch: model.eval() before the export)",
        )


def _irreproducible(model: onnx.ModelProto) -> Iterator[str]:
    for graph in (model.graph, *model.functions):
        yield from _of(graph, {})


def _of(graph: onnx.GraphProto, outer: dict[str, onnx.TensorProto]) -> Iterator[str]:
    """Yield the nodes of `graph`, or of a function's body, and of the graphs inside that are not reproducible."""
    weights = {
        **outer,
        **{tensor.name: tensor for tensor in getattr(graph, "initializer", ())},
        **dict(_constants(graph)),
    }
    for node in graph.node:
        if node.op_type in RANDOM or _drops(node, weights):
            yield label(node)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _of(inner, weights)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            yield node.output[0], attribute.t


def _drops(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    mode = weights.get(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
    return mode is not None and bool(np.all(numpy_helper.to_array(mode)))
