"""A model as an exporter left it, made plain: no local functions, no sparse weights, no input but the image."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

from provisioning.base.errors import BackboneError
from provisioning.network.backbone.graph.stitch import needed_names


def plain(model: onnx.ModelProto, constants: Mapping[str, Decimal], output: str, file: str) -> onnx.ModelProto:
    """Return `model` with functions inlined, weights dense, `constants` for its inputs, and no input that is not read.

    `output` is the name of the only output that counts, or empty. BackboneError: a constant for no input.
    """
    model = inlined(model)
    _supply(model.graph, constants, file)
    _drop_unread_inputs(model.graph, output)
    return model


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` without local functions and sparse weights, which converters of precision do not take."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _make_dense(model.graph)
    return model


def _make_dense(graph: onnx.GraphProto) -> None:
    """Turn sparse weights into ordinary ones: neither the converters nor TensorRT take them."""
    graph.initializer.extend(_dense(tensor) for tensor in graph.sparse_initializer)
    del graph.sparse_initializer[:]


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Indices are flat [n], or one row of coordinates for each value [n, rank]."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    dense = np.zeros(shape, values.dtype)
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
    dense.reshape(-1)[flat] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def _supply(graph: onnx.GraphProto, constants: Mapping[str, Decimal], file: str) -> None:
    """Make a weight of every input that `constants` names: the number in every element, free axes of length 1."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {port.name: port for port in graph.input if port.name not in weights}
    if unknown := sorted(set(constants) - set(inputs)):
        raise BackboneError(
            f"constants name what is no input of the model: {', '.join(unknown)}",
            file=file,
            key="backbone.constants",
            facts={"inputs": ", ".join(inputs)},
            next_step="correct backbone.constants",
        )
    for name, value in constants.items():
        tensor = inputs[name].type.tensor_type
        shape = [dim.dim_value if dim.dim_value > 0 else 1 for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        graph.initializer.append(numpy_helper.from_array(np.full(shape, float(value)).astype(dtype), name))
        graph.input.remove(inputs[name])


def _drop_unread_inputs(graph: onnx.GraphProto, output: str) -> None:
    """Remove inputs that no node on the way to the output reads, as those for another of the model's outputs."""
    wanted = [port for port in graph.output if output in ("", port.name)]
    needed = needed_names(graph, {port.name for port in wanted or graph.output})
    for port in [port for port in graph.input if port.name not in needed]:
        graph.input.remove(port)
