"""A store of tiles: what kind it is, and what every kind can do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from provisioning.area.cover import Band, Cover
from provisioning.base.errors import TileError
from provisioning.base.geo import MAX_ZOOM
from provisioning.config import TileSource
from provisioning.sources.evidence import Statement

RACY_NS = 20_000_000
"""A file written this shortly before it was looked at may change again without changing its times: the clock of file
times ticks every 4 to 10 ms. Its stat is not remembered."""

MOST_TILE_BYTES = 32 << 20
"""A larger one is not read: no tile image is, and memory is bounded."""

EVERYTHING = Cover({z: (Band(0, (1 << z) - 1, ((0, (1 << z) - 1),)),) for z in range(MAX_ZOOM + 1)})
"""Every tile there is."""


class Stored(NamedTuple):
    """One tile as a container holds it; `data` is None where a row has no bytes."""

    z: int
    x: int
    y: int
    data: bytes | None


class Container(Protocol):
    """A file that holds many tiles."""

    def tiles(self, cover: Cover) -> Iterator[Stored]:
        """Yield the tiles inside `cover`, each once, in any order; TileError names the file if it is damaged."""

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield z, x, y of every tile, without reading its bytes."""

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the bytes of one tile, None if it is not there; may be called from several threads."""

    def metadata(self) -> dict[str, object]:
        """Return what the container says of itself."""

    def statements(self) -> list[Statement]:
        """Return what the container says of where its tiles are."""

    def close(self) -> None:
        """Close all files."""


def source_name(source: TileSource) -> str:
    """Return the name of a source in ids and Manifest."""
    return source.name or source.path.name


def file_stamp(path: str | os.PathLike[str], *, now_ns: int) -> str:
    """Return what a file's own stat says, empty while it is too young to be trusted; TileError if it is not there."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise TileError(
            f"tile source cannot be read: {error.strerror}", file=str(path), next_step="check tiles.source.path"
        ) from error
    if max(found.st_mtime_ns, found.st_ctime_ns) > now_ns - RACY_NS:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_dev} {found.st_ino}"


def head_of(path: str | os.PathLike[str], size: int) -> bytes:
    """Return the first bytes of a file."""
    try:
        with open(path, "rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise TileError(
            f"tile source cannot be read: {error.strerror}", file=str(path), next_step="check tiles.source.path"
        ) from error
