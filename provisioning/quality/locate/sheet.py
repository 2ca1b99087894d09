"""The contact sheet: each photo beside the tiles it was taken for, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from provisioning.quality.locate.photo import turned_north_up
from provisioning.quality.locate.search import Match

CELL = 192
LABEL = 44
GAP = 8
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (120, 120, 120)

Imagery = Callable[[Match], np.ndarray[Any, Any] | None]
"""Returns the tile's image, uint8 [H, W, 3], or None where there is none at hand."""


class Row(NamedTuple):
    """One photo: its name, its pixels uint8 [H, W, 3], what was found; a note on the answer."""

    name: str
    pixels: np.ndarray[Any, Any]
    matches: tuple[Match, ...]
    note: str = ""


def contact_sheet(rows: Sequence[Row], imagery: Imagery) -> bytes:
    """Return a PNG with a line for each photo: the photo north-up as its best match says, then the candidates."""
    columns = 1 + max((len(row.matches) for row in rows), default=0)
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
        for column, match in enumerate(row.matches, 1):
            _cell(sheet, draw, GAP + column * (CELL + GAP), top, imagery(match), _said(match))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


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
