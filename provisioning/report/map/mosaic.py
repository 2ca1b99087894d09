"""The imagery of the area in one small JPEG, from at most some thousand tiles."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from provisioning.report.model import Mosaic
from provisioning.sources.pixels.image import PILLOW_FORMATS

if TYPE_CHECKING:
    from PIL.Image import Image

Thumbnail = Callable[[int, int, int], "bytes | None"]
"""Called with (z, x, y); returns the encoded image of a tile of the corpus, or None where there is none."""

MAX_PIXELS_ACROSS: Final = 1024
MAX_TILES_READ: Final = 1600
MAX_BYTES: Final = 800_000
PICTURE_SIDE: Final = 96
MOST_PICTURED: Final = 64
MAX_PICTURE_BYTES: Final = 2_400
"""Of one tile. The mosaic and two pictures for each of MOST_PICTURED tiles in base64 keep the report below 1.6 MB."""
QUALITIES: Final = (72, 55, 40, 25, 12)
PIECE_BLOCKS: Final = 4
"""Of 16 pixels a side, in one piece of a JPEG."""
SCAN: Final = 0xDA
"""The marker before the coded pixels."""
PAPER: Final = (128, 132, 126)


def make_mosaic(zoom: int, bounds: tuple[int, int, int, int], thumbnail: Thumbnail) -> Mosaic | None:
    """Return the mosaic of the tiles of `zoom` within `bounds`, or None if there is no tile.

    `bounds` are (left, top, right, bottom) in tiles, right and bottom excluded; columns from 2**zoom on lie beyond
    the antimeridian. In large areas one tile stands for a square of several.
    """
    left, top, right, bottom = bounds
    width, height = right - left, bottom - top
    step = _step(width, height)
    side = max(1, min(256, MAX_PIXELS_ACROSS * step // max(width, height)))
    columns, rows = -(-width // step), -(-height // step)
    paper = _paper(columns * side, rows * side)
    pasted = 0
    for column, row, image in _images(zoom, bounds, step, side, thumbnail):
        paper.paste(image, (column * side, row * side))
        pasted += 1
    if not pasted:
        return None
    return Mosaic(
        jpeg=_encode(paper, MAX_BYTES),
        level=zoom,
        left=left,
        top=top,
        right=left + columns * step,
        bottom=top + rows * step,
    )


def small_picture(data: bytes) -> bytes | None:
    """Return an encoded tile as a JPEG of PICTURE_SIDE pixels; None if this decoder cannot read it."""
    image = _small(data, PICTURE_SIDE)
    return None if image is None else _encode(image, MAX_PICTURE_BYTES)


def mosaic_places(bounds: tuple[int, int, int, int]) -> frozenset[tuple[int, int]]:
    """Return the (x, y) that `make_mosaic` may ask for, x unrolled past the antimeridian: of a large area, a few."""
    left, top, right, bottom = bounds
    step = _step(right - left, bottom - top)
    return frozenset(
        (x + dx, y + dy)
        for dx, dy in _candidates(step)
        for y in range(top, bottom, step)
        for x in range(left, right, step)
    )


def mosaic_zoom(sizes: dict[int, tuple[int, int]]) -> int:
    """Return which of the zoom levels, given with their (width, height) in tiles, makes the best picture.

    The finest whose tiles can all be read, for the map shows what it holds; else the coarsest that fills the picture.
    """
    filling = [zoom for zoom, size in sizes.items() if max(size) * 256 >= MAX_PIXELS_ACROSS]
    readable = [zoom for zoom in filling if sizes[zoom][0] * sizes[zoom][1] <= MAX_TILES_READ]
    return max(readable, default=min(filling, default=max(sizes)))


def _step(width: int, height: int) -> int:
    step = 1
    while -(-width // step) * -(-height // step) > MAX_TILES_READ:
        step += 1
    return step


def _paper(width: int, height: int) -> Image:
    from PIL import Image

    return Image.new("RGB", (width, height), PAPER)


def _images(
    zoom: int, bounds: tuple[int, int, int, int], step: int, side: int, thumbnail: Thumbnail
) -> Iterator[tuple[int, int, Image]]:
    left, top, right, bottom = bounds
    for row in range(-(-(bottom - top) // step)):
        for column in range(-(-(right - left) // step)):
            for dx, dy in _candidates(step):
                x, y = left + column * step + dx, top + row * step + dy
                data = thumbnail(zoom, x % (1 << zoom), y) if x < right and y < bottom else None
                image = None if data is None else _small(data, side)
                if image is not None:
                    yield column, row, image
                    break


def _candidates(step: int) -> list[tuple[int, int]]:
    """Return at most 16 places within a square of `step` tiles, the middle ones first."""
    ticks = sorted({(2 * i + 1) * step // 8 for i in range(4)})
    places = [(dx, dy) for dy in ticks for dx in ticks]
    return sorted(places, key=lambda place: (abs(2 * place[0] + 1 - step) + abs(2 * place[1] + 1 - step), place))


def _small(data: bytes, side: int) -> Image | None:
    """Return the tile at the size of the mosaic; None if this decoder cannot read what the scan accepted."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
            image.draft("RGB", (side, side))  # JPEG: decodes at an eighth to a half of the size
            seen = image.convert("RGBA").resize((side, side), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError):
        return None
    flat = Image.new("RGBA", seen.size, (*PAPER, 255))
    flat.alpha_composite(seen)
    return flat.convert("RGB")


def _encode(paper: Image, most: int) -> bytes:
    """Return JPEG bytes, `most` of them where that can be had: noisy imagery is compressed harder."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        paper.save(buffer, "JPEG", quality=quality, optimize=False, restart_marker_blocks=PIECE_BLOCKS)
        data = _in_thirds(buffer.getvalue())
        if len(data) <= most:
            break
    return data


def _in_thirds(jpeg: bytes) -> bytes:
    """Return the JPEG with fill bytes before its restart markers, so that each piece begins at a multiple of 3 bytes.

    A piece is coded by itself, and so is its base64: where a tile changes, a delta of the page carries its pieces.
    """
    at = 2
    while jpeg[at + 1] != SCAN:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    first, *others = re.split(rb"(?=\xff[\xd0-\xd7])", jpeg[at:])
    parts = bytearray(jpeg[:at] + first)
    for piece in others:
        parts += b"\xff" * (-len(parts) % 3) + piece
    return bytes(parts)
