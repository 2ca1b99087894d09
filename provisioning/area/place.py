"""Where a box lies, in words that anyone can check on a map."""

from __future__ import annotations

from provisioning.area.ellipsoid import box_size_m, zone_km2
from provisioning.base.geometry.angles import TURN_E7, BBox, Origin


def describe_place(bbox: BBox) -> str:
    """Return centre and size of a box, e.g. "54.1 N 12.4 E, 14 × 9 km": width (east–west) first, WGS 84."""
    lat_e7, lon_e7 = bbox.middle[:2]
    width, height = (side / 1000 for side in box_size_m(bbox))
    digits = 1 if max(width, height) < 10_000 else 0
    north, east = ("N" if lat_e7 >= 0 else "S"), ("E" if lon_e7 >= 0 else "W")
    where = f"{abs(lat_e7) / 1e7:.{digits}f} {north} {abs(lon_e7) / 1e7:.{digits}f} {east}"
    return f"{where}, {_km(width)} × {_km(height)} km"


def place_facts(bbox: BBox) -> dict[str, str]:
    """Return where a box lies, for a person: place, box and centre in degree (WGS 84), area, hemisphere."""
    lat_e7, lon_e7 = bbox.middle[:2]
    west, south, east, north = (f"{side / 1e7:.7f}" for side in bbox)
    halves = ("northern" if lat_e7 >= 0 else "southern"), ("eastern" if lon_e7 >= 0 else "western")
    across = ", across the equator" if bbox.south < 0 < bbox.north else ""
    across += ", across the antimeridian" if bbox.west > bbox.east else ""
    return {
        "place": describe_place(bbox),
        "bbox": f"{west}, {south}, {east}, {north} (west, south, east, north)",
        "centre": f"{lat_e7 / 1e7:.5f}, {lon_e7 / 1e7:.5f} (latitude, longitude)",
        "size": f"{zone_km2(bbox) * bbox.width_e7 / TURN_E7:,.3f} km², {' and '.join(halves)} hemisphere{across}",
    }


def _km(length: float) -> str:
    return (
        f"{length:,.0f}"
        if length >= 9.95
        else f"{length:.1f}".removesuffix(".0")
        if length >= 0.095
        else f"{length:.2g}"
    )


def height_in_words(place: Origin) -> str:
    """Return a place's height with what it is above; empty where it has none."""
    if place.alt_mm is None:
        return ""
    above = {"ellipsoid": " above the WGS 84 ellipsoid", "amsl": " above mean sea level"}
    return f"{place.alt_mm / 1000:.1f}\u00a0m" + above.get(place.alt_datum or "", ", its datum is not named")
