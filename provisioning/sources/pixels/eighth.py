"""What a JPEG tile shows, found from an eighth of its size: half the time of decoding all of it, with the same result.

At that scale each pixel is the mean of one block, which a JPEG stores as such (its DC coefficient). All of the file is
read, so that what is damaged is noticed. Where the means leave it open whether a block is blank or the tile flat,
`inspect_tile` looks at every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, isqrt
from typing import TYPE_CHECKING

from provisioning.sources.pixels.image import (
    BLACK,
    BLOCK,
    DETAILED,
    FLAT,
    FLAT_SHARE,
    MOST_SCANS,
    ONE_COLOUR,
    WHITE,
    Inspection,
    inspect_tile,
    scans_of,
)
from provisioning.sources.pixels.likeness import perceptual_hashes_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

LEAST_SIDE = 128
"""Pixels of the tile; smaller ones take no time."""
TEXTURED_CENTI = 600
"""Hundredths of a grey level: a tile whose block means spread so far has more than any limit of texture asks for."""
SUBSAMPLINGS = ("444", "420", "Gray")
"""With others the colour of a block's neighbours reaches into its mean (by 160 levels, measured)."""
ROUNDING = 2
"""Levels by which a mean may differ from a block's pixels, all being the same: 2 in 100,000 blocks (measured)."""


def inspect_tiles(
    data: Sequence[bytes], *, max_pixels: int, nodata: tuple[int, ...], blank: bool = True
) -> list[Inspection]:
    """Return what `inspect_tile` finds of each tile; the texture is that of the block means where these suffice."""
    found: dict[int, Inspection] = {}
    for numbers, pixels in _stacks(data, max_pixels) if not nodata else ():
        found.update((numbers[n], verdict) for n, verdict in _verdicts(pixels, blank=blank))
    return [
        found[n] if n in found else inspect_tile(each, max_pixels=max_pixels, nodata=nodata, blank=blank)
        for n, each in enumerate(data)
    ]


def _stacks(data: Sequence[bytes], max_pixels: int) -> Iterator[tuple[list[int], Pixels]]:
    """Yield tiles of one size together: their positions in `data`, and their pixels, uint8 [n, H / 8, W / 8, 3]."""
    import numpy as np

    of_size: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
    for n, each in enumerate(data):
        pixels = _eighth(each, max_pixels)
        if pixels is not None:
            of_size.setdefault(pixels.shape, []).append((n, pixels))
    for found in of_size.values():
        yield [n for n, _ in found], np.stack([pixels for _, pixels in found])


def _eighth(data: bytes, max_pixels: int) -> Pixels | None:
    """Return a JPEG's block means, uint8 [H / 8, W / 8, 3]; None if it is none, or must be looked at whole."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    import simplejpeg

    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(data)
        is_usual = min(height, width) >= LEAST_SIDE and not (height % BLOCK or width % BLOCK)
        is_usual &= subsampling in SUBSAMPLINGS and colours not in ("CMYK", "YCCK")
        if not is_usual or height * width > max_pixels or scans_of(data) > MOST_SCANS:
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height // BLOCK, min_width=width // BLOCK)
    except Exception:  # noqa: BLE001 - looking at it whole says what is the matter
        return None
    return pixels if pixels.shape == (height // BLOCK, width // BLOCK, 3) else None


def _verdicts(pixels: Pixels, *, blank: bool) -> Iterator[tuple[int, Inspection]]:
    """Yield position and verdict of the tiles that, as their block means tell, are textured and nowhere blank."""
    import numpy as np

    bands = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))
    textures = _textures_centi(bands)
    sure = np.array(textures) >= TEXTURED_CENTI
    if blank:
        sure &= _are_full(bands)
    hashes = perceptual_hashes_of(bands) if blank else [None] * len(pixels)
    for n in np.flatnonzero(sure).tolist():
        yield n, Inspection(0, textures[n], None, hashes[n])


def _textures_centi(bands: Pixels) -> list[int]:
    """Return the standard deviation of the grey levels of each tile in hundredths, in integers."""
    import numpy as np

    grey = bands.sum(axis=0, dtype=np.uint16).reshape(bands.shape[1], -1)
    totals, count = grey.sum(axis=1, dtype=np.uint64).tolist(), grey.shape[1]
    levels = grey.astype(np.float64)  # the sum of their squares is a whole number below 2**53: exact
    squares = map(int, np.einsum("ij,ij->i", levels, levels))
    return [
        isqrt(10_000 * (count * square - total * total)) // (3 * count)
        for total, square in zip(totals, squares, strict=True)
    ]


def _are_full(bands: Pixels) -> NDArray[np.bool_]:
    """Return of which tiles it is certain that no block is black or white, nor the tile of one colour or cut by a seam.

    Beyond a seam nine in ten blocks of a row or column are of one colour, and with them most neighbours in it.
    """
    import numpy as np

    _, count, height, width = bands.shape
    whole = bands.reshape(3, count, -1)
    darkest, brightest = whole.max(axis=0).min(axis=1), whole.min(axis=0).max(axis=1)
    is_lit = (darkest > BLACK + ROUNDING) & (brightest < WHITE - ROUNDING)
    spread = (whole.max(axis=2) - whole.min(axis=2)).max(axis=0) > ONE_COLOUR + 2 * ROUNDING
    in_rows, in_columns = _alike(bands, 1) @ _but_last(width), _but_last(height) @ _alike(bands, width)
    rows = height - np.count_nonzero(in_rows >= _most_neighbours(width), axis=1)
    columns = width - np.count_nonzero(in_columns >= _most_neighbours(height), axis=1)
    full: NDArray[np.bool_] = is_lit & spread & (rows * columns > (1 - FLAT_SHARE) * height * width)
    return full


def _alike(bands: Pixels, step: int) -> NDArray[np.float32]:
    """Return 1 for each block that has the colour of the one so many steps on, or nearly; behind the last it is 0.

    All are compared in one go, the end of a row with the beginning of the next, too: who asks leaves these out.
    """
    import numpy as np

    flat = bands.reshape(3, -1)
    here, next_ = flat[:, :-step], flat[:, step:]
    apart = (np.maximum(here, next_) - np.minimum(here, next_)).max(axis=0)
    alike = np.zeros(flat.shape[1], np.float32)
    np.less_equal(apart, 4 * FLAT + ROUNDING, out=alike[:-step], casting="unsafe")
    return alike.reshape(bands.shape[1:])


def _but_last(side: int) -> NDArray[np.float32]:
    """Return the weights that count all but the last of a row."""
    import numpy as np

    weights = np.ones(side, np.float32)
    weights[-1] = 0
    return weights


def _most_neighbours(side: int) -> int:
    """Return how many pairs of neighbours are alike at least, where more than 1 - DETAILED of `side` blocks are."""
    return side - 1 - 2 * (ceil(DETAILED * side) - 1)
