"""The tiles and cuts of an index as arrays: where each lies, which lie near a position, which row holds which."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import IndexingError
from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import CUTS, E7, MAX_HEADINGS, MAX_ZOOM
from provisioning.index.ids import HEADING_BITS, SOURCE_BITS, Int64s, cuts_of, headings_of

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius; a great circle on it is within 0.6 % of the ellipsoid's geodesic."""
EQUATOR_M = 2 * math.pi * EARTH_RADIUS_M


class Prior(NamedTuple):
    """Where the aircraft is known to be: within `radius_m` of `position`."""

    position: Origin
    radius_m: float


class Band(NamedTuple):
    """A range of latitudes, rounded to a hundredth of a degree."""

    low_deg: float
    high_deg: float


APART_DEG = 0.5
"""Least gap between areas; two tiles of the coarsest zoom where these are larger."""
SAME_SIZE = 0.05
"""Tiles may differ in size by this share within a band: what a height is wrong by anyway."""


class Places:
    """Every row of an index, decoded once.

    z, x, y           of its tile, int64 [n]
    half_x, half_y    of what it shows, in half tiles: 2·x and 2·y, one more where a cut lies to the east or south
    lat_deg, lon_deg  the centre of what it shows
    upright           whether it is at heading 0: each tile and each cut once for each source
    """

    def __init__(self, ids: Int64s, rotations: int = MAX_HEADINGS) -> None:
        """Take ids as `provisioning.index.among.ids_of` gives them, ascending, of an index with `rotations` headings.

        Without `rotations`, the ids of an index without cuts. IndexingError for a cut that there is not.
        """
        cuts = cuts_of(ids, rotations)
        if cuts.max(initial=0) >= len(CUTS):
            raise IndexingError(
                "an id of the index names a cut that there is not",
                facts={"cut": int(cuts.max()), "headings": rotations},
                next_step="the index is not the one that the Manifest describes: build again with doit",
            )
        self.ids = ids
        self.z, self.x, self.y = decoded(ids >> (SOURCE_BITS + HEADING_BITS))
        east, south = np.array(CUTS, np.int64)[cuts].T
        self.upright = headings_of(ids, rotations) == 0
        self.half_x, self.half_y = 2 * self.x + east, 2 * self.y + south
        halves = (2 << self.z).astype(np.float64)
        self.lon_deg = ((self.half_x + 1) / halves * 360) % 360 - 180
        self.lat_deg = np.degrees(np.arctan(np.sinh(math.pi * (1 - 2 * (self.half_y + 1) / halves))))

    @cached_property
    def has_cuts(self) -> bool:
        """Whether there are cuts beside the tiles."""
        return bool(((self.half_x | self.half_y) & 1).any())

    @cached_property
    def zooms(self) -> tuple[int, ...]:
        """Zoom levels in the index, ascending."""
        return tuple(np.unique(self.z).tolist())

    @cached_property
    def cells(self) -> Int64s:
        """Number of the tile of the coarsest zoom that holds each row's tile: what tells which zooms cover a place."""
        up = self.z - self.zooms[0]
        cells: Int64s = (self.x >> up) << 32 | self.y >> up
        return cells

    def side_m(self, zoom: int, lat_deg: float) -> float:
        """Return the side of a tile on the ground, metre, at a latitude."""
        return EQUATOR_M * math.cos(math.radians(lat_deg)) / (1 << zoom)

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """Bands of latitude within which a zoom level's tiles are of one size on the ground, to SAME_SIZE.

        An area is split only if it is larger than that; areas apart are apart.
        """
        bands: list[Band] = []
        apart = max(APART_DEG, 720 / (1 << self.zooms[0])) if len(self.ids) else APART_DEG
        for lat in np.unique(np.round(self.lat_deg, 2)).tolist():
            low, high = bands[-1] if bands else (math.inf, -math.inf)
            sizes = sorted(math.cos(math.radians(each)) for each in (low, lat)) if bands else [0.0, 1.0]
            if lat - high <= apart and sizes[0] >= (1 - SAME_SIZE) * sizes[1]:
                bands[-1] = Band(low, lat)
            else:
                bands.append(Band(lat, lat))
        return tuple(bands)

    def middle_lat_deg(self, band: Band | None = None) -> float:
        """Return the latitude of the middle tile: where tile sides are taken if no position is known."""
        return float(np.median(self.lat_deg if band is None else self.lat_deg[self._in(band)]))

    def _in(self, band: Band) -> NDArray[np.bool_]:
        rounded = np.round(self.lat_deg, 2)
        return np.asarray((rounded >= band.low_deg) & (rounded <= band.high_deg))

    def rows(self, *, zoom: int | None = None, near: Prior | None = None, band: Band | None = None) -> Int64s:
        """Return the rows of tiles of a zoom level and a band that touch the circle of a prior, ascending."""
        wanted = np.ones(len(self.ids), bool) if zoom is None else self.z == zoom
        if band is not None:
            wanted &= self._in(band)
        if near is not None:
            away = self.distances_m(near.position)
            half_diagonal = EQUATOR_M * np.cos(np.radians(self.lat_deg)) / (1 << self.z) / math.sqrt(2)
            wanted &= away <= near.radius_m + half_diagonal
        return np.flatnonzero(wanted).astype(np.int64)

    def distances_m(self, place: Origin) -> NDArray[np.float64]:
        """Return the great-circle distance of every tile's centre from `place`, metre (haversine formula)."""
        return distances_m(self.lat_deg, self.lon_deg, place.lat_e7 / E7, place.lon_e7 / E7)


