"""Imagery to show beside a photo: what is on board, else the tile sources of the cache directory it was built in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from provisioning.catalogue import decode, iter_tiles, open_reader
from provisioning.config import TileSource
from provisioning.config.parse import read_flight
from provisioning.flight.verify import Verdict
from provisioning.quality.locate.search import Match
from provisioning.quality.locate.sheet import Imagery
from provisioning.sources.pmtiles import PMTiles

ON_BOARD = "tiles.pmtiles"
MAX_PIXELS = 16_777_216
"""Largest tile image shown; no tile of a sane source comes near."""


def has_imagery(verdict: Verdict) -> bool:
    """Tell whether the verified generation has its imagery on board."""
    return any(entry.path == ON_BOARD for entry in verdict.require().files)


@contextmanager
def imagery_of(cache: Path, verdict: Verdict, wanted: Iterable[Match], *, own: bool) -> Iterator[Imagery]:
    """Yield what gives the image of a match of `wanted`, or None where there is none at hand.

    cache: the cache directory or generation that `verdict` passed; imagery on board that its Manifest does not list is
    not opened. own: the user says that the directory is theirs; else its flight.toml, which nobody signed, names no
    file to open. For a person's eyes: nothing is decided by these pixels.
    """
    if has_imagery(verdict):
        place = next(path for path in (cache / "current" / ON_BOARD, cache / ON_BOARD) if path.is_file())
        archive = PMTiles(TileSource(path=place))
        try:
            yield lambda match: _decoded(archive.read(match.z, match.x, match.y))
        finally:
            archive.close()
    elif own and (cache / "flight.toml").is_file():
        flight = read_flight(cache)
        places = {_address(match) for match in wanted}
        tiles = {tile[:4]: tile for tile in iter_tiles(flight) if tile[:4] in places}
        with open_reader(flight) as reader:
            yield lambda match: _decoded(reader.read(tiles[_address(match)]) if _address(match) in tiles else None)
    else:
        yield lambda _: None


def _address(match: Match) -> tuple[int, int, int, str]:
    return match.z, match.x, match.y, match.source


def _decoded(data: bytes | None) -> np.ndarray[Any, Any] | None:
    return None if data is None else decode(data, max_pixels=MAX_PIXELS)
