"""Lines as pieces of at most a kilometre in space, on the WGS 84 ellipsoid.

Distances are taken in space, where neither the antimeridian nor a pole is special, and turned into distances along the
ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

from provisioning.area.ellipsoid import E2, MEAN_RADIUS, A
from provisioning.area.shapes import Point, Ring

PIECE_M = 1000.0
STRIDE_M = 25_000.0
"""Metres of a shortest path between two positions that are computed exactly."""
LENGTH_SLACK = 1.01
"""Over the length on the sphere."""
Vector = tuple[float, float, float]
Piece = tuple[Vector, Vector]


def space(lat_deg: float, lon_deg: float) -> Vector:
    """Return the Earth-centred coordinates of a point on the ellipsoid, metre."""
    lat, lon = math.radians(lat_deg), math.radians(lon_deg)
    n = A / math.sqrt(1 - E2 * math.sin(lat) ** 2)
    flat = n * math.cos(lat)
    return flat * math.cos(lon), flat * math.sin(lon), n * (1 - E2) * math.sin(lat)


def chord_m(ground_m: float) -> float:
    """Return the straight distance of points that are `ground_m` apart on the ground; within 0.1 m at 200 km."""
    return 2 * MEAN_RADIUS * math.sin(min(ground_m / (2 * MEAN_RADIUS), math.pi / 2))


def length_m(lines: Iterable[Ring]) -> float:
    """Return the length of lines on the sphere, metre, quickly: within 1 % of that along shortest paths."""
    total = 0.0
    for line in lines:
        for a, b in pairwise(line):
            up, across = math.sin(math.radians(b.lat - a.lat) / 2), math.sin(math.radians(b.lon - a.lon) / 2)
            h = up * up + math.cos(math.radians(a.lat)) * math.cos(math.radians(b.lat)) * across * across
            whole_turns = abs(b.lon - a.lon) // 360  # of a band around the world
            total += 2 * MEAN_RADIUS * (math.asin(math.sqrt(min(1.0, h))) + math.pi * whole_turns)
    return total


def pieces_of(line: Ring, *, geodesic: bool) -> Iterator[Piece]:
    """Yield the pieces of a line, each at most `PIECE_M` long; a single point is a piece of length 0."""
    last = space(line[0].lat, line[0].lon)
    if len(line) == 1:
        yield last, last
    for before, after in pairwise(line):
        for here in _geodesic(before, after) if geodesic else _straight(before, after):
            yield last, here
            last = here


def _geodesic(before: Point, after: Point) -> Iterator[Vector]:
    """Yield points of the shortest path from the first (left out) to the second position, `PIECE_M` apart or less."""
    length, end = length_m([(before, after)]) * LENGTH_SLACK, space(after.lat, after.lon)
    if length < STRIDE_M:
        yield from _between(space(before.lat, before.lon), end, max(1, math.ceil(length / PIECE_M)))
        return
    from geographiclib.geodesic import Geodesic  # Karney's own; only a new area pays for it

    path = Geodesic.WGS84.InverseLine(before.lat, before.lon, after.lat, after.lon)
    strides, last = math.ceil(path.s13 / STRIDE_M), space(before.lat, before.lon)
    for i in range(1, strides + 1):
        at = path.Position(path.s13 * i / strides)
        here = end if i == strides else space(at["lat2"], at["lon2"])
        yield from _between(last, here, math.ceil(path.s13 / strides / PIECE_M))
        last = here


def _between(a: Vector, b: Vector, count: int) -> Iterator[Vector]:
    """Yield `count` points of the ellipsoid over the chord from `a` (left out) to `b`.

    They lie in a plane through the centre: within 5 cm of the shortest path over `STRIDE_M`.
    """
    for i in range(1, count):
        t = i / count
        x, y, z = (a[k] + (b[k] - a[k]) * t for k in range(3))
        scale = A / math.sqrt(x * x + y * y + z * z / (1 - E2))
        yield x * scale, y * scale, z * scale
    yield b


def _straight(before: Point, after: Point) -> Iterator[Vector]:
    """Yield points of the line that is straight in longitude and latitude, `PIECE_M` apart or less."""
    (lon, lat), (lon2, lat2) = before, after
    north = abs(lat2 - lat) * 111_700
    east = abs(lon2 - lon) * 111_400 * math.cos(math.radians(min(abs(lat), abs(lat2)) if lat * lat2 > 0 else 0))
    count = max(1, math.ceil(math.hypot(north, east) / PIECE_M))
    for i in range(1, count + 1):
        yield space(lat + (lat2 - lat) * i / count, lon + (lon2 - lon) * i / count)
