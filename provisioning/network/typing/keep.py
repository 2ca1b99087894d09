"""Which nodes stay in fp32 when a network becomes fp16: where sums of squares overflow, and where digits decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provisioning.base.errors import EngineError
from provisioning.network.typing.graph import is_cast_to_fp32, makers, readers

SUMS_OF_SQUARES = ("ReduceL2", "ReduceSumSquare", "LpNormalization")
"""A descriptor of 512 values around 12 overflows inside these, where no intermediate shows it."""
REDUCTIONS = (*SUMS_OF_SQUARES, "GlobalAveragePool", "Pow", "ReduceMean", "ReduceSum")
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators worth the speed of fp16."""
LOGARITHMIC = ("Exp", "Log", "LogSoftmax", "ReduceLogSum", "ReduceLogSumExp")
"""Operators of optimal transport in the log domain (Sinkhorn iterations, as the heads of SALAD and MegaLoc have)."""
BETWEEN = (
    *("Add", "Sub", "Neg", "Mul", "Div", "Max", "Min", "Clip", "ReduceMax", "ReduceSum", "Where", "IsInf", "Abs"),
    *(
        "Cast",
        "Concat",
        "Expand",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Gather",
        "Tile",
        "ScatterND",
    ),
)
"""What stands between two of those."""
DEVIATION = ("Add", "Clip", "Max", "Pow", "Sqrt")
"""What makes a standard deviation of a variance; a division by it ends the chain."""


def name_nodes(model: Any) -> None:
    """Give every node a name of its own: converters know nodes by their names only."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}"
        taken.add(node.name)


def kept_nodes(model: Any, keep_fp32: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the nodes that stay in fp32; EngineError if `keep_fp32` names what is not in the model.

    Besides those: what onnxruntime's converter never touches, sums of squares, a variance (a LayerNormalization taken
    apart, as exports before opset 17 have it) up to the division by it, optimal transport in the log domain, and the
    pooling and norm at the end.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    always = {*SUMS_OF_SQUARES, *DEFAULT_OP_BLOCK_LIST}
    blocked = {node.name for node in model.graph.node if node.op_type in always}
    own = _variances(model.graph) | _final_pooling(model.graph) | log_domain(model.graph)
    return require_known(model, keep_fp32) | blocked | own


def require_known(model: Any, keep_fp32: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the nodes that `keep_fp32` names or whose type it names; EngineError if it names nothing."""
    names = {node.name for node in model.graph.node}
    operators = {node.op_type for node in model.graph.node}
    if unknown := sorted(set(keep_fp32) - names - operators):
        facts = {"not in the model": ", ".join(unknown), "operators in it": ", ".join(sorted(operators))}
        raise EngineError("keep_fp32 names neither a node nor an operator type", key="keep_fp32", facts=facts)
    return frozenset(node.name for node in model.graph.node if {node.name, node.op_type} & set(keep_fp32))


def kept_from_int8(model: Any, keep_fp32: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the nodes that int8 leaves alone: those asked for, and products with a transport plan.

    EngineError if `keep_fp32` names what is not in the model.
    """
    reads, plans = readers(model.graph), log_domain(model.graph)
    waiting = [node for node in model.graph.node if node.name in plans]
    seen, products = set(plans), set()
    while waiting:
        for reader in [r for output in waiting.pop().output for r in reads.get(output, [])]:
            products |= {reader.name} if reader.op_type in HEAVY else set()
            if reader.name not in seen and reader.op_type in BETWEEN:
                seen.add(reader.name)
                waiting.append(reader)
    return require_known(model, keep_fp32) | products


def log_domain(graph: Any) -> set[str]:
    """Return the names of the nodes of an optimal transport: logarithmic operators, and what stands between two.

    A lone Exp, as a Swish taken apart has it, is none: there must be a sum or a logarithm too.
    """
    found = {node.name for node in graph.node if node.op_type in LOGARITHMIC}
    if not any(node.op_type in LOGARITHMIC and node.op_type != "Exp" for node in graph.node):
        return set()
    makes, reads = makers(graph), readers(graph)
    below = _reached(graph, found, lambda node: [r for output in node.output for r in reads.get(output, [])])
    above = _reached(graph, found, lambda node: [makes[source] for source in node.input if source in makes])
    return found | (below & above)


def _reached(graph: Any, start: set[str], beside: Callable[[Any], list[Any]]) -> set[str]:
    """Return the names of the nodes that are reached from those named in `start` through what stands between."""
    waiting = [node for node in graph.node if node.name in start]
    found: set[str] = set()
    while waiting:
        for node in beside(waiting.pop()):
            if node.op_type in BETWEEN and node.name not in found:
                found.add(node.name)
                waiting.append(node)
    return found


def _variances(graph: Any) -> set[str]:
    """Return the names of the nodes that square, average the squares, take the root and divide by it."""
    makes, reads = makers(graph), readers(graph)
    found: set[str] = set()
    for node in graph.node:
        square = makes.get(node.input[0]) if node.op_type in ("ReduceMean", "ReduceSum") else None
        if square is not None and _is_square(square):
            found |= {square.name, node.name} | _root_and_division(node, reads)
    return found


def _is_square(node: Any) -> bool:
    return bool(node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1]))


def _root_and_division(node: Any, reads: dict[str, list[Any]]) -> set[str]:
    found: set[str] = set()
    waiting = [node]
    while waiting:
        for reader in reads.get(waiting.pop().output[0], []):
            if reader.name not in found and reader.op_type in (*DEVIATION, "Div", "Reciprocal"):
                found.add(reader.name)
                waiting += [reader] if reader.op_type in DEVIATION else []
    return found


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
        starts = node.op_type in REDUCTIONS or is_cast_to_fp32(node)
        if not after[node.name] and (starts or any(maker.name in pooled for maker in above)):
            pooled.add(node.name)
    return pooled
