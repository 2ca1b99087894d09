"""What a mission or a GeoJSON file draws, before it becomes tiles: lines, polygons, points, in degrees."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.base.angles import Origin
from provisioning.base.errors import AreaError

MOST_BYTES = 16 << 20
MOST_POINTS = 200_000


class Point(NamedTuple):
    """Longitude and latitude, degree. Longitudes of one shape may run past 180 so that neighbours are neighbours."""

    lon: float
    lat: float


Ring = tuple[Point, ...]
Polygon = tuple[Ring, ...]
"""The outer ring and its holes, each closed."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Lines and polygons. `geodesic` lines are shortest paths; others are straight in longitude and latitude.

    `routes` are the lines that are flown: where a hole lies is told along them, and their tiles are required.
    """

    lines: tuple[Ring, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    routes: tuple[Ring, ...] = ()
    geodesic: bool = False
    takeoff: Origin | None = None


def read_text(path: Path) -> str:
    """Return the text of an area file; AreaError if it cannot be read, is too large or not UTF-8."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise AreaError(f"the area file cannot be read: {error.strerror}", file=path) from error
    if len(data) > MOST_BYTES:
        raise AreaError(f"the area file is larger than {MOST_BYTES} bytes", file=path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AreaError("the area file is not UTF-8 text", file=path) from error


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """Return the JSON object in `text`; AreaError if it is none."""
    try:
        found = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise AreaError(f"the area file is not valid JSON: {error}", file=path) from error
    if not isinstance(found, dict):
        raise AreaError("the area file is not a JSON object", file=path)
    return found


def _refused(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def point(lon: Any, lat: Any, path: Path, where: str) -> Point:
    """Return a checked point; AreaError names the file and the place in it."""
    for value in (lon, lat):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise AreaError(f"{where} is not a position", file=path, facts={"found": f"{lon!r}, {lat!r}"})
    if abs(lat) > 90 or abs(lon) > 540:
        raise AreaError(
            f"{where} is out of range: latitude {lat}, longitude {lon}",
            file=path,
            next_step="check the order of the numbers: GeoJSON has longitude first, missions latitude first",
        )
    return Point(float(lon), float(lat))


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
