"""Tiles in a table of a SQLite file: MBTiles, GeoPackage, and the .sqlitedb of RMaps, OsmAnd and Locus.

https://github.com/mapbox/mbtiles-spec/blob/master/1.3/spec.md
https://www.geopackage.org/spec/#tiles
https://osmand.net/docs/technical/osmand-file-formats/osmand-sqlite/
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from provisioning.area.cover import Band
from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import MAX_ZOOM
from provisioning.config import TileSource
from provisioning.sources.containers.sqlite_file import SQLiteFile, stamp
from provisioning.sources.placement.evidence import HALF_WORLD_M, Statement, degrees, from_metadata
from provisioning.sources.store import StoredTile, TileQuery, with_bytes
from provisioning.sources.tile_file import MOST_TILE_BYTES

GRID_TOLERANCE = 1e-3
"""Of a tile's side: a GeoPackage whose grid is off by more is not on the Web Mercator grid."""
WEB_MERCATOR_CODES = (3857, 900913, 3785, 102100, 102113)
BIG_PLANET = 17
"""RMaps and its successors store 17 minus the zoom."""


class Level(NamedTuple):
    """How rows of one stored zoom level are numbered: zoom `z`, and the tile at column 0 and row 0.

    `step` is 1 where rows are counted from the north, -1 from the south.
    """

    stored: int
    z: int
    x: int
    y: int
    step: int

    def tile(self, column: int, row: int) -> tuple[int, int, int]:
        """Return z, x, y of a row."""
        return self.z, self.x + column, self.y + self.step * row

    def row(self, y: int) -> int:
        """Return the stored row; the inverse of `tile`."""
        return (y - self.y) * self.step


class Columns(NamedTuple):
    """Names of a table of tiles and its columns, quoted."""

    table: str
    z: str
    x: str
    y: str
    data: str


class TileTable:
    """A table of tiles, opened read-only, one connection per thread."""

    identity = ""

    def __init__(self, source: TileSource, opened: Callable[[TileTable, TileSource], None]) -> None:
        self.path = source.path
        self.file = SQLiteFile(source.path)
        self.columns = Columns("tiles", "zoom_level", "tile_column", "tile_row", "tile_data")
        self.levels: tuple[Level, ...] = ()
        self.said: tuple[Statement, ...] = ()
        try:
            opened(self, source)
        except BaseException:
            self.file.close()
            raise

    @property
    def _data(self) -> str:
        data = self.columns.data
        # a text, a number or a monster in place of an image is as good as nothing
        return f"CASE WHEN typeof({data}) = 'blob' AND length({data}) <= {MOST_TILE_BYTES} THEN {data} END"

    def statements(self) -> list[Statement]:
        """Return what the file says of where its tiles are."""
        return list(self.said)

    def query(self, query: TileQuery) -> Iterator[StoredTile]:
        """Yield the tiles of a query; rows whose numbers are no numbers are not tiles of it."""
        with self.file.translated():
            for level in self.levels:
                _, z, left, top, step = level
                for band in query.cover.bands.get(z, ()):
                    is_whole = len(band.rows) == 1  # then the table was asked for these rows and no others
                    for column, row, data in self._rows(level, band):
                        y = top + step * row
                        if is_whole or any(low <= y <= high for low, high in band.rows):
                            yield with_bytes(z, left + column, y, data)
                            self.file.go_on()

    def _rows(self, level: Level, band: Band) -> sqlite3.Cursor:
        """Return column, row and bytes of the tiles in a band of columns, from its first row to its last."""
        table, zoom, column, row, _ = self.columns
        ends = sorted((level.row(band.rows[0][0]), level.row(band.rows[-1][1])))
        return self.file.db.execute(
            f"SELECT {column}, {row}, {self._data} FROM {table}"  # noqa: S608 - quoted names
            f" WHERE {zoom} = ? AND {column} BETWEEN ? AND ? AND {row} BETWEEN ? AND ?"
            f" AND typeof({column}) = 'integer' AND typeof({row}) = 'integer'",
            (level.stored, band.left - level.x, band.right - level.x, *ends),
        )

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield z, x, y of every tile, without reading its bytes. TileError if most rows are no tiles."""
        levels: dict[object, tuple[Level, int]] = {level.stored: (level, 1 << level.z) for level in self.levels}
        table, zoom, column, row, _ = self.columns
        good = bad = 0
        with self.file.translated():
            for stored, x, y in self.file.db.execute(f"SELECT {zoom}, {column}, {row} FROM {table}"):  # noqa: S608
                if type(stored) is type(x) is type(y) is int and stored in levels:
                    (_, z, left, top, step), side = levels[stored]
                    tile = z, left + x, top + step * y
                    if 0 <= tile[1] < side and 0 <= tile[2] < side:
                        good += 1
                        yield tile
                        self.file.go_on()
                        continue
                bad += 1
        if bad > good:
            raise self.file.error(
                f"{bad:,} of its {good + bad:,} rows are no tiles: their numbers do not fit their zoom level",
                "look at the zoom levels and rows of its table; another program may number them otherwise",
            )

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the bytes of one tile."""
        level = next((level for level in self.levels if level.z == z), None)
        if level is None:
            return None
        table, zoom, column, row, _ = self.columns
        with self.file.translated():
            found = self.file.db.execute(
                f"SELECT {self._data} FROM {table} WHERE {zoom} = ? AND {column} = ? AND {row} = ?",  # noqa: S608
                (level.stored, x - level.x, level.row(y)),
            ).fetchone()
        return None if found is None else found[0]

    def metadata(self) -> dict[str, object]:
        """Return the metadata table, empty if there is none."""
        try:
            rows = self.file.db.execute("SELECT name, value FROM metadata LIMIT 1000").fetchall()
        except sqlite3.Error:
            return {}
        return {_text(name): _text(value) for name, value in rows}

    def stamp(self) -> str:
        """Return what tells whether the file has changed."""
        return stamp(self.path, now_ns=time.time_ns())

    def close(self) -> None:
        """Close every connection."""
        self.file.close()


