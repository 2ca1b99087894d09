"""ONNX Runtime on the CPU. The engine is the optimised model, saved at level EXTENDED.

A file saved at level ALL holds layouts of the CPU that saved it and is silently wrong on another (measured: cosine
0.67), so only the loading process goes further than EXTENDED. One call at a time with one thread of its own gives the
same bits for any batch and any number of callers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.errors import EngineError
from provisioning.base.frozen import dataclass
from provisioning.base.hashing import Fact
from provisioning.config import Backbone, Engine
from provisioning.engines.host import THIS_MACHINE, HostTuple, Machine, cpu, field

if TYPE_CHECKING:
    from provisioning.engines.spec import EngineInfo, EngineSpec, Network

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


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
        return HostTuple("onnxruntime", field(version), **cpu(self.machine))

    def options(self, backbone: Backbone, engine: Engine) -> Mapping[str, Fact]:  # noqa: ARG002
        """Return what decides the bytes besides the typed ONNX and the host: the level alone."""
        return {"level": "extended"}

    def build(self, spec: EngineSpec, output: Path) -> Mapping[str, object]:
        """Optimise the typed ONNX and save it as `output`; EngineError names the operator that cannot run."""
        from provisioning.network.session import open_session

        open_session(str(spec.onnx), spec.custom_ops, level="ORT_ENABLE_EXTENDED", save=output)
        return {"level": "extended"}

    def inspect(self, data: bytes) -> EngineInfo:
        """Return inputs, outputs and batch of the engine; EngineError if the bytes are no self-contained ONNX."""
        from provisioning.engines.ort.onnx_info import describe_onnx

        return describe_onnx(data, backend=self.name)

    def load(self, data: bytes, *, custom_ops: Path | None = None) -> Network:
        """Return the network; EngineError if the bytes are not an engine that takes tiles."""
        from provisioning.engines.ort.onnx_network import OnnxNetwork

        return OnnxNetwork.load(data, custom_ops=custom_ops)
