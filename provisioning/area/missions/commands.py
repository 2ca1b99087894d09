"""MAVLink mission commands: which of them move the aircraft, where to, and what they leave open.

Numbers, parameters and frames are those of https://mavlink.io/en/messages/common.html and, from 42000, of ArduPilot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.area.missions.steps import Circle, Step, fly
from provisioning.area.shapes import Note, Point, metres, point
from provisioning.base.errors import AreaError

GLOBAL_FRAMES = frozenset({0, 3, 5, 6, 10, 11})
SCALED_FRAMES = frozenset({5, 6, 11})
"""The *_INT frames: some writers give their degrees as whole 1e-7 degree."""
LOCAL_NED, LOCAL_ENU = 1, 4
LOCAL_FRAMES = frozenset({7, 8, 9, *range(12, 22)})
WAYPOINT, RETURN, SPLINE = 16, 20, 82
LANDS = frozenset({21, 23, 85})
LOITERS = {17: 2, 18: 2, 19: 2, 31: 1, 34: 0, 35: 0}
"""Command → which of its parameters is the radius, metre."""
FLOWN = frozenset({16, 17, 18, 19, 21, 22, 31, 34, 35, 36, 82, 84, 85, 94, 192, *range(31000, 31005)})
"""Waypoint, loiters, land, take-off, orbit, figure of eight, arc, spline, VTOL, payload place, reposition, user."""
JUMP, JUMP_TAG, DO_JUMP_TAG = 177, 600, 601
SET_HOME, RETURN_PATH_START, LAND_START, RALLY = 179, 188, 189, 5100
FENCE = range(5000, 5005)
MOST_LOITER_M = 20_000.0
OPEN_ENDED = {
    23: "lands at a place in a local frame",
    24: "takes off to a place in a local frame",
    25: "follows something that moves",
    30: "flies straight on until a height is reached",
    32: "follows something that moves",
    33: "follows something that moves",
    36: "flies an arc, of which the chord is taken",
    35: "flies a figure of eight, of which a circle of its larger radius is taken",
    81: "plans its own path",
    83: "drifts until a height is reached",
    92: "is steered from outside the mission",
    222: "is steered from outside the mission",
    3000: "changes between hover and cruise, straight on",
    42702: "is steered by a script",
    42703: "holds an attitude for a time",
}
"""Commands whose path is not in the mission."""
LAST_NAVIGATION = 95
STILL = frozenset({80, 93, 95, *range(96, 100)})
"""Navigation commands that move nothing."""


class Command(NamedTuple):
    """One command as its file writes it; `place` is (latitude or x, longitude or y), None or 0 where there is none."""

    where: str
    number: int
    frame: Any
    params: tuple[Any, ...]
    place: tuple[Any, Any]


@dataclass(frozen=True)
class Reading:
    """What commands are read against: their file and, for local frames, the mission's home."""

    path: Path
    home: Point | None


class Read(NamedTuple):
    """The step of a command, what it adds to the mission, and what must be said."""

    step: Step
    notes: tuple[Note, ...] = ()
    homes_set: tuple[Point, ...] = ()
    starts_landing: bool = False
    lands: bool = False
    alternate: Point | None = None


def read_command(command: Command, reading: Reading) -> Read:
    """Return what a command does; AreaError if its position cannot be understood."""
    number, where = command.number, command.where
    still = Step(where=where, kind="pass")
    open_end = OPEN_ENDED.get(number)
    notes = (Note(where, f"{open_end}: where to is not in the file", missing=True),) if open_end else ()
    if number == RETURN:
        return Read(Step(where=where, kind="return"))
    if number in (JUMP, DO_JUMP_TAG):
        return Read(_jump(command, reading))
    place = _place(command, reading) if _has_place(command) else None
    if number in FLOWN:
        return _flown(command, place, notes, reading)
    if number == SET_HOME:
        said = () if place else (Note(where, "sets home to where the aircraft is then", missing=True),)
        return Read(still, said, (place,) if place else ())
    if number == RALLY:
        return Read(still, alternate=place)
    if number in (LAND_START, RETURN_PATH_START):
        return Read(still, starts_landing=True)
    if number <= LAST_NAVIGATION and number not in STILL and number not in OPEN_ENDED:
        return _unknown(command, place)
    return Read(still, notes)


