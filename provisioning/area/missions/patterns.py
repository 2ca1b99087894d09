"""The flight lines of survey patterns whose file has only what they were drawn from.

The order in which a ground station flies computed lines is not in the file: every end is an entry and an exit, so that
the way there and on is in the area whichever is taken.
"""

from __future__ import annotations

import math
from pathlib import Path

from provisioning.area.missions.plane import (
    Plane,
    Xy,
    counterclockwise,
    extended,
    hatched,
    offset,
    plane_at,
)
from provisioning.area.missions.steps import Step
from provisioning.area.shapes import MOST_POINTS, Point, Ring
from provisioning.base.errors import AreaError

MOST_LINES = 5_000
MOST_ENTRIES = 16
"""Corners of a structure that may each be the first; of a finer outline every n-th is taken, and the first."""


def survey(
    where: str, outline: list[Point], path: Path, *, spacing_m: float, azimuth_deg: float, turnaround_m: float
) -> Step:
    """Return the lines over an area: parallel, `spacing_m` apart, longer by `turnaround_m` at both ends."""
    plane = plane_at(outline[0])
    ring = [plane.xy(corner) for corner in outline]
    extent = max(math.dist(ring[0], corner) for corner in ring)
    if spacing_m <= 0 or 2 * extent / spacing_m > MOST_LINES:
        raise AreaError(
            f"{where}: its lines are {spacing_m:g} m apart over {extent:,.0f} m, more than {MOST_LINES} lines",
            file=path, next_step="correct the spacing where the mission was made, then save it again",
        )  # fmt: skip
    lines = [extended(list(line), turnaround_m) for line in hatched(ring, azimuth_deg, spacing_m)]
    return _lines(where, [[plane.point(at) for at in line] for line in lines] or [outline])


def corridor(
    where: str, line: list[Point], path: Path, *, width_m: float, spacing_m: float, turnaround_m: float
) -> Step:
    """Return the lines of a corridor scan: beside each other over `width_m`, `spacing_m` apart, or its one line."""
    plane = plane_at(line[0])
    middle = [plane.xy(place) for place in line]
    count = max(1, math.ceil(width_m / spacing_m)) if spacing_m > 0 else 3
    if count * len(line) > MOST_POINTS or count > MOST_LINES:
        raise AreaError(
            f"{where}: its lines are {spacing_m:g} m apart over {width_m:,.0f} m, more than {MOST_LINES} lines",
            file=path, next_step="correct the spacing where the mission was made, then save it again",
        )  # fmt: skip
    gap = spacing_m if spacing_m > 0 else width_m / 2
    lines = []
    for n in range(count):
        beside = extended(offset(middle, (n - (count - 1) / 2) * gap, closed=False), turnaround_m)
        lines.append([plane.point(at) for at in (beside if n % 2 == 0 else beside[::-1])])
    return _lines(where, lines)


def structure(where: str, outline: list[Point], *, distance_m: float) -> Step:
    """Return the ring flown around a structure, `distance_m` outside its outline, from any of its corners."""
    plane = plane_at(outline[0])
    ring = _outside(plane, outline, distance_m)
    every = math.ceil(len(ring) / MOST_ENTRIES)
    corners = tuple(ring[::every])
    return Step(where=where, kind="fly", entries=corners, exits=corners, paths=((*ring, ring[0]),))


def _outside(plane: Plane, outline: list[Point], distance_m: float) -> list[Point]:
    ring: list[Xy] = counterclockwise([plane.xy(corner) for corner in outline])
    return [plane.point(at) for at in offset(ring, -distance_m, closed=True)]


def _lines(where: str, lines: list[list[Point]]) -> Step:
    """Return the step along lines flown one after the other."""
    flown: Ring = tuple(place for line in lines for place in line)
    ends = tuple(dict.fromkeys((lines[0][0], lines[0][-1], lines[-1][0], lines[-1][-1])))
    return Step(where=where, kind="fly", entries=ends, exits=ends, paths=(flown,))
