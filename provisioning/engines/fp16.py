"""fp16 by conversion. Pooling and norm at the end of the network stay in fp32, with what the user names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from provisioning.backbone.order import sort_nodes
from provisioning.engines.graph import makers, readers
from provisioning.errors import EngineError

SUMS_OF_SQUARES = ("ReduceL2", "ReduceSumSquare", "LpNormalization")
"""A descriptor of 512 values around 12 overflows inside these, where no intermediate shows it: always fp32."""
REDUCTIONS = (*SUMS_OF_SQUARES, "GlobalAveragePool", "Pow", "ReduceMean", "ReduceSum")
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators worth the speed of fp16."""


def to_fp16(model: Any, keep_fp32: tuple[str, ...]) -> Any:
    """Return `model` in fp16, its inputs and outputs as they were.

    In fp32 stay the nodes named in `keep_fp32`, sums of squares, and the pooling and normalisation at the end.
    EngineError if `keep_fp32` names what is not in the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    name_nodes(model)
    keep = sorted(kept_nodes(model, keep_fp32))
    original = {node.name for node in model.graph.node}
    converted = convert_float_to_float16(model, keep_io_types=True, op_block_list=[], node_block_list=keep)
    _join(converted, original)
    return converted


def name_nodes(model: Any) -> None:
    """Give every node a name: the converter knows nodes by their names only."""
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            name = f"{node.op_type}_{index}"
            node.name = name if name not in taken else f"{name}_unnamed"


def kept_nodes(model: Any, keep_fp32: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the nodes that stay in fp32; EngineError if `keep_fp32` names what is not in the model."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    chosen = require_known(model, keep_fp32)
    always = {*SUMS_OF_SQUARES, *DEFAULT_OP_BLOCK_LIST}
    blocked = {node.name for node in model.graph.node if node.op_type in always}
    return chosen | blocked | _final_pooling(model.graph)


def require_known(model: Any, keep_fp32: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the nodes that `keep_fp32` names or whose type it names; EngineError if it names nothing."""
    names = {node.name for node in model.graph.node}
    operators = {node.op_type for node in model.graph.node}
    if unknown := sorted(set(keep_fp32) - names - operators):
        facts = {"not in the model": ", ".join(unknown), "operators in it": ", ".join(sorted(operators))}
        raise EngineError("keep_fp32 names neither a node nor an operator type", key="keep_fp32", facts=facts)
    return frozenset(node.name for node in model.graph.node if {node.name, node.op_type} & set(keep_fp32))


def _final_pooling(graph: Any) -> set[str]:
    """Return the names of the nodes from the last pooling or norm on: cheap, and deciding for the digits."""
    reads = readers(graph)
    after: dict[str, bool] = {}
    for node in reversed(graph.node):  # ONNX nodes are in topological order
        below = [reader for output in node.output for reader in reads.get(output, [])]
        after[node.name] = node.op_type in HEAVY or any(after[reader.name] for reader in below)
    pooled: set[str] = set()
    makes = makers(graph)
    for node in graph.node:
        above = [makes[source] for source in node.input if source in makes]
        starts = node.op_type in REDUCTIONS or _is_cast_to_fp32(node)
        if not after[node.name] and (starts or any(maker.name in pooled for maker in above)):
            pooled.add(node.name)
    return pooled


def _is_cast_to_fp32(node: Any) -> bool:
    """Tell whether the network itself asks for fp32 from here on."""
    return node.op_type == "Cast" and any(a.name == "to" and a.i == 1 for a in node.attribute)


def _join(model: Any, original: set[str]) -> None:
    """Let a kept node hand over what it made as it was made, to another kept node or as the output of the network.

    The converter casts to fp16 and back between two fp32 nodes, which loses digits and makes infinity of what is large.
    The casts it added are those whose names are not in `original`.
    """
    graph = model.graph
    ends = {value.name for value in graph.output}
    added = [node for node in graph.node if node.op_type == "Cast" and node.name not in original]
    down = {node.output[0]: node.input[0] for node in added if not _is_cast_to_fp32(node)}
    for node in [node for node in added if _is_cast_to_fp32(node) and node.input[0] in down]:
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
