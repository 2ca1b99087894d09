"""From the steps of a mission to every leg that an autopilot may fly, repeats and returns included."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.area.missions.plane import circle, plane_at
from provisioning.area.missions.steps import FOR_EVER, Mission, Step
from provisioning.area.shapes import MOST_POINTS, Drawing, Note, Point, Ring, unrolled
from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import Origin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_STATES = 100_000
"""Steps times the places they are reached from: a mission of a few hundred jumps has some thousand."""
MOST_REPEATS = 32_767
"""What an autopilot keeps in 16 bits."""
SAME_PLACE_M = 1.0
"""A take-off point this near to home is home."""
SPLINE_LEGS = 16

Leg = tuple[Point, Point]
Start = -1
"""Stands for the step before the first: the take-off."""


def fly_mission(mission: Mission, path: Path, *, takeoff: Origin | None, diversions: str) -> Drawing:
    """Return the lines and routes of a mission; AreaError if they have no end or no position.

    `takeoff` is the configured take-off point: its legs are flown besides those of the mission's home. `diversions`:
    `points`, the rally points alone; `legs`, also the ways there; `required`, these are routes as well.
    """
    flight = _Flight(mission, path, takeoff)
    legs = flight.legs()
    routes = [*_joined(legs), *flight.rings]
    away = list(_diversions(flight, legs)) if diversions != "points" else []
    if diversions == "required":
        routes += away
    lines = [*routes, *away, *mission.lines, *((place,) for place in (*flight.lonely(legs), *mission.alternates))]
    if sum(map(len, lines)) > MOST_POINTS:
        raise AreaError(
            f"the mission has more than {MOST_POINTS} points", file=path, next_step="split it into several missions"
        )
    if not lines and not mission.margins:
        raise AreaError("the mission has no position", file=path, next_step="add waypoints, then save it again")
    return Drawing(
        lines=tuple(map(_unrolled, lines)), margins=mission.margins, routes=tuple(map(_unrolled, routes)),
        geodesic=True, takeoff=mission.takeoff, takeoff_datum=mission.takeoff_datum,
        notes=(*mission.notes, *flight.notes),
    )  # fmt: skip


def _unrolled(line: Ring) -> Ring:
    return unrolled(list(line))


class _Flight:
    """The walk through a mission: each step from each place that it can be reached from, once."""

    def __init__(self, mission: Mission, path: Path, takeoff: Origin | None) -> None:
        self.mission, self.path = mission, path
        place = Point(takeoff.lon_e7 / 1e7, takeoff.lat_e7 / 1e7) if takeoff else None
        self.homes = _homes(mission.home, place)
        self.refuges = _Refuges(mission.alternates)
        self.rings: dict[Ring, None] = {}
        self.notes: list[Note] = []
        if len(self.homes) > 1:
            self._say("flight.takeoff", "is not the mission's home: the legs from and to both are in the area")

    def legs(self) -> list[Leg]:
        """Return every leg once, the mission's own order first."""
        found: dict[Leg, None] = {}
        seen: set[tuple[int, int]] = set()
        stack = [(0, Start)]
        while stack:
            at, last = state = stack.pop()
            if state in seen:
                continue
            seen.add(state)
            if len(seen) > MOST_STATES:
                raise AreaError(
                    "the mission's jumps lead to more ways than can be followed", file=self.path,
                    facts={"followed": MOST_STATES}, next_step="use fewer DO_JUMP commands",
                )  # fmt: skip
            if at >= len(self.mission.steps):
                found.update(dict.fromkeys(self._ending(last)))
                continue
            step = self.mission.steps[at]
            found.update(dict.fromkeys(self._flown(step, last)))
            if step.kind == "fly":
                self._curve(at, last)
            stack += self._next(at, step, last)
        return [leg for leg in found if leg[0] != leg[1]]

    def lonely(self, legs: list[Leg]) -> Iterator[Point]:
        """Yield places to which no leg leads: a mission of one point."""
        flown = {place for leg in legs for place in leg}
        for step in self.mission.steps:
            yield from (place for place in step.entries if place not in flown)
        yield from (home for home in self.homes if home not in flown)

    def _exits(self, last: int) -> tuple[Point, ...]:
        if last == Start:
            return self.homes
        step = self.mission.steps[last]
        return self._returns() if step.kind == "return" else step.exits

    def _returns(self) -> tuple[Point, ...]:
        return (*self.homes, *self.mission.homes_set)

    def _flown(self, step: Step, last: int) -> Iterator[Leg]:
        """Yield the legs of one step as reached from `last`."""
        if step.kind == "return":
            yield from self._return(step.where, last)
        if step.kind != "fly":
            return
        yield from product(self._exits(last), step.entries)
        for path in step.paths:
            yield from pairwise(path)
        for centre, radius_m in step.around:
            self._ring(circle(centre, radius_m))

    def _return(self, where: str, last: int) -> Iterator[Leg]:
        homes = self._returns()
        self._say(where, "the height of a return is a setting of the vehicle, not of the file")
        if not homes:
            self._say(where, "returns to home, which the file does not have: set flight.takeoff", missing=True)
        for place in self._exits(last):
            yield from ((place, home) for home in homes)
            yield from ((place, rally) for rally in self.refuges.nearest(place))
            yield from ((place, landing) for landing in self.mission.landings)

    def _ending(self, last: int) -> Iterator[Leg]:
        """Yield the legs after the last step."""
        if last == Start or self.mission.ends == "land" or self.mission.steps[last].kind == "return":
            return
        if self.mission.ends == "home" or (self.mission.ends == "unknown" and self._returns()):
            yield from self._return("the end of the mission", last)
        elif self.mission.ends == "unknown":
            self._say("", "this kind of file has no home: set flight.takeoff to have the ways there and back covered",
                      missing=True)  # fmt: skip
        else:
            self._say("", "the mission ends without a return or a landing at home: a return from there is not covered")

    def _next(self, at: int, step: Step, last: int) -> Iterator[tuple[int, int]]:
        """Yield the states after a step; the one to follow first comes last."""
        if step.kind == "end":
            return
        if step.kind == "jump" and step.repeats:
            yield self._target(at, step), last
        yield at + 1, at if step.kind == "fly" or (step.kind == "return" and self._returns()) else last

    def _target(self, at: int, step: Step) -> int:
        target = self.mission.labels.get(step.target)
        if target is None:
            raise AreaError(
                f"{step.where} jumps to item {step.target:.20}, which the mission does not have", file=self.path,
                next_step="correct the jump where the mission was made, then save it again",
            )  # fmt: skip
        if not FOR_EVER <= step.repeats <= MOST_REPEATS:
            raise AreaError(
                f"{step.where} repeats a jump {step.repeats:.12g} times; autopilots keep at most {MOST_REPEATS}",
                file=self.path, next_step=f"use {FOR_EVER} for a jump without end",
            )  # fmt: skip
        between = (self.mission.steps[n].kind for n in range(target, at))
        if target <= at and step.repeats == FOR_EVER and all(kind in ("pass", "jump") for kind in between):
            raise AreaError(
                f"{step.where} jumps for ever without flying anywhere", file=self.path,
                next_step="let it jump to an item before a waypoint",
            )  # fmt: skip
        return target

    def _curve(self, at: int, last: int) -> None:
        """Add the curve of a spline waypoint; the straight leg stays, for autopilots that fly no splines."""
        steps = self.mission.steps
        if not steps[at].spline or last == Start or steps[last].kind != "fly":
            return
        start, end = steps[last].exits[0], steps[at].entries[0]
        after = next((steps[n].entries[0] for n in range(at + 1, len(steps)) if steps[n].kind == "fly"), end)
        before = next((steps[n].exits[-1] for n in range(last - 1, -1, -1) if steps[n].kind == "fly"), start)
        towards = end if steps[last].spline else start
        self._ring(_spline((before, towards), start, end, after))

    def _ring(self, ring: Ring) -> None:
        self.rings[ring] = None
        if len(self.rings) * len(ring) > MOST_POINTS:
            raise AreaError(
                f"the mission has more than {len(self.rings) - 1} loiters and splines", file=self.path,
                next_step="split it into several missions",
            )  # fmt: skip

    def _say(self, where: str, what: str, *, missing: bool = False) -> None:
        note = Note(where, what, missing)
        if note not in self.notes:
            self.notes.append(note)


