"""A store of tiles: what kind it is, and what every kind can do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from provisioning.area.cover import Band, Cover
from provisioning.base.disk.files import open_regular, wrap_os_errors
from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import MAX_ZOOM
from provisioning.config import TileSource
from provisioning.config.naming import default_name
from provisioning.sources.placement.evidence import Statement
from provisioning.sources.store import TileStore

OF_THE_FILE = frozenset({
    errno.EACCES, errno.EPERM, errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG, errno.ENXIO,
})  # fmt: skip
"""What the system says of a file; every other error is of the machine at this moment."""

RACY_NS = 20_000_000
"""A file written this shortly before it was looked at may change again without changing its times: the clock of file
times ticks every 4 to 10 ms. Its stat is not remembered."""

MOST_LISTED = 50_000_000
"""Tiles of one source that are listed as a whole; a file of some hundred bytes may claim any number."""

SHEET_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k")
"""Of the rasters in a directory of map sheets."""

EVERYTHING = Cover({z: (Band(0, (1 << z) - 1, ((0, (1 << z) - 1),)),) for z in range(MAX_ZOOM + 1)})
"""Every tile there is."""


class Container(TileStore, Protocol):
    """A file that holds many tiles: what it lists comes with its bytes.

    `query` raises TileError naming the file if it is damaged.
    """

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield z, x, y of every tile, without reading its bytes."""

    def metadata(self) -> dict[str, object]:
        """Return what the container says of itself."""

    def statements(self) -> list[Statement]:
        """Return what the container says of where its tiles are."""


class _Listing(Protocol):
    def addresses(self) -> Iterator[tuple[int, int, int]]: ...


def listed(store: _Listing, source: TileSource) -> Iterator[tuple[int, int, int]]:
    """Yield z, x, y of every tile of a store; TileError if they are more than MOST_LISTED."""
    for count, address in enumerate(store.addresses(), 1):
        check_count(count, source.path)
        yield address


def check_count(count: int, path: Path) -> None:
    """Raise TileError if a source holds more tiles than are listed."""
    if count > MOST_LISTED:
        raise TileError(
            "the source holds, or claims to hold, more tiles than can be listed", file=path,
            facts={"limit": f"{MOST_LISTED:,}"}, next_step="cut the part out of it that the flight needs",
        )  # fmt: skip


def source_name(source: TileSource) -> str:
    """Return the name of a source in ids and Manifest."""
    return source.name or default_name(source)


@contextmanager
def reading(what: str, path: str | os.PathLike[str], *, next_step: str = "") -> Iterator[None]:
    """Raise an OSError of the block as a TileError where it is the file's, else as a FilesystemError: the machine's."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_FILE:
            raise TileError(f"{what} cannot be read: {error.strerror}", file=str(path), next_step=next_step) from error
        with wrap_os_errors(f"read {what}", str(path)):
            raise


def reading_source(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Do as `reading` for a file or directory that flight.toml names."""
    return reading("tile source", path, next_step="check tiles.source.path")


def file_stamp(path: str | os.PathLike[str], *, now_ns: int) -> str:
    """Return what a file's own stat says, empty while it is too young to be trusted; TileError if it is not there."""
    with reading_source(path):
        found = os.stat(path)
    if max(found.st_mtime_ns, found.st_ctime_ns) > now_ns - RACY_NS:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_dev} {found.st_ino}"


def head_of(path: str | os.PathLike[str], size: int) -> bytes:
    """Return the first bytes of a file."""
    with reading_source(path), open_regular(path) as stream:
        return stream.read(size)
