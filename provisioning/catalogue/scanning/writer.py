"""Writes what a scan finds: in transactions that each leave a true catalogue, and none if nothing was found."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from provisioning.base.geometry.geo import pack_address
from provisioning.catalogue import database
from provisioning.catalogue.scanning.columns import TAKEN_FIELDS, UNDATED
from provisioning.catalogue.scanning.inspecting import Found, Known

COMMIT_TILES, COMMIT_S = 20_000, 5.0
"""Tiles inspected between two commits, and seconds: a killed first scan loses no more than either."""

Day = Callable[[int, int, int, int], "int | None"]
"""From z, x, y and mtime_ns to the day of capture, counted as `datetime.date.toordinal` does."""
Address = tuple[int, int, int]

_UPSERT = """INSERT INTO tile VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
  sha256 = excluded.sha256, bytes = excluded.bytes, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,
  inode = excluded.inode, suffix = excluded.suffix, day = excluded.day, empty_ppm = excluded.empty_ppm,
  texture_centi = excluded.texture_centi, fault = excluded.fault, look = excluded.look, chk = excluded.chk"""
_KNOWN = f"mtime_ns, ctime_ns, inode, suffix, look, {database.CHECKED}, chk"
SPARSE = 8
"""Rows of a column are read in one go unless so many times more of them would be read than are asked for."""


class Writer:
    """Writes for one source; its transaction begins with the first write. Without `day` the store's own dates hold."""

    def __init__(self, db: sqlite3.Connection, source: int, day: Day | None) -> None:
        self.db = db
        self.source = source
        self._day = day
        self.damaged = 0
        """Rows that were not what was written, and are written again."""
        self._dirty: set[tuple[int, int]] = set()
        self._rows: list[tuple[object, ...]] = []
        self._due = time.monotonic() + COMMIT_S

    def known(self, z: int, x: int, y: int) -> Known | None:
        """Return what the catalogue says of one tile."""
        return self._column(z, x, y, y).get(y)

    def known_of(self, tiles: Iterable[Address]) -> dict[Address, Known]:
        """Return what the catalogue says of many tiles: neighbours in a column cost one query together."""
        columns: dict[tuple[int, int], list[int]] = {}
        for z, x, y in tiles:
            columns.setdefault((z, x), []).append(y)
        return {
            (z, x, y): known
            for (z, x), ys in columns.items()
            for low, high in _spans(ys)
            for y, known in self._column(z, x, low, high).items()
        }

    def digests_of(self, z: int, x: int, ys: Sequence[int]) -> dict[int, bytes | None]:
        """Return the digests of catalogued tiles of a column by y: those of `ys`, and maybe of others between them."""
        return self._by_row("SELECT y, sha256 FROM tile WHERE", z, x, ys)

    def days_of(self, z: int, x: int, ys: Sequence[int]) -> dict[int, int]:
        """Return the days of capture in the same way, of tiles that have one."""
        return self._by_row("SELECT y, day FROM tile WHERE day NOT NULL AND", z, x, ys)

    def corpus_of(self, z: int, x: int, y: int, count: int) -> list[bytes]:
        """Return the source's tiles of the corpus in `count` rows of a column from `y` on, if that is up to date.

        Of each its packed address, 8 bytes from the lowest on, and digest; where a store's own dates hold, of those
        without one.
        """
        import numpy as np

        select = "SELECT t.chk, t.rows FROM taken t JOIN col c USING (z, x) WHERE z = ? AND x = ? AND NOT c.dirty"
        check, rows = self.db.execute(select, (z, x)).fetchone() or (None, b"")
        if check != database.column_check(z, x, (), rows):
            return []
        taken = np.frombuffer(rows, TAKEN_FIELDS)
        low, high = np.searchsorted(taken["y"], (y, y + count))
        taken = taken[low:high]
        is_known = (taken["source"] == self.source) & (taken["sha256"] != np.void(bytes(32)))
        if self.takes_listed_dates:
            is_known &= taken["day"] == UNDATED
        found = np.empty(np.count_nonzero(is_known), [("address", "<u8"), ("sha256", "V32")])
        found["address"] = pack_address(z, x, 0) + taken["y"][is_known].astype(np.uint64)
        found["sha256"] = taken["sha256"][is_known]
        identities, size = found.tobytes(), found.itemsize
        return [identities[at : at + size] for at in range(0, len(identities), size)]

    def _by_row(self, select: str, z: int, x: int, ys: Sequence[int]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for low, high in _spans(ys):
            of = f"{select} z = ? AND x = ? AND y BETWEEN ? AND ? AND source = ?"
            found.update(self.db.execute(of, (z, x, low, high, self.source)))
        return found

    def _column(self, z: int, x: int, low: int, high: int) -> dict[int, Known]:
        """Return what is known of some tiles of a column; of a row that is not what was written nothing is."""
        rows = self.db.execute(
            f"SELECT {_KNOWN} FROM tile WHERE z = ? AND x = ? AND y BETWEEN ? AND ? AND source = ?",  # noqa: S608
            (z, x, low, high, self.source),
        )
        found: dict[int, Known] = {}
        for mtime_ns, ctime_ns, inode, suffix, perceptual_hash, *checked in rows:
            if database.is_damaged(checked):
                self.damaged += 1
                continue
            _, _, y, _, digest, size, day, empty_ppm, texture_centi, fault, _ = checked
            inspected = empty_ppm, texture_centi, fault, day, perceptual_hash
            found[y] = Known(digest, mtime_ns, ctime_ns, inode, size, suffix, *inspected)
        return found

    def content(self) -> str:
        """Return the remembered content of a store all of whose tiles are recorded, empty if it is not known."""
        (content,) = self.db.execute("SELECT content FROM source WHERE number = ?", (self.source,)).fetchone()
        return content or ""

    def is_as_it_was(self, stamp: str) -> bool:
        """Return whether a store looks as it did when all its tiles were recorded; an empty stamp tells nothing."""
        (before,) = self.db.execute("SELECT stamp FROM source WHERE number = ?", (self.source,)).fetchone()
        return bool(stamp) and stamp == before

    @property
    def takes_listed_dates(self) -> bool:
        """Return whether the date that a store lists of a tile is the tile's."""
        return self._day is None

    def count(self) -> int:
        """Return how many tiles of the source are catalogued."""
        return int(self.db.execute("SELECT count(*) FROM tile WHERE source = ?", (self.source,)).fetchone()[0])

    def begin(self) -> None:
        """Begin to write, unless that has begun."""
        if not self.db.in_transaction:
            self.db.execute("BEGIN IMMEDIATE")

    def tile(self, found: Found, *, settled: bool) -> None:
        """Record one tile; the stat of an unsettled one is not trusted next time."""
        at = found.candidate
        day = self._day(at.z, at.x, at.y, at.mtime_ns) if self._day else at.day
        times = at.mtime_ns, at.ctime_ns if settled and found.sha256 else 0
        inspected = day, found.empty_ppm, found.texture_centi, found.fault
        place = at.z, at.x, at.y, self.source
        state = database.FAULTY if found.fault else database.TAKEN  # as it will probably be: else it is written again
        check = database.tile_check(*place, found.sha256, found.bytes, *inspected)
        picture = found.perceptual_hash
        row = (*place, found.sha256, found.bytes, *times, at.inode, at.suffix, *inspected, picture, state, check)
        self._rows.append(row)
        if found.is_changed or (at.known and at.known.day != day):
            self._dirty.add((at.z, at.x))
        if len(self._rows) >= COMMIT_TILES or time.monotonic() >= self._due:
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

    def stamp(self, stamp: str, content: str) -> None:
        """Remember how a store looked, and its content if that is known, all its tiles being recorded."""
        self.begin()
        values = stamp or None, content or None, self.source
        self.db.execute("UPDATE source SET stamp = ?, content = ? WHERE number = ?", values)

    def flush(self) -> None:
        """Commit; what is kept is true even if the process dies right after."""
        if self._rows or self._dirty:
            self.begin()
        self._rows.sort(key=itemgetter(0, 1, 2))
        self.db.executemany(_UPSERT, self._rows)
        mark_dirty(self.db, self._dirty)
        self._rows.clear()
        self._dirty.clear()
        self._due = time.monotonic() + COMMIT_S
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


def _spans(ys: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last y of queries that give what is known of some tiles of a column."""
    low, high = min(ys), max(ys)
    if high - low < SPARSE * len(ys):
        yield low, high
    else:
        yield from zip(ys, ys, strict=True)
