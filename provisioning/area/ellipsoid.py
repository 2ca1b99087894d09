"""Lengths and areas on the WGS 84 ellipsoid."""

from __future__ import annotations

import math
from collections.abc import Iterable

from provisioning.area.cover import Range
from provisioning.base.geometry.angles import BBox
from provisioning.base.geometry.geo import E7, row_edge_deg

A = 6_378_137.0
"""Equatorial radius, metre."""
EQUATOR_M = 2 * math.pi * A
F = 1 / 298.257223563
E2 = F * (2 - F)
"""First eccentricity squared."""
MEAN_RADIUS = 6_371_008.8
"""Mean radius, metre."""


def box_size_m(bbox: BBox) -> tuple[float, float]:
    """Return width (along the parallel nearest the equator) and height of a box, metre."""
    south, north = math.radians(bbox.south / E7), math.radians(bbox.north / E7)
    widest = 0.0 if south <= 0 <= north else min(abs(south), abs(north))
    width = A * math.cos(widest) / math.sqrt(1 - E2 * math.sin(widest) ** 2) * math.radians(bbox.width_e7 / E7)
    return width, meridian_m(north) - meridian_m(south)


def meridian_m(latitude: float) -> float:
    """Return the length of the meridian from the equator, metre, to 0.1 mm; `latitude` in radian.

    Helmert's series: https://en.wikipedia.org/wiki/Meridian_arc#Series_in_terms_of_the_parametric_latitude
    """
    n = F / (2 - F)
    terms = (
        (1 + n**2 / 4 + n**4 / 64) * latitude
        - 3 / 2 * (n - n**3 / 8) * math.sin(2 * latitude)
        + 15 / 16 * (n**2 - n**4 / 4) * math.sin(4 * latitude)
        - 35 / 48 * n**3 * math.sin(6 * latitude)
        + 315 / 512 * n**4 * math.sin(8 * latitude)
    )
    return A / (1 + n) * terms


def rows_km2(z: int, rows: Iterable[Range]) -> float:
    """Return the area of one tile column's `rows` at zoom `z`, square kilometre.

    Zone of the ellipsoid: https://mathworld.wolfram.com/OblateSpheroid.html and Snyder, Map Projections, eq. 3-12.
    """
    width = 2 * math.pi / (1 << z)
    return width * sum(_zone(row_edge_deg(z, low)) - _zone(row_edge_deg(z, high + 1)) for low, high in rows) / 1e6


def zone_km2(bbox: BBox) -> float:
    """Return the area between the parallels of a box, all around the Earth, square kilometre."""
    return 2 * math.pi * (_zone(bbox.north / E7) - _zone(bbox.south / E7)) / 1e6


def _zone(latitude_deg: float) -> float:
    """Return the area between the equator and a parallel for one radian of longitude, square metre."""
    s, e = math.sin(math.radians(latitude_deg)), math.sqrt(E2)
    return A * A * (1 - E2) / 2 * (s / (1 - E2 * s * s) + math.atanh(e * s) / e)
