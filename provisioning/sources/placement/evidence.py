"""What lies beside or inside a source and says where its tiles are: read, and turned into statements.

Directories: tilemapresource.xml, metadata.json, tilejson.json, tiles.json, doc.kml, leaflet.html, conf.xml (ArcGIS),
WMTSCapabilities.xml. Containers: their own tables and headers. Boxes are degrees, WGS 84.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import TileError
from provisioning.base.frozen import dataclass

Box = tuple[float, float, float, float]
"""West, south, east, north, degree. West may be larger than east (across the antimeridian)."""

HALF_WORLD_M = math.pi * 6_378_137
LARGEST_BYTES = 4 << 20
"""What is longer is cut off there, and so is no valid XML or JSON."""
WEB_MERCATOR = r"(?i)(EPSG|ESRI|OSGEO)\D{0,40}(3857|900913|3785|41001|102100|102113)\b"
WEB_MERCATOR_CODES = ("3857", "900913", "3785", "102100", "102113")
GDAL2TILES = "cut the tiles again with `gdal2tiles --profile=mercator --xyz`, or name the GeoTIFF itself as the source"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What one file says of the tiles.

    `boxes` are the readings of one stated box (some writers exchange the axes): one of them is meant. `scheme` is
    "xyz", "tms" or empty. `refusal` tells why the tiles are not those of the Web Mercator grid, `instead` what to do.
    """

    file: str
    boxes: tuple[Box, ...] = ()
    centre: tuple[float, float] | None = None
    scheme: str = ""
    zooms: tuple[int, int] | None = None
    refusal: str = ""
    instead: str = GDAL2TILES


def beside(root: Path) -> list[Statement]:
    """Return what the files in a directory of tiles, or beside it, say. TileError if one of them is damaged."""
    found = []
    for name, read in READERS.items():
        for folder in (root, root.parent) if name.lower() in ("conf.xml", "conf.cdi") else (root,):
            path = folder / name
            if path.is_file():
                statement = _read(path, read)
                found += [statement] if statement else []
    return found


def _read(path: Path, read: Callable[[str, bytes], Statement | None]) -> Statement | None:
    from defusedxml.common import DefusedXmlException

    try:
        with open_regular(path) as stream:
            data = stream.read(LARGEST_BYTES + 1)
        return read(path.name, data[:LARGEST_BYTES])
    except (ValueError, SyntaxError, RecursionError, DefusedXmlException) as error:
        raise TileError(
            f"{path.name} lies beside the tiles and says where they are, but cannot be read: {error}",
            file=path,
            key="tiles.source.evidence",
            next_step='repair or remove it, or set tiles.source.evidence = "ignore"',
        ) from error
    except OSError as error:
        raise TileError(f"{path.name} cannot be read: {error.strerror}", file=path) from error


def from_metadata(file: str, raw: Mapping[str, object]) -> Statement:
    """Return what MBTiles metadata, TileJSON or a metadata.json says."""
    crs = " ".join(str(raw[name]) for name in ("crs", "srs", "profile", "projection") if raw.get(name))
    refusal = ""
    if crs and re.search(r"geodetic|4326|local|raster", crs, re.IGNORECASE) and not re.search(WEB_MERCATOR, crs):
        refusal = f"its tiles are not those of the Web Mercator grid ({crs})"
    bounds, centre = _numbers(raw.get("bounds")), _numbers(raw.get("center"))
    scheme = str(raw.get("scheme", "")).lower()
    zooms = [_numbers(raw.get(name)) for name in ("minzoom", "maxzoom")]
    return Statement(
        file=file,
        boxes=_boxes(bounds),
        centre=(centre[0], centre[1]) if len(centre) >= 2 else None,
        scheme=scheme if scheme in ("xyz", "tms") else "",
        zooms=(int(zooms[0][0]), int(zooms[1][0])) if all(zooms) else None,
        refusal=refusal,
    )


