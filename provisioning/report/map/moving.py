"""What lets the map move and answer: its data, its script, and the source that the content security policy allows."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby

from provisioning.report.html import Markup
from provisioning.report.map import mercator
from provisioning.report.map.drawing import Frame, frame_of
from provisioning.report.model import Cell, ReportModel, TileMap

SCRIPT = files(__package__).joinpath("map.js").read_text(encoding="utf-8")
SCRIPT_SOURCE = "'sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode() + "'"
"""The page runs this script and no other, whatever text of others is in it."""

MOST_MARKS = 3000


def script_and_data(model: ReportModel) -> str:
    """Return the two script elements at the end of the page; an empty string where there is no map."""
    if not model.maps:
        return ""
    text = json.dumps(_data(model), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="map-data">{text}</script><script>{SCRIPT}</script>'


def bar(model: ReportModel) -> Markup:
    """Return the controls of the map, hidden until the script runs, and the line about the tile under the pointer."""
    choices = "".join(f"<option>{tiles.zoom}</option>" for tiles in _finest_first(model.maps))
    return Markup(
        '<div class="map-bar" hidden><button type="button" data-act="in" aria-label="Zoom in">+</button>'
        '<button type="button" data-act="out" aria-label="Zoom out">−</button>'
        '<button type="button" data-act="all">All</button>'
        f'<label for="map-zoom">Tiles of zoom</label><select id="map-zoom">{choices}</select>'
        '<output aria-live="polite">Point at the map, or focus it and use arrow keys, + and −.</output></div>'
    )


def layers(model: ReportModel, tiles: TileMap) -> Iterator[tuple[str, str, str]]:
    """Yield (name, label, SVG) of what can be laid over the finest map besides gaps and route."""
    frame = frame_of(tiles, model.manifest.area.bbox_e7)
    for other in model.maps:
        missing = [cell for cell in other.cells if cell.present < cell.expected]
        if other.zoom != tiles.zoom and missing:
            path = "".join(_square(frame, other.level, cell.x, cell.y) for cell in missing)
            yield f"zoom-{other.zoom}-gaps", f"gaps at zoom {other.zoom}", f'<path class="other-gap" d="{path}"/>'
    under = "".join(_square(frame, of.level, cell.x, cell.y) for of in model.required for cell in of.cells)
    if under:
        yield "required", "tiles under the route", f'<path class="required" d="{under}"/>'
    for name in sorted({mark.layer for mark in model.marks}):
        path = "".join(
            _square(frame, mark.z, mark.x, mark.y) for mark in model.marks[:MOST_MARKS] if mark.layer == name
        )
        style = "".join(sign if sign.isalnum() else "-" for sign in name)
        yield f"marks-{style}", name, f'<path class="mark" d="{path}"/>'


def _square(frame: Frame, level: int, x: int, y: int) -> str:
    """Return SVG path data around a tile of any level; on the far side of the antimeridian if it is nearer there."""
    side = 2.0 ** (frame.level - level)
    world, middle = float(1 << frame.level), frame.left + frame.width / 2
    left = x * side
    left += world * round((middle - left) / world)
    corner = ((left - frame.left) * frame.scale, (y * side - frame.top) * frame.scale)
    size = side * frame.scale
    return f"M{corner[0]:.2f} {corner[1]:.2f}h{size:.2f}v{size:.2f}h-{size:.2f}z"


def _finest_first(maps: Sequence[TileMap]) -> list[TileMap]:
    return sorted(maps, key=lambda tiles: -tiles.zoom)


def _data(model: ReportModel) -> dict[str, object]:
    """Return the cells of every zoom level as runs [row, column, count, present, expected, date, source]."""
    maps = _finest_first(model.maps)
    bbox = model.manifest.area.bbox_e7
    frame = frame_of(maps[0], bbox)
    dates = sorted({cell.oldest for tiles in maps for cell in tiles.cells if cell.oldest})
    sources = sorted({", ".join(cell.sources) for tiles in maps for cell in tiles.cells})
    tiles_across = max(frame.width, frame.height) * 2 ** (maps[0].zoom - frame.level)
    return {
        "frame": {"level": frame.level, "left": frame.left, "top": frame.top, "scale": frame.scale},
        "metres": mercator.metres_per_tile((bbox.south + bbox.north) // 2, frame.level) * frame.width,
        "most": max(2, round(tiles_across / 3)),
        "maps": [
            {"zoom": tiles.zoom, "level": tiles.level, "runs": list(_runs(tiles.cells, dates, sources))}
            for tiles in maps
        ],
        "dates": dates,
        "sources": sources,
        "marks": [[m.z, m.x, m.y, f"{m.layer}: {m.detail}" if m.detail else m.layer] for m in model.marks[:MOST_MARKS]],
    }


def _runs(cells: Sequence[Cell], dates: list[str], sources: list[str]) -> Iterator[list[int]]:
    day, source = ({name: number for number, name in enumerate(names)} for names in (dates, sources))

    def alike(item: tuple[int, Cell]) -> tuple[int, int, int, int, int, int]:
        at, cell = item
        fields = (day[cell.oldest] if cell.oldest else -1, source[", ".join(cell.sources)])
        return (cell.y, cell.x - at, cell.present, cell.expected, *fields)

    for (y, _, *rest), group in groupby(enumerate(cells), key=alike):
        run = [cell for _, cell in group]
        yield [y, run[0].x, len(run), *rest]


def toggle(name: str, label: str) -> tuple[str, str]:
    """Return the checkbox of a layer and the style that hides the layer while the box is not checked."""
    box = f'<input type="checkbox" id="layer-{name}" checked><label for="layer-{name}">{escape(label)}</label>'
    return box, f"#layer-{name}:not(:checked) ~ figure .layer-{name} {{ display: none }}"
