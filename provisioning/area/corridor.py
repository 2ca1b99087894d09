"""Lines as pieces of at most a kilometre in space, on the WGS 84 ellipsoid.

Distances are taken in space, where neither the antimeridian nor a pole is special, and turned into distances along the
ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from provisioning.area.ellipsoid import E2, MEAN_RADIUS, A
from provisioning.area.shapes import Point, Ring

PIECE_M = 1000.0
STRIDE_M = 25_000.0
"""Metres of a shortest path between two positions that are computed exactly."""
LENGTH_SLACK = 1.01
"""Over the length on the sphere."""

Floats = NDArray[np.float64]


def space(lat_deg: float | Floats, lon_deg: float | Floats) -> Floats:
    """Return the Earth-centred coordinates of points on the ellipsoid, metre, [..., 3]."""
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    n = A / np.sqrt(1 - E2 * np.sin(lat) ** 2)
    return np.stack([n * np.cos(lat) * np.cos(lon), n * np.cos(lat) * np.sin(lon), n * (1 - E2) * np.sin(lat)], axis=-1)


def chord_m(ground_m: float) -> float:
    """Return the straight distance of points that are `ground_m` apart on the ground; within 0.1 m at 200 km."""
    return 2 * MEAN_RADIUS * math.sin(min(ground_m / (2 * MEAN_RADIUS), math.pi / 2))


def length_m(lines: Iterable[Ring]) -> float:
    """Return the length of lines on the sphere, metre, quickly: within 1 % of that along shortest paths."""
    return sum(float(_legs_m(np.array(line, float).reshape(-1, 2)).sum()) for line in lines)


def _legs_m(line: Floats) -> Floats:
    """Return the length of each leg of a line, [n, 2] longitudes and latitudes, on the sphere."""
    lon, lat = np.radians(line).T
    up, across = np.sin(np.diff(lat) / 2), np.sin(np.diff(lon) / 2)
    h = up * up + np.cos(lat[:-1]) * np.cos(lat[1:]) * across * across
    whole_turns = np.abs(np.diff(line[:, 0])) // 360  # of a band around the world
    legs: Floats = 2 * MEAN_RADIUS * (np.arcsin(np.sqrt(np.minimum(1.0, h))) + math.pi * whole_turns)
    return legs


def pieces_of(line: Ring, *, geodesic: bool) -> Floats:
    """Return the pieces of a line, [n, 2, 3], each at most `PIECE_M` long; a single point is a piece of length 0.

    A `geodesic` line is shortest paths; another is straight in longitude and latitude.
    """
    corners = np.array(line, float)
    if len(line) == 1:
        return np.repeat(space(corners[:, 1], corners[:, 0])[:, None], 2, axis=1)
    places = _geodesic(line, corners) if geodesic else _straight(corners)
    return np.stack([places[:-1], places[1:]], axis=1)


def _geodesic(line: Ring, corners: Floats) -> Floats:
    """Return places along shortest paths; between those that are exact, where a plane through the centre cuts.

    That is within 5 cm of the shortest path over `STRIDE_M`.
    """
    if (_legs_m(corners) * LENGTH_SLACK > STRIDE_M).any():
        corners = np.array([*line[:1], *_strides(line)], float)
    ends = space(corners[:, 1], corners[:, 0])
    legs, shares = _steps(_legs_m(corners) * LENGTH_SLACK)
    places = ends[legs] + (ends[legs + 1] - ends[legs]) * shares[:, None]
    radius = np.sqrt(places[:, 0] ** 2 + places[:, 1] ** 2 + places[:, 2] ** 2 / (1 - E2))
    return np.concatenate([ends[:1], places * (A / radius)[:, None]])


def _strides(line: Ring) -> Iterator[Point]:
    """Yield the corners of a line but the first, with places along its legs at most `STRIDE_M` apart."""
    from geographiclib.geodesic import Geodesic  # Karney's own; only a long leg pays for it

    for before, after in pairwise(line):
        if length_m([(before, after)]) * LENGTH_SLACK > STRIDE_M:
            path = Geodesic.WGS84.InverseLine(before.lat, before.lon, after.lat, after.lon)
            count = math.ceil(path.s13 / STRIDE_M)
            for i in range(1, count):
                at = path.Position(path.s13 * i / count, Geodesic.LATITUDE | Geodesic.LONGITUDE)
                yield Point(at["lon2"], at["lat2"])
        yield after


def _straight(corners: Floats) -> Floats:
    """Return places along lines that are straight in longitude and latitude."""
    lon, lat = corners.T
    same_side = lat[:-1] * lat[1:] > 0
    widest = np.where(same_side, np.minimum(np.abs(lat[:-1]), np.abs(lat[1:])), 0)
    north, east = np.diff(lat) * 111_700, np.diff(lon) * 111_400 * np.cos(np.radians(widest))
    legs, shares = _steps(np.hypot(north, east))
    places = corners[legs] + (corners[legs + 1] - corners[legs]) * shares[:, None]
    return np.concatenate([space(lat[:1], lon[:1]), space(places[:, 1], places[:, 0])])


def _steps(lengths: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return for each place on legs of `lengths`, `PIECE_M` apart or less, its leg and its share of that, up to 1."""
    counts = np.maximum(1, np.ceil(lengths / PIECE_M)).astype(np.int64)
    legs = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(1, len(legs) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    return legs, numbers / counts[legs]
