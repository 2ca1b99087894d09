"""A cut is made of the pixels of the tiles that it shows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
from PIL import Image

from provisioning.base.geometry.geo import CUTS
from provisioning.sources.pixels.fitting import Pixels

KEPT_BYTES = 64 << 20
"""Decoded tiles kept while cuts are described: 340 of 256 pixels. In the order of the index that is a square of some
18 tiles a side, and a tile is decoded 1.2 times by one process; it would be four times without."""


def cut(tiles: Sequence[Pixels], number: int) -> Pixels:
    """Return cut `number` of the mosaic of `tiles`, uint8 [H, W, 3] each, in the order of `geo.cut_parts`.

    It has the size of one tile and begins half a tile (rounded down) from the mosaic's corner. Tiles of different
    sizes are brought to the largest first, bilinear.
    """
    east, south = CUTS[number]
    height, width = (max(tile.shape[side] for tile in tiles) for side in (0, 1))
    same = [tile if tile.shape[:2] == (height, width) else _scaled(tile, height, width) for tile in tiles]
    columns = east + 1
    rows = [np.concatenate(same[at : at + columns], axis=1) for at in range(0, len(same), columns)]
    left, top = east * (width // 2), south * (height // 2)
    mosaic = np.concatenate(rows, axis=0)
    return np.ascontiguousarray(mosaic[top : top + height, left : left + width])


def _scaled(tile: Pixels, height: int, width: int) -> Pixels:
    return np.asarray(Image.fromarray(tile).resize((width, height), Image.Resampling.BILINEAR))


class Kept:
    """The decoded tiles asked for last, as many as `most_bytes` hold. For several threads."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._tiles: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, tile: Hashable) -> Pixels | None:
        """Return the pixels of a tile, if they are kept."""
        with self._mutex:
            if tile in self._tiles:
                self._tiles.move_to_end(tile)
            return self._tiles.get(tile)

    def put(self, tile: Hashable, pixels: Pixels) -> None:
        """Keep the pixels of a tile, and let go of those not asked for the longest."""
        with self._mutex:
            if tile not in self._tiles:
                self._tiles[tile] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > self._most:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes
