"""Rasters cut into Web Mercator tiles on the fly (extra `geotiff`: rasterio): GeoTIFF, COG, JPEG 2000, VRT, and sheets.

Tiles are 256 pixel, resampled bilinearly (a palette: nearest), transparent where no sheet has data, and written as PNG
by code of our own: one filter, one compression level. The same files give the same bytes wherever GDAL and zlib are
the same; their versions are part of the source's stamp, so that another GDAL cuts anew.

Only the named files are read, by the named drivers: no sidecar (.ovr, .aux.xml, .tfw) and nothing beyond this machine.
"""

from __future__ import annotations

import errno
import math
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from provisioning.area.area import enclosing
from provisioning.area.cover import Band, count, union
from provisioning.base.disk.files import open_regular
from provisioning.base.distributions import installed_version
from provisioning.base.errors import FilesystemError, TileError
from provisioning.base.geometry.angles import HALF_TURN_E7, BBox, wrapped_e7
from provisioning.base.geometry.geo import MAX_LATITUDE_E7, MAX_ZOOM, tiles_in_bbox
from provisioning.config import TileSource
from provisioning.sources.placement.evidence import HALF_WORLD_M, Statement
from provisioning.sources.source import SHEET_SUFFIXES, check_count, file_stamp, head_of, reading_source
from provisioning.sources.store import StoredTile, TileQuery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    RGBA = NDArray[np.uint8]

