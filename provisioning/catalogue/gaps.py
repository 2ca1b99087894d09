"""Where the corpus has holes: connected tiles of the area that no source has."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from provisioning.area.cover import Cover, Range, Rows
from provisioning.area.ellipsoid import box_size_m
from provisioning.base.geometry.angles import BBox
from provisioning.base.geometry.geo import tile_bounds_e7
from provisioning.catalogue.scanning.columns import unpacked_runs
from provisioning.catalogue.values import RequiredTile


class Hole(NamedTuple):
    """Missing tiles that touch each other, corners included: how many, the box around them, its longer side."""

    z: int
    tiles: int
    bbox: BBox
    size_mm: int


def missing(expected: Rows, present: Iterable[Range]) -> list[Range]:
    """Return the parts of `expected` that are not in `present`; both ascending."""
    result: list[Range] = []
    have = list(present)
    for low, high in expected:
        start = low
        for first, last in have:
            if last < start or first > high:
                continue
            if first > start:
                result.append((start, first - 1))
            start = last + 1
        if start <= high:
            result.append((start, high))
    return result


class _Patch:
    """A hole that is still growing."""

    def __init__(self, x: int, low: int, high: int) -> None:
        self.tiles, self.left, self.right, self.top, self.bottom = 0, x, x, low, high
        self.into: _Patch | None = None

    def root(self) -> _Patch:
        patch = self
        while patch.into:
            patch = patch.into
        return patch

    def add(self, x: int, low: int, high: int) -> None:
        self.tiles += high - low + 1
        self.right = x
        self.top, self.bottom = min(self.top, low), max(self.bottom, high)

    def swallow(self, other: _Patch) -> None:
        if other is not self:
            other.into = self
            self.tiles += other.tiles
            self.left, self.right = min(self.left, other.left), max(self.right, other.right)
            self.top, self.bottom = min(self.top, other.top), max(self.bottom, other.bottom)


def holes(z: int, columns: Iterable[tuple[int, list[Range]]]) -> list[Hole]:
    """Return the holes of one zoom level from its columns' missing ranges, ascending; the largest first."""
    patches: list[_Patch] = []
    before: list[tuple[Range, _Patch]] = []
    last_x = -2
    for x, ranges in columns:
        touching = before if x == last_x + 1 else []
        now: list[tuple[Range, _Patch]] = []
        for low, high in ranges:
            near = [patch.root() for (first, last), patch in touching if first <= high + 1 and last >= low - 1]
            patch = near[0] if near else _Patch(x, low, high)
            if not near:
                patches.append(patch)
            for other in near[1:]:
                patch.root().swallow(other.root())
            patch.root().add(x, low, high)
            now.append(((low, high), patch))
        before, last_x = now, x
    found = [_hole(z, patch) for patch in patches if patch.into is None]
    return sorted(found, key=lambda hole: (-hole.size_mm, -hole.tiles, hole.bbox))


def _hole(z: int, patch: _Patch) -> Hole:
    north_west, south_east = tile_bounds_e7(z, patch.left, patch.top), tile_bounds_e7(z, patch.right, patch.bottom)
    bbox = BBox(north_west.west, south_east.south, south_east.east, north_west.north)
    return Hole(z, patch.tiles, bbox, round(1000 * max(box_size_m(bbox))))


def present_runs(db: sqlite3.Connection, z: int) -> dict[int, bytes]:
    """Return the packed runs of rows present in each column of zoom `z`."""
    return dict(db.execute("SELECT x, runs FROM col WHERE z = ? AND count > 0", (z,)))


def missing_columns(cover: Cover, z: int, present: Mapping[int, bytes]) -> Iterator[tuple[int, list[Range]]]:
    """Yield each column of `cover` that misses tiles, ascending, with its missing ranges."""
    for x, rows in cover.columns(z):
        gone = missing(rows, unpacked_runs(present.get(x, b"")))
        if gone:
            yield x, gone


class Located(NamedTuple):
    """Where a hole lies: nearest route and leg (from 1), distance flown until there, distance from the route."""

    route: int
    leg: int
    along_m: int
    off_m: int


@dataclass(frozen=True, kw_only=True)
class ZoomGaps:
    """One zoom level: addresses expected and present, all holes counted, the largest ones listed with their place."""

    expected: int
    present: int
    hole_count: int
    holes: tuple[tuple[Hole, Located | None], ...]


@dataclass(frozen=True, kw_only=True)
class CoverageFigures:
    """What of the area is there and what is not."""

    per_zoom: Mapping[int, ZoomGaps]
    required_missing: tuple[RequiredTile, ...]
    required_count: int


def hole_note(gaps: ZoomGaps) -> str:
    """Return how many holes there are, how long the largest is and where it lies; empty without holes."""
    if not gaps.holes:
        return ""
    hole, at = gaps.holes[0]
    lat, lon = (angle / 1e7 for angle in hole.bbox.middle[:2])
    holes_there = "1 hole" if gaps.hole_count == 1 else f"{gaps.hole_count} holes, the largest"
    text = f"{holes_there}, {hole.size_mm / 1000:,.0f} m long, around {lat:.5f}, {lon:.5f}"
    if at is None:
        return text
    return f"{text}, {at.off_m:,} m from the route on leg {at.leg}, {at.along_m / 1000:,.1f} km after the start"
