"""Ranges of tile ids as squares of tiles: what a run or a leaf directory covers, without counting its tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from provisioning.area.cover import Cover
from provisioning.base.geometry.geo import MAX_ZOOM, tileid_to_zxy, zxy_to_tileid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIMIT = zxy_to_tileid(MAX_ZOOM, 0, 0) * 4 + 1
"""The first id beyond the last zoom."""


def cells(low: int, high: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the ids in [low, high) as squares (z, x, y of the north-west corner, side): the cells of a quadtree."""
    while low < high:
        z, x, y = tileid_to_zxy(low)
        base = ((1 << 2 * z) - 1) // 3
        level = z if low == base else min(z, ((low - base) & (base - low)).bit_length() - 1 >> 1)
        while low + (1 << 2 * level) > high:
            level -= 1
        side = 1 << level
        yield z, x & -side, y & -side, side
        low += side * side


def cells_inside(low: int, high: int, cover: Cover) -> Iterator[tuple[int, int, int, int]]:
    """Yield the largest cells of [low, high) that touch the cover's bands."""
    for z, x, y, side in cells(low, min(high, LIMIT)):
        if cover.touches(z, (x, x + side - 1), (y, y + side - 1)):
            yield z, x, y, side


def tiles_of_run(first: int, run: int, cover: Cover) -> Iterator[tuple[int, int, int]]:
    """Yield the tiles of `cover` among the ids [first, first + run), in time that depends on the cover, not the run."""
    if run == 1 and first < LIMIT:
        z, x, y = tileid_to_zxy(first)
        if cover.holds(z, x, y):
            yield z, x, y
        return
    stack = list(cells_inside(first, first + run, cover))[::-1]
    while stack:
        z, x, y, side = stack.pop()
        if side == 1:
            yield z, x, y
            continue
        half = side // 2
        for left, top in ((x, y), (x + half, y), (x, y + half), (x + half, y + half)):
            if cover.touches(z, (left, left + half - 1), (top, top + half - 1)):
                stack.append((z, left, top, half))


def tiles_of_ids(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return z, x and y of ascending tile ids below `LIMIT`, each int64 [n]: `tileid_to_zxy` of many at a time."""
    import numpy as np

    first_ids = ((1 << 2 * np.arange(MAX_ZOOM + 2)) - 1) // 3
    z = np.searchsorted(first_ids, ids, side="right") - 1
    x, y = np.zeros_like(ids), np.zeros_like(ids)
    for zoom in np.unique(z).tolist():
        here = z == zoom
        x[here], y[here] = _along_curve(zoom, ids[here] - first_ids[zoom])
    return z, x, y


def are_inside(cover: Cover, z: NDArray[np.int64], x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which tiles, z, x and y int64 [n] each, belong to a cover: `Cover.holds` of many at a time."""
    import numpy as np

    inside = np.zeros(len(z), bool)
    for zoom in np.unique(z).tolist():
        bands = cover.bands.get(zoom, ())
        here = np.flatnonzero(z == zoom)
        band_of = np.searchsorted(np.array([band.left for band in bands]), x[here], side="right") - 1
        here, band_of = here[np.argsort(band_of, kind="stable")], np.sort(band_of)
        for tiles, n in zip(*_groups(here, band_of), strict=True):
            if n >= 0:
                rows = y[tiles]
                in_rows = np.logical_or.reduce([(low <= rows) & (rows <= high) for low, high in bands[n].rows])
                inside[tiles] = in_rows & (x[tiles] <= bands[n].right)
    return inside


def _groups(values: NDArray[np.int64], keys: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], list[int]]:
    """Return `values` cut where the ascending `keys` change, and the key of each part."""
    import numpy as np

    starts = np.flatnonzero(np.diff(keys)) + 1
    return np.split(values, starts), keys[np.concatenate(([0], starts))].tolist()


def _along_curve(z: int, position: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return x and y of positions on the Hilbert curve of a zoom level."""
    import numpy as np

    x, y = np.zeros_like(position), np.zeros_like(position)
    for bit in range(z):
        right = position >> 1 & 1
        is_up = (position ^ right) & 1 == 0
        turned = np.where(is_up & (right == 1), (1 << bit) - 1, 0)
        x, y = np.where(turned, turned - x, x), np.where(turned, turned - y, y)
        x, y = np.where(is_up, y, x), np.where(is_up, x, y)
        x, y, position = x | right << bit, y | (~is_up).astype(np.int64) << bit, position >> 2
    return x, y
