"""Compile an ONNX with TensorRT, in the process that calls. Always strongly typed: the ONNX says every type.

The precision flags and the calibrator classes of TensorRT 8 to 10 are not used: they are gone in 11, and typing that
lives in the ONNX has a digest.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provisioning.base.errors import EngineError
from provisioning.engines.spec import EngineSpec
from provisioning.engines.tensorrt.header import plan_version
from provisioning.engines.tensorrt.layers import layers
from provisioning.engines.tensorrt.timing import lend_timing_cache
from provisioning.network import large


def build_plan(module_name: str, spec: EngineSpec, output: Path) -> Mapping[str, object]:
    """Compile `spec` with the module `module_name` into the plan `output` and return what is worth recording."""
    trt = _import(module_name)
    logger = _logger(trt)
    builder = trt.Builder(logger)
    if builder is None:
        raise EngineError(f"{module_name} could not start its builder", facts=logger.facts())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    _parse(trt, network, logger, spec)
    _configure(trt, builder, network, config, spec)
    with lend_timing_cache(config, spec) as cache:
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise _refused(spec, logger)
    return {**_write(plan, module_name, spec, output), **cache, **layers(trt, plan, logger)}


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except (ImportError, OSError) as error:
        raise EngineError(f"the Python module {module_name} cannot be imported", facts={"it says": error}) from error


def _logger(trt: Any) -> Any:
    """Return a logger that prints to the compile's log and keeps the errors."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))
            if severity != trt.ILogger.Severity.VERBOSE:
                print(f"[{severity.name}] {msg}", flush=True)

        def facts(self) -> dict[str, str]:
            return {"it says": " | ".join(self.errors[-3:]) or "nothing"}

    return Log()


def _parse(trt: Any, network: Any, logger: Any, spec: EngineSpec) -> None:
    """Fill `network` from the ONNX; EngineError names node, operator and reason of everything refused."""
    parser = trt.OnnxParser(network, logger)
    with tempfile.TemporaryDirectory() as scratch:
        if parser.parse_from_file(str(large.unpack(spec.onnx, Path(scratch)))):
            return
    refused = [parser.get_error(index) for index in range(parser.num_errors)]
    facts = {_node(error): f"{error.desc()} ({error.code().name})" for error in refused}
    raise EngineError(
        f"{spec.host.backend} cannot take this model",
        file=spec.onnx,
        facts=facts or logger.facts(),
        next_step='replace the operator in the ONNX, or use engine.backend = "onnxruntime"',
    )


def _node(error: Any) -> str:
    """Return operator and name of the node an error is about, or `model` where it is about no node."""
    return f"{error.node_operator()} {error.node_name() or error.node()}" if error.node_operator() else "model"


def _configure(trt: Any, builder: Any, network: Any, config: Any, spec: EngineSpec) -> None:
    """Set memory, precision, target and profiles."""
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec.workspace_mb << 20)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; ten bits of mantissa are not fp32
    if hasattr(config, "profiling_verbosity"):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(trt, "ComputeCapability"):
        _set_target(trt, config, spec)
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            dynamic = True
            _set_profile(profile, tensor.name, shape, spec)
    if dynamic:
        config.add_optimization_profile(profile)


def _set_target(trt: Any, config: Any, spec: EngineSpec) -> None:
    name = spec.host.arch.upper()
    target = getattr(trt.ComputeCapability, name, None)
    config.num_compute_capabilities = 1
    if target is None or not config.set_compute_capability(target, 0):
        known = sorted(n for n in dir(trt.ComputeCapability) if n.startswith("SM"))
        raise EngineError(
            f"{spec.host.backend} {spec.host.runtime} does not compile for {name}",
            key="engine.host",
            facts={"it compiles for": ", ".join(known)},
            next_step='use engine.backend = "tensorrt" on that computer',
        )


def _set_profile(profile: Any, name: str, shape: tuple[int, ...], spec: EngineSpec) -> None:
    if -1 in shape[1:]:
        raise EngineError(
            f"input {name} has a dynamic axis besides the batch",
            file=spec.onnx,
            facts={"shape": list(shape)},
            next_step="give [[backbone]] size = [height, width]",
        )
    batches = (spec.profile.min, spec.profile.opt, spec.profile.max)
    profile.set_shape(name, *((batch, *shape[1:]) for batch in batches))


_HINTS = (
    ("workspace", "raise engine.workspace_mb"),
    ("memory", "free memory on this computer, or lower engine.workspace_mb or the batch profile"),
    ("cannot compile", "choose another precision, or keep what is named in another type: this GPU does not have it"),
)
"""What TensorRT's words point to, first match wins."""


def _refused(spec: EngineSpec, logger: Any) -> EngineError:
    text = " ".join(logger.errors).lower()
    step = next((hint for words, hint in _HINTS if words in text), "read the log")
    facts = {"precision": spec.precision, "target": spec.host.arch, **logger.facts()}
    return EngineError(
        f"{spec.host.backend} could not compile {spec.model}", file=spec.onnx, facts=facts, next_step=step
    )


def _write(plan: Any, module_name: str, spec: EngineSpec, output: Path) -> dict[str, object]:
    data = bytes(plan)
    version = plan_version(data, backend=module_name)
    output.write_bytes(data)
    return {"plan_version": version, "bytes": len(data), "profile": list(vars(spec.profile).values())}
