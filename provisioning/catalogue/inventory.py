"""What the last scan found, counted for a person: tiles, area, bytes, gaps, ages."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from provisioning.area.cover import Cover
from provisioning.area.ellipsoid import rows_km2
from provisioning.base.errors import EmptyCorpusError
from provisioning.base.geometry.angles import BBox
from provisioning.catalogue import database
from provisioning.catalogue.coverage import area_of, figures_of
from provisioning.catalogue.gaps import CoverageFigures, hole_note, present_runs
from provisioning.catalogue.scanning.columns import unpacked_runs
from provisioning.catalogue.values import RequiredTile, Skipped
from provisioning.config import Selection


@dataclass(frozen=True, kw_only=True)
class ZoomRow:
    """One zoom level of the area."""

    zoom: int
    present: int
    expected: int
    present_km2: float
    expected_km2: float
    holes: int
    largest_hole_m: float
    note: str


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One source at one zoom level: all its tiles in the area, and what became of them."""

    source: str
    zoom: int
    taken: int
    shadowed: int
    empty: int
    unusable: int
    bytes: int
    oldest: str | None
    newest: str | None
    undated: int


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The corpus of the last scan."""

    coverage_sha256: str
    bbox: BBox
    count: int
    bytes: int
    zooms: tuple[ZoomRow, ...]
    sources: tuple[SourceRow, ...]
    skipped: tuple[Skipped, ...]
    required: int
    required_missing: tuple[RequiredTile, ...]

    def as_json(self) -> dict[str, object]:
        """Return the inventory as JSON values."""
        return asdict(self)


def take_inventory(selection: Selection, build_dir: Path) -> Inventory:
    """Return what the last scan found; it reads the catalogue alone. EmptyCorpusError before the first scan."""
    from provisioning.catalogue.reading import last_corpus

    corpus = last_corpus(selection, build_dir)
    if corpus is None:
        raise EmptyCorpusError("the tiles have not been scanned", next_step="run `flightcache tiles --scan`, or `doit`")
    area = area_of(selection.area, selection.takeoff, build_dir)
    with database.reading(build_dir) as db:
        assert db is not None
        figures = figures_of(db, area, corpus.takeoff)
        zooms = tuple(_zoom_rows(db, area.cover, figures))
        sources = tuple(_source_rows(db, area.cover))
    return Inventory(
        coverage_sha256=corpus.coverage_sha256,
        bbox=corpus.bbox,
        count=corpus.count,
        bytes=corpus.bytes,
        zooms=zooms,
        sources=sources,
        skipped=corpus.skipped,
        required=corpus.required,
        required_missing=corpus.required_missing,
    )


def _zoom_rows(db: sqlite3.Connection, cover: Cover, figures: CoverageFigures) -> Iterator[ZoomRow]:
    for z, gaps in figures.per_zoom.items():
        expected = sum(rows_km2(z, band.rows) * (band.right - band.left + 1) for band in cover.bands[z])
        present = sum(rows_km2(z, unpacked_runs(runs)) for runs in present_runs(db, z).values())
        yield ZoomRow(
            zoom=z,
            present=gaps.present,
            expected=gaps.expected,
            present_km2=round(present, 3),
            expected_km2=round(expected, 3),
            holes=gaps.hole_count,
            largest_hole_m=gaps.holes[0][0].size_mm / 1000 if gaps.holes else 0.0,
            note=hole_note(gaps),
        )


def _source_rows(db: sqlite3.Connection, cover: Cover) -> Iterator[SourceRow]:
    states = (database.TAKEN, database.SHADOWED, database.EMPTY, database.FAULTY)
    counts = ", ".join(f"sum(state = {state})" for state in states)
    day = f"CASE t.state WHEN {database.TAKEN} THEN t.day END"
    select = (
        f"SELECT s.name, t.z, {counts}, sum(t.bytes * (state = {database.TAKEN})),"  # noqa: S608 - our own numbers
        f" min({day}), max({day}), sum(state = {database.TAKEN} AND t.day IS NULL)"
        f" FROM tile t JOIN source s ON s.number = t.source WHERE state != {database.UNUSED}"
        " GROUP BY s.name, t.z ORDER BY s.name, t.z"
    )
    for name, z, taken, shadowed, empty, faulty, size, oldest, newest, undated in db.execute(select):
        if z in cover.zooms:
            yield SourceRow(
                source=name, zoom=z, taken=taken, shadowed=shadowed, empty=empty, unusable=faulty, bytes=size,
                oldest=_date(oldest), newest=_date(newest), undated=undated,
            )  # fmt: skip


def _date(day: int | None) -> str | None:
    return None if day is None else date.fromordinal(day).isoformat()
