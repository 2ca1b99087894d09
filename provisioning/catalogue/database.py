"""The catalogue: one row per tile in SQLite, so that what has been hashed and inspected once is not read again.

Rows say what was found in a store; columns (all tiles of one z and x) say what of it is in the corpus, with their lines
of the coverage digest and their numbers ready-made, so that a change of one tile costs one column. Each change of
columns is a new state of the corpus: a column says in which it changed last. Writing needs the build lock.
Rows, columns and remembered texts carry a check value: one that rots on the disk while the database stays valid is
found when it is used for what will be signed, and is made again.
The write-ahead log survives SIGKILL at any instant; `synchronous = FULL` survives power loss.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import Any

from provisioning.base.disk import journal
from provisioning.base.disk.files import make_dirs, wrap_os_errors
from provisioning.base.errors import TileError
from provisioning.base.events import warn

FORMAT = 9
FILE = "catalogue.sqlite"
MOST = (1 << 63) - 1
"""SQLite's largest whole number."""

SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value, chk INTEGER) WITHOUT ROWID;
CREATE TABLE source(number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, facts TEXT NOT NULL, stamp TEXT,
  content TEXT, capture TEXT, day INTEGER);
CREATE TABLE capture(source INTEGER, z INTEGER, x INTEGER, y INTEGER, day INTEGER,
  PRIMARY KEY(source, z, x, y)) WITHOUT ROWID;
CREATE TABLE folder(source INTEGER, path TEXT, stamp TEXT, listing BLOB, PRIMARY KEY(source, path)) WITHOUT ROWID;
CREATE TABLE tile(
  z INTEGER, x INTEGER, y INTEGER, source INTEGER,
  sha256 BLOB, bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, suffix TEXT,
  day INTEGER, empty_ppm INTEGER, texture_centi INTEGER, fault TEXT, look BLOB, state INTEGER NOT NULL DEFAULT 0,
  chk INTEGER, PRIMARY KEY(z, x, y, source)) WITHOUT ROWID;
CREATE TABLE col(
  z INTEGER, x INTEGER, place TEXT, dirty INTEGER, count INTEGER, bytes INTEGER, oldest INTEGER, undated INTEGER,
  faults INTEGER, empty INTEGER, partly INTEGER, changed INTEGER, chk INTEGER, runs BLOB,
  lines BLOB, -- the long one last: what follows it is found by walking through it;
  PRIMARY KEY(z, x)); -- and with row ids: a key that is the row is compared as a whole
CREATE TABLE taken(z INTEGER, x INTEGER, chk INTEGER, rows BLOB, PRIMARY KEY(z, x));
CREATE TABLE corpus(state INTEGER PRIMARY KEY, coverage_sha256 TEXT);
CREATE INDEX col_place ON col(place);
CREATE INDEX col_changed ON col(changed);
CREATE INDEX col_dirty ON col(z, x) WHERE dirty;
"""

UNUSED, TAKEN, FAULTY, EMPTY, SHADOWED = range(5)
"""State of a tile row: outside the area; in the corpus; cannot be decoded; more than max_empty empty; another source's
tile has priority."""


def catalogue_path(build_dir: Path) -> Path:
    """Return where the catalogue is."""
    return build_dir / FILE


@contextmanager
def opened(build_dir: Path) -> Iterator[sqlite3.Connection]:
    """Open the catalogue for a scan, making it if it is not there or not ours; commits are the caller's."""
    path = catalogue_path(build_dir)
    with wrap_os_errors("open the tile catalogue", path):
        is_there(path)
        make_dirs(build_dir)
        db = _prepared(path)
    with closing(db):
        yield db


