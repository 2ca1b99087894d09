"""The best places of the index, tried by local features against the imagery on board: the position, or no change.

Each candidate's ground is compared with the photo as it would be seen from there, rendered as for the index. The one on
which most features agree is taken if enough agree and another place has far fewer; otherwise nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import E7
from provisioning.quality.locate.photo import turned_north_up
from provisioning.quality.locate.places import EQUATOR_M
from provisioning.quality.locate.search import Match, distance_m, origin_at
from provisioning.quality.matching.features import MOST_POINTS, Extractor, Features, matched
from provisioning.quality.matching.imagery import Ground
from provisioning.quality.matching.pose import LEAST_PIXELS, Pose, solved
from provisioning.quality.matching.similarity import Similarity, similarity
from provisioning.quality.query.patches import COARSEST, anchor
from provisioning.quality.query.rendering import View, ground_to_pixels, render_patch
from provisioning.quality.query.viewing import Viewing

Pixels = NDArray[np.uint8]
Doubles = NDArray[np.float64]
TRIED = 5
"""Places that are compared."""
LEAST_INLIERS = 12
"""Features that must agree; docs/evaluation.md says how often a wrong place reached as many."""
TIMES_THE_NEXT = 1.5
"""Times as many as at any other place."""
WITHIN_PIXELS = 6.0
"""Pixels of the map by which a feature may be off: heights above the plane, a tilt that is not known."""
MARGIN = 1.0
"""Tile sides around a candidate in which the photo may lie."""
SAME_PLACE = 0.7
WIDEST = 3.0
"""Largest side of the ground that is compared, in tile sides."""
PROBES = 25


class Fix(NamedTuple):
    """A position from features: how many agreed, of how many compared, and its covariance, square metre.

    The covariance is that of east, of east with north, and of north, for the imagery as it lies: errors of the imagery
    itself are not in it.
    """

    inliers: int
    compared: int
    east_m2: float
    east_north_m2: float
    north_m2: float


@dataclass(frozen=True, eq=False)
class SecondStage:
    """How candidates are tried: `k` of them, with features from `extract`, against those of `ground`."""

    extract: Extractor
    ground: Ground
    k: int = TRIED

    def refined(
        self, pixels: Pixels, viewing: Viewing | str, matches: Sequence[Match], position: Origin | None
    ) -> tuple[tuple[Match, ...], Fix | None]:
        """Return the matches with the verified place first, and its fix; as they are, and None, where none stands out.

        pixels: the photo, uint8 [H, W, 3]. viewing: how it looked at the ground, or why that is not known. position:
        the true one, to measure distances from.
        """
        tried = tuple(self.tried(pixels, viewing, matches))
        best = max(tried, key=lambda each: each.fix.inliers, default=None)
        if best is None or best.fix.inliers < LEAST_INLIERS:
            return tuple(matches), None
        here = [distance_m(each.position, best.position) <= best.apart_m for each in tried]
        others = [each.fix.inliers for each, same in zip(tried, here, strict=True) if not same]
        if others and best.fix.inliers < TIMES_THE_NEXT * max(others):
            return tuple(matches), None
        named = tried[here.index(True)].match  # from a place beside it, too, features lead here: the index knows better
        away = distance_m(best.position, position) if position else None
        first = named._replace(position=best.position, distance_m=away)
        return (first, *(each for each in matches if each is not named)), best.fix

    def tried(self, pixels: Pixels, viewing: Viewing | str, matches: Sequence[Match]) -> Iterator[_Tried]:
        """Yield how well the photo fits at each of the first `k` places that lie apart."""
        seen: dict[tuple[int, float, int], _Query | None] = {}
        places: list[tuple[int, float, float]] = []
        for match in matches:
            x, y = match.tile_xy
            if len(places) == self.k:
                return
            if any(z == match.z and math.hypot(x - a, y - b) < SAME_PLACE for z, a, b in places):
                continue
            places.append((match.z, x, y))
            tile_pixels = self.ground.tile_pixels(match.z, match.x, match.y)
            if tile_pixels is None:
                continue
            key = match.z, match.heading_deg, tile_pixels
            if key not in seen:
                seen[key] = _query(self.extract, pixels, viewing, match, tile_pixels)
            query = seen[key]
            found = query and self._at(query, match, x, y)
            if found:
                yield found

    def _at(self, query: _Query, match: Match, x: float, y: float) -> _Tried | None:
        """Return how well the photo fits where the camera would be at (x, y) in tile coordinates."""
        middle = x + query.east_m / query.tile_m, y - query.north_m / query.tile_m
        features = self.ground.around(match.z, *middle, reach=query.side_m / query.tile_m / 2 + MARGIN)
        if features is None:
            return None
        pairs = matched(query.features, features)
        seen, pixel_m = query.metres[pairs[:, 0]], query.tile_m / query.tile_pixels
        shown = (features.points[pairs[:, 1]] - [x, y]) * [query.tile_m, -query.tile_m]
        agreed = similarity(_complex(seen), _complex(shown), within=WITHIN_PIXELS * pixel_m)
        if agreed is None or agreed.inliers.sum() < LEAST_INLIERS // 2:
            return None
        pose = _pose(query, agreed, seen, shown, pixel_m)
        place = origin_at(match.z, x + pose.east_m / query.tile_m, y - pose.north_m / query.tile_m)
        (east, both), (_, north) = pose.covariance.tolist()
        return _Tried(match, place, Fix(int(agreed.inliers.sum()), len(pairs), east, both, north), query.tile_m)


class _Tried(NamedTuple):
    """A candidate with the position that features give; other positions more than `apart_m` from it are elsewhere."""

    match: Match
    position: Origin
    fix: Fix
    apart_m: float


class _Query(NamedTuple):
    """The photo as the map would show it: a square of ground, relative to the camera; `metres` are its features'."""

    features: Features
    metres: Doubles
    east_m: float
    north_m: float
    side_m: float
    tile_m: float
    tile_pixels: int
    view: View | None


