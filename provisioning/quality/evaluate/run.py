"""Asking a cache where photos were taken, and comparing its answers with the truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from provisioning.base.angles import HALF_TURN_E7, BBox, Origin, wrapped_e7
from provisioning.base.events import progress
from provisioning.base.geo import pack_id, tile_at, tile_bounds_e7, tile_centre, tiles_in_bbox, unpack_id
from provisioning.index.ids import HEADING_BITS, Int64s
from provisioning.quality.evaluate.queries import Query
from provisioning.quality.evaluate.score import RANKS, Answer
from provisioning.quality.locate import Locator, Match, distance_m, evenly_turned, read_photo

METRES_PER_E7 = 0.0111319
"""Length of 1e-7 degree of latitude, metre."""


class Asked(NamedTuple):
    """A query with the tiles that were named."""

    query: Query
    matches: tuple[Match, ...]
    answer: Answer


class Places:
    """The tiles of an index, each once, whatever the headings."""

    def __init__(self, ids: Int64s, sources: int) -> None:
        self._places = np.unique(ids >> HEADING_BITS)
        self._sources = sources
        first = [int(place) << HEADING_BITS for place in self._places[[0, -1]]]
        self.zooms = range(unpack_id(first[0]).z, unpack_id(first[1]).z + 1)

    def __len__(self) -> int:
        return len(self._places)

    def near(self, place: Origin, within_m: float) -> int:
        """Return how many tiles have their centre within `within_m` of `place`."""
        box = box_around(place, within_m)
        ids = [
            pack_id(z, x, y, source, 0) >> HEADING_BITS
            for z in self.zooms
            for x, y in _addresses(box, z)
            if distance_m(tile_centre(z, x, y), place) <= within_m
            for source in range(self._sources)
        ]
        at = np.searchsorted(self._places, ids)
        return int((self._places[np.minimum(at, len(self) - 1)] == ids).sum())


def box_around(place: Origin, within_m: float) -> BBox:
    """Return a box that holds every point within `within_m` of `place`, short of the poles."""
    up = math.ceil(within_m / METRES_PER_E7 * 1.01)
    across = math.ceil(up / max(0.02, math.cos(math.radians(place.lat_e7 / 1e7))))
    west, east = place.lon_e7 - across, place.lon_e7 + across
    if across >= HALF_TURN_E7:
        west, east = -HALF_TURN_E7, HALF_TURN_E7
    wrapped = [wrapped_e7(lon) if abs(lon) > HALF_TURN_E7 else lon for lon in (west, east)]
    return BBox(wrapped[0], max(-900_000_000, place.lat_e7 - up), wrapped[1], min(900_000_000, place.lat_e7 + up))


def _addresses(box: BBox, z: int) -> Iterable[tuple[int, int]]:
    ranges = tiles_in_bbox(box, z)
    return (
        (x, y)
        for left, right in ranges.columns
        for x in range(left, right + 1)
        for y in range(ranges.rows[0], ranges.rows[1] + 1)
    )


def ask(locator: Locator, queries: Sequence[Query], *, rotate: int | None, within_m: float) -> tuple[Asked, ...]:
    """Look every query up: under its own heading, or under `rotate` headings; PhotoError for an unreadable photo."""
    places = Places(locator.ids, len(locator.sources))
    asked = []
    for number, query in enumerate(queries):
        headings = evenly_turned(rotate) if rotate else (query.heading_deg or 0.0,)
        matches = locator.locate(read_photo(query.path).pixels, k=max(RANKS), headings=headings, position=query.place)
        away = tuple(distance_m(match.centre, query.place) for match in matches)
        asked.append(Asked(query, matches, Answer(query.name, away, places.near(query.place, within_m), len(places))))
        progress("evaluate", number + 1, len(queries), unit="photos")
    return tuple(asked)


def usual_distance_m(locator: Locator, queries: Sequence[Query]) -> float:
    """Return the side of a tile of the deepest zoom where the first query was taken, rounded up to a metre.

    A point in a tile is never farther than 0.71 sides from its centre, so the tile itself and its nearest
    neighbours count.
    """
    z, place = Places(locator.ids, len(locator.sources)).zooms[-1], queries[0].place
    box = tile_bounds_e7(z, *tile_at(z, lat_e7=place.lat_e7, lon_e7=place.lon_e7))
    return float(math.ceil((box.north - box.south) * METRES_PER_E7))
