"""Waypoint files "QGC WPL" → mission, as QGroundControl, Mission Planner, APM Planner, MAVProxy and mwp write them.

https://mavlink.io/en/file_formats/#mission_plain_text_file. In version 110 the first line is home; version 120, of
QGroundControl before 2.9, has no home (loadTextMissionFile in its src/MissionManager).
"""

from __future__ import annotations

import re
from pathlib import Path

from provisioning.area.files import lines_of
from provisioning.area.formats.plan import origin
from provisioning.area.missions.building import MissionBuilder
from provisioning.area.missions.commands import FENCE, JUMP_TAG, RALLY, WAYPOINT, Command, Reading
from provisioning.area.missions.steps import Mission
from provisioning.area.shapes import Note, Point, point
from provisioning.base.errors import AreaError

HEAD = re.compile(r"QGC\s+WPL\s+(\S.*)", re.IGNORECASE)
VERSIONS = ("110", "120")
FIELDS = 12
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")


def is_wpl(text: str) -> bool:
    """Return whether text is a waypoint file."""
    return bool(HEAD.match(text.lstrip("\ufeff\r\n\t \0")[:40]))


def read_wpl(text: str, path: Path) -> Mission:
    """Return the mission of a waypoint file; AreaError names the line that cannot be understood."""
    lines = [(n, line) for n, line in enumerate(lines_of(text, path), 1) if line.strip("\ufeff\0 \t")]
    head = HEAD.match(lines[0][1].strip("\ufeff\0 \t"))
    version = head[1].strip() if head else ""
    if version not in VERSIONS:
        raise AreaError(
            f"the waypoint file is of version {version[:20]!r}; QGC WPL 110 is needed (or 120)", file=path,
            next_step="load it in Mission Planner or QGroundControl and save it again",
        )  # fmt: skip
    rows = [(f"line {n}", _fields(line, path, n)) for n, line in lines[1:] if not line.lstrip().startswith("#")]
    commands = [(fields[0], _command(fields, path, where)) for where, fields in rows]
    return _mission(commands, [fields[10] for _, fields in rows], path, has_home=version == "110")


def _fields(line: str, path: Path, number: int) -> list[float]:
    fields = DECIMAL_COMMA.sub(".", line).split()
    if len(fields) != FIELDS:
        raise AreaError(
            f"line {number} of the waypoint file has {len(fields)} fields instead of {FIELDS}", file=path,
            next_step="save the mission again; a file that was edited by hand needs a tab between two numbers",
        )  # fmt: skip
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise AreaError(
            f"line {number} of the waypoint file is not a waypoint: {error}", file=path,
            next_step="save the mission again where it was made",
        ) from error  # fmt: skip


def _command(fields: list[float], path: Path, where: str) -> Command:
    whole = [int(fields[n]) if abs(fields[n]) < 1e6 and fields[n] == int(fields[n]) else -1 for n in (2, 3)]
    if min(whole) < 0:
        raise AreaError(f"{where} of the waypoint file has no frame or command number", file=path,
                        next_step="save the mission again where it was made")  # fmt: skip
    return Command(where, whole[1], whole[0], tuple(fields[4:8]), (fields[8], fields[9]))


def _mission(commands: list[tuple[float, Command]], alts: list[float], path: Path, *, has_home: bool) -> Mission:
    first = commands[0][1] if commands and has_home and commands[0][0] == 0 else None
    home = _home(first, path) if first else None
    building = MissionBuilder(Reading(path, home))
    kinds = {command.number for _, command in commands[1 if first else 0 :]}
    if kinds and kinds <= {*FENCE, RALLY}:
        raise AreaError("the waypoint file has a fence or rally points, no mission", file=path,
                        next_step="save the mission itself, from the same program")  # fmt: skip
    for index, command in commands:
        if command is first and first.number in (0, WAYPOINT):
            continue
        building.label(int(index) if abs(index) < 1e6 else index)
        if command.number == JUMP_TAG:
            building.label(f"tag {command.params[0]:.0f}")
        if command is first:
            said = "is home to ArduPilot and QGroundControl, whatever its command; it is flown to as well here"
            building.notes.append(Note(command.where, said))
        building.command(command)
    takeoff = origin(home, alts[0]) if home else None
    return building.build(takeoff=takeoff, datum="amsl" if first and first.frame == 0 else None)


def _home(first: Command, path: Path) -> Point | None:
    """Return the position of the first line; two noughts are a home that was never set."""
    if all(value == 0 or value != value for value in first.place):  # noqa: PLR0124 - NaN
        return None
    return point(first.place[1], first.place[0], path, first.where)
