"""ONNX Runtime on the CPU. The engine is the optimised model, saved at level EXTENDED.

A file saved at level ALL holds layouts of the CPU that saved it and is silently wrong on another (measured: cosine
0.67), so only the loading process goes further than EXTENDED. One call at a time with one thread of its own gives the
same bits for any batch and any number of callers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.config import Backbone, Engine
from provisioning.engines.host import THIS_MACHINE, HostTuple, Machine, field, instruction_class
from provisioning.engines.spec import EngineInfo, EngineSpec, Network
from provisioning.errors import EngineError
from provisioning.hashing import Fact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_LIMIT_BYTES = (1 << 31) - 1
"""An ONNX file is one protobuf message, which cannot be larger."""


@dataclass(frozen=True)
class OnnxRuntime:
    """The backend for hosts without an NVIDIA GPU."""

    machine: Machine = THIS_MACHINE
    name: str = "onnxruntime"
    runs_here: bool = True

    def probe(self) -> HostTuple:
        """Return this CPU as a host tuple; EngineError where onnxruntime is not installed."""
        version = self.machine.installed(*DISTRIBUTIONS)
        if version is None:
            raise EngineError("onnxruntime is not installed", next_step="pip install onnxruntime")
        arch, device = field(self.machine.machine), field(instruction_class(self.machine))
        # A machine name keeps its own underscore (x86_64); it is the only field that may.
        arch = "x86_64" if self.machine.machine == "x86_64" else arch
        return HostTuple("onnxruntime", field(version), arch, device, "linux")

    def options(self, backbone: Backbone, engine: Engine) -> Mapping[str, Fact]:  # noqa: ARG002
        """Return what decides the bytes besides the typed ONNX and the host: the level alone."""
        return {"level": "extended"}

    def build(self, spec: EngineSpec, output: Path) -> Mapping[str, object]:
        """Optimise the typed ONNX and save it as `output`; EngineError names the operator that cannot run."""
        open_session(str(spec.onnx), spec.custom_ops, level="ORT_ENABLE_EXTENDED", save=output)
        _require_one_file(output)
        return {"level": "extended"}

    def inspect(self, data: bytes) -> EngineInfo:
        """Return inputs, outputs and batch of the engine; EngineError if the bytes are no self-contained ONNX."""
        return describe_onnx(data, backend=self.name)

    def load(self, data: bytes, *, custom_ops: Path | None = None) -> Network:
        """Return the network; EngineError if the bytes are not an engine that takes tiles."""
        return OnnxNetwork.load(data, custom_ops=custom_ops)


def _options(custom_ops: Path | None, level: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if custom_ops is not None:
        options.register_custom_ops_library(str(custom_ops))
    return options


@contextlib.contextmanager
def _translated(file: Path | str) -> Iterator[None]:
    """Turn what onnxruntime raises into EngineError with its own words."""
    try:
        yield
    except Exception as error:  # onnxruntime raises a dozen classes straight from C++, all of them Exception
        if isinstance(error, EngineError):
            raise
        text = " ".join(str(error).split())
        raise EngineError("onnxruntime cannot take this model", file=file, facts={"onnxruntime says": text}) from error


def open_session(model: str | bytes, custom_ops: Path | None, *, level: str, save: Path | None = None) -> Any:
    """Return a single-threaded session of the file or the bytes `model`, optimised to `level`, also saved to `save`.

    EngineError holds what onnxruntime says: the operator it does not know, the type it has no kernel for.
    """
    import onnxruntime

    with _translated(model if isinstance(model, str) else "engine"):
        options = _options(custom_ops, level)
        if save is not None:
            options.optimized_model_filepath = str(save)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _require_one_file(output: Path) -> None:
    """Refuse an engine that spilled its weights into a second file."""
    if output.stat().st_size > _LIMIT_BYTES:
        raise EngineError("an onnxruntime engine above 2 GiB is not one file", file=output)
    describe_onnx(output.read_bytes(), backend="onnxruntime")


def describe_onnx(data: bytes, *, backend: str) -> EngineInfo:
    """Return what an ONNX model says about its first input and output; EngineError if it is damaged or incomplete."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
        inputs, outputs = _ports(model)
    except Exception as error:  # protobuf's DecodeError has no stable home; IndexError means no graph
        raise EngineError("these bytes are no ONNX model", facts={"bytes": len(data)}) from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise EngineError("the engine refers to weights outside its file", facts={"bytes": len(data)})
    shape = inputs[0][2]
    dimension = outputs[0][2][-1] if outputs[0][2] else None
    facts = {"inputs": [p[0] for p in inputs], "outputs": [p[0] for p in outputs], "nodes": len(model.graph.node)}
    return EngineInfo(
        backend=backend,
        runtime="",
        batch=shape[0] if shape else None,
        input_shape=shape,
        input_type=inputs[0][1],
        dimension=dimension,
        facts=facts,
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


class OnnxNetwork:
    """An ONNX model that takes tiles, run on the CPU. See `spec.Network`."""

    def __init__(self, session: Any) -> None:
        """Wrap an open `session`; use `load`."""
        (source,), target = session.get_inputs(), session.get_outputs()[0]
        self._session = session
        self._names = (source.name, target.name)
        self._batch = source.shape[0] if isinstance(source.shape[0], int) else None
        self.size: tuple[int, int] = (source.shape[1], source.shape[2])
        self.dimension: int = target.shape[-1]

    @classmethod
    def load(cls, data: bytes, *, custom_ops: Path | None = None, reference: bool = False) -> OnnxNetwork:
        """Open `data`. With `reference`, fused kernels stay off: the arithmetic of the graph as written."""
        # onnxruntime's layout pass has given wrong results with Conv between Q/DQ (#24711), so quantised models stay
        # at EXTENDED.
        quantised = b"QuantizeLinear" in data
        level = "ORT_ENABLE_BASIC" if reference else "ORT_ENABLE_EXTENDED" if quantised else "ORT_ENABLE_ALL"
        info = describe_onnx(data, backend="onnxruntime")
        if info.input_type != "uint8" or len(info.input_shape) != 4 or info.input_shape[3] != 3:
            facts = {"input": f"{info.input_type} {list(info.input_shape)}", "expected": "uint8 [N, H, W, 3]"}
            raise EngineError("this engine does not take tiles", facts=facts)
        if None in info.input_shape[1:3] or info.dimension is None:
            raise EngineError(
                "this engine does not say the size of its tiles or the length of its descriptors",
                facts={"input": list(info.input_shape), "dimension": info.dimension},
                next_step="give [[backbone]] size = [height, width]",
            )
        return cls(open_session(data, custom_ops, level=level))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return descriptors float32 [n, dimension] of tiles uint8 [n, height, width, 3]; EngineError if it fails."""
        with _translated("engine"):
            if self._batch is None:
                return self._run(images)
            return in_batches(self._run, images, self._batch, self.dimension)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        source, target = self._names
        result: NDArray[np.float32] = self._session.run([target], {source: images})[0]
        return result

    def clone(self) -> OnnxNetwork:
        """Return this: a session may be called by several threads at once, each call on its caller's thread."""
        return self


def in_batches(run: Any, images: NDArray[np.uint8], batch: int, dimension: int) -> NDArray[np.float32]:
    """Call `run` with exactly `batch` images at a time, the last batch padded with black ones, and join the results."""
    import numpy as np

    result = np.empty((len(images), dimension), np.float32)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padding = np.zeros((batch - len(part), *images.shape[1:]), np.uint8)
        result[start : start + len(part)] = run(np.concatenate([part, padding]))[: len(part)]
    return result
