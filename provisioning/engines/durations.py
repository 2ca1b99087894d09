"""How long each compile took last time, so that a person who waits knows what to expect. Nothing depends on it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from provisioning.engines.spec import EngineSpec


def _times_path(spec: EngineSpec) -> Path:
    return spec.state / "engine-times.json"


def _times(spec: EngineSpec) -> dict[str, float]:
    try:
        times = json.loads(_times_path(spec).read_bytes())
        return {str(name): float(seconds) for name, seconds in times.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _key(spec: EngineSpec) -> str:
    return f"{spec.model} {spec.precision} {' '.join(spec.host)}"


def last_time(spec: EngineSpec) -> int:
    """Return how many seconds this compile took last time, 0 if it is not known."""
    return round(_times(spec).get(_key(spec), 0))


def remember(spec: EngineSpec, elapsed: float) -> None:
    """Keep the time for the next heartbeat. Nothing depends on it, so it is replaced but not fsynced."""
    path = _times_path(spec)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(
        json.dumps(_times(spec) | {_key(spec): round(elapsed, 3)}, indent=1, sort_keys=True), encoding="utf-8"
    )
    os.replace(temporary, path)
