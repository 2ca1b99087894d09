"""The corpus as its columns add up."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.area.area import Area, takeoff_tile
from provisioning.base.geometry.angles import Origin
from provisioning.base.hashing import Sha256
from provisioning.catalogue import database
from provisioning.catalogue.scanning.columns import Changes, Choice, refresh
from provisioning.catalogue.values import Corpus, Skipped, ZoomCount
from provisioning.config import Tiles
from provisioning.flight.manifest.coverage import COVERAGE_TAG
from provisioning.sources.source import source_name

if TYPE_CHECKING:
    from concurrent.futures import Future

    from provisioning.catalogue.gaps import ZoomGaps


def choice_of(db: sqlite3.Connection, tiles: Tiles, area: Area, names: dict[int, str]) -> Choice:
    """Return what decides which rows of the catalogue are the corpus; `names` are the sources by their number there."""
    from provisioning.catalogue.scanning.repeats import find_repeated

    settings = {source_name(source): source for source in tiles.source}
    priority = {
        number: {
            z: settings[name].zoom_priority.get(z, settings[name].priority)
            for z in settings[name].zooms or area.cover.zooms
        }
        for number, name in names.items()
    }
    repeated = find_repeated(db) if tiles.blank == "hole" else frozenset()
    return Choice(cover=area.cover, names=names, priority=priority, max_empty=tiles.max_empty, repeated=repeated)


def coverage_digest(db: sqlite3.Connection) -> Sha256:
    """Return the digest of the corpus; every dirty column must have been chosen again.

    DamagedError names the columns that are not what was written.
    """
    digest, damaged = hashlib.sha256(COVERAGE_TAG), []
    select = (
        "SELECT c.z, c.x, c.count, c.bytes, c.oldest, c.undated, c.faults, c.empty, c.partly, c.chk,"
        " c.runs, c.lines, t.chk, t.rows FROM col c LEFT JOIN taken t ON t.z = c.z AND t.x = c.x"
        " WHERE NOT (c.dirty AND c.lines IS NULL) ORDER BY c.place"
    )
    for z, x, *sums, check, runs, lines, taken_check, taken in db.execute(select):
        whole = database.column_check(z, x, tuple(sums), runs, lines), database.column_check(z, x, (), taken)
        if whole != (check, taken_check):
            damaged.append((z, x))
        elif not damaged:
            digest.update(lines)
    if damaged:
        raise database.DamagedError(damaged)
    return Sha256(digest.hexdigest())


class EarlyDigest:
    """The coverage digest as it will be if nothing more changes, found while the scan waits for the disk.

    It is a hash over a line for each tile: of a million a tenth of a second, which one added tile need not wait for.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, choice: Callable[[], Choice]) -> None:
        self._db, self._path, self._choice = db, path, choice
        self._changes = Changes(0, 0, 0)
        self._digest: Future[Sha256] | None = None

    def begin(self) -> None:
        """Choose again in the columns that are dirty now, and begin to hash; once."""
        if self._digest is not None:
            return
        from concurrent.futures import ThreadPoolExecutor

        with database.transaction(self._db):
            self._changes = refresh(self._db, self._choice())
        pool = ThreadPoolExecutor(1)
        self._digest = pool.submit(self._find)
        pool.shutdown(wait=False)

    def _find(self) -> Sha256:
        with closing(sqlite3.connect(self._path, timeout=30)) as db:
            db.text_factory = database.lossy_text
            return coverage_digest(db)

    def conclude(self) -> tuple[Changes, Sha256]:
        """Choose again in what is dirty still; return all that changed and the digest. In the caller's transaction."""
        begun = not self._db.execute("SELECT 1 FROM col WHERE dirty").fetchone() and self._digest
        changes = self._changes.plus(refresh(self._db, self._choice()))
        if begun:
            with suppress(sqlite3.Error):
                return changes, begun.result()
        return changes, coverage_digest(self._db)