def distances_m(lat: Any, lon: Any, to_lat: Any, to_lon: Any) -> NDArray[np.float64]:
    """Return great-circle distances of points in degrees, metre."""
    a, b = np.radians(lat), np.radians(to_lat)
    h = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(np.radians(np.subtract(to_lon, lon)) / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(1.0, h))), np.float64)


def moved(place: Origin, *, east_m: float, north_m: float) -> Origin:
    """Return the point that lies east and north of `place`, on the sphere of `distances_m`; for some kilometres."""
    lat = place.lat_e7 / E7 + math.degrees(north_m / EARTH_RADIUS_M)
    lat = max(-90.0, min(90.0, lat))
    across = max(1e-6, math.cos(math.radians((lat + place.lat_e7 / E7) / 2)))
    lon = place.lon_e7 / E7 + math.degrees(east_m / EARTH_RADIUS_M / across)
    return Origin(round(lat * E7), round(((lon + 180) % 360 - 180) * E7))


def encoded(z: int, x: Int64s, y: Int64s) -> Int64s:
    """Return the PMTiles ids of tiles of one zoom level, int64 [n]: `zxy_to_tileid` for many at once."""
    tileids = np.full(len(x), ((1 << 2 * z) - 1) // 3, np.int64)
    x, y = x.astype(np.int64), y.astype(np.int64)
    for bit in range(z - 1, -1, -1):
        right, down = x >> bit & 1, y >> bit & 1
        tileids += ((3 * right) ^ down) << 2 * bit
        flip = (down == 0) & (right == 1)
        x, y = np.where(flip, ~x, x), np.where(flip, ~y, y)
        x, y = np.where(down == 0, y, x), np.where(down == 0, x, y)
    return tileids


def decoded(tileids: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Return z, x, y of PMTiles ids, int64 [n] each: `tileid_to_zxy` for many at once."""
    starts = np.array([((1 << 2 * z) - 1) // 3 for z in range(MAX_ZOOM + 2)], np.int64)
    z = np.searchsorted(starts, tileids, side="right") - 1
    position, x, y = tileids - starts[z], np.zeros_like(tileids), np.zeros_like(tileids)
    for bit in range(int(z.max(initial=0))):
        deep, side = z > bit, np.int64(1 << bit)
        right, down = 1 & (position >> 1), 1 & (position ^ (position >> 1))
        flip, swap = (down == 0) & (right == 1), down == 0
        x1, y1 = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
        x1, y1 = np.where(swap, y1, x1), np.where(swap, x1, y1)
        x, y = np.where(deep, x1 | right << bit, x), np.where(deep, y1 | down << bit, y)
        position = np.where(deep, position >> 2, position)
    return z.astype(np.int64), x, y
