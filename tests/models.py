"""Tiny models as users have them, before any preprocessing: one linear layer over 4x4 cells, made to order."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CELLS, DIMENSION = 16, 4, 6
FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
MIX = np.random.default_rng(5).standard_normal((3 * CELLS * CELLS, DIMENSION)).astype(np.float32)


def linear(*, batch="n", size=SIDE, element=FLOAT, channels=3, opset=13, image="image", vector="out", gain=1.0, ir=8):
    """Return cells → flat → MIX, with an extra input-independent output "extra" that nobody should take."""
    dtype = np.float16 if element == FLOAT16 else np.float32
    mix = (gain * MIX[: channels * CELLS * CELLS]).astype(dtype)
    cell = (size if isinstance(size, int) else SIDE) // CELLS
    nodes = [
        helper.make_node("AveragePool", [image], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]),
        helper.make_node("Flatten", ["cells"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mix"], [vector], name="mix"),
    ]
    return _model(
        nodes,
        (image, element, [batch, channels, size, size]),
        (vector, element, [batch, DIMENSION]),
        {"mix": mix},
        opset,
        ir,
    )


def feature_map(*, batch="n", opset=13):
    """Return a 1x1 convolution: image [n, 3, 16, 16] → map [n, 6, 16, 16]."""
    nodes = [helper.make_node("Conv", ["image", "kernel"], ["map"])]
    ports = ("image", FLOAT, [batch, 3, SIDE, SIDE]), ("map", FLOAT, [batch, DIMENSION, SIDE, SIDE])
    return _model(nodes, *ports, {"kernel": KERNEL[:, :, None, None]}, opset, 8)


KERNEL = np.random.default_rng(6).standard_normal((DIMENSION, 3)).astype(np.float32)


def tokens(*, opset=13):
    """Return image [n, 3, 16, 16] → sequence [n, 256, 6]: one token for each pixel."""
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["map"]),
        helper.make_node("Reshape", ["map", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["sequence"], perm=[0, 2, 1]),
    ]
    weights = {"kernel": KERNEL[:, :, None, None], "shape": np.array([0, DIMENSION, -1])}
    ports = ("image", FLOAT, ["n", 3, SIDE, SIDE]), ("sequence", FLOAT, ["n", SIDE * SIDE, DIMENSION])
    return _model(nodes, *ports, weights, opset, 8)


def squeezed():
    """Return a model traced with batch 1 whose `.squeeze()` dropped the batch: image → [6]."""
    model = linear(batch=1, vector="row")
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "shape"))
    model.graph.node.append(helper.make_node("Reshape", ["row", "shape"], ["out"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", FLOAT, [DIMENSION]))
    return model


def with_second_output(model):
    """Return `model` with another output that costs a node."""
    model.graph.node.append(helper.make_node("ReduceMean", ["cells"], ["extra"]))
    model.graph.output.append(helper.make_tensor_value_info("extra", FLOAT, [1, 1, 1, 1]))
    return model


def with_external_data(model, path):
    """Save `model` at `path` with all its weights in `<path>.data`; return `path`."""
    for tensor in model.graph.initializer:
        tensor.raw_data = numpy_helper.to_array(tensor).tobytes()
    onnx.save(model, str(path), save_as_external_data=True, location=path.name + ".data", size_threshold=0)
    return path


def vast(path, width=23_200):
    """Save a network of SIDE-pixel images with 2.2 GB of weights in fp32, written row by row, and return its path."""
    cells, columns = 3 * (SIDE // 4) ** 2, 24
    sizes = {"first": (cells, width), "second": (width, width), "third": (width, columns)}
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "third"], ["vector"]),
    ]
    image = ("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    model = _model(nodes, image, ("vector", TensorProto.FLOAT, ["n", columns]), {}, 17, 8)
    rng = np.random.default_rng(1)
    with path.with_name("vast.weights").open("wb") as file:
        for name, (rows, length) in sizes.items():
            start = file.tell()
            for _ in range(rows):
                file.write((rng.standard_normal(length, np.float32) / np.float32(rows**0.5)).tobytes())
            tensor = model.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=(rows, length))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "vast.weights"), ("offset", start), ("length", file.tell() - start)):
                tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())
    return path


def _model(nodes, image, vector, weights, opset, ir):
    graph = helper.make_graph(
        nodes,
        "user",
        [helper.make_tensor_value_info(*image)],
        [helper.make_tensor_value_info(*vector)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
