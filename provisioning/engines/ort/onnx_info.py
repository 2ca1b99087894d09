"""What the bytes of an ONNX model say about it, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from provisioning.base.errors import EngineError
from provisioning.engines.spec import EngineInfo
from provisioning.network import large


def describe_onnx(data: bytes, *, backend: str) -> EngineInfo:
    """Return what an ONNX model says about its first input and output; EngineError if it is damaged or incomplete."""
    return read_onnx(data, backend=backend)[1]


def read_onnx(data: bytes, *, backend: str, weights: Path | None = None) -> tuple[Any, EngineInfo]:
    """Return the model and what `describe_onnx` says of it, parsed once; EngineError as there."""
    import onnx

    try:
        model = onnx.load_model_from_string(large.graph_of(data))
        inputs, outputs = _ports(model)
    except Exception as error:  # protobuf's DecodeError has no stable home; IndexError means no graph
        raise EngineError("these bytes are no ONNX model", facts={"bytes": len(data)}) from error
    if not weights:
        large.weights_of(model, data)
    shape = inputs[0][2]
    dimension = outputs[0][2][-1] if outputs[0][2] else None
    return model, EngineInfo(
        backend=backend,
        runtime="",
        batch=shape[0] if shape else None,
        input_shape=shape,
        input_type=inputs[0][1],
        dimension=dimension,
        inputs=tuple(name for name, _, _ in inputs),
        outputs=tuple(name for name, _, _ in outputs),
    )


def _ports(model: Any) -> tuple[list[tuple[str, str, tuple[int | None, ...]]], ...]:
    """Return (name, element type, shape) of every input that is no weight, and of every output."""
    from onnx import TensorProto

    weights = {tensor.name for tensor in model.graph.initializer}
    ports = ([v for v in model.graph.input if v.name not in weights], list(model.graph.output))
    if not all(ports):
        raise IndexError("a model needs an input and an output")
    return tuple(
        [(v.name, TensorProto.DataType.Name(v.type.tensor_type.elem_type).lower(), _shape(v)) for v in port]
        for port in ports
    )


def _shape(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)
