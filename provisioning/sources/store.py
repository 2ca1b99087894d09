"""The protocol of a tile store: what a scan asks of every source, and what an integrator implements in Python.

Named in flight.toml as `[[tiles.source]] plugin = "package.module:Store"`, or given to `rules.build(cache, tiles=…)`.
docs/tiles.md describes it, examples/sql_store.py is one over tables of a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Protocol, runtime_checkable

from provisioning.area.cover import Cover
from provisioning.base.geometry.angles import BBox
from provisioning.base.geometry.geo import tile_bounds_e7
from provisioning.base.named import NamedTuple


class TileQuery(NamedTuple):
    """Which tiles a scan wants: those of `cover`, the area at its zoom levels.

    `source` is the source's name in flight.toml, `sector_class` that of the flight.
    """

    cover: Cover
    source: str = ""
    sector_class: str = "default"

    @property
    def zooms(self) -> tuple[int, ...]:
        """The zoom levels, ascending."""
        return self.cover.zooms

    def ranges(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield the area as rectangles of tiles: zoom, first and last x, first and last y, all included."""
        for z in self.zooms:
            for band in self.cover.bands[z]:
                yield from ((z, band.left, band.right, top, bottom) for top, bottom in band.rows)

    def boxes(self) -> Iterator[tuple[int, BBox]]:
        """Yield the same as zoom and box in 1e-7 degree (WGS 84); none crosses the antimeridian."""
        for z, left, right, top, bottom in self.ranges():
            north_west, south_east = tile_bounds_e7(z, left, top), tile_bounds_e7(z, right, bottom)
            yield z, BBox(north_west.west, south_east.south, south_east.east, north_west.north)

    def holds(self, z: int, x: int, y: int) -> bool:
        """Return whether the area has this tile."""
        return self.cover.holds(z, x, y)


class StoredTile(NamedTuple):
    """One tile as a store lists it: its XYZ address, and what the store knows of it without being asked again.

    data      its bytes, if the store has them in hand; else None, and they are read when they are needed
    source    name of its source; empty: that of the query
    sha256    SHA-256 of its bytes, 64 lower-case hex digits; empty: not known. A tile whose digest is the one that was
              seen last is not read again
    captured  date of the imagery, None if not known
    """

    z: int
    x: int
    y: int
    data: bytes | None = None
    source: str = ""
    sha256: str = ""
    captured: date | None = None


def with_bytes(z: int, x: int, y: int, data: bytes | None) -> StoredTile:
    """Return a tile of a container, of which nothing but its bytes is known: a third of the time of the constructor."""
    return tuple.__new__(StoredTile, (z, x, y, data, "", "", None))


@runtime_checkable
class TileStore(Protocol):
    """A store of tiles. `read` may be called from several threads at a time; everything else from one.

    Whatever it raises stops the scan with an error that names the store and the tile; nothing is remembered of it.
    """

    identity: str
    """What decides its bytes beside options and content: its version, the rendering, the data set. With another one
    every tile is read again."""

    def stamp(self) -> str:
        """Return what differs whenever anything it would list differs; empty: not known, and each scan lists it."""

    def query(self, query: TileQuery) -> Iterable[StoredTile]:
        """Return the tiles that it has of a query, each once, none outside, in any order."""

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the bytes of one tile as they are stored, None if it is not there."""

    def close(self) -> None:
        """Free what it holds; it is not used after that."""
