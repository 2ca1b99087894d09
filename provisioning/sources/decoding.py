"""What a process does that decodes tiles (`base/workers.py`): bytes from file or container, checked, decoded, fitted.

This module imports little: what it imports is what starting such processes costs.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from provisioning.sources.fitting import Pixels, fit, turn
from provisioning.sources.image import decode
from provisioning.sources.tile_file import Address, checked, read_file

if TYPE_CHECKING:
    from provisioning.config import TileSource
    from provisioning.sources.store import TileStore

SHAPE = struct.Struct("<II")
"""Height and width of the image in the room."""
UNREAD = b""
"""The answer where the file cannot be read here: it may be a link to where this process may not look."""
GDAL_CACHE_MB = "128"
KEPT_BYTES = 8 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of parameters in glibc's malloc.h."""


class View(NamedTuple):
    """How tiles are to be seen.

    headings     at which tiles are seen, as fractions of a turn clockwise from north
    size         height and width; None: as they are, and not turned
    how          as `fit` takes it
    max_pixels   of one tile, before it is refused
    """

    headings: tuple[Fraction, ...]
    size: tuple[int, int] | None
    how: str
    max_pixels: int


class Asked(NamedTuple):
    """One image to be made: the tile, the position of its heading, and where its bytes are.

    `given` is the path of its file, its bytes, or None: they are in the container of its source.
    """

    tile: Address
    heading: int
    given: str | bytes | None


class Decoding:
    """Makes images of tiles, the last decoded tile being kept: it comes at several headings, one after another."""

    def __init__(self, sources: Sequence[TileSource], view: View) -> None:
        _keep_memory()
        self._view = view
        self._stores = _opened(sources) if sources else {}
        self._last: tuple[Address, Pixels] | None = None

    def __call__(self, asked: Asked, room: memoryview) -> bytes:
        """Write the image into `room` and return its SHAPE, or UNREAD; TileError if the tile is no image."""
        try:
            pixels = self._decoded(asked)
        except OSError:
            if isinstance(asked.given, str):
                return UNREAD
            raise
        view, heading = self._view, self._view.headings[asked.heading]
        image = pixels if view.size is None else fit(turn(pixels, heading) if heading else pixels, view.size, view.how)
        np.frombuffer(room, np.uint8, image.size).reshape(image.shape)[:] = image
        return SHAPE.pack(*image.shape[:2])

    def _decoded(self, asked: Asked) -> Pixels:
        if self._last is None or self._last[0] != asked.tile:
            data = checked(self._bytes(asked), asked.tile)
            self._last = asked.tile, decode(data, max_pixels=self._view.max_pixels)
        return self._last[1]

    def _bytes(self, asked: Asked) -> bytes | None:
        if isinstance(asked.given, str):
            return read_file(asked.given)
        if isinstance(asked.given, bytes):
            return asked.given
        z, x, y, source, _ = asked.tile
        return self._stores[source].read(z, x, y)


def _opened(sources: Sequence[TileSource]) -> dict[str, TileStore]:
    """Open the containers among `sources`, each of which comes with its kind."""
    os.environ["GDAL_CACHEMAX"] = GDAL_CACHE_MB  # of what is allocated beyond a block; its default grows with the host
    from provisioning.sources.source import source_name
    from provisioning.sources.stores import open_tiles

    return {source_name(each): open_tiles(each, sources) for each in sources if each.kind != "xyz"}


def _keep_memory() -> None:
    """Have glibc keep what a tile took for the next one: giving it back costs a page fault for each of its pages.

    A fifth of all that reading, decoding and fitting take (measured at 256 px: 1,020 µs without, 820 with).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