def _numbers(value: object) -> list[float]:
    """Return the finite numbers of a list or of a text with commas; none if one of them is no number."""
    parts = value if isinstance(value, list) else str(value).split(",") if value not in (None, "") else []
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _boxes(numbers: list[float]) -> tuple[Box, ...]:
    """Return a box in degrees, read as it stands, with its axes exchanged, or as Web Mercator metres."""
    if len(numbers) != 4:
        return ()
    west, south, east, north = numbers
    if max(map(abs, numbers)) > 360:
        return (degrees(west, south, east, north),)
    straight = [(west, south, east, north)] if south <= north and max(abs(south), abs(north)) <= 90.001 else []
    if straight and (west == east == 0 or (west, south) == (east, north)):
        return ()  # nothing was filled in
    exchanged = [(south, west, north, east)] if west < east and max(abs(west), abs(east)) <= 90 and not straight else []
    return (*straight, *exchanged)


def degrees(west: float, south: float, east: float, north: float) -> Box:
    """Return a box of Web Mercator metres in degrees."""

    def latitude(y: float) -> float:
        return math.degrees(math.atan(math.sinh(max(-math.pi, min(math.pi, y / 6_378_137)))))

    return west / HALF_WORLD_M * 180, latitude(south), east / HALF_WORLD_M * 180, latitude(north)


def _tree(data: bytes) -> Any:
    from defusedxml.ElementTree import fromstring

    return fromstring(data, forbid_dtd=False)


def _all(tree: Any, name: str) -> Iterator[Any]:
    """Yield the elements of a name in any namespace."""
    return (element for element in tree.iter() if str(element.tag).rpartition("}")[2].lower() == name.lower())


def _text(tree: Any, name: str) -> str:
    return next(((element.text or "").strip() for element in _all(tree, name)), "")


def _tilemapresource(file: str, data: bytes) -> Statement | None:
    """Return what a TMS tile map says: https://wiki.osgeo.org/wiki/Tile_Map_Service_Specification."""
    tree = _tree(data)
    profile = next((str(element.get("profile", "")) for element in _all(tree, "TileSets")), "")
    srs = _text(tree, "SRS")
    box: Any = next(_all(tree, "BoundingBox"), {})
    sides = _numbers([box.get(side) for side in ("minx", "miny", "maxx", "maxy")])
    orders = [int(element.get("order", "")) for element in _all(tree, "TileSet") if element.get("order")]
    mercator = "mercator" in profile.lower() or bool(re.search(WEB_MERCATOR, srs))
    geodetic = "geodetic" in profile.lower() or profile.lower() in ("raster", "local", "none")
    refusal = "" if mercator and not geodetic else f"its profile is {profile or srs or 'not stated'}, not Web Mercator"
    turned = [(sides[1], sides[0], sides[3], sides[2])] if len(sides) == 4 and max(map(abs, sides)) <= 90 else []
    return Statement(
        file=file,
        boxes=(*_boxes(sides), *turned),  # gdal2tiles before 2.0 wrote latitudes as x
        scheme="tms",
        zooms=(min(orders), max(orders)) if orders else None,
        refusal=refusal,
    )


def _json(file: str, data: bytes) -> Statement | None:
    raw = json.loads(data)
    return from_metadata(file, raw) if isinstance(raw, dict) else None


def _kml(file: str, data: bytes) -> Statement | None:
    """Return the box around all regions of a KML superoverlay; without the antimeridian."""
    tree = _tree(data)
    found = {}
    for side in ("west", "south", "east", "north"):
        found[side] = [float(element.text or "nan") for element in _all(tree, side)]
    if not all(found.values()) or not all(math.isfinite(n) for numbers in found.values() for n in numbers):
        return None
    box = (min(found["west"]), min(found["south"]), max(found["east"]), max(found["north"]))
    return Statement(file=file, boxes=(box,))


def _html(file: str, data: bytes) -> Statement | None:
    """Return what a Leaflet page says, as gdal2tiles and QGIS write it."""
    text = data.decode("utf-8", "replace")
    number = r"\s*(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*"
    corners = re.search(rf"fitBounds\(\[\[{number},{number}\],\s*\[{number},{number}\]\]", text)
    rows = re.search(r"tms:\s*(true|false|1|0)\b", text)
    view = re.search(rf"setView\(\[{number},{number}\]", text)
    boxes: tuple[Box, ...] = ()
    if corners:
        south, east, north, west = map(float, corners.groups())
        boxes = ((min(west, east), min(south, north), max(west, east), max(south, north)),)
    centre = (float(view[2]), float(view[1])) if view else None
    scheme = ("tms" if rows[1] in ("true", "1") else "xyz") if rows else ""
    return Statement(file=file, boxes=boxes, centre=centre, scheme=scheme) if boxes or centre or scheme else None


