"""Writes what a scan finds: in transactions that each leave a true catalogue, and none if nothing was found."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from provisioning.catalogue import database
from provisioning.catalogue.scanning.inspecting import Found, Known

COMMIT_TILES = 20_000
"""Tiles hashed between two commits: the most that a killed first scan loses."""

Day = Callable[[int, int, int, int], "int | None"]
"""From z, x, y and mtime_ns to the day of capture, counted as `datetime.date.toordinal` does."""

_UPSERT = """INSERT INTO tile VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET
  sha256 = excluded.sha256, bytes = excluded.bytes, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,
  inode = excluded.inode, suffix = excluded.suffix, day = excluded.day, empty_ppm = excluded.empty_ppm,
  texture_centi = excluded.texture_centi, fault = excluded.fault, look = excluded.look"""


class Writer:
    """Writes for one source; its transaction begins with the first write."""

    def __init__(self, db: sqlite3.Connection, source: int, day: Day) -> None:
        self.db = db
        self.source = source
        self._day = day
        self._dirty: set[tuple[int, int]] = set()
        self._rows: list[tuple[object, ...]] = []

    def known(self, z: int, x: int, y: int) -> Known | None:
        """Return what the catalogue says of one tile."""
        row = self.db.execute(
            "SELECT sha256, mtime_ns, ctime_ns, inode, bytes, suffix, empty_ppm, texture_centi, fault, look FROM tile"
            " WHERE z = ? AND x = ? AND y = ? AND source = ?",
            (z, x, y, self.source),
        ).fetchone()
        return None if row is None else Known._make(row)

    def begin(self) -> None:
        """Begin to write, unless that has begun."""
        if not self.db.in_transaction:
            self.db.execute("BEGIN IMMEDIATE")

    def tile(self, found: Found, *, settled: bool) -> None:
        """Record one tile; the stat of an unsettled one is not trusted next time."""
        at = found.candidate
        day = self._day(at.z, at.x, at.y, at.mtime_ns)
        times = at.mtime_ns, at.ctime_ns if settled and found.sha256 else 0
        row = (at.z, at.x, at.y, self.source, found.sha256, found.bytes, *times, at.inode, at.suffix)
        self._rows.append((*row, day, found.empty_ppm, found.texture_centi, found.fault, found.look))
        if found.is_changed:
            self._dirty.add((at.z, at.x))
        if len(self._rows) >= COMMIT_TILES:
            self.flush()

    def remove(self, tiles: Iterable[tuple[int, int, int]]) -> None:
        """Forget tiles that are no longer in the store."""
        for z, x, y in tiles:
            self.begin()
            self.db.execute("DELETE FROM tile WHERE z = ? AND x = ? AND y = ? AND source = ?", (z, x, y, self.source))
            self._dirty.add((z, x))

    def folder(self, path: str, *, stamp: str, listing: bytes | None) -> None:
        """Remember how a folder looked, all its tiles being recorded."""
        self.begin()
        self.db.execute("INSERT OR REPLACE INTO folder VALUES (?, ?, ?, ?)", (self.source, path, stamp, listing))

    def without_folder(self, path: str) -> None:
        """Forget a folder."""
        self.begin()
        self.db.execute("DELETE FROM folder WHERE source = ? AND path = ?", (self.source, path))

    def stamp(self, stamp: str | None) -> None:
        """Remember how a container looked, all its tiles being recorded."""
        self.begin()
        self.db.execute("UPDATE source SET stamp = ? WHERE number = ?", (stamp, self.source))

    def flush(self) -> None:
        """Commit; what is kept is true even if the process dies right after."""
        if self._rows or self._dirty:
            self.begin()
        self.db.executemany(_UPSERT, self._rows)
        mark_dirty(self.db, self._dirty)
        self._rows.clear()
        self._dirty.clear()
        if self.db.in_transaction:
            self.db.execute("COMMIT")


def mark_dirty(db: sqlite3.Connection, columns: set[tuple[int, int]]) -> None:
    """Have these columns chosen again; until that is done there is no corpus."""
    if columns:
        database.put(db, "corpus", None)
    db.executemany(
        "INSERT INTO col(z, x, place, dirty) VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET dirty = 1",
        [(z, x, f"{z} {x} ") for z, x in columns],
    )
