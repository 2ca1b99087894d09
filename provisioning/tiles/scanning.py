"""Bring the catalogue up to date with the stores: read only what is new or may have changed."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from dataclasses import replace
from datetime import date

from provisioning.config import Flight, TileSource
from provisioning.errors import EmptyCorpusError, FilesystemError, TileError
from provisioning.hashing import Sha256, digest_of
from provisioning.manifest.coverage import COVERAGE_TAG
from provisioning.tiles import catalogue
from provisioning.tiles.area import Area, area_facts, measure_area
from provisioning.tiles.capture import day_rule
from provisioning.tiles.columns import Changes, Choice, refresh
from provisioning.tiles.containers import update_container
from provisioning.tiles.coverage import figures_of, takeoff_gap
from provisioning.tiles.directories import DirectoryUpdate
from provisioning.tiles.facts import decoder_facts
from provisioning.tiles.gaps import ZoomGaps, hole_note
from provisioning.tiles.judging import Court
from provisioning.tiles.source import kind_of, source_name
from provisioning.tiles.values import Corpus, Skipped, ZoomCount
from provisioning.tiles.writer import Writer
from provisioning.tiles.xyz import Layout

MOST_NAMED = 20
"""Bad tiles named in one error; the rest are counted."""


def scan(flight: Flight) -> Corpus:
    """Bring `.build/catalogue.sqlite` up to date and return the corpus; the caller holds the build lock.

    EmptyCorpusError if no tile lies in the area; TileError naming the bad tiles if `tiles.on_error` is fail, or the
    store that cannot be read; AreaError if the area cannot be understood; FilesystemError if the catalogue cannot be
    written. What was hashed is kept in every case; a catalogue that is damaged is begun anew.
    """
    path = catalogue.catalogue_path(flight.build_dir)
    try:
        return _scan(flight)
    except sqlite3.OperationalError as error:
        raise FilesystemError(
            f"the tile catalogue cannot be written: {error}",
            file=path,
            next_step="free space, check the disk, run again",
        ) from error
    except sqlite3.DatabaseError:
        catalogue.forget(path)
        return _scan(flight)


def _scan(flight: Flight) -> Corpus:
    with catalogue.opened(flight.build_dir) as db:
        fresh = catalogue.get(db, "choice_facts") != choice_facts(flight)
        area = _area(db, flight)
        if fresh:
            _remember_settings(db, flight, area)
        _update_sources(db, flight, area, fresh=fresh)
        return _accepted(flight, _concluded(db, flight, area))


def _judge_facts(flight: Flight) -> Sha256:
    tiles = flight.tiles
    return digest_of({"decoder": decoder_facts(), "max_pixels": tiles.max_pixels, "nodata": tiles.nodata})


def choice_facts(flight: Flight) -> Sha256:
    """Return the digest of all settings that decide which tiles of the stores are the corpus."""
    sources = [
        {"store": _store_facts(s, s.kind), "captured": s.captured, "priority": s.priority, "zooms": s.zooms,
         "zoom_priority": {str(z): p for z, p in s.zoom_priority.items()}}
        for s in flight.tiles.source
    ]  # fmt: skip
    return digest_of({
        "area": area_facts(flight), "sources": sources, "max_empty": flight.tiles.max_empty,
        "judge": _judge_facts(flight),
    })  # fmt: skip


def _store_facts(source: TileSource, kind: str) -> Sha256:
    return digest_of({
        "name": source_name(source), "path": source.path, "kind": kind, "pattern": source.pattern,
        "scheme": source.scheme,
    })  # fmt: skip


def _area(db: sqlite3.Connection, flight: Flight) -> Area:
    """Return the area, as remembered if nothing that decides it has changed."""
    text = catalogue.get(db, "area") if catalogue.get(db, "area_facts") == area_facts(flight) else None
    return measure_area(flight) if text is None else Area.from_json(text)


def _remember_settings(db: sqlite3.Connection, flight: Flight, area: Area) -> None:
    """Have every column chosen again; until that is done there is no corpus."""
    with catalogue.transaction(db):
        catalogue.put(db, "corpus", None)
        catalogue.put(db, "area_facts", area_facts(flight))
        catalogue.put(db, "area", area.to_json())
        db.execute("UPDATE col SET dirty = 1")
        db.execute("UPDATE source SET stamp = NULL")


def _update_sources(db: sqlite3.Connection, flight: Flight, area: Area, *, fresh: bool) -> None:
    """Visit every source; new settings make each folder and container worth a look, a new decoder each tile."""
    again = catalogue.get(db, "judge") != _judge_facts(flight)
    nodata = flight.tiles.nodata * (3 if len(flight.tiles.nodata) == 1 else 1)
    court = Court(max_pixels=flight.tiles.max_pixels, nodata=nodata, again=again)
    mode = "full" if again else "stat" if fresh and flight.tiles.scan == "dirs" else flight.tiles.scan
    now_ns = time.time_ns()
    try:
        _forget_others(db, flight)
        for source in flight.tiles.source:
            cover = area.cover.only(source.zooms) if source.zooms else area.cover
            number = _number(db, source)
            writer = Writer(db, number, day_rule(db, number, source, flight.root, now_ns=now_ns))
            if kind_of(source) == "xyz":
                DirectoryUpdate(Layout(source), cover, court, writer, mode, now_ns).run()
            else:
                update_container(source, cover, court, writer, mode=mode, now_ns=now_ns)
    finally:
        court.close()


def _forget_others(db: sqlite3.Connection, flight: Flight) -> None:
    """Drop sources that are configured no longer, or whose name now means another store."""
    wanted = {source_name(source): _store_facts(source, kind_of(source)) for source in flight.tiles.source}
    for number, name, facts in db.execute("SELECT number, name, facts FROM source").fetchall():
        if wanted.get(name) != facts:
            with catalogue.transaction(db):
                catalogue.put(db, "corpus", None)
                touched = "SELECT DISTINCT z, x FROM tile WHERE source = ?"
                db.execute(f"UPDATE col SET dirty = 1 WHERE (z, x) IN ({touched})", (number,))  # noqa: S608
                db.execute("DELETE FROM tile WHERE source = ?", (number,))
                db.execute("DELETE FROM folder WHERE source = ?", (number,))
                db.execute("DELETE FROM capture WHERE source = ?", (number,))
                db.execute("DELETE FROM source WHERE number = ?", (number,))


def _number(db: sqlite3.Connection, source: TileSource) -> int:
    """Return the number that a source has in the catalogue (not the one in ids)."""
    name = source_name(source)
    row = db.execute("SELECT number FROM source WHERE name = ?", (name,)).fetchone()
    if row is None:
        db.execute("INSERT INTO source(name, facts) VALUES (?, ?)", (name, _store_facts(source, kind_of(source))))
        return _number(db, source)
    return int(row[0])


def _concluded(db: sqlite3.Connection, flight: Flight, area: Area) -> Corpus:
    """Choose again in dirty columns and sum up; if nothing was dirty, what is remembered still holds."""
    text = catalogue.get(db, "corpus")
    if text is not None:
        return at_takeoff(db, flight, replace(Corpus.from_json(text), added=0, removed=0, changed=0))
    with catalogue.transaction(db):
        names: dict[int, str] = dict(db.execute("SELECT number, name FROM source"))
        changes = refresh(db, _choice(flight, area, names))
        corpus = replace(_summed(db, area, names, changes), area_sha256=area_facts(flight))
        catalogue.put(db, "corpus", corpus.to_json())
        catalogue.put(db, "judge", _judge_facts(flight))
        catalogue.put(db, "choice_facts", choice_facts(flight))
    return at_takeoff(db, flight, corpus)


def at_takeoff(db: sqlite3.Connection, flight: Flight, corpus: Corpus) -> Corpus:
    """Return the corpus with this flight's take-off point, whose tile is required."""
    takeoff = flight.flight.takeoff or corpus.home
    if takeoff is None or not corpus.zooms:
        return corpus
    gap = takeoff_gap(db, corpus.zooms[-1], takeoff)
    missing = (*([gap] if gap else []), *corpus.required_missing)
    return replace(corpus, takeoff=takeoff, required=corpus.required + 1, required_missing=missing)


