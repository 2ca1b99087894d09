"""What of the area the corpus covers: the figures of the coverage gate, read from the last scan."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.area.area import Area, area_facts, measure_area, takeoff_tile
from provisioning.area.cover import count
from provisioning.base.geometry.angles import Origin
from provisioning.catalogue import database
from provisioning.catalogue.gaps import (
    CoverageFigures,
    ZoomGaps,
    holes,
    missing_columns,
    present_runs,
)
from provisioning.catalogue.scanning.columns import unpacked_runs
from provisioning.catalogue.values import RequiredTile, not_scanned
from provisioning.config import Area as AskedArea

if TYPE_CHECKING:
    from provisioning.catalogue.route import Routes

MOST_HOLES = 100
"""Holes listed for each zoom level, the largest; all are counted."""


def area_of(asked: AskedArea, takeoff: Origin | None, build_dir: Path) -> Area:
    """Return the area asked for, remembered if it was measured before; AreaError if it cannot be understood."""
    with database.reading(build_dir) as db:
        if db is not None and database.get(db, "area_facts") == area_facts(asked, takeoff):
            text = database.get(db, "area")
            if text is not None:
                return Area.from_json(text)
    return measure_area(asked, takeoff)


def measure_coverage(asked: AskedArea, takeoff: Origin | None, build_dir: Path) -> CoverageFigures:
    """Return what the last scan found of the area. Raises EmptyCorpusError before the first scan."""
    area = area_of(asked, takeoff, build_dir)
    with database.reading(build_dir) as db:
        if db is None or database.get(db, "corpus") is None:
            raise not_scanned()
        return figures_of(db, area, takeoff or area.home)


def figures_of(db: sqlite3.Connection, area: Area, takeoff: Origin | None) -> CoverageFigures:
    """Return what the catalogue's columns have of an area; every dirty column must have been chosen again."""
    from provisioning.catalogue.route import Routes  # needs NumPy, which a build without changes does not

    routes = Routes(area.routes)
    required, gone = required_tiles(db, area, takeoff)
    return CoverageFigures(
        per_zoom={z: _gaps(db, area, z, routes) for z in area.cover.zooms},
        required_missing=gone,
        required_count=required,
    )


def _gaps(db: sqlite3.Connection, area: Area, z: int, routes: Routes) -> ZoomGaps:
    present = present_runs(db, z)
    found = holes(z, missing_columns(area.cover, z, present))
    there = sum(count(tuple(unpacked_runs(runs))) for runs in present.values())
    listed = tuple((hole, routes.locate(hole.bbox)) for hole in islice(found, MOST_HOLES))
    return ZoomGaps(expected=area.cover.expected(z), present=there, hole_count=len(found), holes=listed)


def required_tiles(db: sqlite3.Connection, area: Area, takeoff: Origin | None) -> tuple[int, tuple[RequiredTile, ...]]:
    """Return how many tiles must be there whatever the coverage asked for, and those that are not."""
    required = sum(area.required.expected(z) for z in area.required.zooms)
    gone = tuple(_missing_routes(db, area))
    if takeoff is None:
        return required, gone
    tile = takeoff_tile(area.cover, takeoff)
    if tile is None:
        return required, gone
    at = takeoff_gap(db, tile)
    return required + 1, ((at, *gone) if at else gone)


def takeoff_gap(db: sqlite3.Connection, tile: tuple[int, int, int]) -> RequiredTile | None:
    """Return the take-off point's tile, z, x, y, if the corpus does not have it."""
    z, x, y = tile
    row = db.execute("SELECT runs FROM col WHERE z = ? AND x = ?", (z, x)).fetchone()
    if row and any(low <= y <= high for low, high in unpacked_runs(row[0] or b"")):
        return None
    return RequiredTile(z, x, y, "take-off")


def _missing_routes(db: sqlite3.Connection, area: Area) -> Iterator[RequiredTile]:
    for z in area.required.zooms:
        for x, rows in missing_columns(area.required, z, present_runs(db, z)):
            yield from (RequiredTile(z, x, y, "route") for low, high in rows for y in range(low, high + 1))
