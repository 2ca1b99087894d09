"""An ONNX graph in the making: what the built-in networks are written with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8
WEIGHT_STEP = 2.0**-24


@dataclass
class Graph:
    """Nodes and initialisers in the making; every call returns the name of the value it adds."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """Append one node with one output."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def real(self, values: npt.ArrayLike) -> str:
        """Append float32 weights, rounded so that they do not hang on the last bit of the host's exp and FFT.

        What is zero but for that bit may have either sign: 0.0 + makes it positive.
        """
        rounded = 0.0 + np.round(np.asarray(values, np.float64) / WEIGHT_STEP) * WEIGHT_STEP
        return self.weight(rounded.astype(np.float32))

    def whole(self, *values: int) -> str:
        """Append an int64 vector."""
        return self.weight(np.array(values, np.int64))

    def weight(self, values: npt.NDArray[Any]) -> str:
        """Append `values` as they are."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name


def model_of(g: Graph, image: onnx.ValueInfoProto, vector: onnx.ValueInfoProto) -> onnx.ModelProto:
    """Return the model that makes `vector` of `image`; both are values of the graph."""
    graph = helper.make_graph(g.nodes, vector.name, [image], [vector], g.weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="flightcache"
    )
