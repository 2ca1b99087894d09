"""Which backend compiles: the one asked for, or the rule of `auto`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

from provisioning.base import events
from provisioning.base.errors import EngineError
from provisioning.config import Engine
from provisioning.engines.host import THIS_MACHINE, HostTuple, Machine, l4t_release
from provisioning.engines.ort.ort import OnnxRuntime

if TYPE_CHECKING:
    from provisioning.engines.spec import Backend


def select(engine: Engine, machine: Machine = THIS_MACHINE) -> Backend:
    """Return the backend for `engine`: `auto` is tensorrt where it imports and a GPU answers, else onnxruntime.

    EngineError if `engine.host` names another computer and the backend cannot compile for one.
    """
    if engine.command:
        from provisioning.engines.vehicle.remote import There

        return There(_whole_tuple(engine))
    name = _auto(machine) if engine.backend == "auto" else engine.backend
    if name == "tensorrt_rtx":
        return backend_named(name, machine, target=engine.host)
    if engine.host:
        raise EngineError(
            f"{name} compiles for the computer it runs on and for no other",
            key="engine.host",
            facts={"why": _WHY[name], "asked for": ", ".join(f"{k} = {v}" for k, v in engine.host.items())},
            next_step='run flightcache on the target, or set engine.backend = "tensorrt_rtx" if the target runs that',
        )
    return backend_named(name, machine)


def backend_named(name: str, machine: Machine = THIS_MACHINE, *, target: Mapping[str, str] | None = None) -> Backend:
    """Return the backend `name`; TensorRT-RTX compiles for `target`, the parts of a host tuple that are given."""
    if name == "onnxruntime":
        return OnnxRuntime(machine)
    from provisioning.engines.tensorrt.trt import TensorRT

    return TensorRT(name, machine) if target is None else TensorRT(name, machine, target=dict(target))


def _whole_tuple(engine: Engine) -> HostTuple:
    """Return the host tuple of the computer that `engine.command` reaches."""
    if set(engine.host) != set(HostTuple._fields):
        raise EngineError(
            "engine.command needs the whole host tuple of its target",
            key="engine.host",
            facts={"needed": ", ".join(HostTuple._fields)},
            next_step="let `flightcache fleet` write it, or copy it from `flightcache host --json` there",
        )
    return HostTuple(**engine.host)


_WHY = {
    "tensorrt": "its builder times kernels on the GPU that will fly",
    "onnxruntime": "its kernels are chosen by the instruction sets of this CPU",
}


def _auto(machine: Machine) -> str:
    if importlib.util.find_spec("tensorrt") is None:
        if l4t_release(machine):
            _warn("this is a Jetson, and Python finds no tensorrt: make its environment with --system-site-packages")
        return "onnxruntime"
    if machine.gpu() is None:
        return "onnxruntime"
    try:
        importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:  # the bindings are there, libnvinfer is not
        _warn(f"a GPU answers, but tensorrt does not import: {error}")
        return "onnxruntime"
    return "tensorrt"


def _warn(reason: str) -> None:
    """Warn that engines are for the CPU beside a GPU; `engine.backend = "onnxruntime"` says that it is meant."""
    events.warn("engine.backend", chosen="onnxruntime", reason=reason)


def backend_of(data: bytes) -> Backend:
    """Return the backend that wrote the engine `data`, known by its first bytes: a plan's magic, else ONNX."""
    from provisioning.engines.tensorrt.header import MAGICS

    return backend_named(next((name for name, magic in MAGICS.items() if data[:4] == magic), "onnxruntime"))
