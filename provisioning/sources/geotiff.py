"""GeoTIFF and COG, cut into Web Mercator tiles on the fly (extra `geotiff`: rasterio).

Tiles are 256 pixel, resampled bilinearly, transparent where the file has no data, and written as PNG by code of our
own: one filter, one compression level. The same file gives the same bytes wherever GDAL and zlib are the same; their
versions are part of the source's stamp, so that another GDAL cuts anew.
"""

from __future__ import annotations

import math
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.area.cover import Cover
from provisioning.base.angles import BBox
from provisioning.base.errors import TileError
from provisioning.base.geo import MAX_LATITUDE_E7, MAX_ZOOM, tiles_in_bbox
from provisioning.config import TileSource
from provisioning.sources.source import Stored, file_stamp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 256
HALF_WORLD_M = math.pi * 6_378_137
COMPRESSION_LEVEL = 6
SIDECARS = (".aux.xml", ".ovr", ".msk", ".tfw")
FORMAT = 1
"""Counted up when the same file gives other tiles."""


def stamp(path: Path, *, now_ns: int) -> str:
    """Return what tells whether a GeoTIFF would give other tiles: its stat, its sidecars', and what cuts it."""
    beside = [Path(f"{path}{suffix}") for suffix in SIDECARS] + [path.with_suffix(".tfw")]
    stamps = [file_stamp(file, now_ns=now_ns) for file in (path, *beside) if file == path or file.exists()]
    try:
        cutter = f"rasterio {version('rasterio')} zlib {zlib.ZLIB_RUNTIME_VERSION} {FORMAT}"
    except PackageNotFoundError:
        cutter = ""
    return " ".join([*stamps, cutter]) if all(stamps) and cutter else ""


