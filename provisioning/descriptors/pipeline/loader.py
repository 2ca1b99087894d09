"""From the address of a tile to the pixels that the network takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np

from provisioning.base.errors import TileError
from provisioning.catalogue import Tile, cut_key, decode
from provisioning.sources.pixels.cutting import Kept, cut
from provisioning.sources.pixels.fitting import Pixels, fit, turn


class Unit(NamedTuple):
    """One descriptor to compute: a tile or a cut at one heading (a fraction of a turn, by its position).

    tile: the one that is cut, or from which the cut lies to the east and south; beside: the others that the cut shows.
    """

    tile: Tile
    heading: int
    cut: int = 0
    beside: tuple[Tile, ...] = ()

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Every tile that is needed, in the order of `geo.cut_parts`."""
        return (self.tile, *self.beside)

    @property
    def key(self) -> bytes:
        """The key under which the descriptor is kept, 32 bytes."""
        if not self.cut:
            return bytes.fromhex(self.tile.sha256)
        return cut_key(self.cut, [bytes.fromhex(tile.sha256) for tile in self.tiles])


class Fault(NamedTuple):
    """A unit that has no descriptor, and why."""

    unit: Unit
    reason: str


class Loader(Protocol):
    """Gives the bytes of a tile and the image of a unit; TileError if there is none."""

    def read(self, tile: Tile) -> bytes:
        """Return the bytes of a tile."""

    def image(self, unit: Unit) -> Pixels:
        """Return the image uint8 [H, W, 3] of one unit."""


@dataclass(frozen=True)
class TileLoader:
    """Reads, decodes, cuts, turns and fits tiles in this very process: that of a dask worker, which holds no key.

    One object for all threads. The last image is kept per thread; tiles that cuts show are kept for all.
    """

    read: Callable[[Tile], bytes]
    headings: tuple[Fraction, ...]
    size: tuple[int, int]
    how: str
    max_pixels: int
    cuts: bool = False
    """Whether units show several tiles, so that a decoded tile is soon needed again."""
    _last: threading.local = field(default_factory=threading.local)
    _kept: Kept = field(default_factory=Kept)

    def load_batch(self, units: Sequence[Unit], images: Pixels) -> tuple[list[Unit], list[Fault]]:
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
        """Return the image uint8 [H, W, 3] of one unit; TileError if a tile cannot be read or decoded."""
        pixels = self._pixels(unit)
        heading = self.headings[unit.heading]
        return fit(turn(pixels, heading) if heading else pixels, self.size, self.how)

    def _pixels(self, unit: Unit) -> Pixels:
        asked = unit.cut, unit.tiles
        if getattr(self._last, "asked", None) != asked:
            tiles = [self._decoded(tile, keep=self.cuts) for tile in unit.tiles]
            self._last.pixels = cut(tiles, unit.cut) if unit.cut else tiles[0]
            self._last.asked = asked
        pixels: Pixels = self._last.pixels
        return pixels

    def _decoded(self, tile: Tile, *, keep: bool) -> Pixels:
        pixels = self._kept.get(tile)
        if pixels is None:
            pixels = decode(self.read(tile), max_pixels=self.max_pixels)
            if keep:
                self._kept.put(tile, pixels)
        return pixels

    def empty(self, count: int) -> Pixels:
        """Return room for `count` images."""
        return np.empty((count, *self.size, 3), np.uint8)
