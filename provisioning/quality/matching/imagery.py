"""The imagery on board as local features of the ground, read from the verified archive."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import Error, TileError
from provisioning.catalogue import decode
from provisioning.config import TileSource
from provisioning.flight.verify import Verdict
from provisioning.quality.locate.imagery import MAX_PIXELS, ON_BOARD, has_imagery
from provisioning.quality.matching.features import Extractor, Features
from provisioning.sources.containers.pmtiles import PMTiles

Pixels = NDArray[np.uint8]
Tiles = Callable[[int, int, int], "Pixels | None"]
"""From z, x, y to a tile, uint8 [H, W, 3], None where there is none."""
REMEMBERED = 64
TILES_REMEMBERED = 1024
"""Tiles whose features are kept, 130 MB with SIFT."""
BORDER = 48
"""Pixels of its neighbours that a tile is seen with: a feature is described by what lies around it."""
MOST_OF_A_TILE = 250


@contextmanager
def on_board(verdict: Verdict) -> Iterator[Tiles]:
    """Yield the tiles of the imagery on board, opened from the file that was verified.

    Error where the generation has none. A tile that cannot be decoded is none.
    """
    if not has_imagery(verdict):
        raise Error(
            "the second stage compares with the imagery on board, and this cache has none",
            key="tiles.on_board",
            next_step='set tiles.on_board = "pmtiles" and build',
        )
    with verdict.descriptor(ON_BOARD) as descriptor:
        archive = PMTiles(TileSource(path=Path(f"/proc/self/fd/{descriptor}")))

    @lru_cache(REMEMBERED)
    def tile(z: int, x: int, y: int) -> Pixels | None:
        data = archive.read(z, x, y)
        try:
            return None if data is None else decode(data, max_pixels=MAX_PIXELS)
        except TileError:
            return None

    try:
        yield tile
    finally:
        archive.close()


class Ground:
    """The features of the imagery, tile by tile, found once each: neighbours give a tile its border."""

    def __init__(self, tiles: Tiles, extract: Extractor) -> None:
        self._tiles, self._extract = tiles, extract
        self.of_tile = lru_cache(TILES_REMEMBERED)(self._of_tile)

    def tile_pixels(self, zoom: int, x: int, y: int) -> int | None:
        """Return the side of a tile, pixel; None where there is none."""
        tile = self._tiles(zoom, x, y)
        return None if tile is None else len(tile)

    def around(self, zoom: int, x: float, y: float, *, reach: float) -> Features | None:
        """Return the features within `reach` tile sides of a point, in tile coordinates; None if there is no tile."""
        side = 1 << zoom
        columns = range(math.floor(x - reach), math.floor(x + reach) + 1)
        rows = range(max(0, math.floor(y - reach)), min(side - 1, math.floor(y + reach)) + 1)
        found = [(c, r, self.of_tile(zoom, c % side, r)) for r in rows for c in columns]
        parts = [(each.points + np.array([c, r]), each.descriptors) for c, r, each in found if each is not None]
        if not parts:
            return None
        return Features(np.concatenate([p for p, _ in parts]), np.concatenate([d for _, d in parts]))

    def _of_tile(self, zoom: int, x: int, y: int) -> Features | None:
        """Return the features of a tile, their points as shares of its side."""
        middle = self._tiles(zoom, x, y)
        if middle is None or middle.shape[0] != middle.shape[1]:
            return None
        size, side = len(middle), 1 << zoom
        pixels, shown = np.zeros((3 * size, 3 * size, 3), np.uint8), np.zeros((3 * size, 3 * size), bool)
        for right, down in np.ndindex(3, 3):
            row = y + down - 1
            tile = self._tiles(zoom, (x + right - 1) % side, row) if 0 <= row < side else None
            if tile is not None and tile.shape == middle.shape:
                here = np.s_[down * size : (down + 1) * size, right * size : (right + 1) * size]
                pixels[here], shown[here] = tile, True
        edge = size - BORDER
        cut = np.s_[edge : 2 * size + BORDER, edge : 2 * size + BORDER]
        found = self._extract(pixels[cut], shown[cut])
        points = (found.points + 0.5 - BORDER) / size
        inside = np.flatnonzero(((points >= 0) & (points < 1)).all(axis=1))[:MOST_OF_A_TILE]
        return Features(points[inside], found.descriptors[inside])
