"""GeoJSON (RFC 7946) → drawing. Edges are straight in longitude and latitude, as the standard says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.area.shapes import MOST_POINTS, Drawing, Point, Polygon, Ring, parse_json, point, read_text, unrolled
from provisioning.base.errors import AreaError

MOST_NESTED = 16


def read_geojson(path: Path) -> Drawing:
    """Return the lines, polygons and points of a GeoJSON file; AreaError says what in it cannot be an area."""
    raw = parse_json(read_text(path), path)
    crs = raw.get("crs")
    if crs is not None and not any(name in str(crs) for name in ("CRS84", "4326")):
        raise AreaError("the GeoJSON is not in WGS 84", file=path, facts={"crs": crs}, next_step="export as EPSG:4326")
    lines: list[Ring] = []
    polygons: list[Polygon] = []
    for geometry in _geometries(raw, path, 0):
        _add(geometry, path, lines, polygons)
    if not lines and not polygons:
        raise AreaError("the GeoJSON has no polygon, line or point", file=path, next_step="draw the area, export again")
    if sum(len(ring) for ring in lines) + sum(len(ring) for p in polygons for ring in p) > MOST_POINTS:
        raise AreaError(f"the GeoJSON has more than {MOST_POINTS} points", file=path, next_step="simplify it")
    return Drawing(lines=tuple(lines), polygons=tuple(polygons), routes=tuple(line for line in lines if len(line) > 1))


def _geometries(raw: Any, path: Path, depth: int) -> Iterator[dict[str, Any]]:
    if not isinstance(raw, dict) or depth > MOST_NESTED:
        raise AreaError("the GeoJSON is not made of features and geometries", file=path)
    kind = raw.get("type")
    inner = {"FeatureCollection": "features", "GeometryCollection": "geometries"}.get(str(kind))
    if inner:
        members = raw.get(inner)
        if not isinstance(members, list):
            raise AreaError(f"a {kind} has no {inner}", file=path)
        for member in members:
            yield from _geometries(member, path, depth + 1)
    elif kind == "Feature":
        if raw.get("geometry") is not None:
            yield from _geometries(raw["geometry"], path, depth + 1)
    else:
        yield raw


def _add(geometry: dict[str, Any], path: Path, lines: list[Ring], polygons: list[Polygon]) -> None:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        polygons.append(_polygon(coordinates, path))
    elif kind == "MultiPolygon":
        polygons.extend(_polygon(one, path) for one in _items(coordinates, path))
    elif kind == "LineString":
        lines.append(_line(coordinates, path, least=2))
    elif kind == "MultiLineString":
        lines.extend(_line(one, path, least=2) for one in _items(coordinates, path))
    elif kind == "Point":
        lines.append(_line([coordinates], path, least=1))
    elif kind == "MultiPoint":
        lines.extend(_line([one], path, least=1) for one in _items(coordinates, path))
    else:
        raise AreaError(f"the GeoJSON holds a {kind!r}, which is no geometry", file=path)


def _items(raw: Any, path: Path) -> list[Any]:
    if not isinstance(raw, list):
        raise AreaError("coordinates in the GeoJSON are not a list", file=path)
    return raw


def _line(raw: Any, path: Path, *, least: int) -> Ring:
    points = []
    for pair in _items(raw, path):
        if not isinstance(pair, list) or len(pair) < 2:
            raise AreaError("a position in the GeoJSON is not [longitude, latitude]", file=path, facts={"found": pair})
        points.append(point(pair[0], pair[1], path, "a position in the GeoJSON"))
    if len(points) < least:
        raise AreaError(f"a line in the GeoJSON has fewer than {least} points", file=path)
    return unrolled(points)


def _polygon(raw: Any, path: Path) -> Polygon:
    rings = tuple(_ring(one, path) for one in _items(raw, path))
    if not rings:
        raise AreaError("a polygon in the GeoJSON has no ring", file=path)
    return rings


def _ring(raw: Any, path: Path) -> Ring:
    ring = _line(raw, path, least=4)
    first, last = ring[0], ring[-1]
    if (first.lon - last.lon) % 360 or first.lat != last.lat:
        raise AreaError("a ring of a polygon in the GeoJSON is not closed", file=path)
    if first.lon != last.lon:
        raise AreaError("a polygon in the GeoJSON goes around a pole, which no Web Mercator tile reaches", file=path)
    return ring


def closed(points: list[Point]) -> Ring:
    """Return the ring through `points`."""
    return unrolled([*points, points[0]])
