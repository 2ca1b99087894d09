"""Questions about an ONNX graph that typing and checking it ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DYNAMIC_OPERATORS = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
"""Operators that take their scale from the whole batch, so that a tile's result depends on its neighbours in it."""

QUANTISED_OPERATORS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", *DYNAMIC_OPERATORS)


def nodes(graph: Any) -> Iterator[Any]:
    """Yield every node of `graph` and of the graphs inside its nodes (If, Loop, Scan)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)


def label(node: Any) -> str:
    """Return what to call a node in a message: its operator, and its name or first output."""
    return f"{node.op_type} {node.name or (node.output[0] if node.output else '?')}"


def dynamically_quantised(model: Any) -> tuple[str, ...]:
    """Return the labels of nodes whose scale depends on the whole batch."""
    return tuple(label(node) for node in nodes(model.graph) if node.op_type in DYNAMIC_OPERATORS)


def is_quantised(model: Any) -> bool:
    """Return whether a model computes with integers anywhere."""
    return any(node.op_type in QUANTISED_OPERATORS for node in nodes(model.graph))


def typed_as(model: Any) -> str:
    """Return the precision the model has as it arrives: int8 with quantised operators, fp16 with fp16 weights, fp32."""
    from onnx import TensorProto

    if is_quantised(model):
        return "int8"
    weights = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0, TensorProto.BFLOAT16: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in weights:
            weights[tensor.data_type] += _elements(tensor)
    half = weights[TensorProto.FLOAT16] + weights[TensorProto.BFLOAT16]
    return "fp16" if half > weights[TensorProto.FLOAT] else "fp32"


def _elements(tensor: Any) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count


def makers(graph: Any) -> dict[str, Any]:
    """Return the node that makes each tensor."""
    return {output: node for node in graph.node for output in node.output}


def readers(graph: Any) -> dict[str, list[Any]]:
    """Return the nodes that read each tensor."""
    found: dict[str, list[Any]] = {}
    for node in graph.node:
        for source in node.input:
            found.setdefault(source, []).append(node)
    return found


def tile_size(model: Any) -> tuple[int, int] | None:
    """Return height and width where the only input is tiles uint8 [N, height, width, 3] of one size, else None."""
    from onnx import TensorProto

    if len(model.graph.input) != 1:
        return None
    tensor = model.graph.input[0].type.tensor_type
    dims = [dim.dim_value for dim in tensor.shape.dim]
    tiles = tensor.elem_type == TensorProto.UINT8 and len(dims) == 4 and dims[3] == 3 and all(dims[1:])
    return (dims[1], dims[2]) if tiles else None


def is_cast_to_fp32(node: Any) -> bool:
    """Return whether the network itself asks for fp32 from here on."""
    return node.op_type == "Cast" and any(a.name == "to" and a.i == 1 for a in node.attribute)
