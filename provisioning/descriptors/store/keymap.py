"""The key map of a descriptor store: which row holds the descriptor of which tile. SQLite, one file per generation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from provisioning.base.batches import batches_of
from provisioning.base.disk import journal

LOOKUP = 4096
"""Keys asked for in one statement; SQLite's own limit is 32 766."""


class KeyMap:
    """Rows by tile digest. `adopted` rows of the shards have been looked at; commits are durable when they return."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
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
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", keys)
            self._db.execute("UPDATE adopted SET rows = ?", (upto,))

    def rows(self, shas: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Return the row of each digest, -1 where it has none."""
        found = self.found(shas)
        return np.fromiter((found.get(sha, -1) for sha in shas), np.int64, len(shas))

    def found(self, shas: Sequence[bytes]) -> dict[bytes, int]:
        """Return the row of each of `shas` that has one."""
        found: dict[bytes, int] = {}
        for chunk in batches_of(shas, LOOKUP):
            marks = ",".join("?" * len(chunk))
            found.update(self._db.execute(f"SELECT sha, row FROM rows WHERE sha IN ({marks})", chunk))  # noqa: S608 - question marks only
        return found

    def forget(self, shas: Iterable[bytes]) -> None:
        """Remove these digests."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            self._db.executemany("DELETE FROM rows WHERE sha = ?", ((sha,) for sha in shas))

    def forget_rows(self, first: int, end: int) -> int:
        """Remove every digest whose row is in the range; return how many there were."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            return self._db.execute("DELETE FROM rows WHERE row >= ? AND row < ?", (first, end)).rowcount

    def items(self) -> Iterable[tuple[bytes, int]]:
        """Yield (digest, row) in row order."""
        return self._db.execute("SELECT sha, row FROM rows ORDER BY row")