def _choice(flight: Flight, area: Area, names: dict[int, str]) -> Choice:
    settings = {source_name(source): source for source in flight.tiles.source}
    priority = {
        number: {
            z: settings[name].zoom_priority.get(z, settings[name].priority)
            for z in settings[name].zooms or area.cover.zooms
        }
        for number, name in names.items()
    }
    return Choice(cover=area.cover, names=names, priority=priority, max_empty=flight.tiles.max_empty)


def _summed(db: sqlite3.Connection, area: Area, names: dict[int, str], changes: Changes) -> Corpus:
    digest = hashlib.sha256(COVERAGE_TAG)
    for (lines,) in db.execute("SELECT lines FROM col WHERE count > 0 ORDER BY place"):
        digest.update(lines)
    figures = figures_of(db, area, None)
    count, size, oldest, undated = db.execute(
        "SELECT sum(count), sum(bytes), min(oldest), sum(undated) FROM col"
    ).fetchone()
    return Corpus(
        coverage_sha256=Sha256(digest.hexdigest()),
        count=count or 0,
        bytes=size or 0,
        per_zoom={z: _zoom_count(gaps) for z, gaps in figures.per_zoom.items()},
        sources=tuple(sorted(names.values())),
        bbox=area.bbox,
        zooms=area.cover.zooms,
        skipped=tuple(_skipped(db)),
        oldest_capture=None if oldest is None else date.fromordinal(oldest).isoformat(),
        undated=undated or 0,
        home=area.home,
        required=figures.required_count,
        required_missing=figures.required_missing,
        hole_notes={z: hole_note(gaps) for z, gaps in figures.per_zoom.items()},
        **changes._asdict(),
    )


