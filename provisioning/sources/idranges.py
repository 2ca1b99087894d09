"""Ranges of tile ids as squares of tiles: what a run or a leaf directory covers, without counting its tiles."""

from __future__ import annotations

from collections.abc import Iterator

from provisioning.area.cover import Cover
from provisioning.base.geo import MAX_ZOOM, tileid_to_zxy, zxy_to_tileid

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