SIDE = 256
COMPRESSION_LEVEL = 6
DRIVERS = {"tif": "GTiff", "jp2": "JP2OpenJPEG", "vrt": "VRT"}
LARGEST_VRT_BYTES = 4 << 20
LARGEST_BLOCK_BYTES = 256 << 20
"""GDAL decodes whole blocks (strips, or tiles of its own), in memory, and each thread has its own."""
PERCENTILES = (2, 98)
"""Of the pixel values, proposed as black and white where they have more than 8 bits."""
ITEM_BYTES = {"uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "float32": 4, "float64": 8}
FORMAT = 2
"""Counted up when the same file gives other tiles."""
OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO", "GDAL_VRT_ENABLE_PYTHON": "NO"}


def raster_kind(head: bytes) -> str:
    """Return tif, jp2 or vrt from a file's first bytes, empty if it is none of them."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tif"
    if head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51":
        return "jp2"
    return "vrt" if head.lstrip()[:11] == b"<VRTDataset" else ""


def sheets_in(path: Path) -> list[Path]:
    """Return the raster files of a folder of sheets, by name; the file itself if `path` is one."""
    if not path.is_dir():
        return [path]
    return sorted(path / name for name in os.listdir(path) if name.lower().endswith(SHEET_SUFFIXES))


def _files(path: Path) -> list[Path]:
    """Return every file that the pixels of a raster come from."""
    found = []
    for sheet in sheets_in(path):
        found += [sheet, *(_vrt_sources(sheet) if _head(sheet)[:11] == b"<VRTDataset" else [])]
    return found


def stamp(source: TileSource, beside: Sequence[TileSource] = (), *, now_ns: int) -> str:
    """Return what tells whether a raster would give other tiles: the stat of its files, and what cuts it."""
    stamps = [file_stamp(file, now_ns=now_ns) for file in files_of(source, beside)]
    rasterio = installed_version("rasterio")
    cutter = f"rasterio {rasterio} zlib {zlib.ZLIB_RUNTIME_VERSION} {FORMAT} {source.values}"
    return " ".join([*stamps, cutter]) if all(stamps) and rasterio else ""


def files_of(source: TileSource, beside: Sequence[TileSource] = ()) -> list[Path]:
    """Return every file that the tiles of a source come from."""
    return [file for path in (source.path, *_other_paths(source, beside)) for file in _files(path)]


def _other_paths(source: TileSource, beside: Sequence[TileSource]) -> list[Path]:
    """Return the rasters that fill the gaps of `source`: those of the same rank, in the order of flight.toml."""

    def rank(other: TileSource) -> tuple[object, ...]:
        return other.priority, sorted(other.zoom_priority.items()), other.zooms

    return [other.path for other in beside if other.path != source.path and rank(other) == rank(source)]


def _raise_of_the_machine(said: str) -> None:
    """Raise the OSError that GDAL met, where it says so: no descriptor left, a device or a server that fails."""
    for number in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE):
        if os.strerror(number) in said:
            raise OSError(number, said)


def _head(path: Path) -> bytes:
    return head_of(path, 64).lstrip()


def _vrt_sources(path: Path) -> list[Path]:
    """Return the local files that a VRT names; TileError for whatever reaches beyond GeoTIFF and JPEG 2000 files."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    found = []
    try:
        with open_regular(path) as stream:
            tree = fromstring(stream.read(LARGEST_VRT_BYTES))
    except (SyntaxError, DefusedXmlException, ValueError) as error:
        raise _error(path, f"the VRT is not valid XML: {error}") from error
    for element in tree.iter():
        if element.tag in ("PixelFunctionType", "PixelFunctionCode", "OpenOptions", "GDALWarpOptions"):
            raise _error(path, f"the VRT computes pixels ({element.tag}); only mosaics of files are read")
        if element.tag in ("SourceFilename", "SourceDataset"):
            name = (element.text or "").strip()
            file = path.parent / name if element.get("relativeToVRT") == "1" else Path(name)
            if (
                name.startswith("/vsi")
                or "://" in name
                or not file.is_file()
                or raster_kind(_head(file)) in ("", "vrt")
            ):
                raise _error(path, f"the VRT names {name[:100]!r}, which is no GeoTIFF or JPEG 2000 file here")
            found.append(file)
    return found


def _error(path: Path, what: str, step: str = "convert it with gdal_translate", key: str | None = None) -> TileError:
    return TileError(f"GeoTIFF cannot be used: {what}", file=path, key=key, next_step=step)


class Bands(NamedTuple):
    """Which bands (from 1) are the colours, in the order red, green, blue (one for grey or palette), and alpha (or 0).

    `low` and `high` are the pixel values that become 0 and 255. `palette` is [256, 4] RGBA, None without one.
    """

    colours: tuple[int, ...]
    alpha: int
    low: int
    high: int
    palette: RGBA | None


def _block_bytes(file: Any) -> int:
    """Return how much memory GDAL takes for the largest block of a file; bands that lie interleaved come together."""
    together = file.count if file.profile.get("interleave") == "pixel" else 1
    sides = zip(file.block_shapes, file.dtypes, strict=True)
    return max(int(height * width * ITEM_BYTES.get(dtype, 16) * together) for (height, width), dtype in sides)


class Sheet:
    """One raster file; GDAL handles of its own for each thread."""

    def __init__(self, path: Path, values: tuple[int, ...]) -> None:
        try:
            import rasterio
            import rasterio.vrt
            import rasterio.warp
        except ImportError as error:
            raise TileError(
                "GeoTIFF needs rasterio", file=path, next_step="pip install 'flightcache[geotiff]'"
            ) from error
        self.path = path
        self._rasterio = rasterio
        self._own = threading.local()
        self._all: list[Any] = []
        kind = raster_kind(_head(path))
        if not kind:
            raise _error(path, "it is no GeoTIFF, JPEG 2000 or VRT file")
        named = _vrt_sources(path) if kind == "vrt" else [path]
        if os.path.exists(f"{path}.msk"):
            raise _error(path, "its mask is in another file (.msk)", "put it inside: gdal_translate FILE whole.tif")
        self._driver = DRIVERS[kind]
        with self.translated():
            for file in named:
                self._check_blocks(file)
            self.bands = self._bands(self._file, values)
            self.bbox, self.native_zoom = self._extent()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Run GDAL with our options, and raise its errors as TileError; lack of memory is no fault of the file."""
        errors = self._rasterio.errors
        try:
            with self._rasterio.Env(**OPTIONS):
                yield
        except MemoryError as error:
            raise FilesystemError("not enough memory to read a raster", file=self.path) from error
        except (errors.RasterioError, errors.CRSError, self._rasterio._err.CPLE_BaseError) as error:  # noqa: SLF001
            what = str(error).replace("\n", " ")[:200]
            if "memory" in what.lower():
                raise FilesystemError("not enough memory to read a raster", file=self.path) from error
            with reading_source(self.path):
                _raise_of_the_machine(what)
            raise _error(self.path, what, "make or copy it anew") from error

    def _check_blocks(self, path: Path) -> None:
        """Raise TileError if a block of a file, or of its overviews, would take too much memory."""
        driver = DRIVERS[raster_kind(_head(path))]
        with self._rasterio.open(os.fspath(path), driver=driver) as file:
            largest = _block_bytes(file)
            levels = len(file.overviews(1)) if driver == "GTiff" else 0
        for level in range(levels):
            with self._rasterio.open(os.fspath(path), driver=driver, OVERVIEW_LEVEL=level) as file:
                largest = max(largest, _block_bytes(file))
        if largest > LARGEST_BLOCK_BYTES:
            what = f"it is stored in blocks of {largest >> 20:,} MiB, more than {LARGEST_BLOCK_BYTES >> 20}"
            raise _error(path, what, "store it in tiles: gdal_translate -co TILED=YES FILE tiled.tif")

    @property
    def _file(self) -> Any:
        """This thread's handle of the file."""
        if not hasattr(self._own, "file"):
            self._own.file = self._rasterio.open(os.fspath(self.path), driver=self._driver)
            self._own.views = {}
            self._all.append(self._own.file)
        return self._own.file

    def _bands(self, file: Any, values: tuple[int, ...]) -> Bands:
        kinds = [kind.name for kind in file.colorinterp]
        alpha = kinds.index("alpha") + 1 if "alpha" in kinds else 0
        others = [band for band in range(1, file.count + 1) if band != alpha]
        if file.crs is None:
            raise _error(
                self.path, "it says not where it is (no coordinate reference system)",
                "write it into the file: gdal_translate -a_srs EPSG:…; a .tfw beside it is not read",
            )  # fmt: skip
        if {"red", "green", "blue"} <= set(kinds):
            colours = tuple(kinds.index(name) + 1 for name in ("red", "green", "blue"))
        elif len(others) in (1, 3) and not {"cyan", "magenta"} & set(kinds):
            colours = tuple(others)
        else:
            raise _error(self.path, f"it has {file.count} bands and does not say which are red, green and blue",
                         "choose three: gdal_translate -b 3 -b 2 -b 1 -colorinterp red,green,blue")  # fmt: skip
        palette = self._palette(file) if kinds[0] == "palette" else None
        low, high = self._range(file, colours, values)
        return Bands(colours, alpha, low, high, palette)

    def _palette(self, file: Any) -> RGBA:
        import numpy as np

        table = np.zeros((256, 4), np.uint8)
        for index, colour in file.colormap(1).items():
            table[index % 256] = colour
        return table

    def _range(self, file: Any, colours: tuple[int, ...], values: tuple[int, ...]) -> tuple[int, int]:
        dtypes = {file.dtypes[band - 1] for band in colours}
        if dtypes == {"uint8"}:
            return 0, 255
        if dtypes not in ({"uint16"}, {"int16"}):
            raise _error(self.path, f"its pixels are {'/'.join(sorted(dtypes))}; 8 or 16 bits are needed",
                         "gdal_translate -ot Byte -scale")  # fmt: skip
        if len(values) == 2:
            return values[0], values[1]
        low, high = self._proposed_values(colours)
        raise _error(
            self.path, f"its pixels are {dtypes.pop()}: which values are black and white must be said",
            f"set tiles.source.values = [{low}, {high}] (98 % of its pixels lie below {high})", "tiles.source.values",
        )  # fmt: skip

    @property
    def has_16_bits(self) -> bool:
        """Return whether the pixels have more than 8 bits."""
        return str(self._file.dtypes[self.bands.colours[0] - 1]) != "uint8"

    def proposed_values(self) -> tuple[int, int]:
        """Return the pixel values that should become 0 and 255."""
        with self.translated():
            return self._proposed_values(self.bands.colours)

    def _proposed_values(self, colours: tuple[int, ...]) -> tuple[int, int]:
        """Return low and high percentile of a reduced copy's valid pixels."""
        import numpy as np

        file = self._file
        scale = max(file.width, file.height) / 512
        shape = (max(1, int(file.height / max(scale, 1))), max(1, int(file.width / max(scale, 1))))
        seen = file.read(list(colours), out_shape=(len(colours), *shape), masked=True).compressed()
        low, high = np.percentile(seen, PERCENTILES) if seen.size else (0, 1)
        return int(low), max(int(low) + 1, int(high))

    def _extent(self) -> tuple[BBox, int]:
        """Return the file's box, and the zoom whose pixels are about as large as its own."""
        file, warp = self._file, self._rasterio.warp
        bounds = warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        if not all(map(math.isfinite, bounds)):
            raise _error(self.path, "its corners are nowhere on Earth")
        west, south, east, north = (round(side * 1e7) for side in bounds)
        if max(abs(west), abs(east)) > HALF_TURN_E7:
            west, east = wrapped_e7(west), wrapped_e7(east)
        south, north = max(south, -MAX_LATITUDE_E7), min(north, MAX_LATITUDE_E7)
        if south >= north:
            raise _error(self.path, "it lies beyond 85 degrees of latitude, where Web Mercator tiles end")
        transform, _, _ = warp.calculate_default_transform(file.crs, *self._middle(file))
        zoom = round(math.log2(2 * HALF_WORLD_M / SIDE / max(abs(transform.a), 1e-6)))
        return BBox(west, south, east, north), max(0, min(MAX_ZOOM, zoom))

    @staticmethod
    def _middle(file: Any) -> tuple[Any, ...]:
        """Return arguments that measure the pixels in the middle: a whole that crosses ±180° would look too wide."""
        left, bottom, right, top = file.bounds
        x, y, w, h = (left + right) / 2, (bottom + top) / 2, (right - left) / 64, (top - bottom) / 64
        if file.width < 64 or file.height < 64:
            return ("EPSG:3857", file.width, file.height, left, bottom, right, top)
        size = (file.width // 32, file.height // 32)
        return ("EPSG:3857", *size, x - w, y - h, x + w, y + h)

    def _view(self, z: int) -> tuple[Any, int, int]:
        """Return this thread's view of the file on the pixel grid of zoom `z`, and its first column and row."""
        file = self._file
        if z not in self._own.views:
            columns, (top, bottom) = tiles_in_bbox(self.bbox, z)
            left, right = columns[-1][0], columns[0][1] + (len(columns) - 1) * (1 << z)
            pixel = 2 * HALF_WORLD_M / (SIDE << z)
            corner = self._rasterio.transform.from_origin(
                left * SIDE * pixel - HALF_WORLD_M, HALF_WORLD_M - top * SIDE * pixel, pixel, pixel
            )
            resampling = self._rasterio.enums.Resampling
            view = self._rasterio.vrt.WarpedVRT(
                file, crs="EPSG:3857", transform=corner, width=(right - left + 1) * SIDE,
                height=(bottom - top + 1) * SIDE, add_alpha=not self.bands.alpha,
                resampling=resampling.bilinear if self.bands.palette is None else resampling.nearest,
            )  # fmt: skip
            self._all.append(view)
            self._own.views[z] = view, left, top
        found: tuple[Any, int, int] = self._own.views[z]
        return found

    def touches(self, z: int, x: int, y: int) -> bool:
        """Return whether a tile lies in the file's box."""
        columns, (top, bottom) = tiles_in_bbox(self.bbox, z)
        return top <= y <= bottom and any(left <= x <= right for left, right in columns)

    def pixels(self, z: int, x: int, y: int) -> RGBA | None:
        """Return one tile as uint8 [256, 256, 4], None if the file has no pixel in it."""
        if not self.touches(z, x, y):
            return None
        with self.translated():
            view, left, top = self._view(z)
            at = ((x - left) % (1 << z) * SIDE, (y - top) * SIDE)
            bands = view.read(window=self._rasterio.windows.Window(*at, SIDE, SIDE))
        rgba = self._rgba(bands)
        return rgba if rgba[..., 3].any() else None

    def _rgba(self, bands: NDArray[Any]) -> RGBA:
        import numpy as np

        alpha = bands[(self.bands.alpha or len(bands)) - 1]
        if alpha.dtype != np.uint8:
            alpha = np.where(alpha >= np.iinfo(alpha.dtype).max // 2, 255, 0).astype(np.uint8)
        if self.bands.palette is not None:
            rgba: RGBA = self.bands.palette[bands[self.bands.colours[0] - 1]]
            rgba[..., 3] = np.minimum(rgba[..., 3], alpha)
            return rgba
        colours = bands[[band - 1 for band in self.bands.colours]]
        if colours.dtype != np.uint8:
            low, high = self.bands.low, self.bands.high
            scaled = (colours.astype(np.int64) - low) * 255 // max(1, high - low)
            colours = scaled.clip(0, 255).astype(np.uint8)
        rgb = colours if len(colours) == 3 else np.repeat(colours[:1], 3, axis=0)
        return np.ascontiguousarray(np.concatenate((rgb, alpha[None])).transpose(1, 2, 0))

    def tags(self) -> dict[str, object]:
        """Return the TIFF tags."""
        with self.translated():
            return dict(self._file.tags())

    def close(self) -> None:
        """Close every handle."""
        while self._all:
            self._all.pop().close()


def with_values(source: TileSource) -> TileSource:
    """Return a source of 16-bit rasters with proposed `values`; any other source as it is."""
    if source.values or source.kind not in ("auto", "geotiff"):
        return source
    found = [Sheet(path, (0, 1)) for path in sheets_in(source.path) if path.is_file() and raster_kind(_head(path))]
    try:
        proposed = [sheet.proposed_values() for sheet in found if sheet.has_16_bits]
    finally:
        for sheet in found:
            sheet.close()
    if not proposed:
        return source
    return replace(source, values=(min(low for low, _ in proposed), max(high for _, high in proposed)))


class GeoTIFF:
    """One or more sheets seen as one mosaic of tiles.

    The first sheet that has a pixel gives it. `beside` are the other rasters of the flight: a tile on a seam between
    sources of the same rank is whole, and belongs to the one named first.
    """

    identity = ""  # what cuts the sheets is in the stamp

    def __init__(self, source: TileSource, beside: Sequence[TileSource] = ()) -> None:
        self.path = source.path
        self._settings = source, beside
        self.sheets: list[Sheet] = []
        self._before: list[Sheet] = []
        self._after: list[Sheet] = []
        try:
            for path in sheets_in(source.path):
                self.sheets.append(Sheet(path, source.values))
            self._open_others(source, beside)
        except BaseException:
            self.close()
            raise
        if not self.sheets:
            raise _error(self.path, "the folder has no .tif or .jp2 file", "name a folder of sheets")
        self._bbox = enclosing([sheet.bbox for sheet in self.sheets])
        self.native_zoom = max(sheet.native_zoom for sheet in self.sheets)

    def _open_others(self, source: TileSource, beside: Sequence[TileSource]) -> None:
        others, target = set(_other_paths(source, beside)), self._before
        for other in beside:
            if other.path == source.path:
                target = self._after
            elif other.path in others:
                for path in sheets_in(other.path):
                    target.append(Sheet(path, other.values))

    def statements(self) -> list[Statement]:
        """Return nothing: the file's own georeference is how its tiles are cut."""
        return []

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield the tiles of the native zoom within the sheets' boxes, each once; TileError if they are too many."""
        z = self.native_zoom
        bands = union(_bands_of(sheet.bbox, z) for sheet in self.sheets)
        check_count(sum((band.right - band.left + 1) * count(band.rows) for band in bands), self.path)
        for band in bands:
            for x in range(band.left, band.right + 1):
                for low, high in band.rows:
                    yield from ((z, x, y) for y in range(low, high + 1))

    def query(self, query: TileQuery) -> Iterator[StoredTile]:
        """Yield the tiles of a query that the sheets touch, as PNG; those they leave wholly empty are not there."""
        for z in query.zooms:
            columns, (top, bottom) = tiles_in_bbox(self._bbox, z)
            for x, rows in query.cover.columns(z):
                if any(left <= x <= right for left, right in columns):
                    yield from self._column(z, x, [(max(a, top), min(b, bottom)) for a, b in rows])

    def _column(self, z: int, x: int, rows: list[tuple[int, int]]) -> Iterator[StoredTile]:
        for low, high in rows:
            for y in range(low, high + 1):
                data = self.read(z, x, y)
                if data is not None:
                    yield StoredTile(z, x, y, data)

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return one tile as PNG, None if the sheets have no pixel in it or another source's tile has them."""
        pixels = self._overlaid(self.sheets, None, z, x, y)
        if pixels is None or (pixels[..., 3].min() < 255 and any(s.pixels(z, x, y) is not None for s in self._before)):
            return None
        filled = self._overlaid(self._after, pixels, z, x, y)
        return None if filled is None else png(filled)

    @staticmethod
    def _overlaid(sheets: Sequence[Sheet], pixels: RGBA | None, z: int, x: int, y: int) -> RGBA | None:
        """Return `pixels` with what `sheets` have where they are more transparent."""
        for sheet in sheets:
            if pixels is not None and pixels[..., 3].min() == 255:
                break
            more = sheet.pixels(z, x, y)
            if pixels is None or more is None:
                pixels = more if pixels is None else pixels
                continue
            gap = more[..., 3] > pixels[..., 3]
            pixels[gap] = more[gap]
        return pixels

    def metadata(self) -> dict[str, object]:
        """Return the first sheet's tags; the date of TIFFTAG_DATETIME is named `datetime` and written with dashes."""
        tags = self.sheets[0].tags()
        if "TIFFTAG_DATETIME" in tags:
            tags["datetime"] = str(tags["TIFFTAG_DATETIME"]).replace(":", "-")[:10]
        return tags

    def stamp(self) -> str:
        """Return what tells whether the mosaic has changed."""
        return stamp(*self._settings, now_ns=time.time_ns())

    def close(self) -> None:
        """Close every handle."""
        for sheet in (*self.sheets, *self._before, *self._after):
            sheet.close()


def _bands_of(bbox: BBox, z: int) -> tuple[Band, ...]:
    columns, rows = tiles_in_bbox(bbox, z)
    return tuple(Band(left, right, (rows,)) for left, right in columns)


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
