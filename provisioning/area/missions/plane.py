"""Patterns of a few kilometres computed in metres on a plane that touches the ellipsoid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from provisioning.area.ellipsoid import E2, A
from provisioning.area.shapes import Point, Ring

CIRCLE_POINTS = 36

Xy = tuple[float, float]
"""East and north, metre."""


class Plane(NamedTuple):
    """Metres east and north of `origin`, with the ellipsoid's two radii there; within 0.3 % at 10 km."""

    origin: Point
    east_m: float
    north_m: float

    def xy(self, point: Point) -> Xy:
        """Return a point in metres."""
        lon = (point.lon - self.origin.lon + 180) % 360 - 180
        return lon * self.east_m, (point.lat - self.origin.lat) * self.north_m

    def point(self, xy: Xy) -> Point:
        """Return the point of a place in metres; latitudes end at the poles."""
        lat = max(-90.0, min(90.0, self.origin.lat + xy[1] / self.north_m))
        return Point(self.origin.lon + xy[0] / self.east_m, lat)


def plane_at(origin: Point) -> Plane:
    """Return the plane at a point: metres for a degree of longitude and latitude there.

    Radii of curvature: Snyder, Map Projections (1987), eq. 4-18 and 4-20.
    """
    lat = math.radians(origin.lat)
    w = 1 - E2 * math.sin(lat) ** 2
    east = A * max(math.cos(lat), 1e-6) / math.sqrt(w)
    return Plane(origin, math.radians(east), math.radians(A * (1 - E2) / w**1.5))


def circle(centre: Point, radius_m: float) -> Ring:
    """Return a closed ring of `CIRCLE_POINTS` legs on a circle."""
    plane = plane_at(centre)
    turns = (2 * math.pi * n / CIRCLE_POINTS for n in range(CIRCLE_POINTS + 1))
    return tuple(plane.point((radius_m * math.sin(turn), radius_m * math.cos(turn))) for turn in turns)


def offset(line: list[Xy], distance_m: float, *, closed: bool) -> list[Xy]:
    """Return a line moved to its left by `distance_m`, corners mitred, very sharp ones cut."""
    count = len(line)
    moved = []
    for n, (x, y) in enumerate(line):
        before = _normal(line[n - 1], line[n]) if closed or n > 0 else None
        after = _normal(line[n], line[(n + 1) % count]) if closed or n < count - 1 else None
        a, b = before or after or (0.0, 0.0), after or before or (0.0, 0.0)
        scale = distance_m / max(0.25, 1 + a[0] * b[0] + a[1] * b[1])
        moved.append((x + (a[0] + b[0]) * scale, y + (a[1] + b[1]) * scale))
    return moved


def _normal(a: Xy, b: Xy) -> Xy | None:
    """Return the unit vector to the left of the way from `a` to `b`."""
    x, y = b[0] - a[0], b[1] - a[1]
    length = math.hypot(x, y)
    return (-y / length, x / length) if length else None


def extended(line: list[Xy], distance_m: float) -> list[Xy]:
    """Return a line made longer by `distance_m` at both ends."""
    for at, inner in ((0, 1), (-1, -2)) if len(line) > 1 else ():
        (x, y), (u, v) = line[at], line[inner]
        length = math.hypot(x - u, y - v)
        if length:
            line[at] = (x + (x - u) / length * distance_m, y + (y - v) / length * distance_m)
    return line


def counterclockwise(ring: list[Xy]) -> list[Xy]:
    """Return an open ring in counterclockwise order."""
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise([*ring, ring[0]]))
    return ring if area > 0 else ring[::-1]


def turned(points: Iterable[Xy], angle_rad: float) -> list[Xy]:
    """Return points turned counterclockwise about the origin."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return [(x * c - y * s, x * s + y * c) for x, y in points]


def hatched(ring: list[Xy], azimuth_deg: float, spacing_m: float) -> list[tuple[Xy, Xy]]:
    """Return parallel lines across an open ring, each from its first to its last crossing, one way and back in turn."""
    angle = math.radians(azimuth_deg)
    upright = turned(ring, angle)  # the lines now run north
    left, right = min(x for x, _ in upright), max(x for x, _ in upright)
    count = max(1, math.floor((right - left) / spacing_m) + 1)
    first = (left + right - (count - 1) * spacing_m) / 2
    lines: list[tuple[Xy, Xy]] = []
    for n in range(count):
        x = first + n * spacing_m
        ys = [
            a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0])
            for a, b in pairwise([*upright, upright[0]])
            if (a[0] > x) != (b[0] > x)
        ]
        if ys:
            ends = turned([(x, min(ys)), (x, max(ys))], -angle)
            lines.append((ends[0], ends[1]) if len(lines) % 2 == 0 else (ends[1], ends[0]))
    return lines
