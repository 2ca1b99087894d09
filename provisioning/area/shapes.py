"""What a mission or an area file draws, before it becomes tiles: lines, polygons, points, in degrees of WGS 84."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import AltDatum, Origin

MOST_POINTS = 200_000
MOST_MARGIN_M = 200_000.0
"""No circle, loiter or camera footprint is wider; a larger number is in another unit or a mistake."""
NULL_ISLAND_DEG = 1.0
"""Degrees from 0, 0 beyond which no other place of a mission can be reached from there."""


class Point(NamedTuple):
    """Longitude and latitude, degree. Longitudes of one shape may run past 180 so that neighbours are neighbours."""

    lon: float
    lat: float


Ring = tuple[Point, ...]
Polygon = tuple[Ring, ...]
"""The outer ring and its holes, each closed."""


class Margin(NamedTuple):
    """Lines or polygons with ground around them that belongs to them: a circle's radius, a camera's footprint."""

    metres: float
    lines: tuple[Ring, ...] = ()
    polygons: tuple[Polygon, ...] = ()


class Note(NamedTuple):
    """What a file leaves open. `missing`: legs may be flown that are not in the area; else an assumption, stated."""

    where: str
    what: str
    missing: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Lines and polygons. `geodesic` lines are shortest paths; others are straight in longitude and latitude.

    `routes` are the lines that are flown: the place of a hole is given along them, and their tiles are required.
    `takeoff` is the mission's home; its altitude is above `takeoff_datum`, None if the file does not say.
    """

    lines: tuple[Ring, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    margins: tuple[Margin, ...] = ()
    routes: tuple[Ring, ...] = ()
    geodesic: bool = False
    takeoff: Origin | None = None
    takeoff_datum: AltDatum | None = None
    notes: tuple[Note, ...] = ()


def point(lon: Any, lat: Any, path: Path, where: str) -> Point:
    """Return a checked point; AreaError names the file and the place in it."""
    for value in (lon, lat):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
            raise AreaError(
                f"{where} is not a position",
                file=path,
                facts={"found": f"{lon!r:.40}, {lat!r:.40}"},
                next_step="write it as decimal degrees of WGS 84",
            )
    if abs(lat) > 90 or abs(lon) > 540:
        raise AreaError(
            f"{where} is out of range: latitude {float(lat):g}, longitude {float(lon):g}",
            file=path,
            next_step="check the order of the numbers (GeoJSON and KML have longitude first, missions latitude first) "
            "and that they are degrees of WGS 84",
        )
    return Point(float(lon), float(lat))


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond 1e308
        return False


def metres(raw: Any, path: Path, where: str, *, most: float = MOST_MARGIN_M) -> float:
    """Return a length of 0 to `most` metres; AreaError if it is not one."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not _finite(raw) or not 0 <= abs(raw) <= most:
        raise AreaError(
            f"{where} is not a length of 0 to {most:,.0f} metres",
            file=path,
            facts={"found": f"{raw!r:.40}"},
            next_step="correct it where the file was made, then save it again",
        )
    return abs(float(raw))


def unrolled(points: list[Point]) -> Ring:
    """Return points whose longitudes never jump: a step of more than half a turn goes the other way round.

    A step of a whole turn is kept: it is how a band around the world is drawn.
    """
    result = points[:1]
    shift = 0.0
    for before, after in pairwise(points):
        step = after.lon - before.lon
        if 180 < abs(step) < 360:
            shift -= math.copysign(360, step)
        result.append(Point(after.lon + shift, after.lat))
    return tuple(result)


def closed(points: list[Point]) -> Ring:
    """Return the ring through `points`; the last may repeat the first."""
    return unrolled(points if points[0] == points[-1] else [*points, points[0]])


def placed(points: Sequence[Point]) -> list[Point]:
    """Return points without those at 0, 0 among others that are far from there: what programs write for no position."""
    there = [place for place in points if (place.lon, place.lat) != (0, 0)]
    far = any(max(abs(place.lon), abs(place.lat)) > NULL_ISLAND_DEG for place in there)
    return there if far else list(points)


def left_out(count: int) -> list[Note]:
    """Return what is to be said of places that `placed` left out."""
    what = f"{count} positions at latitude 0, longitude 0 are taken for none: where they should be is not covered"
    return [Note("", what, missing=True)] if count else []
