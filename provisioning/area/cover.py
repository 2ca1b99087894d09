"""The tiles of an area: per zoom level, bands of columns that share the same rows."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from zlib import crc32

from provisioning.base.disk.jsonfile import from_json
from provisioning.base.named import NamedTuple

Range = tuple[int, int]
"""First and last, both included."""
Rows = tuple[Range, ...]
"""Ascending ranges of rows that do not touch."""


class Band(NamedTuple):
    """Columns `left` to `right`, both included, each with the rows `rows`."""

    left: int
    right: int
    rows: Rows


class Cover:
    """The tiles of an area; bands are ascending and disjoint."""

    def __init__(self, bands: Mapping[int, tuple[Band, ...]]) -> None:
        self.bands = {z: bands[z] for z in sorted(bands)}
        self._lefts = {z: [band.left for band in found] for z, found in self.bands.items()}

    @property
    def zooms(self) -> tuple[int, ...]:
        """Zoom levels, ascending."""
        return tuple(self.bands)

    def rows(self, z: int, x: int) -> Rows:
        """Return the rows of column `x` at zoom `z`, empty if the area has none there."""
        at = bisect_right(self._lefts.get(z, ()), x) - 1
        if at < 0 or self.bands[z][at].right < x:
            return ()
        return self.bands[z][at].rows

    def holds(self, z: int, x: int, y: int) -> bool:
        """Return whether a tile belongs to the area."""
        return any(low <= y <= high for low, high in self.rows(z, x))

    def check_of(self, z: int, x: int) -> bytes:
        """Return four bytes that differ where the rows of a column do."""
        return crc32(repr(self.rows(z, x)).encode()).to_bytes(4, "big")

    @cached_property
    def check(self) -> bytes:
        """Four bytes that differ where any tile does."""
        return crc32(self.to_json().encode()).to_bytes(4, "big")

    def touches(self, z: int, columns: Range, rows: Range) -> bool:
        """Return whether any tile of a rectangle belongs to the area."""
        bands = self.bands.get(z, ())
        at = max(0, bisect_right(self._lefts.get(z, ()), columns[0]) - 1)
        while at < len(bands) and bands[at].left <= columns[1]:
            band = bands[at]
            if band.right >= columns[0] and any(low <= rows[1] and high >= rows[0] for low, high in band.rows):
                return True
            at += 1
        return False

    def expected(self, z: int) -> int:
        """Return how many tiles the area has at zoom `z`."""
        return sum((band.right - band.left + 1) * count(band.rows) for band in self.bands[z])

    def columns(self, z: int) -> Iterator[tuple[int, Rows]]:
        """Yield every column of zoom `z`, ascending, with its rows."""
        for band in self.bands.get(z, ()):
            for x in range(band.left, band.right + 1):
                yield x, band.rows

    def only(self, zooms: Iterable[int]) -> Cover:
        """Return the part of this cover at `zooms`."""
        return Cover({z: bands for z, bands in self.bands.items() if z in set(zooms)})

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads."""
        return json.dumps(self.bands, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Cover:
        """Return the cover that `to_json` wrote."""
        bands: dict[int, tuple[Band, ...]] = {}
        for z, found in from_json(text).items():
            bands[int(z)] = tuple(Band(a, b, tuple((low, high) for low, high in rows)) for a, b, rows in found)
        return cls(bands)


def count(rows: Rows) -> int:
    """Return how many rows the ranges hold."""
    return sum(high - low + 1 for low, high in rows)


def merged(ranges: Iterable[Range]) -> Rows:
    """Return ascending ranges that neither overlap nor touch."""
    result: list[Range] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


def union(parts: Iterable[tuple[Band, ...]]) -> tuple[Band, ...]:
    """Return the bands that hold exactly the tiles of any of `parts`, each a tuple of bands of one zoom level."""
    bands = [band for part in parts for band in part]
    edges = sorted({edge for band in bands for edge in (band.left, band.right + 1)})
    starts: dict[int, list[Band]] = {}
    for band in bands:
        starts.setdefault(band.left, []).append(band)
    open_bands: list[Band] = []
    result: list[Band] = []
    for left, after in pairwise(edges):
        open_bands = [band for band in open_bands if band.right >= left] + starts.get(left, [])
        rows = merged(interval for band in open_bands for interval in band.rows)
        if rows and result and result[-1].right == left - 1 and result[-1].rows == rows:
            result[-1] = result[-1]._replace(right=after - 1)
        elif rows:
            result.append(Band(left, after - 1, rows))
    return tuple(result)