class GeoTIFF:
    """A raster file seen as tiles; GDAL handles of its own for each thread."""

    def __init__(self, source: TileSource) -> None:
        try:
            import rasterio
            import rasterio.vrt
            import rasterio.warp
        except ImportError as error:
            raise TileError(
                "GeoTIFF needs rasterio", file=source.path, next_step="pip install 'flightcache[geotiff]'"
            ) from error
        self.path = source.path
        self._rasterio = rasterio
        self._own = threading.local()
        self._all: list[Any] = []
        with self._translated():
            self._check(self._file)
            self._bbox, self.native_zoom = self._extent()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (self._rasterio.errors.RasterioError, self._rasterio.errors.CRSError) as error:
            what = str(error).replace("\n", " ")[:200]
            raise TileError(
                f"GeoTIFF cannot be used: {what}", file=self.path, next_step="make or copy it anew"
            ) from error

    def _error(self, what: str) -> TileError:
        return TileError(f"GeoTIFF cannot be used: {what}", file=self.path, next_step="convert it with gdal_translate")

    def _check(self, file: Any) -> None:
        if file.crs is None:
            raise self._error("it says not where it is (no coordinate reference system)")
        if file.count not in (1, 2, 3, 4):
            raise self._error(f"it has {file.count} bands; 1 to 4 are needed (grey or RGB, with or without alpha)")
        if file.dtypes[0] != "uint8":
            raise self._error(f"its pixels are {file.dtypes[0]}; uint8 is needed (gdal_translate -ot Byte -scale)")

    @property
    def _file(self) -> Any:
        """This thread's handle of the file."""
        if not hasattr(self._own, "file"):
            self._own.file = self._rasterio.open(os.fspath(self.path), driver="GTiff")
            self._own.views = {}
            self._all.append(self._own.file)
        return self._own.file

    def _extent(self) -> tuple[BBox, int]:
        """Return the file's box, and the zoom whose pixels are about as large as its own."""
        file = self._file
        bounds = self._rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        if not all(map(math.isfinite, bounds)):
            raise self._error("its corners are nowhere on Earth")
        west, south, east, north = (round(side * 1e7) for side in bounds)
        south, north = max(south, -MAX_LATITUDE_E7), min(north, MAX_LATITUDE_E7)
        transform, _, _ = self._rasterio.warp.calculate_default_transform(
            file.crs, "EPSG:3857", file.width, file.height, *file.bounds
        )
        zoom = round(math.log2(2 * HALF_WORLD_M / SIDE / max(abs(transform.a), 1e-6)))
        return BBox(west, south, east, north), max(0, min(MAX_ZOOM, zoom))

    def _view(self, z: int) -> tuple[Any, int, int]:
        """Return this thread's view of the file on the pixel grid of zoom `z`, and its first column and row."""
        file = self._file
        if z not in self._own.views:
            columns, (top, bottom) = tiles_in_bbox(self._bbox, z)
            left, right = columns[-1][0], columns[0][1] + (len(columns) - 1) * (1 << z)
            pixel = 2 * HALF_WORLD_M / (SIDE << z)
            corner = self._rasterio.transform.from_origin(
                left * SIDE * pixel - HALF_WORLD_M, HALF_WORLD_M - top * SIDE * pixel, pixel, pixel
            )
            view = self._rasterio.vrt.WarpedVRT(
                file, crs="EPSG:3857", transform=corner, width=(right - left + 1) * SIDE,
                height=(bottom - top + 1) * SIDE, resampling=self._rasterio.enums.Resampling.bilinear, add_alpha=True,
            )  # fmt: skip
            self._all.append(view)
            self._own.views[z] = view, left, top
        found: tuple[Any, int, int] = self._own.views[z]
        return found

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield the tiles of the native zoom within the file's box."""
        z = self.native_zoom
        columns, (top, bottom) = tiles_in_bbox(self._bbox, z)
        for left, right in columns:
            yield from ((z, x, y) for x in range(left, right + 1) for y in range(top, bottom + 1))

    def tiles(self, cover: Cover) -> Iterator[Stored]:
        """Yield the tiles of `cover` that the file touches, as PNG; those it leaves wholly empty are not there."""
        for z in cover.zooms:
            columns, (top, bottom) = tiles_in_bbox(self._bbox, z)
            for x, rows in cover.columns(z):
                if any(left <= x <= right for left, right in columns):
                    yield from self._column(z, x, [(max(a, top), min(b, bottom)) for a, b in rows])

    def _column(self, z: int, x: int, rows: list[tuple[int, int]]) -> Iterator[Stored]:
        for low, high in rows:
            for y in range(low, high + 1):
                data = self.read(z, x, y)
                if data is not None:
                    yield Stored(z, x, y, data)

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return one tile as PNG, None if the file has no pixel in it."""
        import numpy as np

        with self._translated():
            view, left, top = self._view(z)
            at = ((x - left) % (1 << z) * SIDE, (y - top) * SIDE)
            if not (0 <= at[0] < view.width and 0 <= at[1] < view.height):
                return None
            bands = view.read(window=self._rasterio.windows.Window(*at, SIDE, SIDE))
        if not bands[-1].any():
            return None
        colours = bands[:-1] if len(bands) > 3 else np.repeat(bands[:1], 3, axis=0)
        return png(np.ascontiguousarray(np.concatenate((colours[:3], bands[-1:])).transpose(1, 2, 0)))

    def metadata(self) -> dict[str, object]:
        """Return the TIFF tags; the date of TIFFTAG_DATETIME is named `datetime` and written with dashes."""
        with self._translated():
            tags: dict[str, object] = dict(self._file.tags())
        if "TIFFTAG_DATETIME" in tags:
            tags["datetime"] = str(tags["TIFFTAG_DATETIME"]).replace(":", "-")[:10]
        return tags

    def close(self) -> None:
        """Close every handle."""
        while self._all:
            self._all.pop().close()


def png(rgba: NDArray[np.uint8]) -> bytes:
    """Return [H, W, 4] pixels as PNG: each line as the difference from the one above (filter 2), one IDAT chunk."""
    import numpy as np

    height, width, _ = rgba.shape
    lines = rgba.reshape(height, width * 4)
    above = np.concatenate((np.zeros((1, width * 4), np.uint8), lines[:-1]))
    filtered = np.concatenate((np.full((height, 1), 2, np.uint8), lines - above), axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), COMPRESSION_LEVEL)), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)
