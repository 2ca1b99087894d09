"""QGroundControl plans (.plan) and the .mission files before them → mission; and a plan's fence as an area.

https://docs.qgroundcontrol.com/master/en/qgc-dev-guide/file_formats/plan.html, and for what it leaves out the readers
and writers of QGroundControl 2.9 to 5.0 (src/MissionManager).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from provisioning.area.missions import patterns
from provisioning.area.missions.building import MissionBuilder
from provisioning.area.missions.commands import FLOWN, JUMP_TAG, Command, Reading
from provisioning.area.missions.steps import Mission, Step, along
from provisioning.area.shapes import Drawing, Margin, Note, Point, Polygon, Ring, closed, metres, point
from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import Origin

ARDUPILOT = 3
FIXED_WINGS = frozenset({1, *range(19, 26)})
"""MAV_TYPE of fixed wings and VTOL: ArduPlane returns home when a mission is over."""
SAVE_AGAIN = "save the plan again as .plan in a current QGroundControl"
WIDTH = ("CorridorWidth", "corridorWidth")
LANDING_PATTERNS = ("fwLandingPattern", "vtolLandingPattern")
PATTERNS = ("survey", "StructureScan", "CorridorScan", *LANDING_PATTERNS)


@dataclass(frozen=True)
class _Content:
    """The parts of a plan of any version."""

    items: list[Any]
    home: Any
    vehicle: dict[str, Any]
    rally: Any
    fence: Any


def is_plan(raw: Any) -> bool:
    """Return whether JSON is a plan or an old mission file."""
    return isinstance(raw, dict) and (raw.get("fileType") in ("Plan", "Mission") or "MAV_AUTOPILOT" in raw)


def read_plan(raw: dict[str, Any], path: Path) -> Mission:
    """Return the mission of a plan; AreaError names the item that cannot be understood."""
    content = _content(raw, path)
    home, takeoff = _home(content.home, path)
    reader = _PlanReader(MissionBuilder(Reading(path, home)), path)
    for number, item in enumerate(content.items, 1):
        reader.item(item, f"mission item {number}")
    alternates = [*_rally(content.rally, path), *_breach_return(content.fence, path)]
    reader.building.alternates += alternates
    flies_home = (
        content.vehicle.get("firmwareType") == ARDUPILOT and _number(content.vehicle, "vehicleType") in FIXED_WINGS
    )
    ends: Literal["home", "stay"] = "home" if flies_home else "stay"
    return reader.building.build(takeoff=takeoff, datum="amsl", ends=ends)


def _content(raw: dict[str, Any], path: Path) -> _Content:
    mission = raw.get("mission") if raw.get("fileType") == "Plan" else raw
    items = mission.get("items") if isinstance(mission, dict) else None
    if not isinstance(mission, dict) or not isinstance(items, list):
        raise AreaError("the file is not a QGroundControl plan", file=path, next_step=SAVE_AGAIN)
    patterns_of_v1 = mission.get("complexItems")  # beside the items in QGroundControl 2.9 and 3.0, numbered with them
    if isinstance(patterns_of_v1, list):
        items = sorted([*items, *patterns_of_v1], key=lambda item: _id(item) or 0)
    return _Content(items, mission.get("plannedHomePosition"), mission, raw.get("rallyPoints"), raw.get("geoFence"))


def _id(item: Any) -> int | None:
    """Return the number by which jumps name an item."""
    found = item.get("doJumpId", item.get("id")) if isinstance(item, dict) else None
    return found if isinstance(found, int) else None


def _home(raw: Any, path: Path) -> tuple[Point | None, Origin | None]:
    if isinstance(raw, dict):  # an item, in files of version 1
        raw = raw.get("coordinate")
    if raw is None or (isinstance(raw, list) and raw[:2] in ([0, 0], [None, None])):
        return None, None
    place = _pair(raw, path, "plannedHomePosition")
    return place, origin(place, raw[2] if len(raw) > 2 else None)


def origin(place: Point, alt_m: Any) -> Origin:
    """Return a take-off point; an altitude that is no number is none."""
    known = isinstance(alt_m, (int, float)) and not isinstance(alt_m, bool) and abs(alt_m) < 1e5
    return Origin(round(place.lat * 1e7), round(place.lon * 1e7), round(alt_m * 1000) if known else None)


def _pair(raw: Any, path: Path, where: str) -> Point:
    """Return a position written as [latitude, longitude, …], as missions write it."""
    if isinstance(raw, dict):  # some items of QGroundControl 2.9
        raw = [raw.get("latitude"), raw.get("longitude")]
    if not isinstance(raw, list) or len(raw) < 2:
        raise AreaError(f"{where} is not a position", file=path, facts={"found": f"{raw!r:.40}"}, next_step=SAVE_AGAIN)
    return point(raw[1], raw[0], path, where)


def _list(raw: Any, path: Path, where: str) -> list[Any]:
    if not isinstance(raw, list):
        raise AreaError(f"{where} has no list of positions", file=path, next_step=SAVE_AGAIN)
    return raw


def _number(raw: Any, *names: str) -> float | None:
    """Return the first of some keys that is a number."""
    for name in names:
        found = raw.get(name) if isinstance(raw, dict) else None
        if isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) < 1e7:
            return float(found)
    return None


class _PlanReader:
    """Reads the items of a plan in order."""

    def __init__(self, building: MissionBuilder, path: Path) -> None:
        self.building, self.path = building, path

    def item(self, item: Any, where: str) -> None:
        """Add one item, simple or complex."""
        if not isinstance(item, dict):
            raise AreaError(f"{where} is not an object", file=self.path, next_step=SAVE_AGAIN)
        if (number := _id(item)) is not None:
            self.building.label(number)
        if str(item.get("type", "")).lower() == "complexitem":
            self._pattern(item, where)
        else:
            self._simple(item, where)

    def _simple(self, item: dict[str, Any], where: str) -> None:
        command, params = item.get("command"), item.get("params")
        if isinstance(command, bool) or not isinstance(command, int):
            raise AreaError(f"{where} has no command number", file=self.path, next_step=SAVE_AGAIN)
        if not isinstance(params, list):
            params = [item.get(f"param{n}") for n in range(1, 5)]
        pair = params[4:6] if len(params) >= 6 else self._coordinate(item, where)
        if command == JUMP_TAG:
            self.building.label(f"tag {int(_number({'tag': params[0] if params else None}, 'tag') or 0)}")
        frame = item.get("frame", 3)
        self.building.command(Command(where, command, frame, tuple(params[:4]), (pair[0], pair[1])))

    def _coordinate(self, item: dict[str, Any], where: str) -> list[Any]:
        pair = item.get("coordinate") or [None, None]
        if not isinstance(pair, list) or len(pair) < 2:
            raise AreaError(f"{where} is not a position", file=self.path, facts={"found": f"{pair!r:.40}"},
                            next_step=SAVE_AGAIN)  # fmt: skip
        return pair

    def _pattern(self, item: dict[str, Any], where: str) -> None:
        named = item.get("complexItemType")
        kind = next((pattern for pattern in PATTERNS if str(named).lower() == pattern.lower()), None)
        if kind is None:
            raise AreaError(
                f"{where} is of the unknown kind {named!r:.40}", file=self.path,
                next_step="export the plan as a waypoint file (QGC WPL 110), which has every line that is flown",
            )  # fmt: skip
        if kind in LANDING_PATTERNS:
            self._landing(item, where)
            return
        nested = item.get("TransectStyleComplexItem")
        drawn = nested if isinstance(nested, dict) else {}
        outline = self._outline(item, kind, where)
        margins = _margins(item, drawn, outline, kind)
        if self._flown_items(drawn, where):
            self.building.margins += margins
            return
        step = self._flight_lines(drawn, where) or self._computed(item, drawn, outline, kind, where)
        self.building.pattern(step, *margins)

    def _outline(self, item: dict[str, Any], kind: str, where: str) -> list[Point]:
        name, least = ("polyline", 2) if kind == "CorridorScan" else ("polygon", 3)
        pairs = _list(item.get(name), self.path, f"{where}, {name}")
        corners = [_pair(pair, self.path, f"{where}, {name}") for pair in pairs]
        if len(corners) > 1 and corners[0] == corners[-1] and least == 3:
            corners.pop()
        if len(corners) < least:
            raise AreaError(f"{where}: its {name} has fewer than {least} corners", file=self.path,
                            next_step=SAVE_AGAIN)  # fmt: skip
        return corners

    def _flown_items(self, drawn: dict[str, Any], where: str) -> bool:
        """Add the commands that QGroundControl saves with a pattern, if they are there."""
        items = drawn.get("Items")
        if not isinstance(items, list) or not any(_number(one, "command") in FLOWN for one in items):
            return False
        for number, item in enumerate(items, 1):
            self.item(item, f"{where}, line {number}")
        return True

    def _flight_lines(self, drawn: dict[str, Any], where: str) -> Step | None:
        pairs = _list(drawn.get("VisualTransectPoints") or [], self.path, f"{where}, flight line")
        points = [_pair(pair, self.path, f"{where}, flight line") for pair in pairs]
        return along(where, tuple(points)) if points else None

    def _computed(
        self, item: dict[str, Any], drawn: dict[str, Any], outline: list[Point], kind: str, where: str
    ) -> Step:
        """Return the lines of a pattern whose file does not have them."""
        grid = item.get("grid") if isinstance(item.get("grid"), dict) else item
        camera = _camera(item, drawn)
        spacing = _number(camera, "AdjustedFootprintSide") or _number(grid, "spacing", "gridSpacing") or 0.0
        turnaround = _number(drawn, "TurnAroundDistance") or _number(grid, "turnAroundDistance") or 0.0
        if kind == "CorridorScan":
            width = metres(_number(item, *WIDTH) or 0, self.path, f"{where}, CorridorWidth")
            return patterns.corridor(
                where, outline, self.path, width_m=width, spacing_m=spacing, turnaround_m=turnaround
            )
        if kind == "StructureScan":
            distance = _number(camera, "DistanceToSurface") or _number(item, "DistanceToSurface", "distanceToSurface")
            if distance is None:
                self._say(where, "has no distance to the structure: its outline is taken as the line flown")
            return patterns.structure(where, outline, distance_m=metres(distance or 0, self.path, f"{where}, distance"))
        if not spacing:
            self._say(where, "has no spacing of lines: its outline is taken as the line flown")
            return patterns.structure(where, outline, distance_m=turnaround)
        azimuth = _number(item, "angle") or _number(drawn, "Angle") or _number(grid, "angle", "gridAngle") or 0.0
        return patterns.survey(
            where, outline, self.path, spacing_m=spacing, azimuth_deg=azimuth, turnaround_m=turnaround
        )

    def _landing(self, item: dict[str, Any], where: str) -> None:
        """Add a landing pattern: the loiter or approach, and the way down."""
        names = ("loiterCoordinate", "landingApproachCoordinate", "landCoordinate")
        path = tuple(_pair(item[name], self.path, f"{where}, {name}") for name in names if item.get(name))
        if not path:
            raise AreaError(f"{where} has no place to land", file=self.path, next_step=SAVE_AGAIN)
        radius = metres(item.get("loiterRadius") or 0, self.path, f"{where}, loiterRadius")
        around = ((path[0], radius),) if radius else ()
        step = Step(where=where, kind="fly", entries=path[:1], exits=path[-1:], paths=(path,), around=around)
        self.building.pattern(step, lands=True)

    def _say(self, where: str, what: str) -> None:
        self.building.notes.append(Note(where, what))


def _camera(item: dict[str, Any], drawn: dict[str, Any]) -> dict[str, Any]:
    for raw in (item.get("CameraCalc"), drawn.get("CameraCalc"), item.get("camera")):
        if isinstance(raw, dict):
            return raw
    return {}


def _margins(item: dict[str, Any], drawn: dict[str, Any], outline: list[Point], kind: str) -> tuple[Margin, ...]:
    """Return the ground of a pattern, with half a camera footprint around it: what is photographed at its edge."""
    reach = _half_footprint_m(_camera(item, drawn))
    if kind == "CorridorScan":
        width = _number(item, *WIDTH) or 0.0
        return (Margin(min(1e5, max(0.0, width) / 2 + reach), lines=(tuple(outline),)),)
    return (Margin(reach, polygons=((closed(outline),),)),)


def _half_footprint_m(camera: dict[str, Any]) -> float:
    """Return half the diagonal of a camera's footprint; QGroundControl's adjusted sides are without the overlap."""
    sides = []
    for name in ("Side", "Frontal"):
        adjusted = _number(camera, f"AdjustedFootprint{name}") or 0.0
        overlap = _number(camera, f"{name}Overlap", f"{name.lower()}Overlap") or 0.0
        sides.append(adjusted / (1 - min(95.0, max(0.0, overlap)) / 100))
    return min(1e5, math.hypot(*sides) / 2)


def _rally(raw: Any, path: Path) -> Iterator[Point]:
    """Yield rally points: places that a failsafe may fly to."""
    points = raw.get("points") if isinstance(raw, dict) else None
    for pair in _list(points or [], path, "rallyPoints"):
        yield _pair(pair, path, "rallyPoints")


def _breach_return(raw: Any, path: Path) -> Iterator[Point]:
    """Yield the place to which an aircraft returns that has left its fence."""
    found = raw.get("breachReturn") if isinstance(raw, dict) else None
    if found and not (isinstance(found, list) and found[:2] in ([0, 0], [None, None])):
        yield _pair(found, path, "breachReturn")


def read_fence(raw: dict[str, Any], path: Path) -> Drawing:
    """Return a plan's fence as an area: what it includes; AreaError if it includes nothing."""
    fence = raw.get("geoFence") or {}
    if not isinstance(fence, dict):
        raise AreaError("the plan's geoFence is not an object", file=path, next_step=SAVE_AGAIN)
    polygons: list[Polygon] = []
    margins: list[Margin] = []
    left_out = 0
    for shape in (*_list(fence.get("polygons") or [], path, "geoFence"), *_old_polygon(fence)):
        if _included(shape):
            polygons.append((_fence_ring(shape.get("polygon"), path),))
        else:
            left_out += 1
    for shape in (*_list(fence.get("circles") or [], path, "geoFence"), *_old_circle(fence)):
        if _included(shape):
            margins.append(_fence_circle(shape.get("circle"), path))
        else:
            left_out += 1
    if not polygons and not margins:
        raise AreaError(
            "the plan has no inclusion fence, which would be the area", file=path,
            next_step="draw one, or name the plan as area.mission: then its route is the area",
        )  # fmt: skip
    notes = (Note("geoFence", f"{left_out} exclusions are not taken out of the area"),) if left_out else ()
    return Drawing(polygons=tuple(polygons), margins=tuple(margins), geodesic=True, notes=notes)


def _included(shape: Any) -> bool:
    return isinstance(shape, dict) and shape.get("inclusion", True) is True


def _old_polygon(fence: dict[str, Any]) -> list[Any]:
    return [{"polygon": fence["polygon"]}] if fence.get("polygon") else []


def _old_circle(fence: dict[str, Any]) -> list[Any]:
    return [{"circle": fence["circle"]}] if fence.get("circle") else []


def _fence_ring(raw: Any, path: Path) -> Ring:
    if isinstance(raw, dict):
        raw = raw.get("polygon") or raw.get("points")
    corners = [_pair(pair, path, "geoFence, polygon") for pair in _list(raw, path, "geoFence, polygon")]
    if len(corners) < 3:
        raise AreaError("geoFence: a polygon has fewer than 3 corners", file=path, next_step=SAVE_AGAIN)
    return closed(corners)


def _fence_circle(raw: Any, path: Path) -> Margin:
    if not isinstance(raw, dict):
        raise AreaError("geoFence: a circle is not an object", file=path, next_step=SAVE_AGAIN)
    centre = _pair(raw.get("center"), path, "geoFence, circle")
    return Margin(metres(raw.get("radius"), path, "geoFence, radius"), lines=((centre,),))
