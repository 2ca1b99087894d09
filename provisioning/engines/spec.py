"""The values an engine is built from and described by, and the interface that every backend has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from provisioning.base.errors import EngineError
from provisioning.base.frozen import dataclass
from provisioning.base.hashing import Fact
from provisioning.config import Backbone, Engine
from provisioning.engines.host import HostTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Profile:
    """Batch sizes a TensorRT engine is optimised for."""

    min: int
    opt: int
    max: int


def batch_profile(backbone: Backbone, engine: Engine) -> Profile:
    """Return the batch profile of `backbone`; EngineError if it is not min <= opt <= max with `engine.batch` in it."""
    asked = backbone.profile
    profile = Profile(asked.get("min", 1), asked.get("opt", engine.batch), asked.get("max", engine.batch))
    if not 1 <= profile.min <= profile.opt <= profile.max or not profile.min <= engine.batch <= profile.max:
        raise EngineError(
            f"the batch profile of {backbone.name} is not 1 <= min <= opt <= max with engine.batch between min and max",
            key=f"backbone.{backbone.name}.profile",
            facts={**asdict(profile), "engine.batch": engine.batch},
        )
    return profile


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One compile: a typed ONNX, for one host, with the builder's options."""

    model: str
    onnx: Path
    host: HostTuple
    precision: str
    profile: Profile
    workspace_mb: int
    timeout_s: int
    state: Path
    """Directory of what helps the next compile: timing caches, how long compiles took. Losing it loses time only."""
    timing_cache: bool = True
    custom_ops: Path | None = None

    def to_json(self) -> str:
        """Return the text that `from_json` reads in the compiling process."""
        fields = {**asdict(self), "host": self.host._asdict()}
        return json.dumps(fields, default=str)

    @classmethod
    def from_json(cls, text: str) -> EngineSpec:
        """Return the spec that `to_json` wrote."""
        fields = json.loads(text)
        fields["host"], fields["profile"] = HostTuple(**fields["host"]), Profile(**fields["profile"])
        fields |= {name: Path(fields[name]) for name in ("onnx", "state", "custom_ops") if fields[name] is not None}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What the bytes of an engine say about it."""

    backend: str
    runtime: str
    """Version that wrote it; empty where the bytes do not say."""
    batch: int | None = None
    """Fixed batch, or None where it is dynamic or not known without running it."""
    input_shape: tuple[int | None, ...] = ()
    input_type: str = ""
    dimension: int | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


class Network(Protocol):
    """An engine that can be called. One object per thread: call `clone` for another."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the tiles it takes, pixel."""

    @property
    def dimension(self) -> int:
        """Length of a descriptor."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the descriptors float32 [n, dimension] of RGB tiles uint8 [n, height, width, 3], any n."""

    def clone(self) -> Network:
        """Return one for another thread."""


class Backend(Protocol):
    """One way to compile and run a network."""

    @property
    def name(self) -> str:
        """onnxruntime, tensorrt or tensorrt_rtx."""

    @property
    def runs_here(self) -> bool:
        """True where the engines it builds can run on this computer."""

    def probe(self) -> HostTuple:
        """Return the host tuple engines are built for; EngineError where there is none."""

    def options(self, backbone: Backbone, engine: Engine) -> Mapping[str, Fact]:
        """Return the settings that decide the engine's bytes."""

    def build(self, spec: EngineSpec, output: Path) -> Mapping[str, object]:
        """Compile `spec` into the file `output`, in this process; return what is worth recording. EngineError."""

    def inspect(self, data: bytes) -> EngineInfo:
        """Return what the bytes say without running them; EngineError if they are no engine of this backend."""

    def load(self, data: bytes, *, custom_ops: Path | None = None) -> Network:
        """Return the network in `data`, which the caller has verified; EngineError if it cannot run here."""


def plain(value: object) -> object:
    """Return `value` as JSON can hold it."""
    return str(value) if isinstance(value, (Path, Decimal)) else value
