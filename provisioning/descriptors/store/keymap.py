"""The key map of a descriptor store: which row holds the descriptor of which tile. SQLite, one file per generation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from provisioning.base.batches import batches_of
from provisioning.base.disk import journal

LOOKUP = 4096
"""Keys asked for in one statement; SQLite's own limit is 32 766."""
MANY = 16
"""Once one in so many keys was asked for, all are read: a key costs a seventh of one that is looked up (measured)."""
MOST_IN_MEMORY = 1 << 19
"""Keys: a larger map, of which each takes 48 bytes, stays on the disk."""


class _Known(NamedTuple):
    """A map in memory, by digest. first: how each digest begins."""

    first: npt.NDArray[np.uint64]
    digests: npt.NDArray[np.void]
    rows: npt.NDArray[np.int64]


class KeyMap:
    """Rows by tile digest. `adopted` rows of the shards have been looked at; commits are durable when they return."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
        self._asked = 0
        self._known: _Known | None = None
        self._count: int | None = None
        self._version = -1
        try:
            journal.begin(self._db, path)
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA synchronous = FULL")
        with self._db:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS rows (sha BLOB PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS adopted (n INTEGER PRIMARY KEY, rows INTEGER NOT NULL)")
            self._db.execute("INSERT OR IGNORE INTO adopted VALUES (0, 0)")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __len__(self) -> int:
        """Return the number of tiles."""
        return int(self._db.execute("SELECT count(*) FROM rows").fetchone()[0])

    @property
    def adopted(self) -> int:
        """Rows of the shards that have been looked at."""
        return int(self._db.execute("SELECT rows FROM adopted").fetchone()[0])

    def adopt(self, keys: Iterable[tuple[bytes, int]], upto: int) -> None:
        """Enter (digest, row) pairs, the first of a digest winning, and remember that rows below `upto` are done."""
        self._begin()
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", keys)
            self._db.execute("UPDATE adopted SET rows = ?", (upto,))

    def rows(self, shas: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Return the row of each digest, -1 where it has none."""
        known = self._in_memory(len(shas))
        if known is None or not len(known.rows):
            return self._looked_up(shas)
        wanted = np.frombuffer(b"".join(shas), "V32")
        at = np.minimum(np.searchsorted(known.first, _firsts(wanted)), len(known.first) - 1)
        found = known.rows[at]
        other = np.flatnonzero(known.digests[at] != wanted)  # unknown, or one that begins as another does
        found[other] = self._looked_up([shas[n] for n in other.tolist()])
        return found

    def _looked_up(self, shas: Sequence[bytes]) -> npt.NDArray[np.int64]:
        found = self.found(shas)
        return np.array([found.get(sha, -1) for sha in shas], np.int64)

    def _in_memory(self, more: int) -> _Known | None:
        """Return all that the map holds, if so many were asked for that they probably all will be, with `more` now."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._version:  # another process has written
            self._version, self._known, self._count = version, None, None
        self._asked += more
        if self._known is None:
            self._count = len(self) if self._count is None else self._count
            if self._count <= MOST_IN_MEMORY and self._asked * MANY >= self._count:
                self._known = self._read()
        return self._known

    def _read(self) -> _Known:
        digests, rows = [np.empty(0, "V32")], [np.empty(0, np.int64)]
        for some in batches_of(self._db.execute("SELECT sha, row FROM rows ORDER BY sha"), LOOKUP):
            digests.append(np.frombuffer(b"".join([sha for sha, _ in some]), "V32"))
            rows.append(np.array([row for _, row in some], np.int64))
        held = np.concatenate(digests)
        return _Known(_firsts(held), held, np.concatenate(rows))

    def found(self, shas: Sequence[bytes]) -> dict[bytes, int]:
        """Return the row of each of `shas` that has one."""
        found: dict[bytes, int] = {}
        for chunk in batches_of(shas, LOOKUP):
            marks = ",".join("?" * len(chunk))
            found.update(self._db.execute(f"SELECT sha, row FROM rows WHERE sha IN ({marks})", chunk))  # noqa: S608 - question marks only
        return found

    def forget(self, shas: Iterable[bytes]) -> None:
        """Remove these digests."""
        self._begin()
        with self._db:
            self._db.executemany("DELETE FROM rows WHERE sha = ?", ((sha,) for sha in shas))

    def forget_rows(self, first: int, end: int) -> int:
        """Remove every digest whose row is in the range; return how many there were."""
        self._begin()
        with self._db:
            return self._db.execute("DELETE FROM rows WHERE row >= ? AND row < ?", (first, end)).rowcount

    def _begin(self) -> None:
        self._known, self._count = None, None
        self._db.execute("BEGIN IMMEDIATE")

    def items(self) -> Iterable[tuple[bytes, int]]:
        """Yield (digest, row) in row order."""
        return self._db.execute("SELECT sha, row FROM rows ORDER BY row")


def _firsts(digests: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Return the first eight bytes of digests as numbers in the same order."""
    return digests.view(">u8")[::4].astype(np.uint64)
