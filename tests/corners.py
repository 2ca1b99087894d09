"""A small network of local features made by hand: Harris corners, described by what lies around them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

AROUND = 25
"""Grey levels that describe a point: five by five, every sixth pixel."""
POINTS = 400


class _Graph:
    def __init__(self):
        self.nodes, self.weights = [], []

    def add(self, op, *inputs, outputs=1, **attributes):
        names = [f"{op}{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, values, dtype=np.float32):
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def conv(self, value, kernels, step=1):
        kernels = np.asarray(kernels, np.float32)
        pads = [kernels.shape[-1] // 2 * step] * 4
        return self.add("Conv", value, self.weight(kernels[:, None]), pads=pads, dilations=[step] * 2)

    def named(self, value, name):
        self.nodes.append(helper.make_node("Identity", [value], [name]))


def _harris(graph):
    """Add grey levels, and how much of a corner each pixel is, [1, 1, H, W]."""
    grey = graph.add("ReduceMean", "image", axes=[1], keepdims=1)
    line = np.array([1, 4, 6, 4, 1]) / 16
    grey = graph.conv(grey, np.outer(line, line)[None])
    slopes = [graph.conv(grey, kernel[None]) for kernel in (np.array([[-1, 0, 1]] * 3), np.array([[-1, 0, 1]] * 3).T)]
    products = [graph.add("Mul", slopes[i], slopes[j]) for i, j in ((0, 0), (1, 1), (0, 1))]
    xx, yy, xy = (graph.conv(product, np.full((1, 7, 7), 1 / 49)) for product in products)
    area = graph.add("Sub", graph.add("Mul", xx, yy), graph.add("Mul", xy, xy))
    trace = graph.add("Add", xx, yy)
    edge = graph.add("Mul", graph.add("Mul", trace, trace), graph.weight(0.05))
    return grey, graph.add("Relu", graph.add("Sub", area, edge))


def _around(graph, grey):
    """Add the grey levels around each pixel, [1, AROUND, H, W]."""
    return graph.conv(grey, np.eye(AROUND).reshape(AROUND, 5, 5), step=6)


def points(size=(352, 352), *, names=("keypoints", "scores", "descriptors"), batch=1, shares=False, shift=0.0,
           gain=1.0, wide=False, opset=17):  # fmt: skip
    """Return a model that gives keypoints [1, n, 2], scores [1, n] and descriptors [1, n, 25].

    shares: keypoints from -1 to 1 instead of pixels. shift: added to them. gain: on the scores. wide: descriptors as
    [1, 25, n].
    """
    graph, (height, width) = _Graph(), size
    grey, corner = _harris(graph)
    alone = graph.add("Equal", corner, graph.add("MaxPool", corner, kernel_shape=[7, 7], pads=[3] * 4))
    score = graph.add("Where", alone, graph.add("Mul", corner, graph.weight(gain)), graph.weight(0.0))
    flat = graph.add("Reshape", score, graph.weight([1, -1], np.int64))
    scores, places = graph.add("TopK", flat, graph.weight([POINTS], np.int64), outputs=2, axis=1)
    across = graph.weight(width, np.int64)
    x, y = graph.add("Mod", places, across), graph.add("Div", places, across)
    pair = [graph.add("Unsqueeze", each, graph.weight([2], np.int64)) for each in (x, y)]
    found = graph.add("Cast", graph.add("Concat", *pair, axis=2), to=TensorProto.FLOAT)
    if shares:
        found = graph.add("Div", found, graph.weight([width, height]))
    around = graph.add("Reshape", _around(graph, grey), graph.weight([AROUND, -1], np.int64))
    described = graph.add("Gather", around, graph.add("Reshape", places, graph.weight([-1], np.int64)), axis=1)
    described = graph.add("Sub", described, graph.add("ReduceMean", described, axes=[0], keepdims=1))
    if not wide:
        described = graph.add("Transpose", described, perm=[1, 0])
    described = graph.add("Unsqueeze", described, graph.weight([0], np.int64))
    values = (graph.add("Add", found, graph.weight(shift)), scores, described)
    for value, name in zip(values, names, strict=True):
        graph.named(value, name)
    return _model(graph, names, [batch, 3, height, width], opset)


def maps(size=(352, 352), *, reliability=True):
    """Return a model that gives logits of 65 channels, descriptors of 25 and perhaps reliability, at an eighth."""
    graph, (height, width) = _Graph(), size
    grey, corner = _harris(graph)
    logits = graph.add("SpaceToDepth", graph.add("Mul", corner, graph.weight(300.0)), blocksize=8)
    none = graph.add("Mul", graph.add("Slice", logits, *(graph.weight([n], np.int64) for n in (0, 1, 1))),
                     graph.weight(0.0))  # fmt: skip
    graph.named(graph.add("Concat", logits, graph.add("Add", none, graph.weight(3.0)), axis=1), "semi")
    around = _around(graph, grey)
    graph.named(graph.add("AveragePool", around, kernel_shape=[8, 8], strides=[8, 8]), "desc")
    names = ["semi", "desc"]
    if reliability:
        graph.named(graph.add("AveragePool", grey, kernel_shape=[8, 8], strides=[8, 8]), "trust")
        names.append("trust")
    return _model(graph, names, [1, 3, height, width], 17)


def _model(graph, names, shape, opset):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    made = helper.make_graph(graph.nodes, "corners", [image], outputs, graph.weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
