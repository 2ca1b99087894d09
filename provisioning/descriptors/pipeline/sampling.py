"""Which tiles of the corpus stand for it: those whose contents have the smallest digests.

A tile that comes or goes changes at most one of them, and where it lies on the ground changes none. The choice is
remembered in `.build` for the corpus it was made of, since making it reads the whole catalogue.
"""

from __future__ import annotations

import heapq
import json
from pathlib import Path

from provisioning.base import lock
from provisioning.base.files import write_durably
from provisioning.base.hashing import Sha256, digest_of
from provisioning.catalogue import Tile, iter_tiles, last_corpus
from provisioning.config import Flight


def calibration_digest(flight: Flight, count: int) -> Sha256 | None:
    """Return the digest of the `count` tiles that calibrate a network; None before the first scan."""
    corpus = last_corpus(flight)
    if corpus is None:
        return None
    known = _remembered(flight, corpus.coverage_sha256, count)
    shas = known if known is not None else tuple(tile.sha256 for tile in chosen_tiles(flight, count))
    if known is None:
        _remember(flight, corpus.coverage_sha256, count, shas)
    return digest_of({"tiles": shas})


def chosen_tiles(flight: Flight, count: int) -> tuple[Tile, ...]:
    """Return at most `count` tiles of the last scan with different contents, by the digests of those contents."""
    chosen: dict[Sha256, Tile] = {}
    largest_first: list[int] = []
    for tile in iter_tiles(flight):
        if tile.sha256 in chosen or (len(chosen) == count and -int(tile.sha256, 16) < largest_first[0]):
            continue
        chosen[tile.sha256] = tile
        heapq.heappush(largest_first, -int(tile.sha256, 16))
        if len(chosen) > count:
            del chosen[Sha256(f"{-heapq.heappop(largest_first):064x}")]
    return tuple(chosen[sha256] for sha256 in sorted(chosen))


def _memo(flight: Flight) -> Path:
    return flight.build_dir / "calibration-tiles.json"


def _remembered(flight: Flight, coverage: Sha256, count: int) -> tuple[Sha256, ...] | None:
    try:
        kept = json.loads(_memo(flight).read_bytes())
        return tuple(map(Sha256, kept["tiles"])) if (kept["coverage"], kept["count"]) == (coverage, count) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(flight: Flight, coverage: Sha256, count: int, shas: tuple[Sha256, ...]) -> None:
    """Keep the choice, unless this process only looks."""
    if lock.is_held_for(_memo(flight)):
        kept = {"coverage": coverage, "count": count, "tiles": shas}
        write_durably(_memo(flight), json.dumps(kept, indent=1).encode())