def _homes(home: Point | None, takeoff: Point | None) -> tuple[Point, ...]:
    """Return the places of take-off, the configured one last; one where they are the same."""
    if home is None or takeoff is None:
        return tuple(place for place in (home, takeoff) if place)
    apart_m = math.hypot(*plane_at(home).xy(takeoff))
    return (home,) if apart_m < SAME_PLACE_M else (home, takeoff)


def _joined(legs: Iterable[Leg]) -> list[Ring]:
    """Return legs as lines: each goes on where the one before ended."""
    lines: list[list[Point]] = []
    for start, end in legs:
        if lines and lines[-1][-1] == start:
            lines[-1].append(end)
        else:
            lines.append([start, end])
    return [tuple(line) for line in lines]


def _diversions(flight: _Flight, legs: list[Leg]) -> Iterator[Ring]:
    """Yield the way from each turning point to the nearest rally point, and to home."""
    for place in dict.fromkeys(place for leg in legs for place in leg):
        for refuge in (*flight.refuges.nearest(place), *flight.homes):
            if refuge != place:
                yield place, refuge


class _Refuges:
    """Places of which the nearest is asked for often: by thousands of turning points, of thousands of rally points."""

    def __init__(self, places: tuple[Point, ...]) -> None:
        self.places = places
        self._array: NDArray[np.float64] | None = None

    def nearest(self, place: Point) -> tuple[Point, ...]:
        """Return the nearest place, none if there is none."""
        if len(self.places) < 2:
            return self.places
        import numpy as np

        if self._array is None:
            self._array = np.array(self.places, float)
        plane = plane_at(place)
        east = ((self._array[:, 0] - place.lon + 180) % 360 - 180) * plane.east_m
        north = (self._array[:, 1] - place.lat) * plane.north_m
        return (self.places[int((east * east + north * north).argmin())],)


def _spline(way_in: Leg, start: Point, end: Point, after: Point) -> Ring:
    """Return the curve to a spline waypoint as ArduPilot flies it: a cubic Hermite spline.

    It leaves `start` in the direction of `way_in` and arrives in the direction from `start` to `after`; both tangents
    are shortened to four times the leg together (libraries/AC_WPNav of ArduPilot).
    """
    plane = plane_at(start)
    (bx, by), (tx, ty), (ex, ey), into = (plane.xy(place) for place in (*way_in, end, after))
    out = (tx - bx, ty - by) if way_in[0] != way_in[1] else (ex, ey)
    lengths = math.hypot(*out) + math.hypot(*into)
    scale = min(1.0, 4 * math.hypot(ex, ey) / lengths) if lengths else 0.0
    curve = []
    for n in range(SPLINE_LEGS + 1):
        t = n / SPLINE_LEGS
        h, m0, m1 = t * t * (3 - 2 * t), (t - 1) ** 2 * t * scale, (t - 1) * t * t * scale
        curve.append(plane.point((ex * h + out[0] * m0 + into[0] * m1, ey * h + out[1] * m0 + into[1] * m1)))
    return tuple(curve)
