"""DJI waypoint routes (WPML, in a KMZ) → missions.

https://developer.dji.com/doc/cloud-api-tutorial/en/api-reference/dji-wpml/
`waylines.wpml` has what the aircraft flies; `template.kml` what it was made from, with the take-off reference point.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from provisioning.area.files import parse_xml, tag
from provisioning.area.formats.numbers import number_in
from provisioning.area.formats.plan import origin
from provisioning.area.missions.building import MissionBuilder
from provisioning.area.missions.commands import Reading
from provisioning.area.missions.steps import Mission, fly
from provisioning.area.shapes import Note, Point, left_out, placed, point
from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import Origin


def is_wpml(members: Mapping[str, bytes]) -> bool:
    """Return whether the members of a ZIP are a DJI route."""
    names = [name.lower() for name in members]
    return any(name.endswith(".wpml") or name.rpartition("/")[2] == "template.kml" for name in names)


def read_wpml(members: Mapping[str, bytes], path: Path) -> list[Mission]:
    """Return a mission for each wayline; AreaError if there is none."""
    flown = next((name for name in members if name.lower().endswith(".wpml")), None)
    template = next((name for name in members if name.lower().endswith("template.kml")), None)
    drawn_from = parse_xml(members[template], path) if template else None
    root = parse_xml(members[flown], path) if flown else drawn_from
    assert root is not None
    home, takeoff = _home(drawn_from if drawn_from is not None else root, path)
    folders = [element for element in root.iter() if tag(element) == "Folder"]
    found = [_mission(folder, root, path, home, takeoff) for folder in folders]
    found = [mission for mission in found if mission.steps]
    if not found:
        raise AreaError(
            "the DJI route has no waypoint that is flown", file=path,
            next_step="export it from DJI Pilot 2 or FlightHub 2 with its waylines.wpml; or export KML, GPX, a Litchi "
            "CSV, QGroundControl .plan or QGC WPL 110",
        )  # fmt: skip
    return found


def _home(root: Element, path: Path) -> tuple[Point | None, Origin | None]:
    """Return the take-off reference point, "latitude,longitude,height"; what its height is above is not said."""
    raw = next((e.text or "" for e in root.iter() if tag(e) == "takeOffRefPoint"), "").split(",")
    lat, lon = (number_in(text) for text in (*raw, "", "")[:2])
    if lat is None or lon is None or (lat == 0 and lon == 0):
        return None, None
    place = point(lon, lat, path, "takeOffRefPoint")
    return place, origin(place, None)


def _mission(folder: Element, root: Element, path: Path, home: Point | None, takeoff: Origin | None) -> Mission:
    building = MissionBuilder(Reading(path, home))
    found: list[tuple[str, Point]] = []
    for number, placemark in enumerate((e for e in folder.iter() if tag(e) == "Placemark"), 1):
        where = f"waypoint {number}"
        text = _below(placemark, "Point", "coordinates")
        if text is None:
            continue
        lon, lat = (number_in(part) for part in (*text.split(","), "")[:2])
        found.append((where, point(lon, lat, path, where)))
        if "Curvature" in (_below(placemark, "waypointTurnMode") or ""):
            _say_once(building, "its curves at waypoints are taken as straight legs: the buffer must be wider")
    there = set(placed([place for _, place in found]))
    building.notes += left_out(sum(place not in there for _, place in found))
    for where, place in found:
        if place in there:
            building.pattern(fly(where, place))
    first = building.steps[0].entries[0] if building.steps else None
    finish = next(((e.text or "").strip() for e in root.iter() if tag(e) == "finishAction"), "goHome")
    if finish == "gotoFirstWaypoint" and first:
        building.pattern(fly("gotoFirstWaypoint", first))
    ends: Literal["stay", "unknown"] = "unknown" if finish == "goHome" else "stay"
    return building.build(takeoff=takeoff, datum=None, ends=ends)


def _below(element: Element, *names: str) -> str | None:
    """Return the text of the first element with the last name, below one of each name before."""
    for name in names:
        below = next((child for child in element.iter() if tag(child) == name), None)
        if below is None:
            return None
        element = below
    return (element.text or "").strip()


def _say_once(building: MissionBuilder, what: str) -> None:
    if not any(note.what == what for note in building.notes):
        building.notes.append(Note("", what))