def database_kind(path: Path) -> str:
    """Return mbtiles, geopackage or sqlitedb, from the tables of a SQLite file."""
    file = SQLiteFile(path)
    try:
        with file.translated():
            tables = _tables(file)
            columns = {_text(row[1]).lower() for row in file.db.execute("PRAGMA table_info(tiles)")}
    finally:
        file.close()
    if "gpkg_contents" in tables:
        return "geopackage"
    return "sqlitedb" if {"x", "y", "z", "image"} <= columns and "zoom_level" not in columns else "mbtiles"


def open_mbtiles(table: TileTable, source: TileSource) -> None:
    """Take a table or view `tiles` whose rows are counted from the south, unless `scheme` says otherwise."""
    with table.file.translated():
        if "tiles" not in _tables(table.file):
            raise table.file.error("it has no table or view named tiles (MBTiles)")
    metadata = table.metadata()
    if str(metadata.get("format", "")).lower() in ("pbf", "mvt"):
        raise table.file.error("it holds vector tiles (format pbf); imagery is needed")
    table.said = (from_metadata("the metadata table", metadata),)
    south = source.scheme != "xyz"
    table.levels = tuple(_level(z, z, south=south) for z in range(MAX_ZOOM + 1))


def open_sqlitedb(table: TileTable, source: TileSource) -> None:
    """Take the table of RMaps, OsmAnd or Locus: zooms inverted unless its `info` says they are simple."""
    table.columns = Columns("tiles", "z", "x", "y", "image")
    info = _info(table)
    if str(info.get("ellipsoid", "")) == "1":
        raise table.file.error("it is in elliptical Mercator (Yandex); Web Mercator is needed", "reproject its source")
    simple = str(info.get("tilenumbering", "BigPlanet")).lower() != "bigplanet"
    declared_south = str(info.get("inverted_y", "")) == "1"
    south = declared_south if source.scheme == "auto" else source.scheme == "tms"
    zooms = range(MAX_ZOOM + 1)
    table.levels = tuple(_level(z if simple else BIG_PLANET - z, z, south=south) for z in zooms)
    bounds = [info.get(name) for name in ("minzoom", "maxzoom")]
    if all(isinstance(n, int) for n in bounds):
        low, high = sorted(n if simple else BIG_PLANET - n for n in bounds if isinstance(n, int))
        table.said = (Statement(file="its info table", zooms=(low, high)),)


def _info(table: TileTable) -> dict[str, object]:
    try:
        found = table.file.db.execute("SELECT * FROM info LIMIT 1")
        names = [str(column[0]).lower() for column in found.description]
        row = found.fetchone() or ()
    except sqlite3.Error:
        return {}
    return {name: _text(value) if isinstance(value, bytes) else value for name, value in zip(names, row, strict=False)}


