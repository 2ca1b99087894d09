"""Where along a flown route something lies, in metres on the ground."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from provisioning.area.area import Route
from provisioning.area.corridor import pieces_of, space
from provisioning.area.shapes import Point
from provisioning.base.geometry.angles import BBox
from provisioning.catalogue.gaps import Located


class Routes:
    """Routes as pieces with their distance from the start."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        legs = [
            (route, leg, pieces_of(tuple(Point(lon / 1e7, lat / 1e7) for lat, lon in ends), geodesic=True))
            for route, turns in enumerate(routes, 1)
            for leg, ends in enumerate(pairwise(turns), 1)
        ]
        self._leg = [(route, leg) for route, leg, pieces in legs for _ in pieces]
        pieces = np.concatenate([pieces for *_, pieces in legs]) if legs else np.empty((0, 2, 3))
        self._start, self._along = pieces[:, 0], pieces[:, 1] - pieces[:, 0]
        self._length = np.sqrt((self._along**2).sum(axis=1))
        before = np.cumsum(self._length) - self._length
        starts = {route: before[n] for n, (route, _) in reversed(list(enumerate(self._leg)))}
        self._flown = before - np.array([starts[route] for route, _ in self._leg])

    def locate(self, bbox: BBox) -> Located | None:
        """Return the place of a route that is nearest to the middle of a box, None without a route."""
        if not self._leg:
            return None
        away = space(bbox.middle.lat_e7 / 1e7, bbox.middle.lon_e7 / 1e7) - self._start
        share = np.clip((away * self._along).sum(axis=1) / np.where(self._length > 0, self._length**2, 1), 0, 1)
        off = np.sqrt(((away - share[:, None] * self._along) ** 2).sum(axis=1))
        n = int(off.argmin())
        return Located(*self._leg[n], round(self._flown[n] + share[n] * self._length[n]), round(off[n]))
