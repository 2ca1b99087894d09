"""Which row of the index is which tile at which heading, in ascending order of ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provisioning.errors import IndexError_

HEADING_BITS = 6
SOURCE_BITS = 8
Int64s = NDArray[np.int64]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Gather = Callable[[slice | Int64s], Floats]
"""Descriptors of the given rows of an index: float32 [m, d]."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an index in ascending order of `ids` (int64 [n]); `shas` (uint8 [n, 32]) are the tiles' digests."""

    ids: Int64s
    shas: Bytes

    @property
    def headings(self) -> Int64s:
        """Number of the heading of each row, int64 [n]."""
        return self.ids & ((1 << HEADING_BITS) - 1)

    def gather(self, stores: Sequence[Callable[[Sequence[bytes]], Floats]]) -> Gather:
        """Return the gatherer over `stores`, one per heading, each from tile digests to descriptors."""

        def rows(which: slice | Int64s) -> Floats:
            keys, headings = self.shas[which], self.headings[which]
            if len(stores) == 1:
                return stores[0]([key.tobytes() for key in keys])
            return _from_each(stores, keys, headings)

        return rows


def _from_each(stores: Sequence[Callable[[Sequence[bytes]], Floats]], keys: Bytes, headings: Int64s) -> Floats:
    found: Floats | None = None
    for heading, store in enumerate(stores):
        mine = np.flatnonzero(headings == heading)
        if len(mine):
            part = store([key.tobytes() for key in keys[mine]])
            found = np.empty((len(keys), part.shape[1]), np.float32) if found is None else found
            found[mine] = part
    return np.empty((0, 0), np.float32) if found is None else found


def rows_of(tiles: Iterable[tuple[int, int, int, str, str]], sources: Sequence[str], *, rotations: int = 1) -> Rows:
    """Return the rows of `tiles` (z, x, y, source, SHA-256 in hex), each at `rotations` headings.

    `sources` numbers the source names as in the ids. Raises IndexError_ for a tile named twice.
    """
    number = {name: place for place, name in enumerate(sources)}
    places, shas = [], bytearray()
    for z, x, y, source, sha in tiles:
        places.append((z, x, y, number[source]))
        shas += bytes.fromhex(sha)
    z, x, y, source_number = np.array(places, np.int64).reshape(-1, 4).T
    base = pack_ids(z, x, y, source_number)
    ids = (base[:, None] | np.arange(rotations)).ravel()
    order = np.argsort(ids, kind="stable")
    digests = np.frombuffer(bytes(shas), np.uint8).reshape(-1, 32)
    return Rows(check_ids(ids[order]), digests[order // rotations])


def pack_ids(z: Int64s, x: Int64s, y: Int64s, source: Int64s) -> Int64s:
    """Return the 63-bit ids at heading 0 of many tiles: PMTiles tile id, source (8 bits), heading (6 bits)."""
    return (_tile_ids(z, x, y) << (SOURCE_BITS + HEADING_BITS)) | (source << HEADING_BITS)


def _tile_ids(z: Int64s, x: Int64s, y: Int64s) -> Int64s:
    """PMTiles tile ids: all tiles of the zooms above, then the place on the Hilbert curve of the zoom."""
    found: Int64s = (np.left_shift(np.int64(1), 2 * z) - 1) // 3
    x, y = x.copy(), y.copy()
    for level in range(int(z.max(initial=0)) - 1, -1, -1):
        side = np.int64(1) << level
        active = z > level
        right, upper = (x & side) > 0, (y & side) > 0
        found += np.where(active, side * side * ((3 * right) ^ upper), 0)
        x, y = x & (side - 1), y & (side - 1)
        flip, turn = active & ~upper & right, active & ~upper
        x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
        x, y = np.where(turn, y, x), np.where(turn, x, y)
    return found


def check_ids(ids: Int64s) -> Int64s:
    """Return `ids` if they are int64, not negative and strictly ascending; FAISS itself would take anything."""
    if ids.dtype != np.int64:
        raise IndexError_(f"ids of an index are int64, not {ids.dtype}: larger ones would wrap")
    if not len(ids):
        raise IndexError_("an index without vectors finds nothing", next_step="add tiles to the area")
    if ids[0] < 0:
        raise IndexError_(
            "an id is negative: -1 means `nothing found` in a search result", facts={"id": int(ids.min())}
        )
    steps = np.diff(ids)
    if (steps <= 0).any():
        where = int(np.flatnonzero(steps <= 0)[0])
        what = "named twice" if steps[where] == 0 else "out of ascending order"
        raise IndexError_(f"an id is {what}", facts={"id": int(ids[where + 1]), "row": where + 1})
    return ids
