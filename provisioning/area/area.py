"""The area of a flight: its parts turned into the tiles that they need."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning import config
from provisioning.area.cover import Band, Cover, union
from provisioning.base.disk.jsonfile import from_json
from provisioning.base.errors import AreaError
from provisioning.base.frozen import dataclass
from provisioning.base.geometry.angles import HALF_TURN_E7, TURN_E7, AltDatum, BBox, Origin, wrapped_e7
from provisioning.base.geometry.geo import MAX_LATITUDE_E7, tile_at, tile_bounds_e7, tiles_in_bbox
from provisioning.base.hashing import Fact, Sha256, digest_of, sha256_bytes
from provisioning.config import AreaPart

if TYPE_CHECKING:
    from provisioning.area.corridor import Floats
    from provisioning.area.near import Near
    from provisioning.area.shapes import Drawing, Note, Point, Polygon, Ring

    Group = tuple[float, tuple[Ring, ...], tuple[Polygon, ...]]
    """Lines, and polygons that are areas, with the metres around them that belong to them."""

MISSION_BUFFER_M = 1000.0
MOST_TILES = 50_000_000
MOST_PIECES = 400_000
"""Kilometres of line that are measured: ten times around the Earth."""
MOST_MARGINS = 2_000
MOST_CROSSED = 10_000_000
"""Tiles on the edge of polygons, times the edges along a parallel from one: some seconds."""
FORMAT = 3
"""Counted up when the same parts give other tiles."""

Route = tuple[tuple[int, int], ...]
"""(latitude, longitude) of each turning point, 1e-7 degree."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """What the flight needs.

    `required` holds the tiles under the routes, at the finest zoom of their part: without them nothing is flown. `home`
    is the mission's, its altitude above `home_datum` (None: the file does not say). `rings` are its polygons where
    these, without holes or buffer, are all. `notes` say what the files leave open.
    """

    cover: Cover
    bbox: BBox
    home: Origin | None
    routes: tuple[Route, ...]
    required: Cover
    rings: tuple[Route, ...] = ()
    home_datum: AltDatum | None = None
    notes: tuple[Note, ...] = ()

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads."""
        covers = self.cover.to_json(), self.required.to_json()
        return json.dumps([covers, self.bbox, self.home, self.home_datum, self.routes, self.rings, self.notes])

    @classmethod
    def from_json(cls, text: str) -> Area:
        """Return the area that `to_json` wrote."""
        (cover, required), bbox, home, datum, routes, rings, notes = from_json(text)
        return cls(
            cover=Cover.from_json(cover),
            bbox=BBox(*bbox),
            home=Origin(*home) if home else None,
            home_datum=datum,
            routes=_routes(routes),
            required=Cover.from_json(required),
            rings=_routes(rings),
            notes=_notes(notes) if notes else (),
        )


def _notes(raw: list[list[Any]]) -> tuple[Note, ...]:
    from provisioning.area.shapes import Note

    return tuple(Note(*note) for note in raw)


def _routes(raw: list[list[list[int]]]) -> tuple[Route, ...]:
    return tuple(tuple((lat, lon) for lat, lon in route) for route in raw)


def area_facts(asked: config.Area, takeoff: Origin | None = None) -> Sha256:
    """Return the digest of all that decides the area; AreaError if a file that draws it cannot be read.

    The take-off point decides only where there is a mission, whose first and last legs begin and end there.
    """
    parts = [_part_facts(part) for part in asked.parts]
    flies = any(part.mission for part in asked.parts)
    ends = takeoff[:2] if flies and takeoff else None
    return digest_of({"format": FORMAT, "parts": parts, "takeoff": ends, "diversions": asked.diversions})


def _part_facts(part: AreaPart) -> dict[str, Fact]:
    return {
        "bbox": part.bbox,
        "geojson": _digests(part.geojson),
        "mission": _digests(part.mission),
        "buffer_m": part.buffer_m,
        "zooms": part.zooms,
    }


def _digests(path: Path | None) -> tuple[Sha256, ...] | None:
    if path is None:
        return None
    from provisioning.area.files import bytes_of

    return tuple(map(sha256_bytes, bytes_of(path)))


