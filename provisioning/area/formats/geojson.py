"""GeoJSON (RFC 7946) in its forms → lines, polygons, points, circles. Edges are straight in longitude and latitude.

One object, a list of features, and GeoJSON text sequences (RFC 8142) or one object a line. GeoJSON has no circle:
drawing tools write a Point with a property that holds its radius.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.area.files import parse_json
from provisioning.area.formats.lines import Drawn
from provisioning.area.formats.numbers import number_in
from provisioning.area.shapes import Margin, Note, Point, Polygon, Ring, metres, point, unrolled
from provisioning.base.errors import AreaError

MOST_NESTED = 16
KIND = "GeoJSON"
GEOMETRIES = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection"}
)
TYPES = GEOMETRIES | {"Feature", "FeatureCollection"}
RADIUS = re.compile(r"_?(?:circle|buffer|m)?radius(?:in(?=.))?(?!units?$)(.*)")
METRES_PER = {
    **dict.fromkeys(("", "m", "meter", "meters", "metre", "metres"), 1.0),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), 1000.0),
    **dict.fromkeys(("ft", "foot", "feet"), 0.3048),
    **dict.fromkeys(("mi", "mile", "miles"), 1609.344),
    **dict.fromkeys(("nm", "nmi", "nauticalmiles"), 1852.0),
}
WGS_84 = re.compile(r"CRS84h?\b|\b(4326|4979)\b")
ON_SCREEN = ("circlemarker", "marker")
"""Shapes of drawing tools whose radius is in pixels."""
NO_RADIUS = "write its radius in metres as the property `radius`, or draw a polygon"


def is_geojson(raw: Any) -> bool:
    """Return whether JSON is GeoJSON."""
    if isinstance(raw, list):
        return bool(raw) and all(isinstance(one, dict) and one.get("type") == "Feature" for one in raw)
    return isinstance(raw, dict) and (str(raw.get("type")) in TYPES or _is_circle_object(raw))


def values_of(text: str, path: Path) -> list[Any]:
    """Return the JSON values of a text: one, or one a line or record as GeoJSON sequences have them."""
    if "\x1e" in text[:8]:
        return [parse_json(record, path) for record in text.split("\x1e") if record.strip("\ufeff \t\r\n")]
    first = text.lstrip().partition("\n")[0].rstrip()
    if first.startswith("{") and first.endswith("}"):
        return [parse_json(line, path) for line in text.split("\n") if line.strip()]
    return [parse_json(text, path)]


def draw_geojson(values: list[Any], path: Path) -> Drawn:
    """Return what GeoJSON draws; AreaError says what in it cannot be an area."""
    drawn = Drawn()
    for raw in values:
        _check_crs(raw, path)
        for geometry, properties in _geometries(raw, {}, path, 0):
            _add(geometry, properties, path, drawn)
    return drawn


def _check_crs(raw: Any, path: Path) -> None:
    crs = raw.get("crs") if isinstance(raw, dict) else None
    if crs is not None and not WGS_84.search(str(crs)):
        raise AreaError("the GeoJSON is not in WGS 84", file=path, facts={"crs": f"{crs!s:.80}"},
                        next_step="export as EPSG:4326")  # fmt: skip


def _geometries(raw: Any, properties: Any, path: Path, depth: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if isinstance(raw, list) and depth == 0:
        raw = {"type": "FeatureCollection", "features": raw}
    if not isinstance(raw, dict) or depth > MOST_NESTED:
        raise AreaError("the GeoJSON is not made of features and geometries", file=path, next_step="export it again")
    kind = raw.get("type")
    inner = {"FeatureCollection": "features", "GeometryCollection": "geometries"}.get(str(kind))
    if inner:
        members = raw.get(inner)
        if not isinstance(members, list):
            raise AreaError(f"a {kind} has no {inner}", file=path, next_step="export it again")
        for member in members:
            yield from _geometries(member, properties, path, depth + 1)
    elif kind == "Feature":
        if raw.get("geometry") is not None:
            found = raw.get("properties")
            yield from _geometries(raw["geometry"], found if isinstance(found, dict) else {}, path, depth + 1)
    elif isinstance(properties, dict):
        yield raw, properties


def _add(geometry: dict[str, Any], properties: dict[str, Any], path: Path, drawn: Drawn) -> None:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        drawn.polygons += _polygon(coordinates, path)
    elif kind == "MultiPolygon":
        drawn.polygons += (polygon for one in _items(coordinates, path) for polygon in _polygon(one, path))
    elif kind in ("LineString", "MultiLineString"):
        lines = [coordinates] if kind == "LineString" else _items(coordinates, path)
        drawn.lines += (_line(one, path, least=2) for one in lines if one != [])
    elif kind in ("Point", "MultiPoint"):
        pairs = [coordinates] if kind == "Point" else _items(coordinates, path)
        _add_points([_line([pair], path, least=1)[0] for pair in pairs if pair != []], properties, path, drawn)
    elif _is_circle_object(geometry):
        _add_points([_line([coordinates], path, least=1)[0]], {**properties, **geometry}, path, drawn)
    else:
        raise AreaError(f"the GeoJSON holds a {kind!r:.40}, which is no geometry", file=path,
                        next_step="export it again as RFC 7946 GeoJSON")  # fmt: skip


def _is_circle_object(raw: dict[str, Any]) -> bool:
    """Return whether an object is the `Circle` geometry that some libraries add to GeoJSON."""
    return raw.get("type") == "Circle" and "radius" in raw and "coordinates" in raw


def _add_points(points: list[Point], properties: dict[str, Any], path: Path, drawn: Drawn) -> None:
    shape = str(properties.get("shape") or properties.get("subType") or properties.get("type") or "").lower()
    if shape in ON_SCREEN:
        drawn.notes.append(Note("", "a marker's radius is in pixels of the screen: it is taken as a point"))
        drawn.points += points
        return
    radius = _radius_m(properties, path)
    if radius is None and shape == "circle":
        raise AreaError("a circle in the GeoJSON has no radius", file=path, next_step=NO_RADIUS)
    if radius is None:
        drawn.points += points
    else:
        drawn.circles.append(Margin(radius, lines=tuple((place,) for place in points)))


def _radius_m(properties: dict[str, Any], path: Path) -> float | None:
    """Return the radius among a feature's properties, metre; AreaError if it has one whose meaning is not clear."""
    found: set[float] = set()
    for name, raw in properties.items():
        match = RADIUS.fullmatch(re.sub(r"[^a-z]", "", str(name).lower()))
        if not match or raw is None:
            continue
        unit = match[1] or re.sub(r"[^a-z]", "", str(properties.get("radiusUnits") or properties.get("units") or ""))
        value = number_in(raw) if isinstance(raw, str) else raw
        factor = METRES_PER.get(unit)
        if factor is None or isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise AreaError(
                "a circle in the GeoJSON has a radius that cannot be understood", file=path,
                facts={"found": f"{name!s:.30} = {raw!r:.30}"}, next_step=NO_RADIUS,
            )  # fmt: skip
        metres(value, path, "a radius in the GeoJSON")
        found.add(round(metres(value * factor, path, "a radius in the GeoJSON"), 3))
    if len(found) > 1:
        raise AreaError("a circle in the GeoJSON has two radii", file=path, facts={"metres": sorted(found)},
                        next_step=NO_RADIUS)  # fmt: skip
    return found.pop() if found else None


