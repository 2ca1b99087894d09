"""Where along a flown route something lies, in metres on the ground."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from provisioning.area.area import Route
from provisioning.area.corridor import Piece, Vector, pieces_of, space
from provisioning.area.shapes import Point
from provisioning.base.angles import BBox
from provisioning.catalogue.gaps import Located


class _Leg(NamedTuple):
    route: int
    leg: int
    start_m: float
    piece: Piece


class Routes:
    """Routes as pieces with their distance from the start."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._legs = list(_legs(routes))

    def locate(self, bbox: BBox) -> Located | None:
        """Return the place of a route that is nearest to the middle of a box, None without a route."""
        middle = space(bbox.middle.lat_e7 / 1e7, bbox.middle.lon_e7 / 1e7)
        nearest = min(((_along(middle, leg.piece), leg) for leg in self._legs), default=None)
        if nearest is None:
            return None
        (off, along), leg = nearest
        return Located(leg.route, leg.leg, round(leg.start_m + along), round(off))


def _legs(routes: tuple[Route, ...]) -> Iterator[_Leg]:
    for number, route in enumerate(routes, 1):
        flown = 0.0
        for leg, ends in enumerate(pairwise(route), 1):
            line = tuple(Point(lon / 1e7, lat / 1e7) for lat, lon in ends)
            for piece in pieces_of(line, geodesic=True):
                yield _Leg(number, leg, flown, piece)
                flown += math.dist(*piece)


def _along(p: Vector, piece: Piece) -> tuple[float, float]:
    """Return the distance of `p` from a piece, and of its nearest point from the piece's start."""
    start, end = piece
    length = math.dist(start, end)
    unit = [(b - a) / length if length else 0.0 for a, b in zip(start, end, strict=True)]
    t = max(0.0, min(length, sum((c - a) * u for c, a, u in zip(p, start, unit, strict=True))))
    return math.dist(p, [a + t * u for a, u in zip(start, unit, strict=True)]), t
