"""Branches that are always taken: an If whose condition is a constant, as tracing leaves it, becomes plain nodes."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from provisioning.network.backbone.graph.stitch import drop_dead_nodes, rename, subgraphs

BOOL = onnx.TensorProto.BOOL


def take_branches(graph: onnx.GraphProto) -> None:
    """Replace every If of the main graph whose condition is a constant by the nodes of the branch that it takes."""
    taken = False
    while (found := _first(graph)) is not None:
        taken = True
        place, branch = found
        node = graph.node[place]
        _localise(branch, f"{node.output[0]}/", dict(zip((o.name for o in branch.output), node.output, strict=True)))
        made = {output for inner in branch.node for output in inner.output} | {w.name for w in branch.initializer}
        passed = [o.name for o in branch.output if o.name not in made]
        others = [helper.make_node("Identity", [name], [out]) for name, out in _passed(branch, node, passed)]
        nodes = [*graph.node[:place], *branch.node, *others, *graph.node[place + 1 :]]
        graph.initializer.extend(branch.initializer)
        del graph.node[:]
        graph.node.extend(nodes)
    if taken:
        drop_dead_nodes(graph)


def _first(graph: onnx.GraphProto) -> tuple[int, onnx.GraphProto] | None:
    """Return where the first If with a constant condition is, and a copy of the branch that it takes."""
    constants = {w.name: bool(numpy_helper.to_array(w).all()) for w in graph.initializer if w.data_type == BOOL}
    for place, node in enumerate(graph.node):
        if node.op_type == "Constant" and node.attribute[0].t.data_type == BOOL:
            constants[node.output[0]] = bool(numpy_helper.to_array(node.attribute[0].t).all())
        if node.op_type == "If" and node.input[0] in constants:
            wanted = "then_branch" if constants[node.input[0]] else "else_branch"
            branch = onnx.GraphProto()
            branch.CopyFrom(next(a.g for a in node.attribute if a.name == wanted))
            return place, branch
    return None


def _localise(branch: onnx.GraphProto, prefix: str, outputs: dict[str, str]) -> None:
    """Give what the branch makes names that nothing else has, and its outputs those of the If."""
    local = [output for node in branch.node for output in node.output if output]
    for name in (*local, *(tensor.name for tensor in branch.initializer)):
        rename(branch, name, outputs.get(name, prefix + name))
    for node in branch.node:
        node.name = prefix + node.name if node.name else ""


def _passed(branch: onnx.GraphProto, node: onnx.NodeProto, names: list[str]) -> list[tuple[str, str]]:
    """Return the outputs of the branch that it takes from outside, with the names that the If gives them."""
    return [(o.name, out) for o, out in zip(branch.output, node.output, strict=True) if o.name in names]


def captured(graph: onnx.GraphProto) -> dict[int, set[str]]:
    """Return what the graphs inside each node read from outside, by the place of the node."""
    return {
        place: set().union(*map(_free, inner)) for place, node in enumerate(graph.node) if (inner := [*subgraphs(node)])
    }


def _free(graph: onnx.GraphProto) -> set[str]:
    """Return the names that a graph reads and neither makes nor takes."""
    made = {port.name for port in graph.input} | {w.name for w in graph.initializer}
    made |= {output for node in graph.node for output in node.output}
    read = {name for node in graph.node for name in node.input} | {port.name for port in graph.output}
    for node in graph.node:
        read |= set().union(*map(_free, subgraphs(node)))
    return read - made - {""}