def _arcgis(file: str, data: bytes) -> Statement | None:
    """Return what an ArcGIS cache says of its grid: Web Mercator from its corner, level n being zoom n, or not."""
    tree = _tree(data)
    code = _text(tree, "LatestWKID") or _text(tree, "WKID")
    if _text(tree, "StorageFormat").lower().endswith(("compact", "compactv2")):
        return Statement(
            file=file,
            refusal="it is a compact cache (bundles)",
            instead="export it as an exploded cache (ExportTileCache, storage format EXPLODED)",
        )
    shown = code or _text(tree, "WKT")[:60] or "not stated"
    bad = "" if code in WEB_MERCATOR_CODES else f"its coordinate system is {shown}, not Web Mercator"
    origin = next(_all(tree, "TileOrigin"), None)
    if origin is not None and not bad:
        x, y = float(_text(origin, "X") or "nan"), float(_text(origin, "Y") or "nan")
        if not (abs(x + HALF_WORLD_M) < 1 and abs(y - HALF_WORLD_M) < 1):
            bad = "its tiles are counted from another corner than that of the Web Mercator grid"
    side = float(_text(tree, "TileCols") or 256)
    for level in _all(tree, "LODInfo"):
        z, resolution = int(_text(level, "LevelID")), float(_text(level, "Resolution"))
        if not math.isclose(resolution * side, 2 * HALF_WORLD_M / 2**z, rel_tol=1e-4):
            bad = bad or f"its level {z} is not zoom {z} of the Web Mercator grid"
    return Statement(
        file=file, refusal=bad, instead="build the cache again with the ArcGIS Online / Google Maps scheme"
    )


def _arcgis_extent(file: str, data: bytes) -> Statement | None:
    """Return the extent in an ArcGIS conf.cdi, which is in the units of the cache."""
    tree = _tree(data)
    sides = _numbers([_text(tree, side) or "nan" for side in ("XMin", "YMin", "XMax", "YMax")])
    return Statement(file=file, boxes=_boxes(sides)) if len(sides) == 4 else None


def _wmts(file: str, data: bytes) -> Statement | None:
    """Return what WMTS capabilities say: https://www.ogc.org/standard/wmts/."""
    tree = _tree(data)
    systems = [(element.text or "").strip() for element in _all(tree, "SupportedCRS")]
    bad = [crs for crs in systems if not re.search(r"\b(3857|900913|3785|102100)\b", crs)]
    corners = [_text(tree, name).split() for name in ("LowerCorner", "UpperCorner")]
    sides = _numbers([*corners[0], *corners[1]])
    stated = next(_all(tree, "WGS84BoundingBox"), None) is not None
    return Statement(
        file=file,
        boxes=_boxes(sides) if stated else (),
        refusal=f"its coordinate system is {bad[0]}, not Web Mercator" if bad and len(bad) == len(systems) else "",
    )


READERS: Mapping[str, Callable[[str, bytes], Statement | None]] = {
    "tilemapresource.xml": _tilemapresource,
    "metadata.json": _json,
    "tilejson.json": _json,
    "tiles.json": _json,
    "doc.kml": _kml,
    "leaflet.html": _html,
    "conf.xml": _arcgis,
    "Conf.xml": _arcgis,
    "conf.cdi": _arcgis_extent,
    "WMTSCapabilities.xml": _wmts,
}


def evidence_stamp(root: Path) -> Iterable[str]:
    """Yield stat of every file that `beside` would read."""
    for name in READERS:
        for folder in (root, root.parent):
            try:
                found = os.stat(folder / name)
            except OSError:
                continue
            yield f"{name} {found.st_size} {found.st_mtime_ns} {found.st_ino}"
