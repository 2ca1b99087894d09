"""When the imagery of a tile was captured, as the source is configured to say; nothing is guessed."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from provisioning.base.disk.files import open_regular, open_text
from provisioning.base.errors import TileError
from provisioning.catalogue import database
from provisioning.catalogue.scanning.writer import Day
from provisioning.config import TileSource
from provisioning.sources.source import file_stamp, reading
from provisioning.sources.stores import kind_of, open_container

DAY_NS = 86_400 * 10**9
EPOCH_DAY = date(1970, 1, 1).toordinal()
KEYS = ("captured", "capture_date", "acquisition_date", "acquired", "datetime", "date")
"""Names under which metadata may give the date, the first found is taken."""
METADATA_FILES = ("metadata.json", "tilejson.json", "tiles.json")
MOST_METADATA_BYTES = 1 << 20


def day_rule(db: sqlite3.Connection, number: int, source: TileSource, root: Path, *, now_ns: int) -> Day | None:
    """Return the function that dates a tile of `source`; catalogued tiles are dated anew if what dates them changed.

    None where flight.toml says nothing of it: then a tile has the date that its store lists, if any.

    TileError if the metadata hold no date, or a line of the CSV is no tile and date.
    """
    facts = _facts(source, root, now_ns=now_ns)
    (known,) = db.execute("SELECT capture FROM source WHERE number = ?", (number,)).fetchone()
    if known != facts or not facts:
        _date_again(db, number, source, root, facts)
    if source.captured == "mtime" and kind_of(source) == "xyz":
        return lambda _z, _x, _y, mtime_ns: EPOCH_DAY + mtime_ns // DAY_NS
    if source.captured.endswith(".csv"):
        return lambda z, x, y, _mtime_ns: _listed(db, number, z, x, y)
    (day,) = db.execute("SELECT day FROM source WHERE number = ?", (number,)).fetchone()
    return (lambda _z, _x, _y, _mtime_ns: day) if source.captured else None


def _listed(db: sqlite3.Connection, number: int, z: int, x: int, y: int) -> int | None:
    row = db.execute("SELECT day FROM capture WHERE (source, z, x, y) = (?, ?, ?, ?)", (number, z, x, y)).fetchone()
    return None if row is None else row[0]


def _facts(source: TileSource, root: Path, *, now_ns: int) -> str:
    """Return what decides the dates; empty while a file that does is too young to be trusted."""
    file: Path | None = None
    if source.captured.endswith(".csv"):
        file = root / source.captured
    elif source.captured == "metadata":
        file = _metadata_file(source)
    elif source.captured == "mtime" and kind_of(source) not in ("xyz", "plugin"):
        file = source.path
    stamp = file_stamp(file, now_ns=now_ns) if file else "-"
    return f"{source.captured} {stamp}" if stamp else ""


def _metadata_file(source: TileSource) -> Path:
    if kind_of(source) != "xyz":
        return source.path
    found = next((source.path / name for name in METADATA_FILES if (source.path / name).is_file()), None)
    if found is None:
        raise TileError(
            f"the source has none of {', '.join(METADATA_FILES)}",
            file=source.path,
            key="tiles.source.captured",
            next_step="add one with a capture date, or give captured = YYYY-MM-DD",
        )
    return found


def _date_again(db: sqlite3.Connection, number: int, source: TileSource, root: Path, facts: str) -> None:
    """Date every catalogued tile of a source."""
    with database.transaction(db):
        day = _day_of_all(source)
        db.execute("UPDATE source SET capture = ?, day = ? WHERE number = ?", (facts, day, number))
        db.execute("DELETE FROM capture WHERE source = ?", (number,))
        new, values = "?2", (number, day)
        if source.captured.endswith(".csv"):
            rows = ((number, *row) for row in _rows(root / source.captured))
            db.executemany("INSERT OR REPLACE INTO capture VALUES (?, ?, ?, ?, ?)", rows)
            new = "(SELECT c.day FROM capture c WHERE (c.source, c.z, c.x, c.y) = (?1, tile.z, tile.x, tile.y))"
        elif source.captured == "mtime" and kind_of(source) == "xyz":
            new = f"{EPOCH_DAY} + mtime_ns / {DAY_NS}"
        stale = f"source = ?1 AND day IS NOT {new} AND ?2 IS ?2"
        db.execute(f"UPDATE col SET dirty = 1 WHERE (z, x) IN (SELECT z, x FROM tile WHERE {stale})", values)  # noqa: S608
        db.create_function("check_of", -1, database.tile_check, deterministic=True)
        dated = database.CHECKED.replace("day", new)
        check = f"CASE WHEN chk IS check_of({database.CHECKED}) THEN check_of({dated}) END"  # a damaged row stays one
        if db.execute(f"UPDATE tile SET day = {new}, chk = {check} WHERE {stale}", values).rowcount:  # noqa: S608
            database.put(db, "corpus", None)


def _day_of_all(source: TileSource) -> int | None:
    """Return the one day of all tiles, None if there is none or each has its own."""
    if source.captured[:1].isdigit() and not source.captured.endswith(".csv"):
        return _parsed(source.captured, source.path, "tiles.source.captured")
    if source.captured == "metadata":
        return _from_metadata(source)
    if source.captured == "mtime" and kind_of(source) != "xyz":
        return EPOCH_DAY + database.storable(os.stat(source.path).st_mtime_ns) // DAY_NS
    return None


def _from_metadata(source: TileSource) -> int:
    found = _metadata(source)
    key = next((key for key in KEYS if found.get(key)), None)
    if key is None:
        raise TileError(
            "the source's metadata have no capture date",
            file=source.path,
            key="tiles.source.captured",
            facts={"looked for": ", ".join(KEYS)},
            next_step="give captured = YYYY-MM-DD, or a CSV file z,x,y,date",
        )
    return _parsed(str(found[key])[:10], source.path, f"metadata {key}")


def _metadata(source: TileSource) -> dict[str, object]:
    if kind_of(source) != "xyz":
        container = open_container(source)
        try:
            return container.metadata()
        finally:
            container.close()
    path = _metadata_file(source)
    try:
        with reading("the metadata", path), open_regular(path) as stream:
            found = json.loads(stream.read(MOST_METADATA_BYTES))
    except (ValueError, RecursionError) as error:
        raise TileError(f"the metadata cannot be read: {error}", file=path) from error
    return found if isinstance(found, dict) else {}


def _parsed(text: str, file: Path, where: str) -> int:
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError as error:
        raise TileError(f"{where} is not a date YYYY-MM-DD: {text!r}", file=file) from error


def _rows(path: Path) -> Iterator[tuple[int, int, int, int]]:
    """Yield z, x, y, day of each line of a CSV; a first line of names is passed over."""
    try:
        with reading("the capture dates", path), open_text(path, encoding="utf-8-sig") as stream:
            for number, row in enumerate(csv.reader(stream), 1):
                if row and not (number == 1 and not row[0].strip().isdigit()):
                    yield _row(row, path, number)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TileError(f"the capture dates cannot be read: {error}", file=path) from error


def _row(row: list[str], path: Path, number: int) -> tuple[int, int, int, int]:
    try:
        z, x, y, day = row
        tile = int(z), int(x), int(y)
    except ValueError as error:
        raise TileError(f"line {number} is not z,x,y,date", file=path, facts={"found": ",".join(row)}) from error
    return (*tile, _parsed(day.strip(), path, f"line {number}"))