def _zoom_count(gaps: ZoomGaps) -> ZoomCount:
    return ZoomCount(gaps.present, gaps.expected, gaps.holes[0][0].size_mm if gaps.holes else 0)


def _skipped(db: sqlite3.Connection) -> list[Skipped]:
    """Return the unusable tiles of the area, looking only into columns that have some."""
    return [
        Skipped(*row)
        for row in db.execute(
            "SELECT t.z, t.x, t.y, s.name, t.fault FROM col c JOIN tile t ON t.z = c.z AND t.x = c.x"
            " JOIN source s ON s.number = t.source WHERE c.faults > 0 AND t.state = ?"
            " ORDER BY t.z, t.y DESC, t.x, s.name",
            (catalogue.FAULTY,),
        )
    ]


def _accepted(flight: Flight, corpus: Corpus) -> Corpus:
    """Return the corpus, or raise what its state forbids."""
    bad = corpus.skipped
    if bad and flight.tiles.on_error == "fail":
        raise TileError(
            f"{len(bad)} tile{'s' * (len(bad) > 1)} cannot be used",
            facts={f"{b.source} {b.z}/{b.x}/{b.y}": b.reason for b in bad[:MOST_NAMED]}
            | ({"and": f"{len(bad) - MOST_NAMED} more"} if len(bad) > MOST_NAMED else {}),
            next_step='replace or remove them, or set tiles.on_error = "skip" in flight.toml',
        )
    if not corpus.count:
        raise EmptyCorpusError(
            "no tile lies inside the area at the chosen zoom levels",
            file=flight.root / "flight.toml",
            facts={"area": _in_degrees(corpus), "zooms": ", ".join(map(str, corpus.zooms))},
            next_step="add tiles to a source, or correct area and zooms; then run doit again",
        )
    return corpus


def _in_degrees(corpus: Corpus) -> str:
    return ", ".join(f"{side / 1e7:.7f}" for side in corpus.bbox)
