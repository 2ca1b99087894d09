"""The bytes of a tile: read from a file of its own, checked. Who only decodes tiles need import no more of sources."""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256

from provisioning.base.errors import TileError
from provisioning.base.hashing import Sha256

MOST_TILE_BYTES = 32 << 20
"""A larger one is not read: no tile image is, and memory is bounded."""

SINCE_THE_SCAN = "since it was scanned"
"""How the reason ends for which a tile is not the one that was catalogued: its source is being written."""

Address = tuple[int, int, int, str, Sha256]
"""z, x, y, name of the source, SHA-256 of the bytes."""


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return a regular file's bytes without ever waiting on a pipe or device; OSError passes through."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if found.st_size > MOST_TILE_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_TILE_BYTES} bytes")
        data = os.read(fd, found.st_size + 1)
        while len(data) < found.st_size and (more := os.read(fd, found.st_size - len(data))):
            data += more
    finally:
        os.close(fd)
    return data


def checked(data: bytes | None, tile: Address) -> bytes:
    """Return `data` if it is what was catalogued as `tile`, else raise TileError."""
    if data is None or sha256(data).hexdigest() != tile[4]:
        z, x, y, source, _ = tile
        what = "is gone" if data is None else "has changed"
        raise TileError(
            f"tile {z}/{x}/{y} of {source} {what} {SINCE_THE_SCAN}",
            next_step="leave the tiles alone while a build runs, then run doit again",
        )
    return data
