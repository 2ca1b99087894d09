"""Engine file names: `{model}_{arch}_{platform}_{runtime}_{precision}.engine`. A label; the Manifest decides."""

from __future__ import annotations

import re

from provisioning.base.errors import EngineError
from provisioning.base.named import NamedTuple
from provisioning.engines.host import HostTuple

PREFIXES = {"tensorrt": "trt", "tensorrt_rtx": "rtx", "onnxruntime": "ort"}
"""Backend to what stands before its version in a name."""

_WORD = r"[A-Za-z0-9.+~-]+"
_NAME = re.compile(
    rf"(?P<model>{_WORD}(?:_{_WORD})*)_(?P<arch>sm\d+|x86_64|{_WORD})_(?P<platform>{_WORD})"
    rf"_(?P<prefix>trt|rtx|ort)(?P<runtime>{_WORD})_(?P<precision>fp32|fp16|int8)\.engine"
)


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
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    model, arch = found["model"], found["arch"]
    if arch == "64" and model.endswith("_x86"):  # the one machine name with an underscore of its own
        model, arch = model.removesuffix("_x86"), "x86_64"
    backend = next(backend for backend, prefix in PREFIXES.items() if prefix == found["prefix"])
    return EngineName(model, backend, found["runtime"], arch, found["platform"], found["precision"])
