"""What of the corpus is described: its tiles, and cuts across neighbours of one source and zoom level.

A cut lies half a tile to the east, to the south or both of its tile (`geo.CUTS`), and is made of the pixels of the two
or four tiles that it shows. Where one of them is missing there is no cut: at the rim of the area, at a gap, and where
one source ends and another begins, whose colours and season would make an edge that is not on the ground.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.geometry.geo import CUTS
from provisioning.base.named import NamedTuple
from provisioning.catalogue.reading import (
    Placed,
    changed_columns,
    corpus_by_id,
    corpus_table,
    count_changed,
    distinct_digests,
    iter_placed,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TAG = b"flightcache-cut/1"
"""Begins what is hashed for the key of a cut. No image file begins so: no tile has the key of a cut."""


class Piece(NamedTuple):
    """What gets one descriptor at each heading: its key (32 bytes), the number of its cut, and the tiles it shows."""

    key: bytes
    cut: int
    tiles: tuple[Placed, ...]


def cut_key(cut: int, digests: Sequence[bytes]) -> bytes:
    """Return the key (32 bytes) of a cut of tiles with these SHA-256; that of cut 0 is the digest of its tile."""
    return digests[0] if cut == 0 else sha256(TAG + bytes([cut]) + b"".join(digests)).digest()


class Pieces(NamedTuple):
    """How many pieces a corpus has, of how many some tile is new, and these."""

    total: int
    changed: int
    new: Iterator[Piece]


def pieces(build_dir: Path, *, overlap: int, since: int = 0) -> Pieces:
    """Return what the corpus has described, as far as it shows tiles of columns that changed after state `since`.

    overlap: 1 for tiles alone, 2 with cuts: these come in the order of ids, neighbours close together, so that who
    keeps the last few hundred decoded tiles decodes each little more than once.
    """
    if overlap == 1:
        placed = (Piece(row[-1], 0, (row,)) for row in iter_placed(build_dir, since=since))
        return Pieces(count_changed(build_dir, since=0), count_changed(build_dir, since=since), placed)
    import numpy as np

    grid = Grid.of(build_dir, since=since)
    there = np.stack([grid.there(cut) for cut in range(len(CUTS))], axis=1)
    due = there & np.stack([grid.touched(cut) for cut in range(len(CUTS))], axis=1)
    return Pieces(int(there.sum()), int(due.sum()), map(grid.piece, *(each.tolist() for each in np.nonzero(due))))


def distinct_keys(build_dir: Path, *, overlap: int, since: int = 0) -> Iterator[bytes]:
    """Yield the different keys of what `pieces` has as new."""
    if overlap == 1:
        yield from distinct_digests(build_dir, since=since)
        return
    import numpy as np

    grid = Grid.of(build_dir, since=since)
    rows = [np.flatnonzero(grid.there(cut) & grid.touched(cut)) for cut in range(len(CUTS))]
    yield from {key for cut, some in enumerate(rows) for key in grid.keys(cut, some)}


def pieces_table(build_dir: Path, *, overlap: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the index ids of all pieces (heading 0 of one), int64 [n] ascending, and their keys, uint8 [n, 32]."""
    if overlap == 1:
        return corpus_table(build_dir)
    import numpy as np

    grid = Grid.of(build_dir)
    rows = [np.flatnonzero(grid.there(cut)) for cut in range(len(CUTS))]
    ids = np.concatenate([grid.ids[some] | cut for cut, some in enumerate(rows)])
    keys = b"".join(key for cut, some in enumerate(rows) for key in grid.keys(cut, some))
    order = np.argsort(ids, kind="stable")
    return ids[order], np.frombuffer(keys, np.uint8).reshape(-1, 32)[order]


@dataclass(frozen=True, eq=False)
class Grid:
    """The tiles of the corpus in ascending order of ids, and which of them each cut shows.

    columns  z, x, y and number of the source, int64 [4, n]
    shas     SHA-256, uint8 [n, 32]
    parts    for each cut the rows of the tiles that it shows, int64 [n, 1, 2 or 4]; -1 where there is none
    changed  whether the tile's column changed after the state that was asked for, bool [n]
    """

    ids: NDArray[np.int64]
    columns: NDArray[np.int64]
    shas: NDArray[np.uint8]
    names: tuple[str, ...]
    parts: tuple[NDArray[np.int64], ...]
    changed: NDArray[np.bool_]

    @classmethod
    def of(cls, build_dir: Path, *, since: int = 0) -> Grid:
        """Read the corpus of the last scan."""
        import numpy as np

        ids, table = corpus_by_id(build_dir)
        columns = np.stack([table.z, table.x, table.rows["y"].astype(np.int64), table.source])
        shas = np.ascontiguousarray(table.rows["sha256"]).view(np.uint8).reshape(-1, 32)
        dirty = np.array([z << 32 | x for z, x in changed_columns(build_dir, since=since)], np.int64)
        changed = np.isin(table.z << 32 | table.x, dirty)
        return cls(ids, columns, shas, table.names, _parts(ids, columns), changed)

    def there(self, cut: int) -> NDArray[np.bool_]:
        """Return for each tile whether all tiles are there that its cut shows, bool [n]."""
        there: NDArray[np.bool_] = self.parts[cut].min(axis=1) >= 0
        return there

    def touched(self, cut: int) -> NDArray[np.bool_]:
        """Return for each tile whether its cut shows a tile whose column has changed, bool [n]; if it is there."""
        touched: NDArray[np.bool_] = self.changed[self.parts[cut]].max(axis=1)
        return touched

    def keys(self, cut: int, rows: NDArray[np.int64]) -> Iterator[bytes]:
        """Yield the key of a cut of each of `rows`."""
        for digests in self.shas[self.parts[cut][rows]]:
            yield cut_key(cut, [each.tobytes() for each in digests])

    def piece(self, row: int, cut: int) -> Piece:
        """Return a cut of a tile."""
        tiles = tuple(self._placed(part) for part in self.parts[cut][row].tolist())
        return Piece(cut_key(cut, [tile[-1] for tile in tiles]), cut, tiles)

    def _placed(self, row: int) -> Placed:
        z, x, y, source = self.columns[:, row].tolist()
        return z, x, y, self.names[source], self.shas[row].tobytes()


def _parts(ids: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return for each cut the rows of the tiles that it shows, in the order of `geo.cut_parts`."""
    import numpy as np

    from provisioning.catalogue.packing import pack_ids

    z, x, y, source = columns
    side = 1 << z

    def beside(east: int, south: int) -> NDArray[np.int64]:
        inside = y + south < side
        wanted = pack_ids(z, (x + east) % side, np.where(inside, y + south, y), source)
        at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return np.where(inside & (ids[at] == wanted), at, -1)

    found = {(east, south): beside(east, south) for south in (0, 1) for east in (0, 1)}
    return tuple(
        np.stack([found[dx, dy] for dy in range(south + 1) for dx in range(east + 1)], axis=1) for east, south in CUTS
    )
