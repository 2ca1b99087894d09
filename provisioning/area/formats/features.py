"""Features of GeoPackage, Shapefile and FlatGeobuf → lines, polygons and points, by pyogrio (GDAL) and pyproj.

Both come with the extra `[geo]`. Coordinates are brought to WGS 84 longitude and latitude.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.area.formats.lines import Drawn, ring_of
from provisioning.area.shapes import MOST_POINTS, Note, Point, point, unrolled
from provisioning.base.errors import AreaError

MOST_FEATURES = 100_000
Pair = tuple[float, float]
Z_FLAG, M_FLAG, SRID_FLAG = 0x8000_0000, 0x4000_0000, 0x2000_0000


def draw_features(path: Path, kind: str) -> Drawn:
    """Return what the layers of a file draw; AreaError if it cannot be read or has no coordinate system."""
    try:
        import pyogrio
        import pyproj
    except ImportError as error:
        raise AreaError(
            f"the area is a {kind}, and pyogrio is not installed", file=path,
            next_step="install flightcache[geo], or convert it: ogr2ogr -t_srs EPSG:4326 area.geojson "
            f"{path.name}",
        ) from error  # fmt: skip
    pyproj.network.set_network_enabled(active=False)
    options: dict[str, Any] = {"IMMUTABLE": "YES"} if kind == "GeoPackage" else {}
    drawn = Drawn()
    try:
        for layer in [str(name) for name, geometry in pyogrio.list_layers(path) if geometry]:
            _layer(path, kind, layer, options, drawn)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyproj.exceptions.ProjError) as error:
        raise AreaError(f"the {kind} cannot be read: {error}", file=path,
                        next_step="export it again, or as GeoJSON in EPSG:4326") from error  # fmt: skip
    return drawn


def _layer(path: Path, kind: str, layer: str, options: dict[str, Any], drawn: Drawn) -> None:
    import pyogrio
    import pyproj

    info = pyogrio.read_info(path, layer=layer, **options)
    if info["features"] > MOST_FEATURES:
        raise AreaError(f"the {kind} has more than {MOST_FEATURES} features in {layer}", file=path,
                        next_step="keep only those of the area, then export it again")  # fmt: skip
    meta, _, shapes, _ = pyogrio.raw.read(path, layer=layer, columns=[], force_2d=True, **options)
    if not meta["crs"]:
        raise AreaError(
            f"the {kind} does not say its coordinate system", file=path, facts={"layer": layer},
            next_step="add it (a Shapefile has it in its .prj), or export as GeoJSON in EPSG:4326",
        )  # fmt: skip
    to_wgs_84 = pyproj.Transformer.from_crs(meta["crs"], 4326, always_xy=True)
    for shape in shapes:
        if shape is not None:
            _add(bytes(shape), to_wgs_84, path, kind, drawn)


def _add(wkb: bytes, to_wgs_84: Any, path: Path, kind: str, drawn: Drawn) -> None:
    try:
        for shape, rings in _shapes(_Wkb(wkb)):
            places = [_places(ring, to_wgs_84, path, kind) for ring in rings if ring]
            if shape == 1:
                drawn.points += (place for ring in places for place in ring)
            elif shape == 2:
                drawn.lines += (unrolled(ring) for ring in places)
            elif places:
                drawn.polygons.append(tuple(ring_of(ring, path, kind) for ring in places))
    except struct.error as error:
        raise AreaError(f"a geometry of the {kind} is damaged", file=path, next_step="export it again") from error
    except _OtherGeometryError as error:
        note = Note("", f"features of geometry type {error.args[0]} are not taken over", missing=True)
        drawn.notes += [] if note in drawn.notes else [note]


def _places(ring: list[Pair], to_wgs_84: Any, path: Path, kind: str) -> list[Point]:
    lons, lats = to_wgs_84.transform([x for x, _ in ring], [y for _, y in ring])
    return [
        point(float(lon), float(lat), path, f"a position of the {kind}") for lon, lat in zip(lons, lats, strict=True)
    ]


class _OtherGeometryError(Exception):
    """A geometry that is not made of points, straight lines and polygons."""


class _Wkb:
    """Reads well-known binary (OGC 06-103r4, 8.2) from front to back."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.order = data, 0, "<"

    def take(self, form: str) -> tuple[Any, ...]:
        """Return the next values."""
        found = struct.unpack_from(self.order + form, self.data, self.at)
        self.at += struct.calcsize(self.order + form)
        return found

    def head(self) -> int:
        """Return the geometry type, without its dimensions: these were brought to two."""
        self.order = "<" if self.take("B")[0] else ">"
        return int(self.take("I")[0]) & ~(Z_FLAG | M_FLAG | SRID_FLAG)

    def pairs(self) -> list[Pair]:
        """Return the next list of positions."""
        (count,) = self.take("I")
        if count > MOST_POINTS:
            raise struct.error("more points than bytes")
        flat = self.take(f"{2 * count}d")
        return list(zip(flat[::2], flat[1::2], strict=True))


def _shapes(wkb: _Wkb) -> Iterator[tuple[int, list[list[Pair]]]]:
    """Yield the simple geometries: 1 point, 2 line, 3 polygon, each as lists of positions."""
    kind = wkb.head()
    if kind == 1:
        x, y = wkb.take("2d")
        yield 1, [[(x, y)]] if x == x and y == y else []  # noqa: PLR0124 - an empty point is NaN
    elif kind == 2:
        yield 2, [wkb.pairs()]
    elif kind == 3:
        yield 3, [wkb.pairs() for _ in range(wkb.take("I")[0])]
    elif 4 <= kind <= 7:
        for _ in range(wkb.take("I")[0]):
            yield from _shapes(wkb)
    else:
        raise _OtherGeometryError(kind)