def _items(raw: Any, path: Path) -> list[Any]:
    if not isinstance(raw, list):
        raise AreaError("coordinates in the GeoJSON are not a list", file=path, next_step="export it again")
    return raw


def _line(raw: Any, path: Path, *, least: int) -> Ring:
    points = []
    for pair in _items(raw, path):
        if not isinstance(pair, list) or len(pair) < 2:
            raise AreaError("a position in the GeoJSON is not [longitude, latitude]", file=path,
                            facts={"found": f"{pair!r:.40}"}, next_step="export it again")  # fmt: skip
        points.append(point(pair[0], pair[1], path, "a position in the GeoJSON"))
    if len(points) < least:
        raise AreaError(f"a line in the GeoJSON has fewer than {least} points", file=path, next_step="draw it again")
    return unrolled(points)


def _polygon(raw: Any, path: Path) -> Iterator[Polygon]:
    """Yield the polygon; none for empty coordinates, which RFC 7946 treats as null."""
    rings = tuple(_ring(one, path) for one in _items(raw, path))
    if rings:
        yield rings


def _ring(raw: Any, path: Path) -> Ring:
    ring = _line(raw, path, least=4)
    first, last = ring[0], ring[-1]
    if (first.lon - last.lon) % 360 or first.lat != last.lat:
        raise AreaError("a ring of a polygon in the GeoJSON is not closed", file=path,
                        next_step="repeat its first position at its end")  # fmt: skip
    if first.lon != last.lon:
        raise AreaError("a polygon in the GeoJSON goes around a pole, which no Web Mercator tile reaches", file=path,
                        next_step="draw it below 85 degrees of latitude")  # fmt: skip
    return ring
