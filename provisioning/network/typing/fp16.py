"""fp16 by conversion: onnxruntime's converter, and what it leaves to be done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from provisioning.network.backbone.order import sort_nodes
from provisioning.network.typing.graph import is_cast_to_fp32
from provisioning.network.typing.keep import kept_nodes, name_nodes


def to_fp16(model: Any, keep_fp32: tuple[str, ...]) -> Any:
    """Return `model` in fp16, its inputs and outputs as they were.

    In fp32 stay the nodes of `keep.kept_nodes`. EngineError if `keep_fp32` names what is not in the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    name_nodes(model)
    keep = sorted(kept_nodes(model, keep_fp32))
    original = {node.name for node in model.graph.node}
    converted = convert_float_to_float16(model, keep_io_types=True, op_block_list=[], node_block_list=keep)
    _join(converted, original)
    return converted


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
