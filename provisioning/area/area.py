"""The area of a flight: its parts turned into the tiles that they need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from provisioning.area.cover import Band, Cover, union
from provisioning.area.shapes import Drawing, Polygon, Ring, read_text
from provisioning.base.angles import BBox, Origin
from provisioning.base.errors import AreaError
from provisioning.base.geo import MAX_LATITUDE_E7, tile_bounds_e7, tiles_in_bbox
from provisioning.base.hashing import Fact, Sha256, digest_of, sha256_bytes
from provisioning.config import AreaPart, Flight

TURN_E7 = 3_600_000_000
MISSION_BUFFER_M = 1000.0
FORMAT = 1
"""Counted up when the same parts give other tiles."""

Route = tuple[tuple[int, int], ...]
"""(latitude, longitude) of each turning point, 1e-7 degree."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """What the flight needs.

    `required` holds the tiles under the routes, at the finest zoom of their part: without them nothing is flown. `home`
    is the mission's. `rings` are its polygons where these, without holes or buffer, are all.
    """

    cover: Cover
    bbox: BBox
    home: Origin | None
    routes: tuple[Route, ...]
    required: Cover
    rings: tuple[Route, ...] = ()

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads."""
        return json.dumps(
            [self.cover.to_json(), self.bbox, self.home, self.routes, self.required.to_json(), self.rings]
        )

    @classmethod
    def from_json(cls, text: str) -> Area:
        """Return the area that `to_json` wrote."""
        cover, bbox, home, routes, required, rings = json.loads(text)
        return cls(
            cover=Cover.from_json(cover),
            bbox=BBox(*bbox),
            home=Origin(*home) if home else None,
            routes=_routes(routes),
            required=Cover.from_json(required),
            rings=_routes(rings),
        )


def _routes(raw: list[list[list[int]]]) -> tuple[Route, ...]:
    return tuple(tuple((lat, lon) for lat, lon in route) for route in raw)


def area_facts(flight: Flight) -> Sha256:
    """Return the digest of all that decides the area; AreaError if a file that draws it cannot be read."""
    parts = [_part_facts(part) for part in flight.area.parts]
    return digest_of({"format": FORMAT, "parts": parts})


def _part_facts(part: AreaPart) -> dict[str, Fact]:
    return {
        "bbox": part.bbox,
        "geojson": _digest(part.geojson),
        "mission": _digest(part.mission),
        "buffer_m": part.buffer_m,
        "zooms": part.zooms,
    }


def _digest(path: Path | None) -> Sha256 | None:
    return sha256_bytes(read_text(path).encode()) if path else None


def measure_area(flight: Flight) -> Area:
    """Return the area of `flight`; AreaError if a file that draws it cannot be understood."""
    drawings = [_drawing(part) for part in flight.area.parts]
    bands: dict[int, list[tuple[Band, ...]]] = {}
    required: dict[int, list[tuple[Band, ...]]] = {}
    for part, drawing in zip(flight.area.parts, drawings, strict=True):
        for z in part.zooms:
            bands.setdefault(z, []).extend(_bands(part, drawing, z))
        if drawing and drawing.routes:
            required.setdefault(max(part.zooms), []).append(_under(drawing.routes, drawing, max(part.zooms)))
    cover = Cover({z: union(found) for z, found in bands.items()})
    return Area(
        cover=cover,
        bbox=enclosing(_boxes(flight.area.parts, cover)),
        home=next((d.takeoff for d in drawings if d and d.takeoff), None),
        routes=tuple(_in_e7(route) for drawing in drawings if drawing for route in drawing.routes),
        required=Cover({z: union(found) for z, found in required.items()}),
        rings=tuple(map(_in_e7, _rings(flight.area.parts, drawings))),
    )


def _drawing(part: AreaPart) -> Drawing | None:
    if part.bbox:
        return None
    from provisioning.area.geojson import read_geojson
    from provisioning.area.mission import read_mission

    if part.geojson:
        return read_geojson(part.geojson)
    assert part.mission is not None
    return read_mission(part.mission)


