"""The corpus of the last scan, read from the catalogue; the bytes of a tile, checked against it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.batches import batches_of
from provisioning.base.disk.lock import is_held_for
from provisioning.base.errors import TileError
from provisioning.base.hashing import Sha256
from provisioning.base.named import NamedTuple
from provisioning.catalogue import database
from provisioning.catalogue.scanning.columns import TAKEN_FIELDS, TAKEN_ROW, UNDATED
from provisioning.catalogue.scanning.settings import choice_facts
from provisioning.catalogue.summing import at_takeoff
from provisioning.catalogue.values import Corpus, Tile, not_scanned
from provisioning.config import Selection, TileSource
from provisioning.sources.source import reading, source_name
from provisioning.sources.store import TileStore
from provisioning.sources.stores import kind_of, open_tiles, with_kinds
from provisioning.sources.tile_file import checked, read_file
from provisioning.sources.xyz import Layout

COLUMNS = 256
"""Columns of tiles of which all fields are in memory together."""
Placed = tuple[int, int, int, str, bytes]
"""z, x, y, source and SHA-256 (32 bytes) of a tile."""

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def last_corpus(selection: Selection, build_dir: Path) -> Corpus | None:
    """Return the corpus of the last scan without looking at any tile; None if these settings were never scanned."""
    with database.reading(build_dir) as db:
        if db is None or database.get(db, "choice_facts") != choice_facts(selection):
            return None
        text = database.get(db, "corpus")
        return None if text is None else at_takeoff(db, selection.takeoff, Corpus.from_json(text))


@contextmanager
def _catalogue(build_dir: Path) -> Iterator[sqlite3.Connection]:
    with database.reading(build_dir) as db:
        if db is None or database.get(db, "corpus") is None:
            raise not_scanned()
        try:
            yield db
        except (sqlite3.DatabaseError, database.DamagedError) as error:
            raise _damaged(build_dir, error) from error


def _damaged(build_dir: Path, error: Exception) -> TileError:
    """Return what is said of a damaged catalogue; a builder has what is damaged read again by its next scan."""
    if isinstance(error, database.DamagedError) and is_held_for(build_dir):
        with database.opened(build_dir) as db:
            database.begin_again(db, error.columns)
    path = database.catalogue_path(build_dir)
    return TileError(
        f"the tile catalogue is damaged: {error}",
        file=path,
        next_step="run `doit` again: it reads anew what is damaged",
    )


def _columns(db: sqlite3.Connection, since: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Yield z, x and the packed tiles of each column of the corpus that changed after state `since`, by z and x.

    DamagedError names a column that is not what was written.
    """
    select = (
        "SELECT t.z, t.x, t.chk, t.rows FROM col c CROSS JOIN taken t ON t.z = c.z AND t.x = c.x"
        " WHERE c.changed > ? ORDER BY c.z, c.x"
    )
    for z, x, check, packed in db.execute(select, (since,)):
        if database.column_check(z, x, (), packed) != check:
            raise database.DamagedError([(z, x)])
        yield z, x, packed


def states(build_dir: Path) -> list[tuple[int, Sha256]]:
    """Return number and coverage digest of the last states of the corpus, newest first."""
    with _catalogue(build_dir) as db:
        rows = db.execute("SELECT state, coverage_sha256 FROM corpus ORDER BY state DESC")
        return [(state, Sha256(digest)) for state, digest in rows]


def count_changed(build_dir: Path, *, since: int) -> int:
    """Return how many tiles `iter_placed` yields."""
    with _catalogue(build_dir) as db:
        return int(db.execute("SELECT sum(count) FROM col WHERE changed > ?", (since,)).fetchone()[0] or 0)


def changed_columns(build_dir: Path, *, since: int) -> list[tuple[int, int]]:
    """Return z and x of the columns of the corpus that changed after state `since`."""
    with _catalogue(build_dir) as db:
        return db.execute("SELECT z, x FROM col WHERE changed > ?", (since,)).fetchall()


def iter_placed(build_dir: Path, *, since: int = 0) -> Iterator[Placed]:
    """Yield place and digest of each tile in the columns of the corpus that changed after state `since`.

    As the catalogue lies: nothing need be sorted first.
    """
    with _catalogue(build_dir) as db:
        names = dict(db.execute("SELECT number, name FROM source"))
        for z, x, packed in _columns(db, since):
            for y, source, _, _, _, digest in TAKEN_ROW.iter_unpack(packed):
                yield z, x, y, names[source], digest


def tile_of(placed: Placed) -> Tile:
    """Return the tile of a row of `iter_placed`."""
    z, x, y, source, digest = placed
    return Tile(z, x, y, source, Sha256(digest.hex()))


def iter_tiles(build_dir: Path) -> Iterator[Tile]:
    """Yield the tiles of the corpus in the order (zoom, latitude, longitude, source), south and west first."""
    import numpy as np

    table = _table(build_dir)
    rows, names = table.rows, table.names
    order = np.lexsort((table.source, table.x, -rows["y"].astype(np.int64), table.z))
    for at in order.tolist():
        digest = Sha256(rows["sha256"][at].tobytes().hex())
        yield Tile(int(table.z[at]), int(table.x[at]), int(rows["y"][at]), names[table.source[at]], digest)


