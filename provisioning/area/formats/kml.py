"""KML 2.x and KMZ → lines, polygons and points.

https://docs.ogc.org/is/12-007r2/12-007r2.html
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from provisioning.area.files import tag
from provisioning.area.formats.lines import Drawn, ring_of
from provisioning.area.shapes import Note, Point, Polygon, point, unrolled
from provisioning.base.errors import AreaError

LEFT_OUT = ("NetworkLink", "GroundOverlay", "Model", "PhotoOverlay", "ScreenOverlay")
KIND = "KML"


def draw_kml(root: Element, path: Path) -> Drawn:
    """Return what a KML document draws; AreaError names what cannot be understood."""
    drawn = Drawn()
    left_out: Counter[str] = Counter()
    inner: set[Element] = set()
    for element in root.iter():
        kind = tag(element)
        if element in inner:
            continue
        if kind == "Polygon":
            drawn.polygons.append(_polygon(element, path))
            inner.update(element.iter())
        elif kind in ("LineString", "LinearRing"):
            drawn.lines.append(unrolled(_coordinates(element, path)))
        elif kind == "Point":
            drawn.points += _coordinates(element, path)[:1]
        elif kind == "Track":
            drawn.lines.append(unrolled(_track(element, path)))
        elif kind in LEFT_OUT:
            left_out[kind] += 1
    drawn.lines = [line for line in drawn.lines if line]
    drawn.notes += [Note("", f"{n} {kind} of the KML are not taken over") for kind, n in left_out.items()]
    return drawn


def _polygon(element: Element, path: Path) -> Polygon:
    outer: list[list[Point]] = []
    holes: list[list[Point]] = []
    for child in element.iter():
        if tag(child) in ("outerBoundaryIs", "innerBoundaryIs"):
            side = outer if tag(child) == "outerBoundaryIs" else holes
            side += [_coordinates(ring, path) for ring in child.iter() if tag(ring) == "LinearRing"]
    if len(outer) != 1:
        raise AreaError("a polygon in the KML has no outer boundary", file=path, next_step="draw it again")
    return tuple(ring_of(ring, path, KIND) for ring in (*outer, *holes))


def _coordinates(element: Element, path: Path) -> list[Point]:
    """Return the positions of a geometry: "longitude,latitude[,height]" between white space."""
    texts = (child.text or "" for child in element.iter() if tag(child) == "coordinates")
    return [_position(one, ",", path) for text in texts for one in text.split()]


def _track(element: Element, path: Path) -> list[Point]:
    return [_position((c.text or "").strip(), " ", path) for c in element if tag(c) == "coord"]


def _position(text: str, separator: str, path: Path) -> Point:
    try:
        lon, lat = map(float, text.split(separator)[:2])
    except ValueError as error:
        raise AreaError(
            "a position in the KML is not longitude,latitude", file=path, facts={"found": f"{text!r:.40}"},
            next_step="write a comma between the numbers and no space",
        ) from error  # fmt: skip
    return point(lon, lat, path, "a position in the KML")


def main_kml(members: dict[str, bytes]) -> str | None:
    """Return the member that Google Earth opens: doc.kml at the top, or else the first; None if there is none."""
    names = [name for name in members if name.lower().endswith(".kml")]
    return next((name for name in names if name.lower() == "doc.kml"), names[0] if names else None)
