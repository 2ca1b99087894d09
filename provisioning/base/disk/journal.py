"""How our SQLite databases keep their journal: a write-ahead log, but none where the disk is about to be full.

With a write-ahead log SQLite maps an index (`-shm`) into memory. On a file system that fills under such a map the
kernel ends the process with SIGBUS, and no error can be reported. A rollback journal is only written, never mapped.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from provisioning.base.disk.files import room_at

LITTLE_BYTES = 4 << 20
"""Free bytes below which nothing is mapped: the index grows by 32 KiB for every 4,096 pages in the log."""


def begin(db: sqlite3.Connection, path: Path) -> None:
    """Choose the journal of the database `path` that was just opened to be written. sqlite3.OperationalError."""
    if not has_little_room(path):
        db.execute("PRAGMA journal_mode = WAL")
        return
    db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first access: the index of an old log stays in the heap
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA locking_mode = NORMAL")
    db.execute("SELECT count(*) FROM sqlite_master").fetchall()  # gives up the lock


def begin_reading(db: sqlite3.Connection, path: Path) -> None:
    """Let the database `path`, just opened, be read without a new mapped index where there is little room."""
    if has_little_room(path) and not os.path.exists(f"{path}-shm"):
        db.execute("PRAGMA locking_mode = EXCLUSIVE")


def has_little_room(path: Path) -> bool:
    """Return whether the file system of `path` could fill while a database is open."""
    room = room_at(path)
    return room is not None and room.bytes < LITTLE_BYTES
