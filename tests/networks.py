"""Small networks from tiles to descriptors, for tests of engines: random weights, the same each time."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, DIMENSION = 32, 24


def tiles(count, *, side=SIDE, seed=0):
    """Return smooth random images uint8 [count, side, side, 3]: neighbours differ, noise would average out."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3)).astype(np.float32)
    return np.clip(np.kron(coarse, np.ones((1, side // 4, side // 4, 1))), 0, 255).astype(np.uint8)


def network(*, batch="batch", scale=1 / 255, gain=1.0, side=SIDE, seed=1):
    """Return an ONNX model: conv, relu, pooling, matmul, unit length. `gain` multiplies the convolution's weights."""
    rng = np.random.default_rng(seed)
    weights = {
        "kernel": gain * rng.standard_normal((16, 3, 5, 5)) * 0.2,
        "mix": rng.standard_normal((16, DIMENSION)) * 0.3,
        "scale": np.array(scale),
        "floor": np.array(1e-6),
    }
    initializers = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    initializers.append(numpy_helper.from_array(np.array([1]), "axis"))
    nodes = [
        helper.make_node("Cast", ["tiles"], ["pixels"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"], name="scaling"),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2], name="planar"),
        helper.make_node("Conv", ["planes", "kernel"], ["c1"], strides=[2, 2], name="conv1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("GlobalAveragePool", ["r1"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "mix"], ["mixed"], name="fc"),
        helper.make_node("ReduceL2", ["mixed", "axis"], ["norm"], keepdims=1, name="norm"),
        helper.make_node("Max", ["norm", "floor"], ["length"], name="atleast"),
        helper.make_node("Div", ["mixed", "length"], ["descriptors"], name="unit"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, [batch, DIMENSION])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def user_model():
    """Return a model as users have it, float NCHW without normalisation, and a function that computes it by hand."""
    mix = np.random.default_rng(3).standard_normal((12, 7)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[16, 16], strides=[16, 16], name="cells"),
        helper.make_node("Flatten", ["cells"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "mix"], ["out"], name="mix"),
    ]
    graph = helper.make_graph(
        nodes,
        "user",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(mix, "mix")],
    )

    def expected(images):
        cells = (images / 255).reshape(len(images), 2, 16, 2, 16, 3).mean((2, 4)).transpose(0, 3, 1, 2)
        mixed = cells.reshape(len(images), 12) @ mix
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)

    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), expected


def cells_model():
    """Return a model as users have it, of no weights: the mean colours of 8 x 8 cells, which differ for unlike tiles."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[4, 4], strides=[4, 4], name="cells"),
        helper.make_node("Flatten", ["cells"], ["out"], name="flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 192])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def node(model, name):
    return next(n for n in model.graph.node if n.name == name)


def weight(model, name):
    return next(w for w in model.graph.initializer if w.name == name)


def insert_after(model, name, *nodes, output):
    """Put `nodes` behind the node called `name`; its readers read `output` instead of what it makes."""
    maker = node(model, name)
    made = maker.output[0]
    for reader in model.graph.node:
        reader.input[:] = [output if source == made else source for source in reader.input]
    place = list(model.graph.node).index(maker) + 1
    for offset, new in enumerate(nodes):
        model.graph.node.insert(place + offset, new)
    return model


def with_custom_operator(model):
    """Return `model` with a node of an operator that no runtime knows."""
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    odd = helper.make_node("Mystery", ["mixed"], ["odd"], name="odd_one", domain="com.example")
    return insert_after(model, "fc", odd, output="odd")


def dynamically_quantised(model):
    """Return `model` with its matrix product quantised by the largest value in the whole batch."""
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.uint8), "zero"))
    mix = numpy_helper.to_array(weight(model, "mix"))
    step = np.float32(np.abs(mix).max() / 127)
    model.graph.initializer.append(numpy_helper.from_array(np.round(mix / step).astype(np.int8), "mix8"))
    model.graph.initializer.append(numpy_helper.from_array(step, "step"))
    fc = node(model, "fc")
    place = list(model.graph.node).index(fc)
    model.graph.node.remove(fc)
    for offset, new in enumerate(
        (
            helper.make_node("DynamicQuantizeLinear", ["flat"], ["flat8", "range", "offset"], name="on_the_fly"),
            helper.make_node("MatMulInteger", ["flat8", "mix8", "offset"], ["sums"], name="fc8"),
            helper.make_node("Cast", ["sums"], ["sumsf"], to=TensorProto.FLOAT, name="sums_to_float"),
            helper.make_node("Mul", ["range", "step"], ["both"], name="both_scales"),
            helper.make_node("Mul", ["sumsf", "both"], ["mixed"], name="rescale"),
        )
    ):
        model.graph.node.insert(place + offset, new)
    return model


def save(model, path: Path) -> Path:
    onnx.save(model, str(path))
    return path
