"""Which tiles of the corpus stand for it: those whose contents have the smallest digests.

A tile that comes or goes changes at most one of them, and where it lies on the ground changes none. The choice is
remembered in `.build` for the corpus it was made of, since making it reads the whole catalogue.
"""

from __future__ import annotations

import heapq
from pathlib import Path

from provisioning.base.disk import memo
from provisioning.base.hashing import Fact, Sha256, digest_of
from provisioning.catalogue import Tile, iter_tiles


def calibration_digest(build_dir: Path, coverage: Sha256, count: int) -> Sha256:
    """Return the digest of the `count` tiles of the last scan, whose digest is `coverage`, that calibrate a network."""
    path, name = build_dir / "calibration-tiles.json", str(count)
    facts: dict[str, Fact] = {"coverage": coverage}
    shas = memo.get(path, name, facts)
    if shas is None:
        shas = [tile.sha256 for tile in chosen_tiles(build_dir, count)]
        memo.put(path, name, facts, shas)
    return digest_of({"tiles": shas})


def chosen_tiles(build_dir: Path, count: int) -> tuple[Tile, ...]:
    """Return at most `count` tiles of the last scan with different contents, by the digests of those contents."""
    chosen: dict[Sha256, Tile] = {}
    largest_first: list[int] = []
    for tile in iter_tiles(build_dir):
        if tile.sha256 in chosen or (len(chosen) == count and -int(tile.sha256, 16) < largest_first[0]):
            continue
        chosen[tile.sha256] = tile
        heapq.heappush(largest_first, -int(tile.sha256, 16))
        if len(chosen) > count:
            del chosen[Sha256(f"{-heapq.heappop(largest_first):064x}")]
    return tuple(chosen[sha256] for sha256 in sorted(chosen))