def is_there(path: Path) -> bool:
    """Return whether there is a catalogue; TileError where something that is no file has its name."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(mode):
        step = "move it away, then run this again: doit makes the catalogue anew"
        raise TileError("the tile catalogue is no regular file", file=path, next_step=step)
    return True


def _prepared(path: Path) -> sqlite3.Connection:
    """Return a connection to a catalogue of our format; one that is damaged or of another format is begun anew.

    One that the system will not let us read or write is neither: a full disk must not cost what it took to fill it.
    """
    for _ in range(2):
        db = sqlite3.connect(path, isolation_level=None, timeout=30)
        db.text_factory = lossy_text
        try:
            db.execute(
                "PRAGMA page_size = 16384"
            )  # of a new file: a long column is read in a third less time (measured)
            journal.begin(db, path)
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA cache_size = -16000")
            (format_,) = db.execute("PRAGMA user_version").fetchone()
            if format_ == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                db.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version = {FORMAT};COMMIT")
                return db
            if format_ == FORMAT:
                return db
        except sqlite3.OperationalError as error:
            db.close()
            if "locked" in str(error):
                raise TileError("the tile catalogue is in use", file=path, next_step="run again") from error
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # its messages quote what is no text
            pass
        db.close()
        forget(path)
    raise TileError("the tile catalogue cannot be made", file=path, next_step="look at the disk, then run again")


def forget(path: Path) -> None:
    """Remove a catalogue: all that it says is found again by the next scan."""
    for name in (path, f"{path}-wal", f"{path}-shm", f"{path}-journal"):
        if os.path.lexists(name):
            os.unlink(name)


@contextmanager
def reading(build_dir: Path) -> Iterator[sqlite3.Connection | None]:
    """Open the catalogue to read the last scan from it; None if there is none of our format.

    TileError where something that is no file has its name.
    """
    path = catalogue_path(build_dir)
    if not is_there(path):
        yield None
        return
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
        db.text_factory = lossy_text
        try:
            journal.begin_reading(db, path)
            usable = db.execute("PRAGMA user_version").fetchone()[0] == FORMAT
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # its messages quote what is no text
            usable = False
        yield db if usable else None


def check_of(*values: object) -> int:
    """Return the check value of what is remembered together: numbers, texts, bytes and None."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def column_check(z: int, x: int, sums: tuple[int | None, ...], *packed: bytes) -> int:
    """Return the check value of a column: its place, its sums and its packed rows; -1 if these are no bytes."""
    if not all(isinstance(data, bytes) for data in packed):
        return -1
    return reduce(lambda check, data: zlib.crc32(data, check), packed, check_of(z, x, sums))


def lossy_text(data: bytes) -> str:
    """Return a text of the database; what rotted into no UTF-8 is found by its check value, not by SQLite."""
    return data.decode("utf-8", "replace")


def tile_check(z: int, x: int, y: int, source: int, sha256: bytes | None, *inspected: int | str | None) -> int:
    """Return the check value of a tile's row: its address, digest, bytes, day, and what its pixels were found to be."""
    return check_of(z, x, y, source, sha256, *inspected)


def storable(number: int) -> int:
    """Return a time in nanoseconds, or an inode, as SQLite holds it; a time after April 2262 as its last nanosecond."""
    return max(-MOST, min(number, MOST))


def is_damaged(row: Sequence[Any]) -> bool:
    """Return whether a row of the columns `CHECKED` and its check value is not what was written.

    A tile that is still to be inspected has neither digest nor check value.
    """
    *checked, check = row
    return check != tile_check(*checked) and (checked[4], check) != (None, None)


CHECKED = "z, x, y, source, sha256, bytes, day, empty_ppm, texture_centi, fault"
"""The columns of a tile's row that `tile_check` is of, in its order."""


class DamagedError(Exception):
    """Columns of the catalogue, z and x of each, that are not what was written."""

    def __init__(self, columns: Sequence[tuple[int, int]]) -> None:
        super().__init__(f"column {columns[0][0]}/{columns[0][1]} is not what was written")
        self.columns = columns


def begin_again(db: sqlite3.Connection, damaged: Sequence[tuple[int, int]]) -> int:
    """Have damaged columns chosen again, and their damaged rows read again; return how many rows these are."""
    sources: set[int] = set()
    rows = 0
    with transaction(db):
        put(db, "corpus", None)
        for z, x in damaged:
            db.execute("UPDATE col SET dirty = 1 WHERE z = ? AND x = ?", (z, x))
            found = db.execute(f"SELECT {CHECKED}, chk FROM tile WHERE z = ? AND x = ?", (z, x)).fetchall()  # noqa: S608
            for row in filter(is_damaged, found):
                db.execute("DELETE FROM tile WHERE z = ? AND x = ? AND y = ? AND source = ?", row[:4])
                sources.add(row[3])
                rows += 1
        for source in sources:
            db.execute("DELETE FROM folder WHERE source = ?", (source,))
            db.execute("UPDATE source SET stamp = NULL, content = NULL WHERE number = ?", (source,))
    return rows


def drop_damaged_texts(db: sqlite3.Connection) -> None:
    """Forget remembered texts that are not what was written; then every column is chosen again."""
    texts = db.execute("SELECT name, value, chk FROM meta").fetchall()
    damaged = [name for name, value, check in texts if check != check_of(name, value)]
    if damaged:
        warn("catalogue.damaged", texts=len(damaged), note="they are made again")
        with transaction(db):
            db.executemany("DELETE FROM meta WHERE name = ?", [(name,) for name in damaged])
            put(db, "corpus", None)
            db.execute("UPDATE col SET dirty = 1")


def get(db: sqlite3.Connection, name: str) -> str | None:
    """Return a remembered text; None if it is not what was written."""
    row = db.execute("SELECT value, chk FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row and row[1] == check_of(name, row[0]) else None


def put(db: sqlite3.Connection, name: str, value: str | None) -> None:
    """Remember a text, or forget it."""
    if value is None:
        db.execute("DELETE FROM meta WHERE name = ?", (name,))
    else:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, value, check_of(name, value)))


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block does, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a disk that is full has had SQLite roll back by itself: the cause is the news
            db.execute("ROLLBACK")
        raise
