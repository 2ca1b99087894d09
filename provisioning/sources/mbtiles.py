"""MBTiles: SQLite files with a table or view `tiles`, rows counted from the south (TMS).

https://github.com/mapbox/mbtiles-spec/blob/master/1.3/spec.md
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from provisioning.area.cover import Cover
from provisioning.base.errors import TileError
from provisioning.base.geo import MAX_ZOOM
from provisioning.config import TileSource
from provisioning.sources.source import MOST_TILE_BYTES, Stored, file_stamp, head_of

PATIENCE_S = 60
"""A query that yields nothing for so long is a hostile view, not a store of tiles."""
STEPS = 100_000
"""SQLite instructions between two looks at the clock."""
HEADER_BYTES = 100
DATA = f"CASE WHEN typeof(tile_data) = 'blob' AND length(tile_data) <= {MOST_TILE_BYTES} THEN tile_data END"
"""A text, a number or a monster in place of an image is as good as nothing."""


def stamp(path: Path, *, now_ns: int) -> str:
    """Return what tells whether an MBTiles file has changed: its stat, its header, and the stat of its log.

    In WAL mode a commit leaves both the file's stat and the change counter in its header as they were.
    """
    own = file_stamp(path, now_ns=now_ns)
    log = f"{path}-wal"
    late = file_stamp(log, now_ns=now_ns) if os.path.exists(log) else "-"
    return f"{own} {late} {head_of(path, HEADER_BYTES).hex()}" if own and late else ""


class MBTiles:
    """An MBTiles file, opened read-only, one connection per thread."""

    def __init__(self, source: TileSource) -> None:
        self.path = source.path
        self.flip = source.scheme != "xyz"
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []
        with self._translated():
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
        if b"tiles" not in tables:
            raise self._error("it has no table or view named tiles")
        if str(self.metadata().get("format", "")).lower() in ("pbf", "mvt"):
            raise self._error("it holds vector tiles (format pbf); imagery is needed")

    @property
    def _db(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._own, "db", None)
        if db is None:
            # Without a log beside it nobody is writing, and a read-only directory cannot be given one.
            alone = "" if os.path.exists(f"{self.path}-wal") or os.access(self.path.parent, os.W_OK) else "&immutable=1"
            uri = f"file:{quote(str(self.path))}?mode=ro{alone}"
            db = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=10)
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.text_factory = bytes
            self._own.db = db
            self._all.append(db)
        return db

    def _error(self, what: str) -> TileError:
        return TileError(f"MBTiles file cannot be used: {what}", file=self.path, next_step="make or copy it anew")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(str(error)) from error

    def tiles(self, cover: Cover) -> Iterator[Stored]:
        """Yield the tiles inside `cover`; rows whose numbers are no numbers are not tiles of it."""
        last = time.monotonic()
        db = self._db
        db.set_progress_handler(lambda: time.monotonic() - last > PATIENCE_S, STEPS)
        try:
            with self._translated():
                for z in cover.zooms:
                    for x, row, data in self._rows(db, cover, z):
                        y = (1 << z) - 1 - row if self.flip else row
                        if cover.holds(z, x, y):
                            yield Stored(z, x, y, data)
                            last = time.monotonic()
        finally:
            db.set_progress_handler(None, 0)

    def _rows(self, db: sqlite3.Connection, cover: Cover, z: int) -> Iterator[tuple[int, int, bytes | None]]:
        for band in cover.bands[z]:
            low, high = band.rows[0][0], band.rows[-1][1]
            if self.flip:
                low, high = (1 << z) - 1 - high, (1 << z) - 1 - low
            yield from db.execute(
                f"SELECT tile_column, tile_row, {DATA} FROM tiles"  # noqa: S608 - DATA is ours
                " WHERE zoom_level = ? AND tile_column BETWEEN ? AND ? AND tile_row BETWEEN ? AND ?"
                " AND typeof(tile_column) = 'integer' AND typeof(tile_row) = 'integer'",
                (z, band.left, band.right, low, high),
            )

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield z, x, y of every tile, without reading its bytes."""
        with self._translated():
            for z, x, row in self._db.execute("SELECT zoom_level, tile_column, tile_row FROM tiles"):
                numbers = all(isinstance(n, int) for n in (z, x, row))
                if numbers and 0 <= z <= MAX_ZOOM and 0 <= x < 1 << z and 0 <= row < 1 << z:
                    yield z, x, (1 << z) - 1 - row if self.flip else row

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the bytes of one tile."""
        row = (1 << z) - 1 - y if self.flip else y
        with self._translated():
            found = self._db.execute(
                f"SELECT {DATA} FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",  # noqa: S608
                (z, x, row),
            ).fetchone()
        return None if found is None else found[0]

    def metadata(self) -> dict[str, object]:
        """Return the metadata table."""
        try:
            rows = self._db.execute("SELECT name, value FROM metadata LIMIT 1000").fetchall()
        except sqlite3.Error:
            return {}
        return {_text(name): _text(value) for name, value in rows}

    def close(self) -> None:
        """Close every connection."""
        while self._all:
            self._all.pop().close()


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
