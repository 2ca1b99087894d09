"""What `flightcache doctor --deep` reads besides the generation: every artefact and descriptor of `.build`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from provisioning.base.disk import artifacts
from provisioning.base.errors import ConfigError
from provisioning.base.hashing import sha256_file

MADE_AGAIN = "run `doit`: it is made anew before anything is signed"


def damaged_artifacts(build_dir: Path) -> tuple[int, tuple[str, ...]]:
    """Return how many artefacts there are, and which of them are not as their records say."""
    recorded = list(artifacts.recorded(build_dir / "store"))
    return len(recorded), tuple(f"{path.parent.name[:8]}…/{path.name}" for path, sha in recorded if not _is(path, sha))


def _is(path: Path, sha256: str) -> bool:
    try:
        return sha256_file(path) == sha256
    except OSError:
        return False


def damaged_rows(cache: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield each key of the descriptor store with its damaged rows and all its rows."""
    from provisioning.config.parse import read_flight

    try:
        store = read_flight(cache).descriptor_store
    except ConfigError:  # a cache that was moved: its own store, if it has one
        store = cache / ".build" / "descriptors"
    if not store.is_dir():
        return
    from provisioning.descriptors.store.shards import damaged

    for home in sorted(path for path in store.iterdir() if path.is_dir()):
        yield home, *damaged(home)
