"""Rasters as GDAL writes them, in any system, turned, in any format: what a tile shows is what lies at its place.

The colours of each raster are its own longitude and latitude, computed by pyproj; so are those expected of a tile.
"""

import io
import math
import subprocess
import warnings
from shutil import which

import numpy as np
import pytest
from PIL import Image, features

from provisioning.base.errors import TileError
from provisioning.catalogue import iter_tiles, open_reader, scan
from provisioning.catalogue.surveying import survey
from provisioning.config import TileSource
from tests.tilesets import Z, bbox_of, block, flight, image, write_mbtiles, write_xyz

rasterio = pytest.importorskip("rasterio", reason="rasters need the extra geotiff")
pyproj = pytest.importorskip("pyproj", reason="the oracle of these tests")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rasterio")

SIDE = 400
SYSTEMS = {
    "web mercator": ("EPSG:3857", (830_000, 5_930_000), 4.0),
    "degrees": ("EPSG:4326", (7.44, 46.95), 4e-5),
    "UTM": ("EPSG:32632", (381_000, 5_200_000), 3.0),
    "UTM over +180, south": ("EPSG:32701", (180_000, 8_200_000), 3.0),
    "UTM over -180, north": ("EPSG:32660", (818_500, 6_650_000), 3.0),
    "Swiss": ("EPSG:2056", (2_600_000, 1_200_000), 2.0),
    "Lambert": ("EPSG:2154", (652_000, 6_862_000), 2.0),
    "polar": ("EPSG:3413", (-300_000, -2_000_000), 5.0),
}


def transform_of(corner, pixel, turned_deg):
    from rasterio.transform import Affine

    return Affine.translation(*corner) * Affine.rotation(-turned_deg) * Affine.scale(pixel, -pixel)


def ground(lon, lat, middle):
    """Return the colours [3, ...] of places: red rises eastwards, green northwards, from the `middle`."""
    east = ((lon - middle[0] + 180) % 360 - 180) * math.cos(math.radians(middle[1]))
    values = np.stack([127 + east * 8000, 127 + (lat - middle[1]) * 8000, 60 + 40 * np.sin(east * 9000)])
    return values.clip(8, 245)


def drawn(name, turned_deg=0.0, side=SIDE):
    """Return pixels [3, side, side] of a raster in a system, its transform, system and middle."""
    crs, corner, pixel = SYSTEMS[name]
    at = transform_of(corner, pixel, turned_deg)
    column, row = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    x, y = at * (column, row)
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    middle = to_degrees.transform(*(at * (side / 2, side / 2)))
    return ground(*to_degrees.transform(x, y), middle).round().astype(np.uint8), at, crs, middle


def written(path, pixels, at, crs, *, colours=("red", "green", "blue"), mask=None, **profile):
    given = {
        "driver": "GTiff",
        "count": len(pixels),
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
    } | profile
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", crs=crs, transform=at, **given) as file:
            file.colorinterp = [rasterio.enums.ColorInterp[name] for name in colours]
            file.write(pixels)
            if mask is not None:
                file.write_mask(mask)
    return path


def shown(tmp_path, source):
    """Scan a raster; yield the longitude, latitude and RGBA of every opaque pixel of its finest tiles."""
    held = survey(source)
    z = max(held.per_zoom)
    asked = flight(tmp_path, held.source, bbox=held.bbox, zooms=(z,), max_empty=1, blank="keep")
    scan(asked.selection, asked.build_dir)
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        for tile in iter_tiles(asked.build_dir):
            rgba = np.asarray(Image.open(io.BytesIO(reader.read(tile))).convert("RGBA"))
            row, column = np.nonzero(rgba[..., 3] == 255)
            lon = (tile.x + (column + 0.5) / 256) / (1 << z) * 360 - 180
            lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (tile.y + (row + 0.5) / 256) / (1 << z)))))
            yield lon, lat, rgba[row, column].T


