"""What a process does that decodes tiles (`base/process`): bytes from file or container, checked, decoded, fitted.

This module imports little: what it imports is what starting such processes costs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from provisioning.sources.pixels.cutting import Kept, cut
from provisioning.sources.pixels.fitting import Pixels, fit, turn
from provisioning.sources.pixels.image import decode, load_decoders
from provisioning.sources.processes.common import keep_memory, opened
from provisioning.sources.tile_file import Address, checked, read_file

if TYPE_CHECKING:
    from provisioning.config import TileSource

SHAPE = struct.Struct("<II")
"""Height and width of the image in the room."""
UNREAD = b""
"""The answer where the file cannot be read here: it may be a link to where this process may not look."""


class View(NamedTuple):
    """How tiles are to be seen.

    headings     at which tiles are seen, as fractions of a turn clockwise from north
    size         height and width; None: as they are, and not turned
    how          as `fit` takes it
    max_pixels   of one tile, before it is refused
    cuts         whether images show several tiles, so that a decoded tile is soon needed again
    """

    headings: tuple[Fraction, ...]
    size: tuple[int, int] | None
    how: str
    max_pixels: int
    cuts: bool = False


class Asked(NamedTuple):
    """One image to be made: the tiles that it shows, the position of its heading, and where their bytes are.

    `given`, for each tile: the path of its file, its bytes, or None: they are in the container of its source. `cut` as
    in `geo.CUTS`, the tiles in the order of `geo.cut_parts`.
    """

    tiles: tuple[Address, ...]
    heading: int
    given: tuple[str | bytes | None, ...]
    cut: int = 0


class Decoding:
    """Makes images. The last is kept, since it comes at several headings, one after another; so are tiles of cuts."""

    prepare = staticmethod(load_decoders)

    def __init__(self, sources: Sequence[TileSource], view: View) -> None:
        keep_memory()
        self._view = view
        turns_pixels = all((4 * heading).denominator == 1 for heading in view.headings)
        self._fitted_to = view.size if turns_pixels and not view.cuts else None
        self._stores = opened(sources, sources) if sources else {}
        self._last: tuple[tuple[int, tuple[Address, ...]], Pixels] | None = None
        self._kept = Kept()

    def __call__(self, asked: Asked, room: memoryview) -> bytes:
        """Write the image into `room` and return its SHAPE, or UNREAD; TileError if a tile is no image."""
        try:
            pixels = self._pixels(asked)
        except OSError:
            if any(isinstance(given, str) for given in asked.given):
                return UNREAD
            raise
        view, heading = self._view, self._view.headings[asked.heading]
        image = pixels if view.size is None else fit(turn(pixels, heading) if heading else pixels, view.size, view.how)
        np.frombuffer(room, np.uint8, image.size).reshape(image.shape)[:] = image
        return SHAPE.pack(*image.shape[:2])

    def _pixels(self, asked: Asked) -> Pixels:
        shown = asked.cut, asked.tiles
        if self._last is None or self._last[0] != shown:
            tiles = [self._decoded(tile, given) for tile, given in zip(asked.tiles, asked.given, strict=True)]
            self._last = shown, cut(tiles, asked.cut) if asked.cut else tiles[0]
        return self._last[1]

    def _decoded(self, tile: Address, given: str | bytes | None) -> Pixels:
        pixels = self._kept.get(tile)
        if pixels is None:
            pixels = decode(
                checked(self._bytes(tile, given), tile), max_pixels=self._view.max_pixels, fitted_to=self._fitted_to
            )
            if self._view.cuts:
                self._kept.put(tile, pixels)
        return pixels

    def _bytes(self, tile: Address, given: str | bytes | None) -> bytes | None:
        if isinstance(given, str):
            return read_file(given)
        if isinstance(given, bytes):
            return given
        z, x, y, source, _ = tile
        return self._stores[source].read(z, x, y)
