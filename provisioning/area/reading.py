"""A file that draws an area or a mission → drawing. What it is is seen in its bytes; its name plays no part."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.area.files import SQLITE, bytes_of, feature_kind, members, parse_xml, tag, text_of
from provisioning.area.formats import dji, features, geojson, gpx, inav, kml, litchi, plan, wpl
from provisioning.area.formats.lines import Drawn, as_area, as_missions
from provisioning.area.missions.flying import fly_mission
from provisioning.area.missions.steps import Mission
from provisioning.area.shapes import Drawing
from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import Origin

MISSIONS = "QGroundControl .plan, QGC WPL 110, mwp or INAV XML, DJI KMZ, Litchi CSV, GPX, KML"
AREAS = "GeoJSON, KML or KMZ, GPX, GeoPackage, Shapefile, FlatGeobuf, the fence of a .plan"


class _Kind(NamedTuple):
    """What a file is, and how it is read as a mission and as an area; None where it is not one."""

    name: str
    missions: Callable[[], list[Mission]] | None
    area: Callable[[], Drawing] | None


def read_mission(path: Path, *, takeoff: Origin | None = None, diversions: str = "points") -> Drawing:
    """Return what is flown by the missions of a file, each from home; AreaError names what cannot be understood.

    `takeoff` is the configured take-off point; `diversions` is explained at `fly_mission`.
    """
    kind = _recognised(path)
    if kind.missions is None:
        raise AreaError(
            f"the file is {kind.name}, which is an area and not a mission", file=path,
            next_step=f"name it as area.geojson; a mission is one of: {MISSIONS}",
        )  # fmt: skip
    flown = [fly_mission(mission, path, takeoff=takeoff, diversions=diversions) for mission in kind.missions()]
    return _together(flown)


def read_area(path: Path) -> Drawing:
    """Return what is drawn in an area file; AreaError says what in it cannot be an area."""
    kind = _recognised(path)
    if kind.area is None:
        raise AreaError(
            f"the file is {kind.name}, which is a mission and not an area", file=path,
            next_step=f"name it as area.mission; an area is one of: {AREAS}",
        )  # fmt: skip
    return kind.area()


def _together(drawings: list[Drawing]) -> Drawing:
    """Return the missions of one file as one drawing; the first home is its home."""
    homes = [drawing for drawing in drawings if drawing.takeoff] or drawings
    return replace(
        homes[0],
        lines=tuple(line for drawing in drawings for line in drawing.lines),
        polygons=tuple(polygon for drawing in drawings for polygon in drawing.polygons),
        margins=tuple(margin for drawing in drawings for margin in drawing.margins),
        routes=tuple(route for drawing in drawings for route in drawing.routes),
        notes=tuple(dict.fromkeys(note for drawing in drawings for note in drawing.notes)),
    )


def _recognised(path: Path) -> _Kind:
    data = bytes_of(path)[0]
    if kind := feature_kind(data):
        return _Kind(f"a {kind}", None, lambda: _drawn_area(features.draw_features(path, kind), path, kind))
    if data.startswith(SQLITE):
        raise _unknown("the file is a SQLite database and no GeoPackage", path)
    if data.startswith(b"PK"):
        return _zip(data, path)
    text = text_of(data, path)
    start = text.lstrip("\ufeff\x1e\0 \t\r\n")
    if start.startswith("<"):
        return _xml(data, path)
    if wpl.is_wpl(text):
        return _Kind("a QGC WPL waypoint file", lambda: [wpl.read_wpl(text, path)], None)
    if start[:1] in ("{", "["):
        return _json(text, path)
    if delimiter := litchi.delimiter_of(text):
        return _Kind("a table of waypoints", lambda: [_table(text, delimiter, path)], None)
    raise _unknown("the file is none that is known", path)


def _table(text: str, delimiter: str, path: Path) -> Mission:
    try:
        return litchi.read_litchi(text, delimiter, path)
    except csv.Error as error:
        raise AreaError(f"the table is damaged: {error}", file=path, next_step="export it again") from error


def _json(text: str, path: Path) -> _Kind:
    values = geojson.values_of(text, path)
    first: Any = values[0] if values else None
    if len(values) == 1 and plan.is_plan(first):
        name = "a QGroundControl plan"
        return _Kind(name, lambda: [plan.read_plan(first, path)], lambda: plan.read_fence(first, path))
    if values and all(geojson.is_geojson(value) for value in values):
        return _Kind("GeoJSON", None, lambda: _drawn_area(geojson.draw_geojson(values, path), path, "GeoJSON"))
    if isinstance(first, dict) and first.get("type") == "Topology":
        raise _unknown("the file is TopoJSON", path)
    if isinstance(first, dict) and ("geometryType" in first or "rings" in first or "paths" in first):
        raise _unknown("the file is Esri JSON", path)
    raise _unknown("the file is JSON, but not GeoJSON and not a QGroundControl plan", path)


def _drawn_area(drawn: Drawn, path: Path, name: str) -> Drawing:
    return as_area(drawn, path, name, geodesic=False)


def _xml(data: bytes, path: Path) -> _Kind:
    root = parse_xml(data.lstrip(b" \t\r\n"), path)
    name = tag(root).lower()
    if name == "kml":
        return _lines("KML", lambda: kml.draw_kml(root, path), path)
    if name == "gpx":
        return _lines("GPX", lambda: gpx.draw_gpx(root, path), path)
    if name in ("mission", "missions"):
        return _Kind("an mwp or INAV mission", lambda: inav.read_inav(root, path), None)
    raise _unknown(f"the file is XML of the kind {tag(root)[:40]!r}", path)


def _lines(name: str, draw: Callable[[], Drawn], path: Path) -> _Kind:
    return _Kind(
        name,
        lambda: as_missions(draw(), path, name, points="marks"),
        lambda: as_area(draw(), path, name, geodesic=name == "GPX"),
    )


def _zip(data: bytes, path: Path) -> _Kind:
    found = members(data, path)
    if dji.is_wpml(found):
        return _Kind("a DJI route", lambda: dji.read_wpml(found, path), None)
    main = kml.main_kml(found)
    if main is None:
        what = "a Shapefile in a ZIP file" if any(name.endswith(".shp") for name in found) else "a ZIP file without KML"
        raise _unknown(f"the file is {what}: unpack it", path)
    return _lines("KML", lambda: kml.draw_kml(parse_xml(found[main], path), path), path)


def _unknown(what: str, path: Path) -> AreaError:
    return AreaError(
        f"{what}, which is not read", file=path,
        facts={"missions": MISSIONS, "areas": AREAS},
        next_step="export it as one of these, or convert an area: ogr2ogr -t_srs EPSG:4326 area.geojson FILE; a "
        "mission: load it in QGroundControl or Mission Planner and save it as .plan or QGC WPL 110",
    )  # fmt: skip
