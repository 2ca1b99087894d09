"""Which row of the index is which tile or cut at which heading, in ascending order of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import IndexingError

HEADING_BITS = 6
SOURCE_BITS = 8
LAST = (1 << HEADING_BITS) - 1
"""The bits of an id that say which cut of a tile it is, at which heading: cut * rotations + heading."""
Int64s = NDArray[np.int64]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Gather = Callable[[slice | Int64s], Floats]
"""Descriptors of the given rows of an index: float32 [m, d]."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an index in ascending order of `ids` (int64 [n]); `shas` (uint8 [n, 32]) are the keys of what they show.

    The key of a tile is its SHA-256, that of a cut `catalogue.cuts.cut_key`.
    """

    ids: Int64s
    shas: Bytes
    rotations: int = 1

    @property
    def headings(self) -> Int64s:
        """Number of the heading of each row, int64 [n]."""
        return headings_of(self.ids, self.rotations)

    def gather(self, stores: Sequence[Callable[[Sequence[bytes]], Floats]]) -> Gather:
        """Return the gatherer over `stores`, one per heading, each from keys to descriptors."""

        def rows(which: slice | Int64s) -> Floats:
            keys = self.shas[which]
            if len(stores) == 1:
                return stores[0](_as_list(keys))
            return _from_each(stores, keys, headings_of(self.ids[which], self.rotations))

        return rows


def _from_each(stores: Sequence[Callable[[Sequence[bytes]], Floats]], keys: Bytes, headings: Int64s) -> Floats:
    found: Floats | None = None
    for heading, store in enumerate(stores):
        mine = np.flatnonzero(headings == heading)
        if len(mine):
            part = store(_as_list(keys[mine]))
            found = np.empty((len(keys), part.shape[1]), np.float32) if found is None else found
            found[mine] = part
    return np.empty((0, 0), np.float32) if found is None else found


def _as_list(keys: Bytes) -> list[bytes]:
    found: list[bytes] = np.ascontiguousarray(keys).view("V32").ravel().tolist()
    return found


def rows_of(ids: Int64s, shas: Bytes, *, rotations: int = 1) -> Rows:
    """Return the rows of tiles and cuts, each at every heading.

    `ids` int64 [n] ascending, as for one heading; `shas` uint8 [n, 32].
    """
    number = ids & LAST
    every = ((ids - number + number * rotations)[:, None] + np.arange(rotations, dtype=np.int64)).ravel()
    return Rows(check_ids(every), np.repeat(shas, rotations, axis=0) if rotations > 1 else shas, rotations)


def headings_of(ids: Int64s, rotations: int) -> Int64s:
    """Return the number of the heading of each id, int64 [n]."""
    return (ids & LAST) % rotations


def cuts_of(ids: Int64s, rotations: int) -> Int64s:
    """Return the number of the cut of each id, int64 [n]; 0 is the tile itself."""
    return (ids & LAST) // rotations


def is_upright_tile(ids: Int64s) -> NDArray[np.bool_]:
    """Return for each id whether it is a tile of the grid at heading 0, bool [n]."""
    return np.asarray((ids & LAST) == 0)


def check_ids(ids: Int64s) -> Int64s:
    """Return `ids` if they are int64, not negative and strictly ascending; FAISS itself would take anything."""
    if ids.dtype != np.int64:
        raise IndexingError(f"ids of an index are int64, not {ids.dtype}: larger ones would wrap")
    if not len(ids):
        raise IndexingError("an index without vectors finds nothing", next_step="add tiles to the area")
    if ids[0] < 0:
        raise IndexingError(
            "an id is negative: -1 means `nothing found` in a search result", facts={"id": int(ids.min())}
        )
    steps = np.diff(ids)
    if (steps <= 0).any():
        where = int(np.flatnonzero(steps <= 0)[0])
        what = "named twice" if steps[where] == 0 else "out of ascending order"
        raise IndexingError(f"an id is {what}", facts={"id": int(ids[where + 1]), "row": where + 1})
    return ids


def evenly(rows: int, most: int) -> Int64s:
    """Return at most `most` of `rows` row numbers, evenly spaced: ids follow a space-filling curve, so do places."""
    return np.arange(rows, dtype=np.int64) if rows <= most else np.arange(most, dtype=np.int64) * rows // most


def steadily(ids: Int64s, most: int) -> Int64s:
    """Return at most `most` row numbers, ascending: those whose ids have the least hash.

    One per cent of other ids changes one per cent of them, where evenly spaced rows would all be others.
    """
    if len(ids) <= most:
        return np.arange(len(ids), dtype=np.int64)
    return np.sort(np.argsort(mixed(ids), kind="stable")[:most])


def mixed(ids: Int64s) -> NDArray[np.uint64]:
    """Return ids mixed by the finaliser of SplitMix64 (Steele, Lea, Flood 2014): the same order on every host."""
    value = ids.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    last: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return last