def measure_area(asked: config.Area, takeoff: Origin | None = None) -> Area:
    """Return the area that is asked for; AreaError if a file that draws it cannot be understood."""
    from provisioning.area.near import Near, bands_near  # only a new area pays for NumPy

    drawings = [_drawing(part, takeoff, asked.diversions) for part in asked.parts]
    for part, drawing in zip(asked.parts, drawings, strict=True):
        if drawing:
            _check_size(part, drawing)
    shapes = [_shapes(part, drawing) for part, drawing in zip(asked.parts, drawings, strict=True)]
    bands: dict[int, list[tuple[Band, ...]]] = {}
    required: dict[int, list[tuple[Band, ...]]] = {}
    for part, drawing, near in zip(asked.parts, drawings, shapes, strict=True):
        for z in part.zooms:
            bands.setdefault(z, []).extend(_bands(part, near, z))
        if drawing and drawing.routes:
            under = Near(_pieces(drawing.routes, geodesic=drawing.geodesic), (), 0.0)
            required.setdefault(max(part.zooms), []).append(bands_near(under, max(part.zooms)))
    cover = Cover({z: union(found) for z, found in bands.items()})
    drawn = [drawing for drawing in drawings if drawing]
    home = next((d for d in drawn if d.takeoff), None)
    return Area(
        cover=cover,
        bbox=enclosing(_boxes(asked.parts, cover)),
        home=home.takeoff if home else None,
        home_datum=home.takeoff_datum if home else None,
        routes=tuple(_in_e7(route) for drawing in drawn for route in drawing.routes),
        required=Cover({z: union(found) for z, found in required.items()}),
        rings=tuple(map(_in_e7, _rings(asked.parts, drawings))),
        notes=tuple(dict.fromkeys(note for drawing in drawn for note in (*drawing.notes, *_beyond(drawing)))),
    )


def takeoff_tile(cover: Cover, takeoff: Origin) -> tuple[int, int, int] | None:
    """Return z, x, y of the finest tile of an area that holds the take-off point; None if it lies outside.

    A part of the area with finer zoom levels may lie elsewhere: its zoom levels are not asked for there.
    """
    for z in reversed(cover.zooms):
        x, y = tile_at(z, lat_e7=takeoff.lat_e7, lon_e7=takeoff.lon_e7)
        if cover.holds(z, x, y):
            return z, x, y
    return None


def check_takeoff(area: Area, takeoff: Origin | None) -> None:
    """Raise AreaError if the configured take-off point lies outside the area, where no tile could help.

    A point beside the box on a tile that reaches across its edge is outside: so says the verifier.
    """
    if takeoff is None or (area.bbox.holds(takeoff) and takeoff_tile(area.cover, takeoff)):
        return
    raise AreaError(
        "the take-off point lies outside the area",
        key="flight.takeoff",
        facts={
            "take-off": f"{takeoff.lat_e7 / 1e7:.7f}, {takeoff.lon_e7 / 1e7:.7f}",
            "area": ", ".join(f"{side} {e7 / 1e7:.7f}" for side, e7 in area.bbox._asdict().items()),
        },
        next_step="correct flight.takeoff, or extend the area to it (area.bbox, area.buffer_m, or an [[area.part]])",
    )


def _drawing(part: AreaPart, takeoff: Origin | None, diversions: str) -> Drawing | None:
    if part.bbox:
        return None
    from provisioning.area.apart import read_area, read_mission

    if part.geojson:
        return read_area(part.geojson)
    assert part.mission is not None
    return read_mission(part.mission, takeoff=takeoff, diversions=diversions)


def _shapes(part: AreaPart, drawing: Drawing | None) -> tuple[Near, ...]:
    """Return what is drawn as pieces of lines, those with the same ground around them together."""
    from provisioning.area.near import Near

    if drawing is None:
        return ()
    return tuple(
        Near(_pieces(lines, geodesic=drawing.geodesic), polygons, metres + _buffer_m(part))
        for metres, lines, polygons in _groups(drawing)
        if lines
    )


def _bands(part: AreaPart, shapes: tuple[Near, ...], z: int) -> Iterator[tuple[Band, ...]]:
    """Yield the tiles of one part at one zoom."""
    if part.bbox:
        columns, rows = tiles_in_bbox(part.bbox, z)
        yield tuple(Band(left, right, (rows,)) for left, right in columns)
        return
    from provisioning.area.near import bands_near

    found = [bands_near(near, z) for near in shapes]
    if not any(found):
        raise AreaError(
            "the area has no tile", file=part.geojson or part.mission, next_step="draw it below 85 degrees of latitude"
        )
    yield from found


def _buffer_m(part: AreaPart) -> float:
    return MISSION_BUFFER_M * bool(part.mission) if part.buffer_m is None else float(part.buffer_m)


def _groups(drawing: Drawing) -> list[Group]:
    """Return what is drawn, grouped by the metres around it."""
    lines: dict[float, list[Ring]] = {0.0: list(drawing.lines)}
    polygons: dict[float, list[Polygon]] = {0.0: list(drawing.polygons)}
    for margin in drawing.margins:
        lines.setdefault(margin.metres, []).extend(margin.lines)
        polygons.setdefault(margin.metres, []).extend(margin.polygons)
    of_lines = [(metres, tuple(found), ()) for metres, found in lines.items() if found]
    of_polygons = [
        (metres, tuple(ring for polygon in found for ring in polygon), tuple(found))
        for metres, found in polygons.items()
        if found
    ]
    return [*of_lines, *of_polygons]


