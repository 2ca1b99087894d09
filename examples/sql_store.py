"""A tile store over tables of a database, for `[[tiles.source]] plugin = "sql_store:SQLStore"`.

The tables are those of a small imagery catalogue, as one in PostGIS would have them: a row for each tile with its
address, provider, capture date, digest, the sector classes it is cleared for, and the number of the change that wrote
it.

    CREATE TABLE imagery(
      zoom INTEGER, col INTEGER, row INTEGER, provider TEXT, captured TEXT, sha256 TEXT, image BLOB,
      cleared_for TEXT,           -- sector classes with blanks between them, or '*'
      change INTEGER,             -- counted up by every INSERT and UPDATE
      PRIMARY KEY(zoom, col, row, provider));
    CREATE TABLE dropped(change INTEGER);  -- the last DELETE, counted alike

For PostgreSQL put its driver in place of `sqlite3`; for a table of geometries ask by `query.boxes()` and
ST_MakeEnvelope.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from provisioning.sources.store import StoredTile, TileQuery

LISTED = """
SELECT zoom, col, row, sha256, captured FROM imagery
WHERE zoom = ? AND col BETWEEN ? AND ? AND row BETWEEN ? AND ? AND provider = ?
  AND (cleared_for = '*' OR ' ' || cleared_for || ' ' LIKE '% ' || ? || ' %')
"""


class SQLStore:
    """Tiles of one provider. `root` is the directory of flight.toml; the rest are `options` of the source."""

    identity = "sql_store/1"

    def __init__(self, *, root: Path, database: str, provider: str) -> None:
        self._provider = provider
        self._uri = f"{(root / database).as_uri()}?mode=ro"
        self._own = threading.local()  # one connection for each thread: tiles are read by several
        self._all: list[sqlite3.Connection] = []
        self._db()

    def _db(self) -> sqlite3.Connection:
        if not hasattr(self._own, "db"):
            self._own.db = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
            self._all.append(self._own.db)
        db: sqlite3.Connection = self._own.db
        return db

    def stamp(self) -> str:
        """Return the number of the last change."""
        (last,) = (
            self._db()
            .execute("SELECT max(change) FROM (SELECT change FROM imagery UNION ALL SELECT change FROM dropped)")
            .fetchone()
        )
        return f"change {last}"

    def query(self, query: TileQuery) -> Iterator[StoredTile]:
        """Yield the provider's tiles in the area that are cleared for the sector class."""
        for rectangle in query.ranges():
            rows = self._db().execute(LISTED, (*rectangle, self._provider, query.sector_class))
            for z, x, y, sha256, captured in rows:
                day = date.fromisoformat(captured) if captured else None
                yield StoredTile(z, x, y, source=query.source, sha256=sha256 or "", captured=day)

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the image of one tile."""
        select = "SELECT image FROM imagery WHERE zoom = ? AND col = ? AND row = ? AND provider = ?"
        found = self._db().execute(select, (z, x, y, self._provider)).fetchone()
        return found[0] if found else None

    def close(self) -> None:
        """Close every connection."""
        for db in self._all:
            db.close()
