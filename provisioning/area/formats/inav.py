"""Missions of mwp and INAV Configurator (MultiWii XML) → missions.

https://github.com/stronnag/mwptools
Several missions in one file are divided by the flag 165; jumps count within theirs.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from provisioning.area.files import tag
from provisioning.area.formats.numbers import degrees, number_in
from provisioning.area.formats.plan import origin
from provisioning.area.missions.building import MissionBuilder
from provisioning.area.missions.commands import Reading
from provisioning.area.missions.steps import Mission, Step, fly
from provisioning.area.shapes import Note, Point, point
from provisioning.base.errors import AreaError

LAST_OF_MISSION = 165
AT_HOME = 72
"""Flag of a waypoint at home, whatever its position."""
FLOWN = ("WAYPOINT", "POSHOLD_TIME", "PH_TIME", "POSHOLD_UNLIM", "PH_UNLIM", "LAND")
STILL = ("SET_POI", "SET_HEAD")


def read_inav(root: Element, path: Path) -> list[Mission]:
    """Return the missions of a file; AreaError names the item that cannot be understood."""
    home: Point | None = None
    items: list[dict[str, str]] = []
    found: list[Mission] = []
    for element in root.iter():
        raw = {name.lower(): value for name, value in element.attrib.items()}
        if tag(element).lower() in ("mwp", "meta") and "home-x" in raw:
            home = _home(raw, path)
        if tag(element).lower() != "missionitem":
            continue
        items.append(raw)
        if number_in(raw.get("flag")) == LAST_OF_MISSION:
            found.append(_mission(items, home, path))
            items = []
    if items:
        found.append(_mission(items, home, path))
    if not found:
        raise AreaError("the mission has no item", file=path, next_step="add waypoints, then save it again")
    return found


def _home(raw: dict[str, str], path: Path) -> Point | None:
    lon, lat = (degrees(raw.get(name), path, "home") for name in ("home-x", "home-y"))
    return None if lat == 0 and lon == 0 else point(lon, lat, path, "home")


def _mission(items: list[dict[str, str]], home: Point | None, path: Path) -> Mission:
    building = MissionBuilder(Reading(path, home))
    for number, raw in enumerate(items, 1):
        building.label(number)
        _item(building, raw, f"item {raw.get('no', number)}", path)
    return building.build(takeoff=origin(home, None) if home else None, datum=None)


def _item(building: MissionBuilder, raw: dict[str, str], where: str, path: Path) -> None:
    action = raw.get("action", "").upper()
    if action in FLOWN:
        place = _place(building, raw, where, path)
        step = fly(where, place) if place else Step(where=where, kind="pass")
        building.pattern(step)
        building.landed(lands=action == "LAND")
    elif action == "RTH":
        building.pattern(Step(where=where, kind="return"))
    elif action == "JUMP":
        building.pattern(_jump(raw, where, path))
    elif action in STILL:
        building.pattern(Step(where=where, kind="pass"))
    else:
        raise AreaError(f"{where} has the unknown action {action!r:.30}", file=path,
                        next_step=f"use {', '.join((*FLOWN, 'RTH', 'JUMP', *STILL))}")  # fmt: skip


def _place(building: MissionBuilder, raw: dict[str, str], where: str, path: Path) -> Point | None:
    lat, lon = (degrees(raw.get(name), path, where) for name in ("lat", "lon"))
    if number_in(raw.get("flag")) == AT_HOME or (lat == 0 and lon == 0):
        home = building.reading.home
        if home is None:
            said = "is at home, which the file does not have: set flight.takeoff"
            building.notes.append(Note(where, said, missing=True))
        return home
    return point(lon, lat, path, where)


def _jump(raw: dict[str, str], where: str, path: Path) -> Step:
    target, repeats = (number_in(raw.get(name)) for name in ("parameter1", "parameter2"))
    if target is None or repeats is None:
        raise AreaError(f"{where} is a jump without target and number of repeats", file=path,
                        next_step="correct it where the mission was made, then save it again")  # fmt: skip
    return Step(where=where, kind="jump", target=f"{target:.0f}", repeats=int(repeats))
