"""What decides the bytes of an engine, and the spec that compiles it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.errors import EngineError
from provisioning.base.hashing import Fact, Sha256, sha256_file
from provisioning.config import Backbone, Engine
from provisioning.engines.host import HostTuple
from provisioning.engines.selection import backend_named

if TYPE_CHECKING:
    from provisioning.engines.spec import EngineSpec

FORMAT = 1
"""Raised when the same inputs shall give other bytes."""


def engine_facts(typed_key: str, host: HostTuple, backbone: Backbone, engine: Engine) -> Mapping[str, Fact]:
    """Return everything that decides the bytes of the engine of `backbone` for `host`.

    EngineError if the library of custom operators cannot be read. The timing cache is not in it: it changes with each
    compile, and an engine would be stale as soon as it is built.
    Its digests before and after are in what `compile_engine` returns.
    """
    return {
        "engine": FORMAT,
        "typed": typed_key,
        "host": host._asdict(),
        "precision": backbone.precision,
        "options": backend_named(host.backend).options(backbone, engine),
        "custom_ops": None if backbone.custom_ops is None else _digest(backbone),
    }


def _digest(backbone: Backbone) -> Sha256:
    assert backbone.custom_ops is not None
    try:
        return sha256_file(backbone.custom_ops)
    except OSError as error:
        raise EngineError(
            f"the library with custom operators cannot be read: {error.strerror}",
            file=backbone.custom_ops,
            key=f"backbone.{backbone.name}.custom_ops",
        ) from error


def engine_spec(typed: Path, host: HostTuple, backbone: Backbone, engine: Engine, *, state: Path) -> EngineSpec:
    """Return the spec that compiles the typed ONNX at `typed`; `state` is where timings and caches are kept."""
    from provisioning.engines.spec import EngineSpec, batch_profile

    return EngineSpec(
        model=backbone.name,
        onnx=typed,
        host=host,
        precision=backbone.precision,
        profile=batch_profile(backbone, engine),
        workspace_mb=engine.workspace_mb,
        timeout_s=engine.timeout_s,
        state=state,
        timing_cache=engine.timing_cache,
        custom_ops=backbone.custom_ops,
    )
