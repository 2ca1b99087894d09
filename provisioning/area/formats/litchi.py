"""Waypoint tables (CSV) with the columns of Litchi → mission.

https://flylitchi.com/help. Any table with columns `latitude` and `longitude` in degrees is read; comma, semicolon or
tab between the columns.
"""

from __future__ import annotations

import csv
from pathlib import Path

from provisioning.area.files import lines_of
from provisioning.area.formats.numbers import degrees, number_in
from provisioning.area.missions.building import MissionBuilder
from provisioning.area.missions.commands import Reading
from provisioning.area.missions.steps import Mission, fly
from provisioning.area.shapes import Note, left_out, placed, point
from provisioning.base.errors import AreaError

LATITUDE, LONGITUDE = ("latitude", "lat"), ("longitude", "lon", "lng", "long")
CURVE = "curvesize(m)"


def delimiter_of(text: str) -> str | None:
    """Return what divides the columns of a table of waypoints; None if text is no such table."""
    head = next((line for line in text[:4000].splitlines() if line.strip()), "").lower()
    for delimiter in ",;\t":
        names = {name.strip().strip('"') for name in head.split(delimiter)}
        if names & {*LATITUDE} and names & {*LONGITUDE}:
            return delimiter
    return None


def read_litchi(text: str, delimiter: str, path: Path) -> Mission:
    """Return the mission of a table; AreaError names the row that cannot be understood."""
    head, *rows = csv.reader((line for line in lines_of(text, path) if line.strip()), delimiter=delimiter)
    names = [name.strip().lower() for name in head]
    columns = [next((name for name in known if name in names), None) for known in (LATITUDE, LONGITUDE)]
    at = [names.index(name) for name in columns if name is not None]
    if len(at) != 2:
        raise AreaError(
            "the first line does not name one column of latitudes and one of longitudes",
            file=path,
            facts={"columns": ", ".join(names)[:200]},
            next_step="name them latitude and longitude",
        )
    curve = names.index(CURVE) if CURVE in names else None
    building = MissionBuilder(Reading(path, None))
    curved, found = 0, []
    for number, row in enumerate(rows, 1):
        where = f"waypoint {number}"
        lat, lon = (degrees(row[n] if n < len(row) else None, path, where) for n in at)
        found.append((where, point(lon, lat, path, where)))
        curved += curve is not None and curve < len(row) and (number_in(row[curve]) or 0) > 0
    there = placed([place for _, place in found])
    building.notes += left_out(len(found) - len(there))
    known = set(there)
    for where, place in found:
        if place in known:
            building.pattern(fly(where, place))
    if curved:
        building.notes.append(Note("", f"{curved} curved turns are taken as straight legs: the buffer must be wider"))
    return building.build(takeoff=None, datum=None, ends="unknown")
