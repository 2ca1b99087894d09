"""Engines that lie in `.build`, those of other host tuples among them: kept, listed, never published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provisioning.base.errors import EngineError
from provisioning.engines.host import HostTuple
from provisioning.engines.names import EngineName, engine_name, parse_engine_name


@dataclass(frozen=True)
class StoredEngine:
    """One engine file in the store."""

    path: Path
    name: EngineName
    bytes: int

    def is_for(self, host: HostTuple) -> bool:
        """Return whether it has the name of an engine for `host`; a name has no GPU name and instruction sets."""
        return self.path.name == engine_name(self.name.model, host, self.name.precision)


def stored_engines(store: Path) -> tuple[StoredEngine, ...]:
    """Return every engine below `store`, by name; files that are named otherwise are not looked at."""
    found = [engine for path in store.glob("*/*.engine") if (engine := _stored(path)) is not None]
    return tuple(sorted(found, key=lambda engine: (engine.path.name, str(engine.path))))


def _stored(path: Path) -> StoredEngine | None:
    try:
        return StoredEngine(path, parse_engine_name(path.name), path.stat().st_size)
    except (EngineError, FileNotFoundError):  # a foreign file, or one that `doit clean` just took
        return None
