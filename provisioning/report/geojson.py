"""coverage.geojson: area, gaps, route and take-off point, for any map program (RFC 7946)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from provisioning.base import geo
from provisioning.base.angles import BBox, Origin
from provisioning.report.model import Cell, LonLat, TileMap

Json = dict[str, object]


def coverage_geojson(
    *,
    bbox: BBox,
    maps: Iterable[TileMap] = (),
    outline: Iterable[tuple[LonLat, ...]] = (),
    routes: Iterable[tuple[LonLat, ...]] = (),
    takeoff: Origin | None = None,
) -> bytes:
    """Return a FeatureCollection, UTF-8 with a final newline.

    Its features are the area, the gaps of each zoom level that has any, the routes and the take-off point; the
    property `role` says which.
    """
    maps = sorted(maps, key=lambda tiles: -tiles.zoom)
    features = [_feature("area", _multipolygon(_area_rings(bbox, tuple(outline), maps)))]
    features += [_gaps(tiles) for tiles in maps if _missing(tiles)]
    features += [_feature("route", {"type": "LineString", "coordinates": _points(route)}) for route in routes]
    if takeoff is not None:
        point = [_degrees(takeoff.lon_e7), _degrees(takeoff.lat_e7)]
        height = [] if takeoff.alt_mm is None else [takeoff.alt_mm / 1000]
        features.append(_feature("takeoff", {"type": "Point", "coordinates": point + height}))
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"), sort_keys=True)
    return text.encode() + b"\n"


def _feature(role: str, geometry: Json, **properties: object) -> Json:
    return {"type": "Feature", "geometry": geometry, "properties": {"role": role, **properties}}


def _multipolygon(rings: Iterable[tuple[LonLat, ...]]) -> Json:
    return {"type": "MultiPolygon", "coordinates": [[_points(_closed(ring))] for ring in rings]}


def _closed(ring: tuple[LonLat, ...]) -> tuple[LonLat, ...]:
    return ring if ring[0] == ring[-1] else (*ring, ring[0])


def _points(points: Iterable[LonLat]) -> list[list[float]]:
    return [[_degrees(point.lon_e7), _degrees(point.lat_e7)] for point in points]


def _degrees(e7: int) -> float:
    return e7 / 10_000_000


def _area_rings(
    bbox: BBox, outline: tuple[tuple[LonLat, ...], ...], maps: Sequence[TileMap]
) -> Iterator[tuple[LonLat, ...]]:
    if outline:
        yield from outline
    elif maps and not maps[0].is_rectangle:  # a corridor or a polygon: its tiles at the finest zoom level
        yield from map(_rectangle, _boxes(maps[0].cells, maps[0].level))
    elif bbox.west <= bbox.east:
        yield _rectangle(bbox)
    else:  # RFC 7946, 3.1.9: cut at the antimeridian
        yield _rectangle(bbox._replace(east=1_800_000_000))
        yield _rectangle(bbox._replace(west=-1_800_000_000))


def _rectangle(box: BBox) -> tuple[LonLat, ...]:
    west, south, east, north = box
    return LonLat(west, south), LonLat(east, south), LonLat(east, north), LonLat(west, north)


def _missing(tiles: TileMap) -> int:
    return sum(max(0, cell.expected - cell.present) for cell in tiles.cells)


def _gaps(tiles: TileMap) -> Json:
    cells = [cell for cell in tiles.cells if cell.present < cell.expected]
    rings = [_rectangle(box) for box in _boxes(cells, tiles.level)]
    return _feature("gaps", _multipolygon(rings), zoom=tiles.zoom, missing=_missing(tiles), drawn_at_zoom=tiles.level)


def _boxes(cells: Iterable[Cell], level: int) -> Iterator[BBox]:
    """Return one box for each run of neighbours in a row; no run goes over the antimeridian."""
    world = 1 << level
    for _, run in groupby(enumerate(cells), key=lambda item: (item[1].y, item[1].x - item[0], item[1].x >= world)):
        row = [cell for _, cell in run]
        first = geo.tile_bounds_e7(level, row[0].x % world, row[0].y)
        yield first._replace(east=geo.tile_bounds_e7(level, row[-1].x % world, row[-1].y).east)
