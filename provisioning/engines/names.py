"""Engine file names: `{model}_{arch}_{platform}_{runtime}_{precision}.engine`. A label; the Manifest decides."""

from __future__ import annotations

from provisioning.base.errors import EngineError
from provisioning.base.named import NamedTuple
from provisioning.engines.host import HostTuple

PREFIXES = {"tensorrt": "trt", "tensorrt_rtx": "rtx", "onnxruntime": "ort"}
"""Backend to what stands before its version in a name."""

SUFFIX = ".engine"
_IN_WORDS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.+~-")


class EngineName(NamedTuple):
    """What an engine's file name says."""

    model: str
    backend: str
    runtime: str
    arch: str
    platform: str
    precision: str


def engine_name(model: str, host: HostTuple, precision: str) -> str:
    """Return the file name of the engine of `model` for `host`; EngineError if it could not be parsed back."""
    prefix = PREFIXES[host.backend]
    name = f"{model}_{host.arch}_{host.platform}_{prefix}{host.runtime}_{precision}.engine"
    parts = EngineName(model, host.backend, host.runtime, host.arch, host.platform, precision)
    if _parse(name) != parts:
        raise EngineError(
            "model name and host tuple do not make an engine name that can be read back",
            facts={"name": name, "model": model, **host._asdict()},
            next_step="use letters, digits, dot and dash in [[backbone]] name",
        )
    return name


def parse_engine_name(name: str) -> EngineName:
    """Return what `name` says; EngineError if it is no engine name. Inverse of `engine_name`."""
    if (parts := _parse(name)) is None:
        raise EngineError("not an engine file name", file=name)
    return parts


def _parse(name: str) -> EngineName | None:
    *model, arch, platform, runtime, precision = ["", "", "", *name.removesuffix(SUFFIX).split("_")]
    model = model[3:]
    if len(model) > 1 and (model[-1], arch) == ("x86", "64"):  # the one machine name with an underscore of its own
        *model, _ = model
        arch = "x86_64"
    backend = next((backend for backend, prefix in PREFIXES.items() if prefix == runtime[:3]), None)
    words = (*model, arch.replace("x86_64", "x86"), platform, runtime[3:])
    if not (name.endswith(SUFFIX) and model and backend and precision in ("fp32", "fp16", "int8")):
        return None
    if not all(word and _IN_WORDS.issuperset(word) for word in words):
        return None
    return EngineName("_".join(model), backend, runtime[3:], arch, platform, precision)