def distinct_digests(build_dir: Path, *, since: int = 0) -> Iterator[bytes]:
    """Yield the SHA-256 (32 bytes) of every different tile that `iter_placed` yields."""
    import numpy as np

    with _catalogue(build_dir) as db:
        packed = b"".join(packed for _, _, packed in _columns(db, since))
    digests = np.unique(np.frombuffer(packed, TAKEN_FIELDS)["sha256"].copy())
    yield from (digest.tobytes() for digest in digests)


def dated_places(build_dir: Path, zoom: int) -> Iterator[tuple[int, int, str | None]]:
    """Yield (x, y, oldest capture date) of every address of the corpus at one zoom level, each once."""
    table = _table(build_dir)
    here = table.z == zoom
    oldest: dict[tuple[int, int], int] = {}
    columns = (table.x[here], table.rows["y"][here], table.rows["day"][here])
    for x, y, day in zip(*(column.tolist() for column in columns), strict=True):
        known = oldest.get((x, y), UNDATED)
        oldest[x, y] = min(day, known) if day and known else day or known
    for (x, y), day in oldest.items():
        yield x, y, _date(day)


def source_places(build_dir: Path, zoom: int) -> Iterator[tuple[int, int, str]]:
    """Yield (x, y, source) of every tile of the corpus at one zoom level."""
    with _catalogue(build_dir) as db:
        yield from db.execute(
            "SELECT t.x, t.y, s.name FROM tile t JOIN source s ON s.number = t.source WHERE t.z = ? AND t.state = ?",
            (zoom, database.TAKEN),
        )


def source_rows(build_dir: Path) -> Iterator[tuple[str, int, str | None, str | None]]:
    """Yield (name, tiles in the corpus, oldest, newest capture date) of every source, by name."""
    table = _table(build_dir)
    for number, name in enumerate(table.names):
        days = table.rows["day"][table.source == number]
        dated = days[days != UNDATED]
        ends = (int(dated.min()), int(dated.max())) if len(dated) else (UNDATED, UNDATED)
        yield name, len(days), _date(ends[0]), _date(ends[1])


def _date(day: int) -> str | None:
    return date.fromordinal(day).isoformat() if day != UNDATED else None


