"""Formats that draw lines and points without saying what is done at them: their lines are routes or the area."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from provisioning.area.missions.building import MissionBuilder
from provisioning.area.missions.commands import Reading
from provisioning.area.missions.steps import Mission, along, fly
from provisioning.area.shapes import (
    MOST_POINTS,
    Drawing,
    Margin,
    Note,
    Point,
    Polygon,
    Ring,
    closed,
    left_out,
    placed,
    unrolled,
)
from provisioning.base.errors import AreaError


@dataclass
class Drawn:
    """What a KML, GPX or GeoJSON file draws."""

    lines: list[Ring] = field(default_factory=list)
    polygons: list[Polygon] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    circles: list[Margin] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def check(self, path: Path, kind: str) -> None:
        """Raise AreaError if nothing is drawn, or more than can be measured."""
        rings = (*self.lines, *(ring for polygon in self.polygons for ring in polygon))
        count = sum(map(len, rings)) + len(self.points) + len(self.circles)
        if count == 0:
            raise AreaError(f"the {kind} has no polygon, line or point", file=path,
                            next_step="draw the area, export again")  # fmt: skip
        if count > MOST_POINTS:
            raise AreaError(f"the {kind} has more than {MOST_POINTS} points", file=path, next_step="simplify it")


def as_area(drawn: Drawn, path: Path, kind: str, *, geodesic: bool) -> Drawing:
    """Return what is drawn as an area; AreaError if it is nothing. Lines are routes; a point is about one tile."""
    drawn.check(path, kind)
    notes = drawn.notes
    if drawn.points:
        notes = [*notes, Note("", f"{len(drawn.points)} points without a radius: each is one tile and its buffer_m")]
    return Drawing(
        lines=(*drawn.lines, *((place,) for place in drawn.points)), polygons=tuple(drawn.polygons),
        margins=tuple(drawn.circles), routes=tuple(line for line in drawn.lines if len(line) > 1), geodesic=geodesic,
        notes=tuple(notes),
    )  # fmt: skip


def as_missions(drawn: Drawn, path: Path, kind: str, *, points: Literal["visits", "marks"]) -> list[Mission]:
    """Return a mission for each line, or one over the points in their order where there is no line.

    `points` says whether points beside lines are places of their own, or nothing that is flown.
    """
    drawn.check(path, kind)
    margins = (*drawn.circles, *(Margin(0.0, polygons=(polygon,)) for polygon in drawn.polygons))
    notes = [*drawn.notes]
    if drawn.points and drawn.lines and points == "marks":
        notes.append(Note("", f"{len(drawn.points)} waypoints beside the lines are marks: they are not flown to"))
    lines = drawn.lines or ([unrolled(drawn.points)] if drawn.points else [])
    if drawn.points and not drawn.lines:
        notes.append(
            Note("", f"the file has points and no line: they are flown in their order, {len(lines[0])} of them")
        )
    found = [_mission(line, path, f"line {n}") for n, line in enumerate(lines, 1)] or [_mission((), path, "")]
    found[0] = _with(found[0], margins, notes)
    return found


def _mission(line: Ring, path: Path, where: str) -> Mission:
    building = MissionBuilder(Reading(path, None))
    there = placed(line)
    building.notes += left_out(len(line) - len(there))
    if len(there) > 1:
        building.pattern(along(where, unrolled(there)))
    elif there:
        building.pattern(fly(where, there[0]))
    return building.build(takeoff=None, datum=None, ends="unknown")


def _with(mission: Mission, margins: tuple[Margin, ...], notes: list[Note]) -> Mission:
    from dataclasses import replace

    return replace(mission, margins=margins, notes=(*mission.notes, *notes))


def ring_of(points: list[Point], path: Path, kind: str) -> Ring:
    """Return the closed ring of a polygon; AreaError with fewer than three corners or around a pole."""
    if len(set(points)) < 3:
        raise AreaError(f"a polygon in the {kind} has fewer than 3 corners", file=path, next_step="draw it again")
    ring = closed(points)
    if ring[0].lon != ring[-1].lon:
        raise AreaError(
            f"a polygon in the {kind} goes around a pole, which no Web Mercator tile reaches", file=path,
            next_step="draw it below 85 degrees of latitude",
        )  # fmt: skip
    return ring