def open_geopackage(table: TileTable, source: TileSource) -> None:
    """Take a GeoPackage's tile table; its tile matrix set must lie on the Web Mercator grid."""
    with table.file.translated():
        kinds = {
            _text(n): _text(k)
            for n, k in table.file.db.execute("SELECT table_name, data_type FROM gpkg_contents LIMIT 1000")
        }
        name = _chosen(table, kinds, source.table)
        table.columns = Columns(
            '"' + name.replace('"', '""') + '"', "zoom_level", "tile_column", "tile_row", "tile_data"
        )
        srs, *sides = table.file.db.execute(
            "SELECT srs_id, min_x, min_y, max_x, max_y FROM gpkg_tile_matrix_set WHERE table_name = ?", (name,)
        ).fetchone() or (None,)
        code = table.file.db.execute(
            "SELECT organization_coordsys_id FROM gpkg_spatial_ref_sys WHERE srs_id = ?", (srs,)
        ).fetchone()
        matrices = table.file.db.execute(
            "SELECT zoom_level, tile_width, tile_height, pixel_x_size, pixel_y_size, matrix_width, matrix_height"
            " FROM gpkg_tile_matrix WHERE table_name = ? ORDER BY zoom_level LIMIT 100",
            (name,),
        ).fetchall()
        box = table.file.db.execute(
            "SELECT min_x, min_y, max_x, max_y FROM gpkg_contents WHERE table_name = ?", (name,)
        ).fetchone()
    if (code[0] if code else srs) not in WEB_MERCATOR_CODES:
        raise _off_grid(table, name, f"its coordinate system is {code[0] if code else srs}, not EPSG:3857")
    table.levels = tuple(_matrix_level(table, name, row, sides) for row in matrices)
    if box and all(isinstance(side, int | float) and math.isfinite(side) for side in box) and box[0] < box[2]:
        table.said = (Statement(file=f"gpkg_contents ({name})", boxes=(degrees(*box),)),)


def _chosen(table: TileTable, kinds: dict[str, str], wanted: str) -> str:
    tables = sorted(name for name, kind in kinds.items() if kind == "tiles")
    if wanted in tables:
        return wanted
    if wanted or len(tables) != 1:
        shown = ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items())) or "nothing"
        what = f"no tile table {wanted}" if wanted else f"{len(tables)} tile tables" if tables else "no tile table"
        raise TileError(
            f"GeoPackage cannot be used: it has {what}", file=table.path, key="tiles.source.table",
            facts={"it holds": shown},
            next_step=f'set tiles.source.table = "{tables[0]}"' if tables else "export its imagery as tiles",
        )  # fmt: skip
    return tables[0]


def _matrix_level(table: TileTable, name: str, row: tuple[float, ...], sides: list[float]) -> Level:
    """Return the level of one tile matrix. Its upper left corner is that of the tile matrix set."""
    stored, tile_width, tile_height, pixel_x, pixel_y, _, _ = row
    if not all(isinstance(n, int | float) and math.isfinite(n) and n > 0 for n in row[1:]):
        raise table.file.error(f"its tile matrix {stored} is damaged")
    span_x, span_y = tile_width * pixel_x, tile_height * pixel_y
    zoom = math.log2(2 * HALF_WORLD_M / span_x)
    z = round(zoom)
    left, top = (sides[0] + HALF_WORLD_M) / span_x, (HALF_WORLD_M - sides[3]) / span_y
    on_grid = (
        abs(zoom - z) < 1e-6 and math.isclose(span_x, span_y, rel_tol=1e-6) and 0 <= z <= MAX_ZOOM
        and all(abs(edge - round(edge)) < GRID_TOLERANCE for edge in (left, top))
    )  # fmt: skip
    if not on_grid:
        raise _off_grid(table, name, f"its zoom level {stored} is not on the Web Mercator grid")
    return Level(int(stored), z, round(left), round(top), 1)


def _off_grid(table: TileTable, name: str, why: str) -> TileError:
    return TileError(
        f"GeoPackage cannot be used: {why}", file=table.path, key="tiles.source.path",
        next_step=f"make tiles of it: `gdal_translate -oo TABLE={name} FILE.gpkg sheet.tif` (a GeoTIFF is a source),"
        " or `-of GPKG -co TILING_SCHEME=GoogleMapsCompatible`",
    )  # fmt: skip


def _level(stored: int, z: int, *, south: bool) -> Level:
    return Level(stored, z, 0, (1 << z) - 1, -1) if south else Level(stored, z, 0, 0, 1)


def _tables(file: SQLiteFile) -> set[str]:
    return {_text(name) for (name,) in file.db.execute("SELECT name FROM sqlite_master")}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


OPENERS = {"mbtiles": open_mbtiles, "geopackage": open_geopackage, "sqlitedb": open_sqlitedb}
"""What takes a table of each kind."""


def open_table(source: TileSource, kind: str) -> TileTable:
    """Open a SQLite file of tiles; TileError if it cannot be used."""
    return TileTable(source, OPENERS[kind])
