"""Locks between the users of one descriptor store, and its errors in our own words."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioning.base.disk.files import discard, wrap_os_errors
from provisioning.base.errors import DescriptorError, FilesystemError

MAP = "map.sqlite"


@contextmanager
def wrap_errors(what: str, path: Path) -> Iterator[None]:
    """Turn errors of the operating system and of SQLite in the block into FilesystemError or DescriptorError."""
    try:
        with wrap_os_errors(what, path):
            yield
    except sqlite3.OperationalError as error:
        raise FilesystemError(
            f"cannot {what}: {error}", file=path, next_step="check the disk and its free space, then run doit again"
        ) from error
    except sqlite3.DatabaseError as error:
        for generation in path.glob(f"g*/{MAP}"):
            discard_map(generation.parent)
        raise DescriptorError(
            f"the key map is damaged and was dropped: {error}",
            file=path,
            next_step="run doit again: it is made anew from the descriptors",
        ) from error


def discard_map(directory: Path) -> None:
    """Remove the key map of one generation; the shards hold all that it held."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        discard(directory / (MAP + suffix))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock on `path` for the length of the block."""
    fd = lock_file(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def lock_file(path: Path, operation: int) -> int:
    """Return a file descriptor that holds a lock on `path` until it is closed. The file is never unlinked."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, operation)
    except BaseException:
        os.close(fd)
        raise
    return fd
