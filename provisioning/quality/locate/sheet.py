"""The contact sheet: each photo beside the tiles it was taken for and a map with the answers, as one PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import E7
from provisioning.quality.locate.photo import turned_north_up
from provisioning.quality.locate.search import Match, fractional_tile

CELL = 192
LABEL = 44
GAP = 8
MAP_TILES = 3
"""Tiles that the map spans to each side."""
ARM = 9
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (120, 120, 120)
ANSWER, TRUTH = (220, 20, 20), (20, 90, 255)

Imagery = Callable[[Match], np.ndarray[Any, Any] | None]
"""Returns the tile's image, uint8 [H, W, 3], or None where there is none at hand."""


class Row(NamedTuple):
    """One photo: its name, its pixels uint8 [H, W, 3], what was found; a note on the answer; where it says it was."""

    name: str
    pixels: np.ndarray[Any, Any]
    matches: tuple[Match, ...]
    note: str = ""
    position: Origin | None = None


def contact_sheet(rows: Sequence[Row], imagery: Imagery) -> bytes:
    """Return a PNG with a line for each photo: north-up as its best match says, then the map, then the candidates."""
    columns = 2 + max((len(row.matches) for row in rows), default=0)
    size = (columns * (CELL + GAP) + GAP, len(rows) * (CELL + LABEL + GAP) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, row in enumerate(rows):
        top = GAP + line * (CELL + LABEL + GAP)
        heading = row.matches[0].heading_deg if row.matches else 0.0
        _cell(
            sheet,
            draw,
            GAP,
            top,
            turned_north_up(row.pixels, heading),
            [row.name, f"top to {heading:.0f}°{row.note and ', ' + row.note}"],
        )
        if row.matches:
            _cell(sheet, draw, 2 * GAP + CELL, top, _map(row, imagery), _legend(row))
        for column, match in enumerate(row.matches, 2):
            _cell(sheet, draw, GAP + column * (CELL + GAP), top, imagery(match), _said(match))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def map_tiles(match: Match) -> list[Match]:
    """Return the tiles of the map around the position of a match: what it needs imagery of."""
    (left, top), side = _corner(match), 1 << match.z
    columns, rows = (range(math.floor(each), math.floor(each) + MAP_TILES + 1) for each in (left, top))
    return [match._replace(x=x % side, y=y, cut=0) for y in rows if 0 <= y < side for x in columns]


def _corner(match: Match) -> tuple[float, float]:
    """Return the north-western corner of the map, in tile coordinates."""
    x, y = match.tile_xy
    return x - MAP_TILES / 2, y - MAP_TILES / 2


def _map(row: Row, imagery: Imagery) -> np.ndarray[Any, Any]:
    """Return the imagery around the first answer, uint8 [CELL, CELL, 3], with the answers and the photo's own place."""
    first, tile_px, side = row.matches[0], CELL / MAP_TILES, 1 << row.matches[0].z
    left, top = _corner(first)
    image = Image.new("RGB", (CELL, CELL), PAPER)
    for tile in map_tiles(first):
        found = imagery(tile)
        if found is not None:
            east = (tile.x - left + side / 2) % side - side / 2
            edge = math.ceil(tile_px)
            at = round(east * tile_px), round((tile.y - top) * tile_px)
            image.paste(Image.fromarray(found).resize((edge, edge)), at)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for rank, match in reversed(list(enumerate(row.matches, 1))):
        x, y = fractional_tile(first.z, match.position)
        _mark(draw, ((x - left) * tile_px, (y - top) * tile_px), ANSWER if rank == 1 else INK, str(rank), font)
    if row.position is not None:
        x, y = (
            (each - corner) * tile_px
            for each, corner in zip(fractional_tile(first.z, row.position), (left, top), strict=True)
        )
        draw.ellipse((x - ARM, y - ARM, x + ARM, y + ARM), outline=TRUTH, width=3)
    return np.asarray(image)


def _mark(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], colour: tuple[int, int, int], name: str, font: Any
) -> None:
    x, y = at
    draw.line((x - ARM, y, x + ARM, y), colour, 3)
    draw.line((x, y - ARM, x, y + ARM), colour, 3)
    draw.text((x + 3, y), name, colour, font, stroke_width=2, stroke_fill=PAPER)


def _legend(row: Row) -> list[str]:
    """Return what the map shows."""
    lat, lon = row.matches[0].position.lat_e7 / E7, row.matches[0].position.lon_e7 / E7
    truth = "" if row.position is None else "ring: the photo's own place"
    return [f"+ {lat:.5f}, {lon:.5f}", truth or "crosses: the answers"]


def _said(match: Match) -> list[str]:
    away = "" if match.distance_m is None else f"  {match.distance_m:,.0f} m"
    return [match.name, f"{match.similarity:.3f}{away}"]


def _cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    pixels: np.ndarray[Any, Any] | None,
    lines: Sequence[str],
) -> None:
    font = ImageFont.load_default(14)
    if pixels is None:
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=FAINT)
        draw.text((left + GAP, top + CELL // 2), "no imagery at hand", FAINT, font)
    else:
        image = Image.fromarray(pixels)
        image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        sheet.paste(image.resize((CELL, CELL)) if image.size != (CELL, CELL) else image, (left, top))
    for number, text in enumerate(lines):
        draw.text((left, top + CELL + 4 + number * 18), _shortened(text, font), INK, font)


def _shortened(text: str, font: Any) -> str:
    """Return `text`, its middle left out until it fits a cell."""
    shown, kept = text, len(text)
    while font.getlength(shown) > CELL and kept > 8:
        kept -= 2
        shown = f"{text[: kept // 2]}…{text[-kept // 2 :]}"
    return shown
