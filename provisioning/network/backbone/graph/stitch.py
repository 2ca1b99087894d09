"""Sewing nodes onto an ONNX graph that somebody else wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from provisioning.network.backbone.graph.ports import Ports, opset_of

OURS = "flightcache/"


class Stitch:
    """Adds nodes one after another; each call takes and gives the name of a value."""

    def __init__(self, model: onnx.ModelProto, part: str) -> None:
        self.opset = opset_of(model)
        self.nodes: list[onnx.NodeProto] = []
        self._weights = model.graph.initializer
        self._part = part

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """Append one node with one output."""
        name = f"{OURS}{self._part}/{len(self.nodes)}_{op}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a weight."""
        name = f"{OURS}{self._part}/weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def reduce(self, op: str, value: str, axis: int, *, keepdims: int) -> str:
        """Append ReduceMean or ReduceL2 over one axis; the axis became an input in opset 18."""
        if self.opset >= 18:
            return self.add(op, value, self.constant([axis], np.int64), keepdims=keepdims)
        return self.add(op, value, axes=[axis], keepdims=keepdims)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs inside a node (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def free_name(graph: onnx.GraphProto, name: str, ports: Ports) -> Ports:
    """Rename a value of the model that is called `name`, which is ours; return the ports under their names then."""
    other = OURS + "theirs/" + name
    rename(graph, name, other)
    return replace(
        ports,
        image=other if ports.image == name else ports.image,
        vector=other if ports.vector == name else ports.vector,
    )


def rename(graph: onnx.GraphProto, name: str, other: str) -> None:
    """Call the value `name` of `graph`, and of the graphs inside its nodes, `other`."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [other if value == name else value for value in values]
        for inner in subgraphs(node):
            rename(inner, name, other)
    for named in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        if named.name == name:
            named.name = other


def drop_dead_nodes(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that do not lead to an output: the model's other outputs."""
    needed = needed_names(graph, {port.name for port in graph.output})
    kept = [node for node in graph.node if needed.intersection(node.output)]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)


def needed_names(graph: onnx.GraphProto, outputs: set[str]) -> set[str]:
    """Return the names of all values that lead to `outputs`, themselves included."""
    needed = set(outputs)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            for inner in subgraphs(node):
                needed.update(_mentioned(inner))
    return needed


def _mentioned(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (port.name for port in graph.output)
    for node in graph.node:
        yield from node.input
        for inner in subgraphs(node):
            yield from _mentioned(inner)