def check(tmp_path, source, middle, *, off=6, least=36_000):
    """Compare what is shown with what lies there, and count it; the outermost pixels are mixed with nothing."""
    seen = 0
    for lon, lat, rgba in shown(tmp_path, source):
        expected = ground(lon, lat, middle)
        wrong = (np.abs(rgba[:2].astype(int) - expected[:2]) > off).any(axis=0)
        assert wrong.mean() < 0.02
        seen += len(lon)
    assert seen > least
    return seen


def mostly_slow(names, *quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", mostly_slow(SYSTEMS, "degrees", "UTM", "UTM over +180, south", "polar"))
def test_a_raster_in_any_system_lies_at_its_place(tmp_path, name):
    pixels, at, crs, middle = drawn(name)
    check(tmp_path, written(tmp_path / "a.tif", pixels, at, crs), middle)


@pytest.mark.parametrize("name", mostly_slow(["web mercator", "UTM", "UTM over +180, south"], "UTM"))
@pytest.mark.parametrize("turned_deg", mostly_slow([30, -100, 180], -100))
def test_a_turned_raster_lies_at_its_place(tmp_path, name, turned_deg):
    pixels, at, crs, middle = drawn(name, turned_deg, side=620)  # a tile that it fills by half
    check(tmp_path, written(tmp_path / "a.tif", pixels, at, crs), middle)


PROFILES = {
    "cloud optimized": {"driver": "COG", "compress": "deflate", "blocksize": 128},
    "cloud optimized JPEG": {"driver": "COG", "compress": "jpeg", "quality": 95, "blocksize": 128},
    "LZW, tiled": {"compress": "lzw", "tiled": True, "blockxsize": 64, "blockysize": 64},
    "JPEG in TIFF": {"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 95},
    "band by band": {"interleave": "band"},
    "BigTIFF": {"bigtiff": "yes"},
    "big-endian": {"endianness": "big"},
    "JPEG 2000": {"driver": "JP2OpenJPEG", "quality": "100", "reversible": "YES"},
}


@pytest.mark.parametrize("name", mostly_slow(PROFILES, "cloud optimized", "JPEG 2000"))
def test_a_raster_of_any_make_shows_its_ground(tmp_path, name):
    pixels, at, crs, middle = drawn("UTM")
    suffix = "jp2" if "2000" in name else "tif"
    check(tmp_path, written(tmp_path / f"a.{suffix}", pixels, at, crs, **PROFILES[name]), middle, off=9)


def test_alpha_mask_and_nodata_hide_the_same_ground(tmp_path):
    pixels, at, crs, middle = drawn("UTM")
    seen = np.zeros((SIDE, SIDE), np.uint8)
    seen[:, 100:] = 255
    hidden = np.where(seen, pixels, 0).astype(np.uint8)
    counts = []
    forms = {
        "alpha.tif": (np.concatenate([pixels, seen[None]]), {"colours": ("red", "green", "blue", "alpha")}),
        "mask.tif": (pixels, {"mask": seen}),
        "nodata.tif": (hidden, {"nodata": 0}),
        "cog.tif": (hidden, {"driver": "COG", "nodata": 0}),
    }
    for name, (bands, options) in forms.items():
        path = written(tmp_path / name, bands, at, crs, **options)
        counts.append(check(tmp_path / name.partition(".")[0], path, middle, least=25_000))
    assert max(counts) - min(counts) < 1300
    assert max(counts) < 0.85 * sum(len(lon) for lon, _, _ in shown(tmp_path / "w", written(tmp_path / "w.tif", pixels, at, crs)))  # fmt: skip


def test_bands_in_any_order_and_sixteen_bits_give_the_same_colours(tmp_path):
    pixels, at, crs, middle = drawn("Swiss")
    check(tmp_path / "b", written(tmp_path / "b.tif", pixels[::-1], at, crs, colours=("blue", "green", "red")), middle)
    wide = pixels.astype(np.uint16) * 257
    source = TileSource(path=written(tmp_path / "w.tif", wide, at, crs), values=(0, 65535))
    check(tmp_path / "w", source, middle)


def test_float_pixels_and_a_raster_without_a_place_are_refused_with_the_way_out(tmp_path):
    pixels, at, crs, _ = drawn("UTM")
    with pytest.raises(TileError, match="gdal_translate -ot Byte"):
        survey(written(tmp_path / "f.tif", pixels.astype(np.float32), at, crs))
    with pytest.raises(TileError, match="a_srs"):
        survey(written(tmp_path / "n.tif", pixels, at, None))


@pytest.mark.skipif(not which("gdalbuildvrt"), reason="needs gdalbuildvrt (apt-get install gdal-bin)")
def test_a_mosaic_of_gdalbuildvrt_is_its_sheets(tmp_path):
    pixels, at, crs, middle = drawn("UTM")
    whole = written(tmp_path / "whole.tif", pixels, at, crs)
    for n, left in enumerate((0, SIDE // 2)):
        window = ["-srcwin", str(left), "0", str(SIDE // 2), str(SIDE)]
        subprocess.run(["gdal_translate", "-q", *window, whole, tmp_path / f"s{n}.tif"], check=True)
    subprocess.run(["gdalbuildvrt", "-q", tmp_path / "m.vrt", tmp_path / "s0.tif", tmp_path / "s1.tif"], check=True)
    check(tmp_path, tmp_path / "m.vrt", middle)


REACHING = {
    "the net": "<SourceFilename>/vsicurl/http://127.0.0.1:9/a.tif</SourceFilename>",
    "a ZIP": "<SourceFilename>/vsizip/a.zip/a.tif</SourceFilename>",
    "a map service": "<SourceFilename>WMS:http://127.0.0.1:9/?</SourceFilename>",
    "another driver": "<SourceFilename relativeToVRT='1'>a.png</SourceFilename>",
    "another VRT": "<SourceFilename relativeToVRT='1'>b.vrt</SourceFilename>",
    "a VRT in a name": "<SourceFilename>vrt:///etc/passwd?bands=1</SourceFilename>",
    "a driver's name": "<SourceFilename>GTIFF_DIR:1:a.tif</SourceFilename>",
    "open options": "<SourceFilename relativeToVRT='1'>a.tif</SourceFilename><OpenOptions/>",
    "a program": "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode>1</PixelFunctionCode>",
    "an entity": "&b;",
}


@pytest.mark.parametrize("name", REACHING)
def test_a_vrt_that_reaches_beyond_local_rasters_is_refused(tmp_path, name):
    pixels, at, crs, _ = drawn("UTM")
    written(tmp_path / "a.tif", pixels, at, crs)
    (tmp_path / "a.png").write_bytes(image(1))
    (tmp_path / "b.vrt").write_text("<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    head = "<!DOCTYPE a [<!ENTITY b 'c'>]>" if name == "an entity" else ""
    text = (
        f"<VRTDataset rasterXSize='9' rasterYSize='9'>{head}<SRS>EPSG:32632</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>"
        f"<VRTRasterBand dataType='Byte' band='1'><SimpleSource>{REACHING[name]}</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "m.vrt").write_text(text)
    with pytest.raises(TileError, match="VRT"):
        survey(tmp_path / "m.vrt")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_tiles_are_read_from_a_directory_and_from_mbtiles(tmp_path):
    tiles = {}
    for n, at in enumerate(block(2, 2)):
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "AVIF", quality=90)
        tiles[at] = out.getvalue()
    for store in (write_xyz(tmp_path / "sat", tiles, suffix=".avif"), write_mbtiles(tmp_path / "a.mbtiles", tiles)):
        asked = flight(tmp_path / f"of {store.name}", store, bbox=bbox_of(tiles))
        assert scan(asked.selection, asked.build_dir).per_zoom[Z][:2] == (4, 4)
