"""The map as SVG: cells by coverage and capture date, the imagery behind them, route and take-off point above."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise

from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import BBox
from provisioning.report.map import mercator
from provisioning.report.model import Cell, LonLat, Mosaic, ReportModel, TileMap

DATE_BINS = 5


@dataclass(frozen=True)
class Frame:
    """The drawn part of the world: left and top edge at `level`, in tiles, and units (of 1000 a side) per tile."""

    level: int
    left: float
    top: float
    width: float
    height: float

    @property
    def scale(self) -> float:
        """Drawing units per tile."""
        return 1000 / max(self.width, self.height)

    def x(self, lon_e7: int) -> float:
        """Return the drawing x of a longitude; on the far side of the antimeridian if it is nearer there."""
        column, world = geo.column_at(self.level, lon_e7), 1 << self.level
        middle = self.left + self.width / 2
        column += world * round((middle - column) / world)
        return (column - self.left) * self.scale

    def y(self, lat_e7: int) -> float:
        """Return the drawing y of a latitude."""
        return (geo.row_at(self.level, lat_e7) - self.top) * self.scale


def frame_of(tiles: TileMap, bbox: BBox) -> Frame:
    """Return the frame around all cells and the bounding box, with a margin of a thirtieth."""
    west, east = geo.column_at(tiles.level, bbox.west), geo.column_at(tiles.level, bbox.east)
    east += (1 << tiles.level) * (bbox.west > bbox.east)
    north, south = geo.row_at(tiles.level, bbox.north), geo.row_at(tiles.level, bbox.south)
    left, right = min([west, *(c.x for c in tiles.cells)]), max([east, *(c.x + 1 for c in tiles.cells)])
    top, bottom = min([north, *(c.y for c in tiles.cells)]), max([south, *(c.y + 1 for c in tiles.cells)])
    margin = max(right - left, bottom - top) / 30
    return Frame(tiles.level, left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin)


def cells_path(cells: Iterable[Cell], frame: Frame) -> str:
    """Return SVG path data that covers `cells` (ordered by y, x); neighbours in a row become one rectangle."""
    return "".join(
        f"M{_n((x - frame.left) * frame.scale)} {_n((y - frame.top) * frame.scale)}"
        f"h{_n(count * frame.scale)}v{_n(frame.scale)}h-{_n(count * frame.scale)}z"
        for x, y, count in _runs(cells)
    )


def _runs(cells: Iterable[Cell]) -> Iterator[tuple[int, int, int]]:
    for (y, _), run in groupby(enumerate(cells), key=lambda item: (item[1].y, item[1].x - item[0])):
        row = list(run)
        yield row[0][1].x, y, len(row)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def date_bins(tiles: TileMap) -> tuple[tuple[str, str], ...]:
    """Return at most DATE_BINS (first, last) capture dates, oldest first, that share the distinct dates evenly."""
    dates = sorted({cell.oldest for cell in tiles.cells if cell.oldest is not None})
    count = min(DATE_BINS, len(dates))
    edges = [len(dates) * i // count for i in range(count + 1)] if count else []
    return tuple((dates[first], dates[last - 1]) for first, last in pairwise(edges))


def draw_map(model: ReportModel, tiles: TileMap, *, name: str, imagery: bool = True, over: str = "") -> str:
    """Return the SVG element of one zoom level; `name` makes its ids unique in the page, `over` is laid over it."""
    frame = frame_of(tiles, model.manifest.area.bbox_e7)
    width, height = _n(frame.width * frame.scale), _n(frame.height * frame.scale)
    parts = [
        f'<svg class="map" id="{name}" viewBox="0 0 {width} {height}" role="img"',
        f' aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">Map of the area at zoom {tiles.zoom}',
        f'</title><desc id="{name}-desc">{escape(describe(model, tiles))}</desc>',
        _hatch(name),
        *_ground(tiles, frame, name, model.mosaic if imagery else None),
        over,
        f'<g class="layer-outline"><path class="outline" d="{_outline(model, tiles, frame)}"/></g>',
        '<g class="layer-route">',
        *_lines(model, frame),
        _takeoff(model, frame),
        "</g>",
        "</svg>",
    ]
    return "".join(parts)


def _ground(tiles: TileMap, frame: Frame, name: str, mosaic: Mosaic | None) -> Iterator[str]:
    gaps = cells_path((cell for cell in tiles.cells if cell.present == 0), frame)
    partial = cells_path((cell for cell in tiles.cells if 0 < cell.present < cell.expected), frame)
    there = cells_path((cell for cell in tiles.cells if cell.present), frame)
    yield f'<path class="there" d="{there}"/>'
    if mosaic is not None:
        yield f'<clipPath id="{name}-clip"><path d="{there}"/></clipPath>' + _imagery(mosaic, frame, name)
    yield from _dates(tiles, frame)
    yield f'<g class="layer-gaps"><path class="partial" fill="url(#{name}-partial)" d="{partial}"/>'
    yield f'<path class="gap-ground" d="{gaps}"/><path class="gap" fill="url(#{name}-gap)" d="{gaps}"/></g>'


def _lines(model: ReportModel, frame: Frame) -> Iterator[str]:
    for route in model.routes:
        line = _line(route, frame)
        yield f'<path class="route-halo" d="{line}"/><path class="route" d="{line}"/>'


def describe(model: ReportModel, tiles: TileMap) -> str:
    """Return the map in words, for those who do not see it."""
    present, expected = sum(c.present for c in tiles.cells), sum(c.expected for c in tiles.cells)
    words = [f"{present} of {expected} tiles are there"]
    words.append("no gaps" if present >= expected else f"{expected - present} are missing")
    if model.routes:
        words.append(f"a route of {sum(map(len, model.routes))} points is drawn")
    if model.takeoff:
        words.append(f"take-off at {position(LonLat(model.takeoff.lon_e7, model.takeoff.lat_e7))}")
    return "; ".join(words) + "."


def position(point: LonLat) -> str:
    """Return a point for reading: latitude, longitude."""
    return f"{mercator.degrees(point.lat_e7, 'N', 'S')}, {mercator.degrees(point.lon_e7, 'E', 'W')}"


def _hatch(name: str) -> str:
    return (
        f'<defs><pattern id="{name}-gap" class="hatch" width="10" height="10" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path d="M0 0V10"/></pattern>'
        f'<pattern id="{name}-partial" class="hatch" width="20" height="20" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path d="M0 0V20"/></pattern></defs>'
    )


def _imagery(mosaic: Mosaic, frame: Frame, name: str) -> str:
    ratio = 2.0 ** (frame.level - mosaic.level)
    x, y = (mosaic.left * ratio - frame.left) * frame.scale, (mosaic.top * ratio - frame.top) * frame.scale
    width = (mosaic.right - mosaic.left) * ratio * frame.scale
    height = (mosaic.bottom - mosaic.top) * ratio * frame.scale
    data = base64.b64encode(mosaic.jpeg).decode()
    return (
        f'<image class="imagery" clip-path="url(#{name}-clip)" preserveAspectRatio="none" x="{_n(x)}" y="{_n(y)}" '
        f'width="{_n(width)}" height="{_n(height)}" href="data:image/jpeg;base64,{data}"/>'
    )


def _dates(tiles: TileMap, frame: Frame) -> Iterator[str]:
    for number, (first, last) in enumerate(date_bins(tiles)):
        cells = [cell for cell in tiles.cells if cell.oldest is not None and first <= cell.oldest <= last]
        yield f'<path class="date d{number}" d="{cells_path(cells, frame)}"/>'


def _outline(model: ReportModel, tiles: TileMap, frame: Frame) -> str:
    """Return path data around the area: as it was drawn, its bounding box, or its tiles where they do not fill that."""
    if model.outline:
        return "".join(_line(ring, frame) + "z" for ring in model.outline)
    if not tiles.is_rectangle:
        return borders_path(tiles.cells, frame)
    west, south, east, north = model.manifest.area.bbox_e7
    corners = ((west, north), (east, north), (east, south), (west, south))
    return _line((LonLat(*corner) for corner in corners), frame) + "z"


def borders_path(cells: Iterable[Cell], frame: Frame) -> str:
    """Return SVG path data along every edge that parts a cell from what is no cell; edges in a row become one line."""
    places = {(cell.x, cell.y) for cell in cells}
    across = {(y + side, x) for x, y in places for side in (0, 1) if (x, y + 2 * side - 1) not in places}
    down = {(x + side, y) for x, y in places for side in (0, 1) if (x + 2 * side - 1, y) not in places}
    lines = [(x, y, "h", count) for y, x, count in _straight(across)]
    lines += [(x, y, "v", count) for x, y, count in _straight(down)]
    return "".join(
        f"M{_n((x - frame.left) * frame.scale)} {_n((y - frame.top) * frame.scale)}{along}{_n(count * frame.scale)}"
        for x, y, along, count in lines
    )


def _straight(edges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Join unit edges (line, position) that follow each other into (line, first position, count)."""
    for _, run in groupby(enumerate(sorted(edges)), key=lambda item: (item[1][0], item[1][1] - item[0])):
        joined = [edge for _, edge in run]
        yield *joined[0], len(joined)


def _line(points: Iterable[LonLat], frame: Frame) -> str:
    return "M" + "L".join(f"{_n(frame.x(p.lon_e7))} {_n(frame.y(p.lat_e7))}" for p in points)


def _takeoff(model: ReportModel, frame: Frame) -> str:
    if model.takeoff is None:
        return ""
    x, y = frame.x(model.takeoff.lon_e7), frame.y(model.takeoff.lat_e7)
    return takeoff_mark(f"translate({_n(x)} {_n(y)})")


def takeoff_mark(transform: str) -> str:
    """Return the mark of the take-off point, about its middle."""
    return f'<g class="takeoff" transform="{transform}"><circle r="17"/><path d="M-9 7 0-11 9 7 0 3z"/></g>'