def _pieces(lines: Iterable[Ring], *, geodesic: bool) -> Floats:
    import numpy as np

    from provisioning.area.corridor import pieces_of

    return np.concatenate([pieces_of(line, geodesic=geodesic) for line in lines])


def _check_size(part: AreaPart, drawing: Drawing) -> None:
    """Raise AreaError before an area is measured that no disk holds, or whose lines go around the world for ever."""
    from provisioning.area.corridor import length_m
    from provisioning.area.ellipsoid import EQUATOR_M

    groups = _groups(drawing)
    measured = [(metres, length_m(lines), polygons) for metres, lines, polygons in groups]
    length = sum(line for _, line, _ in measured)
    finest = max(part.zooms, default=0)
    widest = [line * 2 * (metres + _buffer_m(part)) + _polygons_m2(shapes) for metres, line, shapes in measured]
    tile_m = EQUATOR_M / (1 << finest)
    tiles = sum(widest) / tile_m**2
    edge = sum(length_m(ring for polygon in shapes for ring in polygon) / tile_m * _crossings(shapes)
               for _, _, shapes in groups if shapes)  # fmt: skip
    if length <= MOST_PIECES * 1000 and tiles <= MOST_TILES and len(groups) <= MOST_MARGINS and edge <= MOST_CROSSED:
        return
    raise AreaError(
        "the area is larger than can be measured", file=part.geojson or part.mission,
        facts={"length of its lines": f"{length / 1000:,.0f} km", "tiles, about": f"{tiles:,.0f} at zoom {finest}",
               "circles of different size": len(groups), "edges crossed, about": f"{edge:,.0f}"},
        next_step="check its positions, the zoom levels and buffer_m; split or simplify what is right",
    )  # fmt: skip


def _crossings(polygons: Iterable[Polygon]) -> float:
    """Return how many edges of polygons a parallel that meets them crosses, on average."""
    edges = [(a.lat, b.lat) for polygon in polygons for ring in polygon for a, b in pairwise(ring)]
    south, north = min(map(min, edges)), max(map(max, edges))
    return sum(abs(b - a) for a, b in edges) / max(north - south, 1e-12)


def _polygons_m2(polygons: Iterable[Polygon]) -> float:
    """Return the area of outer rings in the Mercator plane, square metre at the equator: what counts tiles."""
    from provisioning.area.ellipsoid import A

    def mercator(p: Point) -> tuple[float, float]:
        return math.radians(p.lon), math.asinh(math.tan(math.radians(max(-85.0, min(85.0, p.lat)))))

    total = 0.0
    for polygon in polygons:
        corners = [mercator(p) for p in polygon[0]]
        total += abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(corners))) / 2
    return total * A * A


def _beyond(drawing: Drawing) -> Iterator[Note]:
    """Yield what is to be said of lines that reach where no tile is."""
    from provisioning.area.shapes import Note

    latest = max((abs(p.lat) for line in drawing.lines for p in line), default=0.0)
    if latest * 1e7 > MAX_LATITUDE_E7:
        yield Note("", f"reaches {latest:.2f} degrees of latitude: no tile is beyond 85.05", missing=True)


def _rings(parts: Iterable[AreaPart], drawings: Iterable[Drawing | None]) -> Iterator[Ring]:
    """Yield the outlines, counterclockwise, of polygons that are the whole area; none where it is not so simple."""
    polygons: list[Polygon] = []
    for part, drawing in zip(parts, drawings, strict=True):
        if drawing is None or drawing.lines or drawing.margins or part.mission or part.buffer_m:
            return
        polygons += drawing.polygons
    if all(len(polygon) == 1 and all(abs(p.lon) <= 180 for p in polygon[0]) for polygon in polygons):
        for (ring,) in polygons:
            leftwards = sum((q.lon - p.lon) * (q.lat + p.lat) for p, q in pairwise(ring)) < 0
            yield ring if leftwards else ring[::-1]


def _in_e7(route: Ring) -> Route:
    return tuple((round(p.lat * 1e7), wrapped_e7(round(p.lon * 1e7))) for p in route)


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
    arcs = sorted((box.west, box.width_e7) for box in found)
    gap, west = 0, 0
    reach = max(start + width for start, width in arcs)
    for start, width in ((start + TURN_E7, width) for start, width in arcs):
        if start - reach > gap:
            gap, west = start - reach, start
        reach = max(reach, start + width)
    south, north = min(box.south for box in found), max(box.north for box in found)
    if gap <= 0:
        return BBox(-HALF_TURN_E7, south, HALF_TURN_E7, north)
    return BBox(wrapped_e7(west), south, wrapped_e7(west - gap - 1) + 1, north)
