"""A perceptual hash of 32 bytes, and which of many pictures are the same one, compressed again or slightly changed.

The hash is what of an image survives compression and a few other letters of text: its mean colour, its contrast and the
coarse frequencies of its brightness. Brightness that only rises evenly over the image is left out: calm water and
snow have none, and are never taken for one picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from math import pi
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

CELLS = 8
"""Cells a side over which brightness is averaged."""
COEFFICIENTS = 28
PERCEPTUAL_HASH_BYTES = 4 + COEFFICIENTS
LEAST_CONTRAST = 0.4
"""Levels (0 to 255), root mean square over the cells, below which an image has none."""
COSINE = 0.95
COLOUR, CONTRAST = 5, 1.25
"""Levels by which the mean colours of one picture may differ, and the factor for its contrast."""
BANDS, BAND_BITS = 4, 14
"""Sorted orders in which like hashes are sought, and hyperplanes of each: one misses a third of the pairs at 0.995."""
NEIGHBOURS = 3
CHUNK = 50_000


def perceptual_hash_of(pixels: NDArray[np.uint8]) -> bytes | None:
    """Return the perceptual hash of an image, uint8 [H, W, 3]; None if it is too smooth or too small to have one."""
    return perceptual_hashes_of(pixels.transpose(2, 0, 1)[:, None])[0]


def perceptual_hashes_of(bands: NDArray[np.uint8]) -> list[bytes | None]:
    """Return the perceptual hashes of images of one size, their red, green and blue uint8 [3, n, H, W]."""
    import numpy as np

    step = 2 if min(bands.shape[2:]) >= 128 else 1
    seen = np.ascontiguousarray(bands[..., ::step, ::step])
    if min(seen.shape[2:]) < CELLS:
        return [None] * bands.shape[1]
    cells = _cells_of(seen)
    waves = (_waves() @ _without_slope((cells[0] + cells[1] + cells[2]) / 3) @ _waves().T).reshape(bands.shape[1], -1)[
        :, _order()
    ]
    norms = np.sqrt((waves * waves).sum(axis=1))
    colours = cells.mean(axis=(2, 3)).T.round().astype(np.uint8)
    contrasts = (norms / CELLS * 4).round().clip(0, 255).astype(np.uint8)
    scaled = (waves / np.maximum(norms, 1)[:, None] * 127).round().astype(np.int8)
    packed = np.concatenate([colours, contrasts[:, None], scaled.view(np.uint8)], axis=1)
    return [
        perceptual_hash.tobytes() if norm >= LEAST_CONTRAST * CELLS else None
        for perceptual_hash, norm in zip(packed, norms.tolist(), strict=True)
    ]


def _cells_of(bands: NDArray[np.uint8]) -> Floats:
    """Return the means over `CELLS` x `CELLS` parts of each band, float32 [3, n, CELLS, CELLS].

    Where a part has a power of two of pixels, all sums are exact, so that the order in which they are made is free.
    """
    import numpy as np

    height, width = bands.shape[2:]
    down, across = height // CELLS, width // CELLS
    if height % CELLS or width % CELLS or down & (down - 1) or across & (across - 1):
        weighed: Floats = _means(height) @ bands.astype(np.float32) @ _means(width).T
        return weighed
    # Once: each sum with a cast would take three times as long.
    values = bands.astype(np.uint32 if down > 256 else np.uint16)
    rows = _sum_of([values[:, :, n::down] for n in range(down)])
    means: Floats = _sum_of([rows[..., n::across] for n in range(across)], np.uint32).astype(np.float32)
    means /= down * across
    return means


def _sum_of(parts: Sequence[NDArray[Any]], kind: type | None = None) -> NDArray[Any]:
    import numpy as np

    total: NDArray[Any] = parts[0].astype(kind or parts[0].dtype)
    for part in parts[1:]:
        np.add(total, part, out=total)
    return total


@cache
def _means(side: int) -> Floats:
    """Return the matrix that averages `side` values to `CELLS`, each of the same share of them."""
    import numpy as np

    edges = np.arange(CELLS + 1) * side / CELLS
    ends = np.minimum(np.arange(side)[None] + 1, edges[1:, None])
    shares = np.clip(ends - np.maximum(np.arange(side)[None], edges[:-1, None]), 0, 1) * CELLS / side
    means: Floats = shares.astype(np.float32)
    return means


def _without_slope(cells: Floats) -> Floats:
    """Return brightness, float32 [n, CELLS, CELLS], without its even rise along either side."""
    import numpy as np

    line = np.arange(CELLS, dtype=np.float32) - (CELLS - 1) / 2
    line /= np.sqrt((line * line).sum())
    down, across = cells.mean(axis=2) @ line, cells.mean(axis=1) @ line
    flat: Floats = cells - down[:, None, None] * line[:, None] - across[:, None, None] * line
    return flat


@cache
def _waves() -> Floats:
    """Return the orthonormal cosine transform of `CELLS` values (DCT-II)."""
    import numpy as np

    k, n = np.arange(CELLS)[:, None], np.arange(CELLS)[None]
    waves = np.cos(pi * k * (2 * n + 1) / (2 * CELLS)) * np.sqrt(np.where(k == 0, 1, 2) / CELLS)
    return waves.astype(np.float32)


@cache
def _order() -> NDArray[np.int64]:
    """Return where the coarsest frequencies stand: the mean and the even rise along either side left out."""
    import numpy as np

    places = sorted((i + j, i, j) for i in range(CELLS) for j in range(CELLS) if i + j > 1)
    return np.array([i * CELLS + j for _, i, j in places[:COEFFICIENTS]])


def alike(hashes: NDArray[np.uint8], places: NDArray[np.int64], *, least: int) -> list[list[int]]:
    """Return groups of positions in `hashes` that show one picture in at least `least` different `places`.

    `hashes` is uint8 [n, PERCEPTUAL_HASH_BYTES], `places` int64 [n].

    Pairs are found among neighbours in several sorted orders, not among all pairs: a million hashes take seconds.
    """
    import numpy as np

    head, waves = hashes[:, :4].astype(np.int16), np.ascontiguousarray(hashes[:, 4:]).view(np.int8)
    group = _Groups()
    for order in _orders(waves):
        sorted_head = head[order]
        for shift in range(1, NEIGHBOURS + 1):
            near = _have_one_tone(sorted_head[:-shift], sorted_head[shift:])
            left, right = order[near], order[near + shift]
            same = np.einsum("ij,ij->i", waves[left], waves[right], dtype=np.int32, casting="unsafe") >= COSINE * 127**2
            for a, b in zip(left[same].tolist(), right[same].tolist(), strict=True):
                group.join(a, b)
    return [found for found in group.all() if len(set(places[found].tolist())) >= least]


def _orders(waves: NDArray[np.int8]) -> Iterator[NDArray[np.int64]]:
    """Yield sorted orders of hashes: by the sides of hyperplanes they lie on, and along a line within those."""
    import numpy as np

    random = np.random.default_rng(17)
    planes = [random.standard_normal((COEFFICIENTS, BAND_BITS + 1)).astype(np.float32) for _ in range(BANDS)]
    keys, along = np.empty((BANDS, len(waves)), np.uint16), np.empty((BANDS, len(waves)), np.float32)
    for at in range(0, len(waves), CHUNK):
        some = waves[at : at + CHUNK].astype(np.float32)
        for band in range(BANDS):
            sides = some @ planes[band]
            bits = np.packbits(sides[:, :-1] > 0, axis=1, bitorder="little")
            keys[band, at : at + CHUNK] = np.ascontiguousarray(bits).view("<u2")[:, 0]
            along[band, at : at + CHUNK] = sides[:, -1]
    for band in range(BANDS):
        yield np.lexsort((along[band], keys[band]))


def _have_one_tone(a: NDArray[np.int16], b: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return the positions at which mean colour and contrast, int16 [n, 4], are those of one picture."""
    import numpy as np

    near = np.flatnonzero(np.abs(a[:, 0] - b[:, 0]) <= COLOUR)
    a, b = a[near], b[near]
    colour = np.abs(a[:, :3] - b[:, :3]).max(axis=1, initial=0) <= COLOUR
    contrast = np.maximum(a[:, 3], b[:, 3]) <= CONTRAST * np.minimum(a[:, 3], b[:, 3]) + 1
    same: NDArray[np.int64] = near[colour & contrast]
    return same


class _Groups:
    """Disjoint sets of positions."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def _root(self, i: int) -> int:
        while (above := self._parent.setdefault(i, i)) != i:
            self._parent[i] = self._parent[above]
            i = above
        return i

    def join(self, a: int, b: int) -> None:
        self._parent[self._root(a)] = self._root(b)

    def all(self) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for i in sorted(self._parent):
            found.setdefault(self._root(i), []).append(i)
        return list(found.values())
