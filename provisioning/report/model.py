"""What a report shows, as frozen values. No wall time and no counter: a rollback re-signs and keeps the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from provisioning.base.geometry.angles import Origin
from provisioning.flight.manifest import Manifest


class LonLat(NamedTuple):
    """A point in 1e-7 degree."""

    lon_e7: int
    lat_e7: int


class Cell(NamedTuple):
    """A square of the map: `x`, `y` are its place at `TileMap.level`; x goes on counting past the antimeridian.

    `present` and `expected` count tiles of `TileMap.zoom`; `oldest` is the oldest known capture, YYYY-MM-DD; `sources`
    name where its tiles come from, in alphabetical order.
    """

    x: int
    y: int
    present: int
    expected: int
    oldest: str | None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TileMap:
    """Which tiles of one zoom level are there, in cells of 2**(zoom - level) tiles a side, ordered by (y, x)."""

    zoom: int
    level: int
    cells: tuple[Cell, ...]

    @property
    def is_rectangle(self) -> bool:
        """Whether the area at this zoom level is a whole rectangle of tiles."""
        columns, rows = {cell.x for cell in self.cells}, {cell.y for cell in self.cells}
        return len(self.cells) == len(columns) * len(rows)


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """The imagery in one small JPEG; the edges are at `level`, in tiles, x unrolled past the antimeridian."""

    jpeg: bytes
    level: int
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """A tile source: its tiles in the corpus and their capture dates, YYYY-MM-DD, where known."""

    name: str
    tiles: int
    oldest: str | None = None
    newest: str | None = None


class SkippedTile(NamedTuple):
    """A tile that is not in the corpus, and why."""

    z: int
    x: int
    y: int
    source: str
    reason: str


class TileMark(NamedTuple):
    """A tile that a person should see on the map: in which layer, and what is said of it."""

    z: int
    x: int
    y: int
    layer: str
    detail: str = ""


class Picture(NamedTuple):
    """A tile and its imagery as a small JPEG; None where it is not shown or cannot be read."""

    z: int
    x: int
    y: int
    source: str
    jpeg: bytes | None = None


class Failure(NamedTuple):
    """A tile that was looked up as a flight sees it, the tile that the index gave instead, and under what condition."""

    tile: Picture
    taken_for: Picture
    why: str


class Step(NamedTuple):
    """A task of the build, and the tasks or groups of tasks that come before it."""

    name: str
    after: tuple[str, ...]


class Change(NamedTuple):
    """One difference to the previous generation."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class ReportModel:
    """Everything that `render` shows.

    manifest     the draft Manifest with its hash; `other` need not list the report itself
    index_reason what is expected of the index: recall, latency, bytes
    maps         one TileMap for each zoom level; the finest is drawn large
    outline      rings of the area, each closed or not; empty: the bounding box, or where it is not filled, the tiles
    routes       mission lines over the map
    required     the tiles under the routes, one TileMap for each zoom level that has some
    sources      in the order of the Manifest
    skipped      tiles left out under `tiles.on_error = "skip"`, in the order of the corpus
    changes      against the generation before; None: this is the first
    key_fingerprint  SHA-256 of the raw public key, hex
    area_notes   what the files of the area leave open: legs that are not in it, assumptions
    marks        tiles of interest: degenerate, not recognised, required and missing, left out
    failures     tiles that are not recognised; the first of them with pictures
    steps        the tasks of the build in their order; empty: no picture of them
    notes        sentences about the engines: what their layers are, where the compiler says
    """

    manifest: Manifest
    index_reason: str = ""
    maps: tuple[TileMap, ...] = ()
    mosaic: Mosaic | None = None
    outline: tuple[tuple[LonLat, ...], ...] = ()
    routes: tuple[tuple[LonLat, ...], ...] = ()
    required: tuple[TileMap, ...] = ()
    sources: tuple[SourceRow, ...] = ()
    skipped: tuple[SkippedTile, ...] = ()
    changes: tuple[Change, ...] | None = None
    key_fingerprint: str = ""
    area_notes: tuple[str, ...] = ()
    marks: tuple[TileMark, ...] = ()
    failures: tuple[Failure, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def takeoff(self) -> Origin | None:
        """The take-off point, if the flight has one."""
        return self.manifest.flight.takeoff_origin