def summed(
    db: sqlite3.Connection, area: Area, names: dict[int, str], changes: Changes, coverage_sha256: Sha256
) -> Corpus:
    """Return the corpus without a take-off point; every dirty column must have been chosen again."""
    from provisioning.catalogue.coverage import figures_of
    from provisioning.catalogue.gaps import hole_note

    figures = figures_of(db, area, None)
    count, size, oldest, undated = db.execute(
        "SELECT sum(count), sum(bytes), min(oldest), sum(undated) FROM col"
    ).fetchone()
    no_imagery = _no_imagery(db)
    return Corpus(
        coverage_sha256=coverage_sha256,
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
        home_datum=area.home_datum,
        required=figures.required_count,
        required_missing=figures.required_missing,
        hole_notes={z: _note(hole_note(gaps), no_imagery.get(z, "")) for z, gaps in figures.per_zoom.items()},
        **changes._asdict(),
    )


def _zoom_count(gaps: ZoomGaps) -> ZoomCount:
    return ZoomCount(gaps.present, gaps.expected, gaps.holes[0][0].size_mm if gaps.holes else 0)


def _note(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _no_imagery(db: sqlite3.Connection) -> dict[int, str]:
    """Return for each zoom level, in words, what stands in the stores and shows nothing, wholly or in part."""
    repeated = {bytes.fromhex(digest) for digest in (database.get(db, "repeated") or "").split()}
    same: dict[int, list[str]] = {}
    blank: dict[int, list[str]] = {}
    rows = db.execute(
        "SELECT t.z, t.x, t.y, t.sha256 FROM col c CROSS JOIN tile t ON t.z = c.z AND t.x = c.x"
        " WHERE c.empty > 0 AND t.state = ?",
        (database.EMPTY,),
    )
    for z, x, y, digest in rows:
        (same if digest in repeated else blank).setdefault(z, []).append(f"{z}/{x}/{y}")
    partly = dict(db.execute("SELECT z, sum(partly) FROM col GROUP BY z HAVING sum(partly) > 0"))
    return {
        z: _note(
            _such("hold a picture that repeats (no imagery?)", same.get(z, [])),
            _such("are blank", blank.get(z, [])),
            f"{partly[z]} of those there are partly blank" if z in partly else "",
        )
        for z in same.keys() | blank.keys() | partly.keys()
    }


def _such(what: str, tiles: list[str]) -> str:
    return f"{len(tiles)} {what}, such as {tiles[0]}" if tiles else ""


def _skipped(db: sqlite3.Connection) -> list[Skipped]:
    """Return the unusable tiles of the area; CROSS JOIN has the planner look only into columns that have some."""
    return [
        Skipped(*row)
        for row in db.execute(
            "SELECT t.z, t.x, t.y, s.name, t.fault FROM col c CROSS JOIN tile t ON t.z = c.z AND t.x = c.x"
            " JOIN source s ON s.number = t.source WHERE c.faults > 0 AND t.state = ?"
            " ORDER BY t.z, t.y DESC, t.x, s.name",
            (database.FAULTY,),
        )
    ]


def at_takeoff(db: sqlite3.Connection, takeoff: Origin | None, corpus: Corpus) -> Corpus:
    """Return the corpus with the take-off point, whose tile is required where the area has it."""
    takeoff = takeoff or corpus.home
    remembered = database.get(db, "area")
    if takeoff is None or not corpus.zooms or remembered is None:
        return corpus
    tile = takeoff_tile(Area.from_json(remembered).cover, takeoff)
    if tile is None:
        return replace(corpus, takeoff=takeoff)
    from provisioning.catalogue.coverage import takeoff_gap

    gap = takeoff_gap(db, tile)
    missing = (*([gap] if gap else []), *corpus.required_missing)
    return replace(corpus, takeoff=takeoff, required=corpus.required + 1, required_missing=missing)