def corpus_table(build_dir: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the index ids of the corpus (heading 0), int64 [n] ascending, and their SHA-256, uint8 [n, 32]."""
    import numpy as np

    ids, digests = _by_id(build_dir, "sha256")
    return ids, np.ascontiguousarray(digests).view(np.uint8).reshape(-1, 32)


def flat_ids(build_dir: Path, below: float) -> NDArray[np.int64]:
    """Return the index ids (heading 0) of tiles whose grey levels have a standard deviation of less than `below`."""
    import numpy as np

    ids, textures = _by_id(build_dir, "texture_centi")
    return ids[textures.astype(np.int64) < 100 * below]


def tile_lengths(build_dir: Path) -> NDArray[np.int64]:
    """Return the bytes of each tile of the corpus, int64 [n], in the order of `corpus_table`."""
    return _by_id(build_dir, "bytes")[1].astype("int64")


class Table(NamedTuple):
    """The tiles of the corpus, as the catalogue lies: by z and x, unless another order is said.

    z, x     int64 [n]
    source   position in `names`, int64 [n]
    rows     structured as `TAKEN_FIELDS` [n]
    names    of all sources, sorted
    """

    z: NDArray[np.int64]
    x: NDArray[np.int64]
    source: NDArray[np.int64]
    rows: NDArray[np.void]
    names: tuple[str, ...]


def _table(build_dir: Path) -> Table:
    with _catalogue(build_dir) as db:
        return _table_of(list(_columns(db)), _numbers(db))


def _numbers(db: sqlite3.Connection) -> dict[int, str]:
    return dict(db.execute("SELECT number, name FROM source"))


def _table_of(columns: list[tuple[int, int, bytes]], numbers: dict[int, str]) -> Table:
    import numpy as np

    names = sorted(numbers.values())
    rows = np.frombuffer(b"".join(packed for _, _, packed in columns), TAKEN_FIELDS)
    counts = [len(packed) // rows.itemsize for _, _, packed in columns]
    z, x = (np.repeat(np.array([column[n] for column in columns], np.int64), counts) for n in range(2))
    places = {number: names.index(name) for number, name in numbers.items()}
    source = np.array([places.get(number, 0) for number in range(max(places, default=0) + 1)])[rows["source"]]
    return Table(z, x, source, rows, tuple(names))


def corpus_by_id(build_dir: Path) -> tuple[NDArray[np.int64], Table]:
    """Return the index ids of the tiles (heading 0), int64 [n] ascending, and the tiles in this order."""
    import numpy as np

    table = _table(build_dir)
    ids = _ids_of(table)
    order = np.argsort(ids, kind="stable")
    z, x, source = (each[order] for each in (table.z, table.x, table.source))
    return ids[order], Table(z, x, source, table.rows[order], table.names)


def _ids_of(table: Table) -> NDArray[np.int64]:
    import numpy as np

    from provisioning.catalogue.packing import pack_ids

    return pack_ids(table.z, table.x, table.rows["y"].astype(np.int64), table.source)


def _by_id(build_dir: Path, field: str) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Return the index ids of the tiles of the corpus, int64 [n] ascending, and a field of `TAKEN_FIELDS` of each.

    A part of the columns at a time: all fields of a million tiles are 150 MB.
    """
    import numpy as np

    ids, values = [np.empty(0, np.int64)], [np.empty(0, np.dtype(TAKEN_FIELDS)[field])]
    with _catalogue(build_dir) as db:
        numbers = _numbers(db)
        for columns in batches_of(_columns(db), COLUMNS):
            table = _table_of(columns, numbers)
            ids.append(_ids_of(table))
            values.append(table.rows[field].copy())
    every, joined = np.concatenate(ids), np.concatenate(values)
    ids.clear()
    values.clear()
    order = np.argsort(every, kind="stable")
    return every[order], joined[order]


class _Suffixes:
    """What the file name of a tile ends with, from the catalogue; asked once for a column whose tiles agree.

    Asked for each tile by four threads it was a sixth of all that reading and decoding took.
    """

    def __init__(self, build_dir: Path) -> None:
        self._lock = threading.Lock()
        path = database.catalogue_path(build_dir)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._numbers: dict[str, int] = dict(self._db.execute("SELECT name, number FROM source"))
        self._agreed: dict[tuple[int, int, int | None], str | None] = {}

    def of(self, tile: Tile) -> str:
        column = tile.z, tile.x, self._numbers.get(tile.source)
        if column not in self._agreed:
            found = self._ask("SELECT DISTINCT suffix FROM tile WHERE (z, x, source) = (?, ?, ?)", column)
            self._agreed[column] = found[0] if len(found) == 1 else None
        suffix = self._agreed[column]
        if suffix is None:
            found = self._ask("SELECT suffix FROM tile WHERE (z, x, source, y) = (?, ?, ?, ?)", (*column, tile.y))
            suffix = found[0] if found else ""
        return suffix

    def _ask(self, select: str, where: tuple[int | None, ...]) -> list[str]:
        with self._lock:
            return [suffix for (suffix,) in self._db.execute(select, where)]

    def close(self) -> None:
        self._db.close()


class TileReader:
    """Reads tiles of the corpus; may be used from several threads. Containers are opened when they are first read."""

    def __init__(self, sources: Sequence[TileSource], build_dir: Path) -> None:
        self._all = sources
        self._kinds = {source_name(source): kind_of(source) for source in self._all}
        self._layouts = {source_name(s): Layout(s) for s in self._all if self._kinds[source_name(s)] == "xyz"}
        self._roots = {name: os.path.abspath(layout.root) for name, layout in self._layouts.items()}
        self._containers: dict[str, TileStore] = {}
        self._opening = threading.Lock()
        for source in self._all:
            if self._kinds[source_name(source)] == "plugin":
                self._container(source_name(source))
        self._suffixes = _Suffixes(build_dir)

    @property
    def sources(self) -> tuple[TileSource, ...]:
        """The sources that another process can read tiles of, each with its kind: all but plugins."""
        return with_kinds(self._all)

    def given(self, tile: Tile) -> str | bytes | None:
        """Return what another process needs to read `tile`: the path of its file, its bytes from a plugin, or None.

        None: it reads the container itself. TileError as `read`.
        """
        layout = self._layouts.get(tile.source)
        if layout:
            below = layout.below(tile.z, tile.x, tile.y, self._suffixes.of(tile))
            return f"{self._roots[tile.source]}/{below}"
        return self.read(tile) if self._kinds[tile.source] == "plugin" else None

    def read(self, tile: Tile) -> bytes:
        """Return the bytes of `tile`; TileError if they are gone or not those that were catalogued."""
        layout = self._layouts.get(tile.source)
        data = self._file(layout, tile) if layout else self._container(tile.source).read(tile.z, tile.x, tile.y)
        return checked(data, tile)

    def _container(self, name: str) -> TileStore:
        with self._opening:
            if name not in self._containers:
                source = next(source for source in self._all if source_name(source) == name)
                self._containers[name] = open_tiles(source, self._all)
            return self._containers[name]

    def _file(self, layout: Layout, tile: Tile) -> bytes | None:
        path = layout.path(tile.z, tile.x, tile.y, self._suffixes.of(tile))
        with reading("a tile", path):
            try:
                return read_file(path)
            except FileNotFoundError:
                return None

    def close(self) -> None:
        """Close all containers."""
        self._suffixes.close()
        for container in self._containers.values():
            container.close()


@contextmanager
def open_reader(sources: Sequence[TileSource], build_dir: Path) -> Iterator[TileReader]:
    """Open the stores to read tiles of the corpus."""
    reader = TileReader(sources, build_dir)
    try:
        yield reader
    finally:
        reader.close()
