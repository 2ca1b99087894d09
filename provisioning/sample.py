"""A sample of the corpus that does not change when other tiles come or go: those with the smallest digests."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING

from provisioning.backbone import fit, resolved
from provisioning.config import Backbone, Flight
from provisioning.shape import Shape
from provisioning.tiles import Tile, decode, iter_tiles, open_reader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def sample_tiles(flight: Flight, count: int) -> tuple[Tile, ...]:
    """Return at most `count` tiles of the corpus with different bytes, ordered by their SHA-256."""
    distinct: dict[str, Tile] = {}
    for tile in heapq.nsmallest(4 * count, iter_tiles(flight), key=lambda tile: (tile.sha256, tile)):
        distinct.setdefault(tile.sha256, tile)
    return tuple(distinct.values())[:count]


def images(flight: Flight, backbone: Backbone, shape: Shape, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield at most `count` sampled tiles as `backbone` takes them, uint8 [height, width, 3]. Raises TileError."""
    with open_reader(flight) as reader:
        for tile in sample_tiles(flight, count):
            pixels = decode(reader.read(tile), max_pixels=flight.tiles.max_pixels)
            yield fit(pixels, (shape.height, shape.width), resolved(backbone).fit)
