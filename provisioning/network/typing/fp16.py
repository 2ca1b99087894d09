"""fp16 by conversion: onnxruntime's converter, and what it leaves to be done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from provisioning.network.backbone.graph.order import sort_nodes
from provisioning.network.typing.graph import is_cast_to_fp32
from provisioning.network.typing.keep import kept_nodes, name_nodes


def to_fp16(model: Any, keep_fp32: tuple[str, ...], *, infer_shapes: bool = True) -> Any:
    """Return `model` in fp16, its inputs and outputs as they were. `infer_shapes`: unless it has its shapes.

    In fp32 stay the nodes of `keep.kept_nodes`, and nodes with graphs inside. EngineError if `keep_fp32` names what is
    not in the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from provisioning.network.backbone.graph.branches import captured

    name_nodes(model)
    keep = kept_nodes(model, keep_fp32) | {model.graph.node[place].name for place in captured(model.graph)}
    original = {node.name for node in model.graph.node}
    floats = _floats(model, infer_shapes=infer_shapes)
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=not infer_shapes,
        op_block_list=[],
        node_block_list=sorted(keep),
    )
    original |= _hand_in(converted.graph, floats)
    _join(converted, original)
    return converted


def _floats(model: Any, *, infer_shapes: bool) -> set[str]:
    """Return the names of the values and weights in fp32, where a node has graphs inside that may read them."""
    from onnx import TensorProto, shape_inference

    from provisioning.network.backbone.graph.branches import captured

    if not captured(model.graph):
        return set()
    graph = (shape_inference.infer_shapes(model) if infer_shapes else model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    known = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return known | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _hand_in(graph: Any, floats: set[str]) -> set[str]:
    """Give the graphs inside nodes the fp32 values that they read from outside; return the names of the casts.

    The converter casts what a node takes, and does not see what the graphs inside it read.
    """
    from onnx import helper

    from provisioning.network.backbone.graph.branches import captured
    from provisioning.network.backbone.graph.stitch import rename, subgraphs

    casts = {}
    for place, names in captured(graph).items():
        for name in sorted(names & floats):
            inside = f"{name}/inside"
            casts[name] = helper.make_node("Cast", [name], [inside], to=1, name=inside)
            for inner in subgraphs(graph.node[place]):
                rename(inner, name, inside)
    graph.node.extend(casts.values())
    sort_nodes(graph)
    return {node.name for node in casts.values()}


def _join(model: Any, original: set[str]) -> None:
    """Let a kept node hand over what it made as it was made, to another kept node or as the output of the network.

    The converter casts to fp16 and back between two fp32 nodes, which loses digits and makes infinity of what is large.
    The casts it added are those whose names are not in `original`.
    """
    graph = model.graph
    ends = {value.name for value in graph.output}
    added = [node for node in graph.node if node.op_type == "Cast" and node.name not in original]
    down = {node.output[0]: node.input[0] for node in added if not is_cast_to_fp32(node)}
    for node in [node for node in added if is_cast_to_fp32(node) and node.input[0] in down]:
        made, wanted = down[node.input[0]], node.output[0]
        graph.node.remove(node)
        if wanted in ends:
            _rename(graph.node, made, wanted)
            down = {low: wanted if high == made else high for low, high in down.items()}
        else:
            _rename(graph.node, wanted, made)
    read = {source for node in graph.node for source in node.input} | ends
    for node in [node for node in graph.node if node.output[0] in down and node.output[0] not in read]:
        graph.node.remove(node)
    sort_nodes(graph)


def _rename(nodes: Iterable[Any], old: str, new: str) -> None:
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [new if value == old else value for value in values]
