"""What of the area the corpus covers: the figures of the coverage gate, read from the last scan."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice

from provisioning.config import Flight
from provisioning.errors import EmptyCorpusError
from provisioning.geo import tile_at
from provisioning.tiles import catalogue
from provisioning.tiles.area import Area, area_facts, measure_area
from provisioning.tiles.columns import unpacked_runs
from provisioning.tiles.cover import Rows, count
from provisioning.tiles.gaps import (
    CoverageFigures,
    RequiredTile,
    ZoomGaps,
    holes,
    missing_columns,
    present_runs,
)
from provisioning.tiles.route import Routes

MOST_HOLES = 100
"""Holes listed for each zoom level, the largest; all are counted."""


def area_of(flight: Flight) -> Area:
    """Return the area of `flight`, remembered if it was measured before; AreaError if it cannot be understood."""
    with catalogue.reading(flight.build_dir) as db:
        if db is not None and catalogue.get(db, "area_facts") == area_facts(flight):
            text = catalogue.get(db, "area")
            if text is not None:
                return Area.from_json(text)
    return measure_area(flight)


def measure_coverage(flight: Flight) -> CoverageFigures:
    """Return what the last scan found of the area. Raises EmptyCorpusError before the first scan."""
    area = area_of(flight)
    routes = Routes(area.routes)
    with catalogue.reading(flight.build_dir) as db:
        if db is None or catalogue.get(db, "corpus") is None:
            raise EmptyCorpusError("the tiles have not been scanned", next_step="run `doit`, which scans them first")
        per_zoom = {z: _gaps(db, area, z, routes) for z in area.cover.zooms}
        gone = tuple(_required_missing(db, area))
    required = sum(area.required.expected(z) for z in area.required.zooms)
    return CoverageFigures(per_zoom=per_zoom, required_missing=gone, required_count=required)


def _gaps(db: sqlite3.Connection, area: Area, z: int, routes: Routes) -> ZoomGaps:
    present = present_runs(db, z)
    found = holes(z, missing_columns(area.cover, z, present))
    there = sum(count(tuple(unpacked_runs(runs))) for runs in present.values())
    listed = tuple((hole, routes.locate(hole.bbox)) for hole in islice(found, MOST_HOLES))
    return ZoomGaps(expected=area.cover.expected(z), present=there, hole_count=len(found), holes=listed)


def _required_missing(db: sqlite3.Connection, area: Area) -> Iterator[RequiredTile]:
    for z in area.required.zooms:
        start = area.takeoff and (tile_at(z, lat_e7=area.takeoff.lat_e7, lon_e7=area.takeoff.lon_e7))
        for x, rows in missing_columns(area.required, z, present_runs(db, z)):
            for y in _each(tuple(rows)):
                yield RequiredTile(z, x, y, "take-off" if (x, y) == start else "route")


def _each(rows: Rows) -> Iterator[int]:
    return (y for low, high in rows for y in range(low, high + 1))
