"""From the address of a tile to the pixels that the network takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np

from provisioning.base.errors import TileError
from provisioning.catalogue import Tile, decode
from provisioning.network.backbone.image import Pixels, fit, turn


class Unit(NamedTuple):
    """One descriptor to compute: a tile at one heading (a fraction of a turn, by its position)."""

    tile: Tile
    heading: int


class Fault(NamedTuple):
    """A unit that has no descriptor, and why."""

    unit: Unit
    reason: str


class Loader(Protocol):
    """Gives the bytes and the image of a tile; TileError if it has none."""

    def read(self, tile: Tile) -> bytes:
        """Return the bytes of a tile."""

    def image(self, unit: Unit) -> Pixels:
        """Return the image uint8 [H, W, 3] of one unit."""


@dataclass(frozen=True)
class TileLoader:
    """Reads, decodes, turns and fits tiles in this very process: that of a dask worker, which holds no key.

    One object for all threads; the last decoded tile is kept per thread.
    """

    read: Callable[[Tile], bytes]
    headings: tuple[Fraction, ...]
    size: tuple[int, int]
    how: str
    max_pixels: int
    _last: threading.local = field(default_factory=threading.local)

    def look(self, units: Sequence[Unit], images: Pixels) -> tuple[list[Unit], list[Fault]]:
        """Fill `images` uint8 [>= n, H, W, 3] with the units that can be seen; return these, and the faults."""
        seen: list[Unit] = []
        faults: list[Fault] = []
        for unit in units:
            try:
                images[len(seen)] = self.image(unit)
                seen.append(unit)
            except TileError as error:  # noqa: PERF203 - one bad tile must not cost its batch
                faults.append(Fault(unit, error.what))
        return seen, faults

    def image(self, unit: Unit) -> Pixels:
        """Return the image uint8 [H, W, 3] of one unit; TileError if the tile cannot be read or decoded."""
        pixels = self._decoded(unit.tile)
        heading = self.headings[unit.heading]
        return fit(turn(pixels, heading) if heading else pixels, self.size, self.how)

    def _decoded(self, tile: Tile) -> Pixels:
        if getattr(self._last, "tile", None) != tile:
            self._last.pixels = decode(self.read(tile), max_pixels=self.max_pixels)
            self._last.tile = tile
        pixels: Pixels = self._last.pixels
        return pixels

    def empty(self, count: int) -> Pixels:
        """Return room for `count` images."""
        return np.empty((count, *self.size, 3), np.uint8)
