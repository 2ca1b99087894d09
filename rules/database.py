"""doit's own database: where it is, and whether doit can use it. Nothing in it is needed: artifact records decide."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import stat
import sys
from pathlib import Path

from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import FilesystemError
from provisioning.base.words import typed

IN_MEMORY = ":memory:"
COLUMNS = ["task_id", "task_data"]
"""Of the one table of doit's `SqliteDB` (0.37)."""
REMAKE = "remove it (`{}`): doit makes it anew, and builds nothing again; only what `doit ignore` set is forgotten"


class DamagedError(Exception):
    """The file is not a database of doit, or not one that this version of doit reads."""


def database(root: Path) -> str:
    """Return doit's database: in `.build`, or in memory for a `doit list` before anything was built."""
    build_dir = root / ".build"
    return str(build_dir / "doit.sqlite") if os.path.isdir(build_dir) else IN_MEMORY


def make_usable(path: str) -> None:
    """Remove the database where its bytes are damaged: doit makes it anew. Needs the build lock.

    FilesystemError where it can be neither read nor written: doit would end with a traceback, after its work.
    """
    try:
        _examine(path, writing=True)
    except DamagedError:
        with wrap_os_errors("remove doit's damaged database", path):
            os.unlink(path)


def for_reading(root: Path) -> str:
    """Return the database for a command that only shows: one in memory, with a warning, where it cannot be used."""
    path = database(root)
    try:
        _examine(path, writing=False)
    except DamagedError as error:
        _warn(
            f"doit's database is damaged ({error}); `doit` makes it anew, and builds nothing again\n  file:      {path}"
        )
    except FilesystemError as error:
        _warn(str(error))
    else:
        return path
    return IN_MEMORY


def _warn(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"WARNING: {text}", file=sys.stderr)


def _examine(path: str, *, writing: bool) -> None:
    """Read the whole database as doit will. Raises DamagedError, FilesystemError."""
    if path == IN_MEMORY:
        return
    _require_file(path)
    _require_file(path + "-journal")
    with wrap_os_errors("use doit's database", path):
        if writing:
            _require_writable(path)
        with contextlib.closing(sqlite3.connect(path)) as db:
            try:
                _read(db, writing=writing)
            except sqlite3.OperationalError as error:
                if writing and "readonly" in str(error):  # the system lets it be written
                    raise DamagedError("a newer SQLite has written it") from error
                raise
            except (sqlite3.DatabaseError, ValueError) as error:  # its messages quote what is no text
                raise DamagedError(str(error)) from error


def _require_file(path: str) -> None:
    with wrap_os_errors("use doit's database", path):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return
    if not stat.S_ISREG(mode):
        remove = typed("rm", "-r", path)
        raise FilesystemError("doit's database is not a file", file=path, next_step=REMAKE.format(remove))


def _require_writable(path: str) -> None:
    """Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    folder = os.path.dirname(path)  # the journal lies beside it
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)


def _read(db: sqlite3.Connection, *, writing: bool) -> None:
    """Raises DamagedError, sqlite3.Error, ValueError."""
    db.isolation_level = None
    db.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    columns = [name for (name,) in db.execute("SELECT name FROM pragma_table_info('doit')")]
    if not columns:
        return
    if columns != COLUMNS:
        raise DamagedError(f"its columns are {', '.join(columns)}")
    if db.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
        raise DamagedError("its pages contradict each other")
    for (entry,) in db.execute("SELECT CAST(task_data AS BLOB) FROM doit"):
        if not isinstance(json.loads(entry or b"null"), dict):
            raise DamagedError("an entry is no JSON object")
