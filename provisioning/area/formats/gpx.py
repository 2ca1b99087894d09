"""GPX 1.0 and 1.1 → lines: routes, or else tracks, or else waypoints in their order.

https://www.topografix.com/GPX/1/1/
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from provisioning.area.files import tag
from provisioning.area.formats.lines import Drawn
from provisioning.area.formats.numbers import degrees
from provisioning.area.shapes import Note, Point, point, unrolled


def draw_gpx(root: Element, path: Path) -> Drawn:
    """Return what a GPX file draws; AreaError names a point without position."""
    lines: dict[str, list[list[Point]]] = {"rte": [], "trkseg": []}
    points: list[Point] = []
    for element in root.iter():
        if (kind := tag(element)) in lines:
            lines[kind].append([_point(child, path) for child in element if tag(child) in ("rtept", "trkpt")])
        elif kind == "wpt":
            points.append(_point(element, path))
    taken = lines["rte"] or lines["trkseg"]
    drawn = Drawn(lines=[unrolled(line) for line in taken if line], points=points)
    if lines["rte"] and lines["trkseg"]:
        drawn.notes.append(Note("", f"{len(lines['trkseg'])} recorded tracks beside the routes are not taken over"))
    return drawn


def _point(element: Element, path: Path) -> Point:
    where = f"a {tag(element)}"
    lat, lon = (degrees(element.get(name), path, where) for name in ("lat", "lon"))
    return point(lon, lat, path, where)
