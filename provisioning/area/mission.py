"""QGroundControl plans (.plan, JSON) and waypoint files (QGC WPL 110) → drawing.

https://docs.qgroundcontrol.com/master/en/qgc-dev-guide/file_formats/plan.html and
https://mavlink.io/en/file_formats/ ; command and frame numbers are those of MAVLink common.xml.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.area.geojson import closed
from provisioning.area.shapes import MOST_POINTS, Drawing, Point, Polygon, Ring, parse_json, point, read_text, unrolled
from provisioning.base.angles import Origin
from provisioning.base.errors import AreaError

GLOBAL_FRAMES = frozenset({0, 3, 5, 6, 10, 11})
LOCAL_FRAMES = frozenset({1, 4, 7, 8, 9, 12})
FLOWN = frozenset({16, 17, 18, 19, 21, 22, 31, 82, 84, 85, 94})
"""Commands that take the aircraft to a place: waypoint, loiter, land, take-off, spline, VTOL, payload place."""
RETURN = 20
WPL = "QGC WPL"

Place = tuple[Point | None, bool]
"""A position, None for home, and whether it is a return to home."""


def read_mission(path: Path) -> Drawing:
    """Return route, survey polygons and home of a mission; AreaError names what cannot be understood."""
    text = read_text(path)
    if text.lstrip()[: len(WPL)] == WPL:
        return _from_waypoints(text, path)
    return _from_plan(parse_json(text, path), path)


def _origin(lat: float, lon: float, alt: Any) -> Origin:
    metres = alt if isinstance(alt, (int, float)) and not isinstance(alt, bool) and math.isfinite(alt) else None
    return Origin(round(lat * 1e7), round(lon * 1e7), None if metres is None else round(metres * 1000))


def _drawing(home: Point | None, takeoff: Origin | None, stops: list[Point | None], polygons: list[Polygon],
             extra: list[Ring], path: Path) -> Drawing:  # fmt: skip
    """Return the drawing of a route from home over `stops`, None being a return to home."""
    places = [home] if home else []
    places += [stop or home for stop in stops if stop or home]  # type: ignore[misc]
    route = unrolled(_without_repeats(places))
    if len(places) > MOST_POINTS:
        raise AreaError(f"the mission has more than {MOST_POINTS} points", file=path)
    if not route and not polygons:
        raise AreaError("the mission has no position", file=path, next_step="add waypoints, then save it again")
    lines = ((route,) if route else ()) + tuple(extra)
    return Drawing(lines=lines, polygons=tuple(polygons), routes=(route,) if len(route) > 1 else (), geodesic=True,
                   takeoff=takeoff)  # fmt: skip


def _without_repeats(places: list[Point]) -> list[Point]:
    return [place for n, place in enumerate(places) if n == 0 or place != places[n - 1]]


# QGC WPL 110


def _from_waypoints(text: str, path: Path) -> Drawing:
    lines = text.splitlines()
    if lines[0].split() != ["QGC", "WPL", "110"]:
        raise AreaError(f"the waypoint file is {lines[0][:40]!r}; QGC WPL 110 is needed", file=path)
    home: Point | None = None
    takeoff: Origin | None = None
    stops: list[Point | None] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        index, frame, command, lat, lon, alt = _waypoint(line, path, number)
        if command == RETURN:
            stops.append(None)
        if command not in FLOWN or (lat == 0 and lon == 0):
            continue
        where = f"line {number}"
        _check_frame(frame, path, where)
        place = point(lon, lat, path, where)
        if index == 0 and command == 16 and frame == 0:  # the first line of a waypoint file is home
            home, takeoff = place, _origin(lat, lon, alt)
        else:
            stops.append(place)
    return _drawing(home, takeoff, stops, [], [], path)


def _waypoint(line: str, path: Path, number: int) -> tuple[int, int, int, float, float, float]:
    fields = line.split()
    if len(fields) != 12:
        raise AreaError(f"line {number} of the waypoint file has {len(fields)} fields instead of 12", file=path)
    try:
        return int(fields[0]), int(fields[2]), int(fields[3]), float(fields[8]), float(fields[9]), float(fields[10])
    except ValueError as error:
        raise AreaError(f"line {number} of the waypoint file is not a waypoint: {error}", file=path) from error


def _check_frame(frame: Any, path: Path, where: str) -> None:
    if frame in LOCAL_FRAMES:
        raise AreaError(f"{where} is in a local frame (MAV_FRAME {frame})", file=path, next_step="use global ones")
    if frame not in GLOBAL_FRAMES:
        raise AreaError(f"{where} has an unknown frame ({frame!r})", file=path)


# .plan


def _from_plan(plan: dict[str, Any], path: Path) -> Drawing:
    mission = plan.get("mission")
    if plan.get("fileType") != "Plan" or not isinstance(mission, dict) or not isinstance(mission.get("items"), list):
        raise AreaError("the file is not a QGroundControl plan", file=path, next_step="save the plan again as .plan")
    home, takeoff = _home(mission.get("plannedHomePosition"), path)
    stops: list[Point | None] = []
    polygons: list[Polygon] = []
    for number, item in enumerate(mission["items"], 1):
        where = f"mission item {number}"
        if not isinstance(item, dict):
            raise AreaError(f"{where} is not an object", file=path)
        if item.get("type") == "ComplexItem":
            stops += _complex(item, polygons, path, where)
        else:
            stops += _simple(item, path, where)
    return _drawing(home, takeoff, stops, polygons, list(_rally(plan.get("rallyPoints"), path)), path)


def _home(raw: Any, path: Path) -> tuple[Point | None, Origin | None]:
    if raw is None:
        return None, None
    place = _pair(raw, path, "plannedHomePosition")
    if place == (0, 0):
        return None, None
    return place, _origin(place.lat, place.lon, raw[2] if len(raw) > 2 else None)


def _pair(raw: Any, path: Path, where: str) -> Point:
    """Return a position written as [latitude, longitude, …], as missions write it."""
    if not isinstance(raw, list) or len(raw) < 2:
        raise AreaError(f"{where} is not a position", file=path, facts={"found": raw})
    return point(raw[1], raw[0], path, where)


def _simple(item: dict[str, Any], path: Path, where: str) -> Iterator[Point | None]:
    command = item.get("command")
    if command == RETURN:
        yield None
    if command not in FLOWN:
        return
    params = item.get("params")
    pair = params[4:6] if isinstance(params, list) and len(params) >= 6 else item.get("coordinate")
    if pair in ([None, None], [0, 0]):  # "where the aircraft is then"
        return
    _check_frame(item.get("frame", 3), path, where)
    yield _pair(pair, path, where)


def _complex(item: dict[str, Any], polygons: list[Polygon], path: Path, where: str) -> Iterator[Point | None]:
    """Yield the places that a survey, corridor scan, structure scan or landing pattern flies to."""
    kind = item.get("complexItemType")
    if kind in ("survey", "StructureScan") and item.get("polygon"):
        corners = [_pair(pair, path, f"{where}, polygon") for pair in _list(item["polygon"], path, where)]
        if len(corners) < 3:
            raise AreaError(f"{where}: its polygon has fewer than 3 corners", file=path)
        polygons.append((closed(corners),))
    nested = item.get("TransectStyleComplexItem")
    flown = nested.get("VisualTransectPoints") if isinstance(nested, dict) else None
    if kind == "CorridorScan" and not flown:
        flown = item.get("polyline")
    for pair in _list(flown or [], path, where):
        yield _pair(pair, path, f"{where}, flight line")
    for name in ("landingApproachCoordinate", "loiterCoordinate", "landCoordinate"):
        if item.get(name):
            yield _pair(item[name], path, f"{where}, {name}")
    if kind not in ("survey", "StructureScan", "CorridorScan", "fwLandingPattern", "vtolLandingPattern"):
        raise AreaError(f"{where} is of the unknown kind {kind!r}", file=path)


def _list(raw: Any, path: Path, where: str) -> list[Any]:
    if not isinstance(raw, list):
        raise AreaError(f"{where} has no list of positions", file=path)
    return raw


def _rally(raw: Any, path: Path) -> Iterator[Ring]:
    """Yield rally points: places that a failsafe may fly to."""
    points = raw.get("points") if isinstance(raw, dict) else None
    for pair in points or ():
        yield (_pair(pair, path, "rallyPoints"),)
