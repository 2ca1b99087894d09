"""A SQLite file that is read and never written to: no `-wal`, `-shm` or `-journal` is left beside it.

https://www.sqlite.org/wal.html and https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import FilesystemError, TileError
from provisioning.sources.source import file_stamp, head_of, reading_source
from provisioning.sources.tile_file import MOST_TILE_BYTES

HEADER_BYTES = 100
WAL_VERSION = 2
"""The read version (byte 19) of a file in WAL mode."""
JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
"""A rollback journal begins with it while its transaction is not finished."""
MOST_COPIED_BYTES = 2 << 30
"""A larger file with a log that nobody has open is not copied to read it."""

OF_THE_MACHINE = ("disk I/O", "disk is full", "unable to open", "is locked")
"""In what SQLite says where the bytes of the file are not the reason."""


def stamp(path: Path, *, now_ns: int) -> str:
    """Return what tells whether a file has changed: its stat, its header, and the stat of its log or journal.

    In WAL mode a commit leaves both the file's stat and the change counter in its header as they were.
    """
    real = os.path.realpath(path)
    beside = [f"{real}{suffix}" for suffix in ("-wal", "-journal")]
    stamps = [
        file_stamp(real, now_ns=now_ns),
        *(file_stamp(name, now_ns=now_ns) if os.path.exists(name) else "-" for name in beside),
    ]
    return " ".join([*stamps, head_of(path, HEADER_BYTES).hex()]) if all(stamps) else ""


def head(path: Path) -> str:
    """Return size and header of a file, empty where a log beside it has changes; each commit counts in the header."""
    if any(os.path.exists(f"{os.path.realpath(path)}{suffix}") for suffix in ("-wal", "-journal")):
        return ""
    return f"{os.stat(path).st_size} {head_of(path, HEADER_BYTES).hex()}"


PATIENCE_S = 60
"""A statement that yields nothing for so long is a hostile view, not a store of tiles."""
STEPS = 100_000
"""SQLite instructions between two looks at the clock."""
MOST_VALUE_BYTES = 2 * MOST_TILE_BYTES
"""A text or blob that is longer is not read. On Python 3.10 only tiles have a limit."""


class SQLiteFile:
    """Read-only connections to one file, one for each thread. TileError if it cannot be read as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._uri = self._readable()

    def error(self, what: str, next_step: str = "make or copy it anew") -> TileError:
        """Return the error of a file that cannot be used."""
        return TileError(f"SQLite file cannot be used: {what}", file=self.path, next_step=next_step)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise errors of SQLite as TileError; those of the machine (disk, descriptors, locks) as FilesystemError."""
        try:
            yield
        except sqlite3.Error as error:
            if not any(words in str(error) for words in OF_THE_MACHINE):
                raise self.error(_in_words(error)) from error
            with reading_source(self.path), open_regular(self.path):  # the system's word, which SQLite keeps to itself
                pass
            step = "see `dmesg`, and whether a program writes it (`fuser -v`), then run doit again"
            raise FilesystemError(f"a tile source cannot be read: {error}", file=self.path, next_step=step) from error
        except UnicodeDecodeError as error:  # its message quotes a schema that is no text
            raise self.error("database disk image is malformed") from error

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection, whose next statement has `PATIENCE_S`; texts come as bytes."""
        db: sqlite3.Connection | None = getattr(self._own, "db", None)
        if db is None:
            with self.translated():
                db = sqlite3.connect(self._uri, uri=True, check_same_thread=False, timeout=10)
                db.execute("PRAGMA trusted_schema = OFF")
                db.execute("PRAGMA cell_size_check = ON")
                db.text_factory = bytes
                if sys.version_info >= (3, 11):
                    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE_BYTES)
            self._own.db, self._own.since = db, [0.0]
            since = self._own.since
            db.set_progress_handler(lambda: time.monotonic() - since[0] > PATIENCE_S, STEPS)
            self._all.append(db)
        self.go_on()
        return db

    def go_on(self) -> None:
        """Begin the time anew that this thread's statement may take: it has yielded something."""
        self._own.since[0] = time.monotonic()

    def _readable(self) -> str:
        """Return the URI by which the file is read without writing beside it."""
        real = os.path.realpath(self.path)
        self._refuse_hot_journal(real)
        in_wal_mode = head_of(self.path, HEADER_BYTES)[19:20] == bytes([WAL_VERSION])
        if not in_wal_mode:
            return _uri(real, "mode=ro")
        has_log = os.path.exists(f"{real}-wal") and os.path.getsize(f"{real}-wal") > 0
        if os.path.exists(f"{real}-shm") and os.access(f"{real}-shm", os.W_OK) and os.path.exists(f"{real}-wal"):
            return _uri(real, "mode=ro")  # somebody has it open: both files are there and stay
        return _uri(self._copied(real), "mode=ro") if has_log else _uri(real, "mode=ro&immutable=1")

    def _refuse_hot_journal(self, real: str) -> None:
        journal = f"{real}-journal"
        if os.path.exists(journal) and head_of(journal, len(JOURNAL_MAGIC)) == JOURNAL_MAGIC:
            raise self.error(
                "a transaction on it was not finished (it has a hot journal)",
                f"let the program that writes it finish; or copy it together with {os.path.basename(journal)} to a disk"
                " that can be written, and run `sqlite3 COPY 'VACUUM INTO \"whole.mbtiles\"'`",
            )

    def _copied(self, real: str) -> str:
        """Return a private copy of the file with its log: without its -shm SQLite would have to write beside it."""
        size = os.path.getsize(real) + os.path.getsize(f"{real}-wal")
        if size > MOST_COPIED_BYTES:
            raise self.error(
                f"it has a write-ahead log (-wal) without its -shm, and {size:,} bytes are too many to copy",
                "copy it together with its -wal to a disk that can be written, and run"
                " `sqlite3 COPY 'VACUUM INTO \"whole.mbtiles\"'`",
            )
        self._copy = tempfile.TemporaryDirectory(prefix="flightcache-")
        target = os.path.join(self._copy.name, "copy")
        try:
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{real}{suffix}", f"{target}{suffix}")
        except OSError as error:
            self._copy.cleanup()
            raise _not_copied(self.path, error) from error
        return target

    def close(self) -> None:
        """Close every connection and remove a copy."""
        while self._all:
            self._all.pop().close()
        if self._copy is not None:
            self._copy.cleanup()


def _uri(path: str, options: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{options}"


def _not_copied(path: Path, error: OSError) -> FilesystemError:
    step = "free space in the temporary directory, or set TMPDIR" if error.errno == errno.ENOSPC else "run again"
    return FilesystemError(f"a tile source with a log cannot be copied: {error.strerror}", file=path, next_step=step)


def _in_words(error: sqlite3.Error) -> str:
    return f"a query on it yields nothing for {PATIENCE_S} s" if str(error) == "interrupted" else str(error)
