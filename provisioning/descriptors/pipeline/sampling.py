"""Which tiles of the corpus stand for it: those whose contents have the smallest digests.

A tile that comes or goes changes at most one of them, and where it lies on the ground changes none. The choice is
remembered in `.build` for the corpus it was made of, since making it reads the whole catalogue.
"""

from __future__ import annotations

import heapq

from provisioning.base.disk import memo
from provisioning.base.hashing import Fact, Sha256, digest_of
from provisioning.catalogue import Tile, iter_tiles, last_corpus
from provisioning.config import Flight


def calibration_digest(flight: Flight, count: int) -> Sha256 | None:
    """Return the digest of the `count` tiles that calibrate a network; None before the first scan."""
    corpus = last_corpus(flight)
    if corpus is None:
        return None
    path, name = flight.build_dir / "calibration-tiles.json", str(count)
    facts: dict[str, Fact] = {"coverage": corpus.coverage_sha256}
    shas = memo.get(path, name, facts)
    if shas is None:
        shas = [tile.sha256 for tile in chosen_tiles(flight, count)]
        memo.put(path, name, facts, shas)
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
