"""The order of a graph's nodes. ONNX asks for a topological one; onnxruntime's own fp16 converter does not keep it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those that make what it reads, and else leave the order as it is."""
    makers = {output: index for index, node in enumerate(graph.node) for output in node.output if output}
    reads = [sorted({makers[name] for name in _read(node) if name in makers}) for node in graph.node]
    if all(made < index for index, above in enumerate(reads) for made in above):
        return
    order: dict[int, None] = {}
    for index in range(len(graph.node)):
        _place(index, reads, order)
    nodes = [graph.node[index] for index in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _place(index: int, reads: list[list[int]], order: dict[int, None]) -> None:
    """Add node `index` to `order` behind everything it reads; a graph can be deeper than Python's stack."""
    path, entered = [index], set()
    while path:
        top = path[-1]
        missing = [above for above in reads[top] if above not in order and above not in entered]
        if top in order or not missing or top in entered:
            order[path.pop()] = None
            continue
        entered.add(top)
        path.extend(reversed(missing))


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node and the graphs inside it read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            yield from (port.name for port in inner.output)
            for below in inner.node:
                yield from _read(below)
