"""Bring the catalogue up to date with the stores: read only what is new or may have changed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging import INFO, WARNING
from pathlib import Path

from provisioning.area.area import Area, area_facts, check_takeoff, measure_area
from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import EmptyCorpusError, FilesystemError, TileError
from provisioning.base.events import event, warn
from provisioning.base.words import counted
from provisioning.catalogue import database
from provisioning.catalogue.scanning.capture import day_rule
from provisioning.catalogue.scanning.columns import last_state
from provisioning.catalogue.scanning.containers import StoreUpdate, content_of
from provisioning.catalogue.scanning.directories import DirectoryUpdate
from provisioning.catalogue.scanning.inspecting import Inspector
from provisioning.catalogue.scanning.place import check_place_once, said_is_known
from provisioning.catalogue.scanning.settings import INSPECTION, choice_facts, inspection_facts, store_facts
from provisioning.catalogue.scanning.writer import Writer
from provisioning.catalogue.summing import EarlyDigest, at_takeoff, choice_of, summed
from provisioning.catalogue.values import Corpus
from provisioning.config import Selection, Tiles
from provisioning.sources.pixels.facts import InspectionSettings
from provisioning.sources.source import source_name
from provisioning.sources.store import TileQuery
from provisioning.sources.stores import SourceState, kind_of, source_state, with_kinds
from provisioning.sources.xyz import Layout

REMEMBERED = 64
"""States of the corpus whose digests are kept: as many as a descriptor store keeps receipts."""
MOST_NAMED = 20
"""Bad tiles named in one error; the rest are counted."""


def scan(selection: Selection, build_dir: Path) -> Corpus:
    """Bring `.build/catalogue.sqlite` up to date and return the corpus; the caller holds the build lock.

    EmptyCorpusError if no tile lies in the area; TileError naming the bad tiles if `tiles.on_error` is fail, or the
    store that cannot be read; AreaError if the area cannot be understood; FilesystemError if the catalogue cannot be
    written. What was hashed is kept in every case; a catalogue that is damaged is begun anew.
    """
    path = database.catalogue_path(build_dir)
    try:
        return _scan_repaired(selection, build_dir)
    except sqlite3.OperationalError:
        with wrap_os_errors("write the tile catalogue", path):
            raise
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        database.forget(path)
        return _scan(selection, build_dir)


def _scan_repaired(selection: Selection, build_dir: Path) -> Corpus:
    """Scan; where columns of the catalogue are not what was written, read these again, and scan once more."""
    try:
        return _scan(selection, build_dir)
    except database.DamagedError as error:
        with database.opened(build_dir) as db:
            rows = database.begin_again(db, error.columns)
        warn("catalogue.damaged", columns=len(error.columns), tiles=rows, note="they are read again")
    try:
        return _scan(selection, build_dir)
    except database.DamagedError as error:
        raise FilesystemError(
            "the tile catalogue does not keep what is written to it",
            file=database.catalogue_path(build_dir),
            next_step="check the disk and the memory of this computer (`dmesg`), then run doit again",
        ) from error


def _scan(selection: Selection, build_dir: Path) -> Corpus:
    with database.opened(build_dir) as db:
        database.drop_damaged_texts(db)
        fresh = database.get(db, "choice_facts") != choice_facts(selection)
        area = _area(db, selection)
        if fresh:
            _remember_settings(db, selection, area)
        early = EarlyDigest(
            db, database.catalogue_path(build_dir), lambda: choice_of(db, selection.tiles, area, _names(db))
        )
        _update_sources(db, selection, area, early.begin, fresh=fresh)
        return _accepted(selection, _concluded(db, selection, area, early))


def _area(db: sqlite3.Connection, selection: Selection) -> Area:
    """Return the area, as remembered if nothing that decides it has changed."""
    text = (
        database.get(db, "area")
        if database.get(db, "area_facts") == area_facts(selection.area, selection.takeoff)
        else None
    )
    area = measure_area(selection.area, selection.takeoff) if text is None else Area.from_json(text)
    check_takeoff(area, selection.takeoff)
    for note in area.notes:
        event("area.open", level=WARNING if note.missing else INFO, note=str(note))
    return area


def _remember_settings(db: sqlite3.Connection, selection: Selection, area: Area) -> None:
    """Have every column chosen again; until that is done there is no corpus."""
    with database.transaction(db):
        database.put(db, "corpus", None)
        database.put(db, "area_facts", area_facts(selection.area, selection.takeoff))
        database.put(db, "area", area.to_json())
        db.execute("UPDATE col SET dirty = 1")
        db.execute("UPDATE source SET stamp = NULL, content = NULL")


def _inspect_anew_if_decoder_changed(db: sqlite3.Connection, tiles: Tiles) -> None:
    """Let a new decoder, or new settings of it, see each tile again.

    Written down before it is done: what was inspected when a scan is killed need not be read by the next one.
    """
    if database.get(db, INSPECTION) == inspection_facts(tiles):
        return
    with database.transaction(db):
        database.put(db, "corpus", None)
        db.execute("UPDATE tile SET sha256 = NULL, chk = NULL, ctime_ns = 0")
        db.execute("DELETE FROM folder")
        db.execute("UPDATE source SET stamp = NULL, content = NULL")
        db.execute("UPDATE col SET dirty = 1")
        database.put(db, INSPECTION, inspection_facts(tiles))


def _names(db: sqlite3.Connection) -> dict[int, str]:
    return dict(db.execute("SELECT number, name FROM source"))


def _update_sources(
    db: sqlite3.Connection, selection: Selection, area: Area, begin_digest: Callable[[], None], *, fresh: bool
) -> None:
    """Visit every source; new settings make each folder and container worth a look."""
    tiles = selection.tiles
    nodata = tiles.nodata * (3 if len(tiles.nodata) == 1 else 1)
    readable = {source_name(source): source for source in with_kinds(tiles.source)}
    settings = InspectionSettings(tiles.max_pixels, nodata, tiles.blank == "hole")
    inspector = Inspector([source.path for source in readable.values() if source.kind == "xyz"], settings)
    mode = "stat" if fresh and tiles.scan == "dirs" else tiles.scan
    now_ns = time.time_ns()
    try:
        _inspect_anew_if_decoder_changed(db, tiles)
        source_states = {source_name(s): source_state(s, tiles.source, now_ns=now_ns) for s in tiles.source}
        numbers = _numbers(db, selection, source_states)
        for source in tiles.source:
            cover = area.cover.only(source.zooms) if source.zooms else area.cover
            name = source_name(source)
            number = numbers[name]
            before = Writer(db, number, None)
            state = source_states[name]
            content = content_of(source, state, before, is_new=mode == "full")
            is_listed = kind_of(source) != "xyz" and (mode == "full" or not before.is_as_it_was(state.stamp))
            place_waits = is_listed and before.count() > 0 and said_is_known(db, source)
            if not place_waits:
                check_place_once(db, source, content.now)
            writer = Writer(db, number, day_rule(db, number, source, selection.root, now_ns=now_ns))
            if kind_of(source) == "xyz":
                DirectoryUpdate(name, Layout(source), cover, inspector, writer, mode, now_ns, begin_digest).run()
            elif content.is_known:
                writer.stamp(state.stamp, content.now)
                writer.flush()
            elif is_listed:
                query = TileQuery(cover, name, selection.sector_class)
                update = StoreUpdate(source, query, writer, full=mode == "full")
                beside = [other for other in readable.values() if other.kind != "xyz"]
                update.run(inspector, beside, state, content.now)
                if place_waits:
                    check_place_once(db, source, content.now, is_known=not update.has_other_addresses)
            if writer.damaged:
                warn("catalogue.damaged", tiles=writer.damaged, source=name, note="they are read again")
    finally:
        inspector.close()


def _numbers(db: sqlite3.Connection, selection: Selection, source_states: Mapping[str, SourceState]) -> dict[str, int]:
    """Return the numbers that sources have in the catalogue (not those in ids), by name.

    Sources that are configured no longer, or whose name now means another store, are dropped with their tiles.
    """
    wanted = {
        source_name(source): store_facts(
            source, kind_of(source), root=selection.root, identity=source_states[source_name(source)].identity
        )
        for source in selection.tiles.source
    }
    for number, name, facts in db.execute("SELECT number, name, facts FROM source").fetchall():
        if wanted.get(name) != facts:
            _forget(db, number)
    db.executemany("INSERT OR IGNORE INTO source(name, facts) VALUES (?, ?)", wanted.items())
    return {name: number for number, name in _names(db).items()}


def _forget(db: sqlite3.Connection, number: int) -> None:
    with database.transaction(db):
        database.put(db, "corpus", None)
        touched = "SELECT DISTINCT z, x FROM tile WHERE source = ?"
        db.execute(f"UPDATE col SET dirty = 1 WHERE (z, x) IN ({touched})", (number,))  # noqa: S608
        db.execute("DELETE FROM tile WHERE source = ?", (number,))
        db.execute("DELETE FROM folder WHERE source = ?", (number,))
        db.execute("DELETE FROM capture WHERE source = ?", (number,))
        db.execute("DELETE FROM source WHERE number = ?", (number,))


def _concluded(db: sqlite3.Connection, selection: Selection, area: Area, early: EarlyDigest) -> Corpus:
    """Choose again in dirty columns and sum up; if nothing was dirty, what is remembered still holds."""
    text = database.get(db, "corpus")
    if text is not None:
        return at_takeoff(db, selection.takeoff, replace(Corpus.from_json(text), added=0, removed=0, changed=0))
    with database.transaction(db):
        corpus = replace(
            summed(db, area, _names(db), *early.conclude()), area_sha256=area_facts(selection.area, selection.takeoff)
        )
        database.put(db, "corpus", corpus.to_json())
        state = last_state(db)
        db.execute("INSERT OR REPLACE INTO corpus VALUES (?, ?)", (state, corpus.coverage_sha256))
        db.execute("DELETE FROM corpus WHERE state <= ?", (state - REMEMBERED,))
        database.put(db, "choice_facts", choice_facts(selection))
    return at_takeoff(db, selection.takeoff, corpus)


def _accepted(selection: Selection, corpus: Corpus) -> Corpus:
    """Return the corpus, or raise what its state forbids."""
    bad = corpus.skipped
    if bad and selection.tiles.on_error == "fail":
        raise TileError(
            f"{counted(len(bad), 'tile')} cannot be used",
            facts={f"{b.source} {b.z}/{b.x}/{b.y}": b.reason for b in bad[:MOST_NAMED]}
            | ({"and": f"{len(bad) - MOST_NAMED} more"} if len(bad) > MOST_NAMED else {}),
            next_step='replace or remove them, or set tiles.on_error = "skip" in flight.toml',
        )
    if not corpus.count:
        raise EmptyCorpusError(
            "no tile lies inside the area at the chosen zoom levels",
            file=selection.root / "flight.toml",
            facts={"area": _in_degrees(corpus), "zooms": ", ".join(map(str, corpus.zooms))},
            next_step="add tiles to a source, or correct area and zooms; then run doit again",
        )
    return corpus


def _in_degrees(corpus: Corpus) -> str:
    return ", ".join(f"{side / 1e7:.7f}" for side in corpus.bbox)