def _flown(command: Command, place: Point | None, notes: tuple[Note, ...], reading: Reading) -> Read:
    number, where = command.number, command.where
    if place is None:
        said = Note(where, "has no position: the aircraft stays where it is then")
        said_of = (said,) if number in (WAYPOINT, SPLINE) else ()
        return Read(Step(where=where, kind="pass"), (*notes, *said_of), lands=number in LANDS)
    around = _circle(command, place, reading)
    if number in LOITERS and not around:
        said = Note(where, "loiters with the vehicle's own radius: the buffer must be wider than that")
        notes = (*notes, said)
    return Read(fly(where, place, around=around, spline=number == SPLINE), notes, lands=number in LANDS)


def _circle(command: Command, place: Point, reading: Reading) -> tuple[Circle, ...]:
    at = LOITERS.get(command.number)
    raw = command.params[at] if at is not None and at < len(command.params) else None
    if raw is None or raw == 0 or raw != raw:  # noqa: PLR0124 - NaN stands for the vehicle's own radius
        return ()
    return ((place, metres(raw, reading.path, f"{command.where}, radius", most=MOST_LOITER_M)),)


def _unknown(command: Command, place: Point | None) -> Read:
    where = command.where
    if place is None:
        said = Note(where, f"command {command.number} is not known: where it flies is not known either", missing=True)
        return Read(Step(where=where, kind="pass"), (said,))
    said = Note(where, f"command {command.number} is not known: taken as a waypoint")
    return Read(fly(where, place), (said,))


def _jump(command: Command, reading: Reading) -> Step:
    try:
        target, repeats = (int(command.params[n]) for n in (0, 1))
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        raise AreaError(
            f"{command.where} is a jump without target and number of repeats", file=reading.path,
            next_step="correct it where the mission was made, then save it again",
        ) from error  # fmt: skip
    label = f"tag {target}" if command.number == DO_JUMP_TAG else str(target)
    return Step(where=command.where, kind="jump", target=label, repeats=repeats)


def _has_place(command: Command) -> bool:
    """Return whether a command has a position: two times null, NaN or 0 stand for "where the aircraft is then"."""
    return not all(value is None or value == 0 or value != value for value in command.place)  # noqa: PLR0124


def _place(command: Command, reading: Reading) -> Point | None:
    """Return the position of a command that moves the aircraft or marks a place, None for the others."""
    number = command.number
    marks = number in (SET_HOME, RALLY)
    if number not in FLOWN and not marks and (number > LAST_NAVIGATION or number in STILL or number in OPEN_ENDED):
        return None
    return position(command.place, command.frame, reading, command.where)


def position(pair: Sequence[Any], frame: Any, reading: Reading, where: str) -> Point:
    """Return a position in any frame that can be known before take-off; AreaError for the others."""
    first, second = pair
    if isinstance(frame, bool) or not isinstance(frame, int):
        frame = None
    if frame in (LOCAL_NED, LOCAL_ENU):
        return _local(first, second, frame, reading, where)
    if frame in LOCAL_FRAMES:
        raise AreaError(
            f"{where} is in a local frame (MAV_FRAME {frame}) that depends on where the aircraft is then",
            file=reading.path, next_step="use global ones",
        )  # fmt: skip
    if frame not in GLOBAL_FRAMES:
        raise AreaError(f"{where} has an unknown frame ({frame!r:.20})", file=reading.path, next_step="use global ones")
    if frame in SCALED_FRAMES and all(isinstance(v, (int, float)) for v in pair) and max(map(abs, pair)) > 1000:
        first, second = first / 1e7, second / 1e7
    return point(second, first, reading.path, where)


def _local(first: Any, second: Any, frame: int, reading: Reading, where: str) -> Point:
    if reading.home is None:
        raise AreaError(
            f"{where} is in a local frame (MAV_FRAME {frame}), and the mission has no home to count from",
            file=reading.path, next_step="set the planned home, or use global frames",
        )  # fmt: skip
    for value in (first, second):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise AreaError(f"{where} is not a position", file=reading.path, facts={"found": f"{value!r:.40}"})
        metres(value, reading.path, where)
    from geographiclib.geodesic import Geodesic  # Karney's own; few missions have a local frame

    east, north = (second, first) if frame == LOCAL_NED else (first, second)
    azimuth, distance = math.degrees(math.atan2(east, north)), math.hypot(east, north)
    at = Geodesic.WGS84.Direct(reading.home.lat, reading.home.lon, azimuth, distance)
    return Point(at["lon2"], at["lat2"])