def _query(extract: Extractor, pixels: Pixels, viewing: Viewing | str, match: Match, tile_pixels: int) -> _Query | None:
    """Return the photo rendered under the match's heading; None where it shows no ground."""
    tile_m = EQUATOR_M * math.cos(math.radians(match.centre.lat_e7 / E7)) / (1 << match.z)
    if isinstance(viewing, str):
        square = turned_north_up(pixels, match.heading_deg)
        return _described(
            extract, square, np.ones(square.shape[:2], bool), (0.0, 0.0, tile_m), (tile_m, tile_pixels), None
        )
    view = viewing.view(match.heading_deg)
    shown = _ground_shown(view, WIDEST * tile_m)
    if shown is None:
        return None
    east, north, side_m = shown
    size = round(side_m / tile_m * tile_pixels)
    patch = render_patch(pixels, view, east_m=east, north_m=north, side_m=side_m, size=size)
    return _described(extract, patch.pixels, patch.seen, (east, north, side_m), (tile_m, tile_pixels), view)


def _ground_shown(view: View, widest_m: float) -> tuple[float, float, float] | None:
    """Return the square of ground that holds what the photo shows: its centre, metre, and side, at most `widest_m`.

    Around the middle of the photo; None where that shows no ground.
    """
    middle = anchor(view)
    if middle is None:
        return None
    steps = np.linspace(-0.5, 0.5, PROBES) * widest_m
    east, north = (each.ravel() for each in np.meshgrid(middle[0] + steps, middle[1] + steps))
    _, seen = ground_to_pixels(view, east, north)
    seen &= np.hypot(np.hypot(east, north), view.height_m) <= COARSEST * view.height_m
    if not seen.any():
        return None
    corners = [(float(each[seen].min()), float(each[seen].max())) for each in (east, north)]
    side_m = max(high - low for low, high in corners) + float(steps[1] - steps[0])
    return (*((low + high) / 2 for low, high in corners), min(side_m, widest_m))  # type: ignore[return-value]


def _described(
    extract: Extractor, square: Pixels, seen: NDArray[np.bool_], where: tuple[float, float, float],
    tile: tuple[float, int], view: View | None,
) -> _Query:  # fmt: skip
    east, north, side_m = where
    found = extract(square, seen)
    features = found._replace(points=found.points[:MOST_POINTS], descriptors=found.descriptors[:MOST_POINTS])
    off = (features.points + 0.5) / len(square) - 0.5
    metres = np.array([east, north]) + off * [side_m, -side_m]
    return _Query(features, metres, east, north, side_m, *tile, view)


def _pose(query: _Query, agreed: Similarity, seen: Doubles, shown: Doubles, pixel_m: float) -> Pose:
    """Return where the camera was, from the features that agree: by its geometry, or by the similarity alone."""
    seen, shown = seen[agreed.inliers], shown[agreed.inliers]
    if query.view is not None:
        pixels, _ = ground_to_pixels(query.view, seen[:, 0], seen[:, 1])
        return solved(query.view, pixels, shown, (agreed.b.real, agreed.b.imag), map_pixel_m=pixel_m)
    points = _complex(seen)
    off = np.abs(agreed.a * points + agreed.b - _complex(shown))
    variance = max((LEAST_PIXELS * pixel_m) ** 2, float((off**2).sum()) / (2 * max(1, len(off) - 2)))
    middle = points.mean()
    spread = max(float((np.abs(points - middle) ** 2).sum()), 1e-9)
    one = variance * (1 / len(points) + abs(middle) ** 2 / spread)
    return Pose(agreed.b.real, agreed.b.imag, np.eye(2) * one)


def _complex(metres: Doubles) -> NDArray[np.complex128]:
    return np.asarray(metres[:, 0] + 1j * metres[:, 1])
