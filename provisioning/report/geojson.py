"""coverage.geojson: area, gaps, route and take-off point, for any map program (RFC 7946)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from provisioning.base.disk.jsonfile import to_json
from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import HALF_TURN_E7, BBox, Origin
from provisioning.report.model import Cell, LonLat, TileMap
from provisioning.report.polygons import polygons_of

Json = dict[str, object]

MOST_CORNERS = 500
"""An outline of more is drawn by its tiles: looking at all pairs of its sides takes too long."""


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
    features = [_feature("area", shape) for shape in _area_shapes(bbox, tuple(outline), maps)]
    features += [_gaps(tiles) for tiles in maps if _missing(tiles)]
    features += [_feature("route", {"type": "LineString", "coordinates": _points(route)}) for route in routes]
    if takeoff is not None:
        point = [_degrees(takeoff.lon_e7), _degrees(takeoff.lat_e7)]
        height = [] if takeoff.alt_mm is None else [takeoff.alt_mm / 1000]
        features.append(_feature("takeoff", {"type": "Point", "coordinates": point + height}))
    return to_json({"type": "FeatureCollection", "features": features}, ascii_only=True) + b"\n"


def _feature(role: str, geometry: Json, **properties: object) -> Json:
    return {"type": "Feature", "geometry": geometry, "properties": {"role": role, **properties}}


def _multipolygon(polygons: Iterable[Iterable[tuple[LonLat, ...]]]) -> Json:
    coordinates = [[_points(_closed(ring)) for ring in polygon] for polygon in polygons]
    return {"type": "MultiPolygon", "coordinates": coordinates}


def _closed(ring: tuple[LonLat, ...]) -> tuple[LonLat, ...]:
    return ring if ring[0] == ring[-1] else (*ring, ring[0])


def _points(points: Iterable[LonLat]) -> list[list[float]]:
    return [[_degrees(point.lon_e7), _degrees(point.lat_e7)] for point in points]


def _degrees(e7: int) -> float:
    return e7 / 10_000_000


def _area_shapes(bbox: BBox, outline: tuple[tuple[LonLat, ...], ...], maps: Sequence[TileMap]) -> Iterator[Json]:
    """Yield the area: its outlines, each a feature of its own (they may overlap), or its tiles, or its box."""
    if outline and all(map(_is_simple, outline)):
        yield from (_multipolygon([[ring]]) for ring in outline)
    elif maps and (outline or not maps[0].is_rectangle):  # a corridor or a polygon: its tiles at the finest zoom level
        yield _multipolygon(_polygons(maps[0].cells, maps[0].level))
    elif bbox.west <= bbox.east:
        yield _multipolygon([[_rectangle(bbox)]])
    else:  # RFC 7946, 3.1.9: cut at the antimeridian
        sides = bbox._replace(east=HALF_TURN_E7), bbox._replace(west=-HALF_TURN_E7)
        yield _multipolygon([[_rectangle(side)] for side in sides if side.west < side.east])


def _is_simple(ring: tuple[LonLat, ...]) -> bool:
    """Return whether a ring has an area and no two of its sides cross, touch or overlap."""
    points = _closed(ring)[:-1]
    sides = list(zip(points, [*points[1:], points[0]], strict=True))
    if len(set(points)) != len(points) or len(points) < 3 or len(points) > MOST_CORNERS:
        return False
    return not any(
        _meet(sides[i], sides[j])
        for i in range(len(sides))
        for j in range(i + 2, len(sides))
        if (i, j) != (0, len(sides) - 1)
    )


def _meet(a: tuple[LonLat, LonLat], b: tuple[LonLat, LonLat]) -> bool:
    def side(p: LonLat, q: LonLat, r: LonLat) -> int:
        turn = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        return (turn > 0) - (turn < 0)

    def between(p: LonLat, q: LonLat, r: LonLat) -> bool:
        return min(p[0], q[0]) <= r[0] <= max(p[0], q[0]) and min(p[1], q[1]) <= r[1] <= max(p[1], q[1])

    turns = side(*a, b[0]), side(*a, b[1]), side(*b, a[0]), side(*b, a[1])
    if turns[0] != turns[1] and turns[2] != turns[3]:
        return True
    ends = ((a, b[0]), (a, b[1]), (b, a[0]), (b, a[1]))
    return any(turn == 0 and between(*line, end) for turn, (line, end) in zip(turns, ends, strict=True))


def _rectangle(box: BBox) -> tuple[LonLat, ...]:
    west, south, east, north = box
    return LonLat(west, south), LonLat(east, south), LonLat(east, north), LonLat(west, north)


def _missing(tiles: TileMap) -> int:
    return sum(max(0, cell.expected - cell.present) for cell in tiles.cells)


def _gaps(tiles: TileMap) -> Json:
    cells = [cell for cell in tiles.cells if cell.present < cell.expected]
    shapes = _polygons(cells, tiles.level)
    return _feature("gaps", _multipolygon(shapes), zoom=tiles.zoom, missing=_missing(tiles), drawn_at_zoom=tiles.level)


def _polygons(cells: Iterable[Cell], level: int) -> Iterator[list[tuple[LonLat, ...]]]:
    """Yield valid polygons of cells; none goes over the antimeridian."""
    world = 1 << level
    found = [(cell.x, cell.y) for cell in cells]
    for turn in sorted({x // world for x, _ in found}):
        for rings in polygons_of((x - turn * world, y) for x, y in found if x // world == turn):
            yield [tuple(_vertex(level, *vertex) for vertex in ring) for ring in rings]


def _vertex(level: int, x: int, y: int) -> LonLat:
    return LonLat(geo.column_edge_e7(level, x), round(geo.row_edge_deg(level, y) * geo.E7))
