"""TensorRT 10 and 11 and TensorRT-RTX: one backend, which differ by the module it is given.

What a release offers is asked of the module (`hasattr`), never concluded from its version.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from provisioning.base.errors import EngineError
from provisioning.base.hashing import Fact
from provisioning.config import Backbone, Engine
from provisioning.engines import host as hosts
from provisioning.engines.host import THIS_MACHINE, HostTuple, Machine
from provisioning.engines.spec import EngineInfo, EngineSpec, Network, batch_profile
from provisioning.engines.tensorrt.header import plan_version, require_plan

DISTRIBUTIONS = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_cu13", "tensorrt_rtx_cu12"),
}
_INSTALL = {
    "tensorrt": "pip install 'flightcache[tensorrt]'; on a Jetson: apt install python3-libnvinfer",
    "tensorrt_rtx": "pip install 'flightcache[rtx]'",
}
_NO_GPU = {
    "tensorrt": 'run on the target, or set engine.backend = "onnxruntime"',
    "tensorrt_rtx": 'name the GPU to compile for: engine.host = {sm = "86"}',
}
_ELSEWHERE = "run it on the computer it was compiled for"
TARGET_KEYS = ("sm", "device", "platform")


@dataclass(frozen=True)
class TensorRT:
    """A backend on the Python module `name`, tensorrt or tensorrt_rtx."""

    name: str
    machine: Machine = THIS_MACHINE
    target: Mapping[str, str] = field(default_factory=dict)
    """Another computer to compile for (`sm`, `device`, `platform`); empty: this one. Only tensorrt_rtx can."""

    @property
    def runs_here(self) -> bool:
        """True where the GPU of this computer is the one compiled for."""
        gpu = self.machine.gpu()
        return gpu is not None and self.target.get("sm", gpu.sm).removeprefix("sm") == gpu.sm

    def probe(self) -> HostTuple:
        """Return the target's host tuple; EngineError where the module or a GPU is missing, or a key is unknown."""
        runtime = self._runtime()
        if self.target:
            return self._target_tuple(runtime)
        gpu = self.machine.gpu()
        if gpu is None:
            raise EngineError(
                f"{self.name} finds no NVIDIA GPU that answers here (libcuda.so.1)",
                key="engine.backend",
                next_step=_NO_GPU[self.name],
            )
        platform = hosts.gpu_platform(gpu, self.machine)
        return HostTuple(self.name, hosts.field(runtime), f"sm{gpu.sm}", hosts.field(gpu.name), hosts.field(platform))

    def _target_tuple(self, runtime: str) -> HostTuple:
        unknown = sorted(set(self.target) - set(TARGET_KEYS))
        number = re.fullmatch(r"(?:sm)?(\d{2,3})", self.target.get("sm", ""))
        if unknown or number is None:
            raise EngineError(
                "engine.host names no target: it takes sm, and for the record device and platform",
                key="engine.host",
                facts={"given": dict(self.target), "unknown": unknown or "-"},
                next_step='write engine.host = {sm = "86"}',
            )
        device, platform = self.target.get("device", "any"), self.target.get("platform", "linux")
        return HostTuple(self.name, hosts.field(runtime), f"sm{number[1]}", hosts.field(device), hosts.field(platform))

    def _runtime(self) -> str:
        version = self.machine.installed(*DISTRIBUTIONS[self.name])
        if version is None or importlib.util.find_spec(self.name) is None:
            raise EngineError(
                f"the Python module {self.name} is not installed",
                key="engine.backend",
                next_step=_INSTALL[self.name],
            )
        return version if version.count(".") >= 3 else library_version(version) or version

    def options(self, backbone: Backbone, engine: Engine) -> Mapping[str, Fact]:
        """Return the builder's settings: batch profile and workspace limit."""
        profile: Mapping[str, Fact] = asdict(batch_profile(backbone, engine))
        return {"profile": profile, "workspace_mb": engine.workspace_mb, "strongly_typed": True, "tf32": False}

    def build(self, spec: EngineSpec, output: Path) -> Mapping[str, object]:
        """Compile `spec` into `output`; EngineError says what TensorRT refused."""
        from provisioning.engines.tensorrt.trt_build import build_plan

        return build_plan(self.name, spec, output)

    def inspect(self, data: bytes) -> EngineInfo:
        """Return the version that built the plan; EngineError if it is no plan of this backend."""
        return EngineInfo(backend=self.name, runtime=plan_version(data, backend=self.name))

    def load(self, data: bytes, *, custom_ops: Path | None = None) -> Network:  # noqa: ARG002
        """Return the network: header first, then GPU, then deserialised. EngineError says which of them failed."""
        require_plan(data, backend=self.name, runtime=self._runtime())
        if not self.runs_here:
            raise EngineError(f"this {self.name} plan cannot run here", facts=self._here(), next_step=_ELSEWHERE)
        from provisioning.engines.tensorrt.trt_run import TrtNetwork

        network: Network = TrtNetwork.load(self.name, data)
        return network

    def _here(self) -> dict[str, object]:
        gpu = self.machine.gpu()
        return {"compiled for": self.target.get("sm", "this GPU"), "GPU here": gpu.name if gpu else "none"}


def library_version(installed: str) -> str | None:
    """Return the four-part version that libnvinfer itself reports, or None; `installed` is the package's version.

    The package's version has three parts on JetPack 6, where two builds of 10.3.0 exist.
    """
    try:
        library = ctypes.CDLL(f"libnvinfer.so.{installed.split('.', maxsplit=1)[0]}")
        return ".".join(
            str(getattr(library, f"getInferLib{part}Version")()) for part in ("Major", "Minor", "Patch", "Build")
        )
    except (OSError, AttributeError):
        return None
