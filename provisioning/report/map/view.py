"""The map section: the finest zoom level large, with its views, scale and key; the others small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from provisioning.report.html import section, text
from provisioning.report.map import mercator
from provisioning.report.map.drawing import date_bins, draw_map, frame_of, takeoff_mark
from provisioning.report.map.moving import bar, layers, toggle
from provisioning.report.model import ReportModel, TileMap


def map_section(model: ReportModel) -> str:
    """Return the section; an empty string if there is nothing to draw."""
    if not model.maps:
        return ""
    finest, *others = sorted(model.maps, key=lambda tiles: -tiles.zoom)
    views = [("imagery", "Imagery")] if model.mosaic else []
    views += [("coverage", "Coverage"), *([("dates", "Capture date")] if date_bins(finest) else [])]
    inputs = "".join(
        f'<input type="radio" name="view" id="show-{name}"{" checked" if place == 0 else ""}>'
        f'<label for="show-{name}">{label}</label>'
        for place, (name, label) in enumerate(views)
    )
    over = list(layers(model, finest))
    boxes, styles = zip(*(toggle(name, label) for name, label in _layer_names(model, finest, over)), strict=True)
    inputs += f'<span class="layers-begin">Layers</span>{"".join(boxes)}<style>{"".join(styles)}</style>'
    drawn = "".join(f'<g class="layer-{name}">{drawing}</g>' for name, _, drawing in over)
    figure = (
        f'<figure>{bar(model)}<div class="frame" style="--ratio:{frame_ratio(model, finest):.3f}">'
        f"{draw_map(model, finest, name='finest', over=drawn)}{_scale(model, finest)}</div>"
        f"{_keys(model, finest)}<figcaption>{text(_map_caption(finest))}</figcaption></figure>"
    )
    small = "".join(
        f"<figure>{draw_map(model, tiles, name=f'zoom-{tiles.zoom}', imagery=False)}"
        f"<figcaption>Zoom {tiles.zoom}</figcaption></figure>"
        for tiles in others
    )
    box = f'<div class="mapbox" role="group" aria-label="Map views">{inputs}{figure}</div>'
    return section("map", "Map", box, f'<div class="small-maps">{small}</div>' if small else "")


def _layer_names(model: ReportModel, tiles: TileMap, over: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    if any(cell.present < cell.expected for cell in tiles.cells):
        yield "gaps", "gaps"
    yield "outline", "area"
    if model.routes or model.takeoff:
        yield "route", "route"
    yield from ((name, label) for name, label, _ in over)


def frame_ratio(model: ReportModel, tiles: TileMap) -> float:
    """Return width by height of the drawing: a tall area must not fill more than a screen."""
    frame = frame_of(tiles, model.manifest.area.bbox_e7)
    return frame.width / frame.height


def _map_caption(tiles: TileMap) -> str:
    if tiles.level == tiles.zoom:
        return f"Zoom {tiles.zoom}, one square for each tile, in Web Mercator, north up."
    side = 1 << (tiles.zoom - tiles.level)
    return f"Zoom {tiles.zoom}, one square for {side} × {side} tiles, in Web Mercator, north up."


def _scale(model: ReportModel, tiles: TileMap) -> str:
    bbox, frame = model.manifest.area.bbox_e7, frame_of(tiles, model.manifest.area.bbox_e7)
    metres = mercator.metres_per_tile((bbox.south + bbox.north) // 2, tiles.level) * frame.width
    length = mercator.round_below(metres / 4)
    return (
        f'<div class="scale" style="width:{100 * length / metres:.2f}%"></div>'
        f"<p>{mercator.distance(length)} at the middle latitude</p>"
    )


def _keys(model: ReportModel, tiles: TileMap) -> str:
    keys = [_key(_swatch("there"), "tiles present")]
    if any(cell.present == 0 for cell in tiles.cells):
        keys.append(_key(_swatch("gap-ground") + _swatch("gap", "finest-gap"), "gap"))
    if any(0 < cell.present < cell.expected for cell in tiles.cells):
        keys.append(_key(_swatch("there") + _swatch("partial", "finest-partial"), "some tiles missing"))
    if model.routes:
        keys.append(_key('<path class="route" d="M2 15 10 6l8 7 8-9"/>', "route"))
    if model.required:
        keys.append(_key(_swatch("required"), "tiles under the route"))
    if model.takeoff:
        keys.append(_key(takeoff_mark("translate(14 10) scale(.5)"), "take-off"))
    if model.marks:
        keys.append(_key('<path class="mark" d="M3 3h22v14H3z"/>', "tile with a remark"))
    keys.append(_key('<path class="outline" d="M2 3h24v14H2z"/>', "area"))
    for number, (first, last) in enumerate(date_bins(tiles)):
        meaning = first if first == last else f"{first} to {last}"
        keys.append(_key(_swatch(f"d{number}"), meaning, "for-dates"))
    if any(cell.present and cell.oldest is None for cell in tiles.cells):
        keys.append(_key(_swatch("there"), "date unknown", "for-dates"))
    return f'<ul class="keys" aria-label="Key to the map">{"".join(keys)}</ul>'


def _key(drawing: str, meaning: str, style: str = "") -> str:
    swatch = f'<svg viewBox="0 0 28 20" aria-hidden="true">{drawing}</svg>'
    return f"<li{f' class={style}' if style else ''}>{swatch}{text(meaning)}</li>"


def _swatch(style: str, pattern: str = "") -> str:
    fill = f' fill="url(#{pattern})"' if pattern else ""
    return f'<path class="{style}"{fill} d="M0 0h28v20H0z"/>'