def _bands(part: AreaPart, drawing: Drawing | None, z: int) -> Iterator[tuple[Band, ...]]:
    """Yield the tiles of one part at one zoom."""
    if part.bbox:
        columns, rows = tiles_in_bbox(part.bbox, z)
        yield tuple(Band(left, right, (rows,)) for left, right in columns)
        return
    assert drawing is not None
    from provisioning.area.corridor import Near, bands_near, pieces_of

    buffer_m = MISSION_BUFFER_M * bool(part.mission) if part.buffer_m is None else float(part.buffer_m)
    edges = [ring for polygon in drawing.polygons for ring in polygon]
    found = []
    for lines, polygons in ((drawing.lines, ()), (edges, drawing.polygons)):
        pieces = tuple(piece for line in lines for piece in pieces_of(line, geodesic=drawing.geodesic))
        if pieces:
            found.append(bands_near(Near(pieces, polygons, buffer_m), z))
    if not any(found):
        raise AreaError(
            "the area has no tile", file=part.geojson or part.mission, next_step="draw it below 85 degrees of latitude"
        )
    yield from found


def _under(routes: tuple[Ring, ...], drawing: Drawing, z: int) -> tuple[Band, ...]:
    from provisioning.area.corridor import Near, bands_near, pieces_of

    pieces = tuple(piece for route in routes for piece in pieces_of(route, geodesic=drawing.geodesic))
    return bands_near(Near(pieces, (), 0.0), z)


def _rings(parts: Iterable[AreaPart], drawings: Iterable[Drawing | None]) -> Iterator[Ring]:
    """Yield the outlines, counterclockwise, of polygons that are the whole area; none where it is not so simple."""
    polygons: list[Polygon] = []
    for part, drawing in zip(parts, drawings, strict=True):
        if drawing is None or drawing.lines or part.mission or part.buffer_m:
            return
        polygons += drawing.polygons
    if all(len(polygon) == 1 and all(abs(p.lon) <= 180 for p in polygon[0]) for polygon in polygons):
        for (ring,) in polygons:
            leftwards = sum((q.lon - p.lon) * (q.lat + p.lat) for p, q in pairwise(ring)) < 0
            yield ring if leftwards else ring[::-1]


def _in_e7(route: Ring) -> Route:
    half = TURN_E7 // 2
    return tuple((round(p.lat * 1e7), (round(p.lon * 1e7) + half) % TURN_E7 - half) for p in route)


def _boxes(parts: Iterable[AreaPart], cover: Cover) -> list[BBox]:
    """Return the boxes as given, and the bounds of the finest tiles where an area was drawn."""
    boxes = [part.bbox for part in parts if part.bbox]
    if all(part.bbox for part in parts):
        return boxes
    z = cover.zooms[-1]
    for band in cover.bands[z]:
        top, bottom = band.rows[0][0], band.rows[-1][1]
        north_west, south_east = tile_bounds_e7(z, band.left, top), tile_bounds_e7(z, band.right, bottom)
        north, south = min(north_west.north, MAX_LATITUDE_E7), max(south_east.south, -MAX_LATITUDE_E7)
        boxes.append(BBox(north_west.west, south, south_east.east, north))
    return boxes


def enclosing(boxes: Iterable[BBox]) -> BBox:
    """Return the smallest box around `boxes`; it crosses the antimeridian where that is the shorter way round."""
    found = list(boxes)
    if len(found) == 1:
        return found[0]
    arcs = sorted((box.west, (box.east - box.west) % TURN_E7 or TURN_E7 * (box.east != box.west)) for box in found)
    gap, west = 0, 0
    reach = max(start + width for start, width in arcs)
    for start, width in ((start + TURN_E7, width) for start, width in arcs):
        if start - reach > gap:
            gap, west = start - reach, start
        reach = max(reach, start + width)
    south, north = min(box.south for box in found), max(box.north for box in found)
    if gap <= 0:
        return BBox(-TURN_E7 // 2, south, TURN_E7 // 2, north)
    half = TURN_E7 // 2
    return BBox((west + half) % TURN_E7 - half, south, (west - gap + half - 1) % TURN_E7 + 1 - half, north)
