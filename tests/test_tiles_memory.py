"""Sources of some hundred bytes that would take gigabytes, or list tiles for ever: one error that names the file."""

from __future__ import annotations

import time

import pytest

from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import tiles_in_bbox
from provisioning.catalogue.surveying import survey
from provisioning.config import TileSource
from provisioning.sources import source as sources
from provisioning.sources.containers import geotiff
from provisioning.sources.containers.geotiff import GeoTIFF
from tests.locales import case_of_ascii
from tests.tilesets import block, write_mbtiles, write_xyz

rasterio = pytest.importorskip("rasterio", reason="rasters need the extra geotiff")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rasterio")


def sparse(path, *, side=32_768, block_side=None, interleave="pixel", rows=None, east=0):
    """Write a raster of no pixel, in tiles of `block_side` or strips of `rows`."""
    shape = {"tiled": True, "blockxsize": block_side, "blockysize": block_side} if block_side else {"blockysize": rows}
    with case_of_ascii(), rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:3857", SPARSE_OK="TRUE",
        compress="deflate", interleave=interleave, photometric="rgb",
        transform=rasterio.transform.from_origin(830_000 + east, 5_950_000, 1, 1), **shape,
    ):  # fmt: skip
        pass
    return path


@pytest.mark.parametrize(
    "made",
    [
        {"block_side": 32_768},
        {"rows": 16_384},
        {"block_side": 32_768, "interleave": "band"},
        {"side": 9600, "block_side": 9600},
    ],
)
def test_a_small_raster_with_monstrous_blocks_is_refused_before_one_is_decoded(tmp_path, made):
    path, began = sparse(tmp_path / "a.tif", **made), time.process_time()
    with pytest.raises(TileError, match="blocks of") as caught:
        GeoTIFF(TileSource(path=path))
    assert path.stat().st_size < 2000
    assert str(path) in str(caught.value)
    assert "TILED=YES" in caught.value.next_step
    assert time.process_time() - began < 1


@pytest.mark.parametrize("made", [{"block_side": 512}, {"rows": 16}, {"block_side": 4096, "interleave": "band"}])
def test_a_raster_of_the_same_size_in_other_blocks_is_read(tmp_path, made):
    store = GeoTIFF(TileSource(path=sparse(tmp_path / "a.tif", **made)))
    assert store.native_zoom == 17
    store.close()


def test_the_files_that_a_mosaic_names_are_looked_at_too(tmp_path):
    sparse(tmp_path / "a.tif", block_side=32_768)
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="32768" rasterYSize="32768"><SRS>EPSG:3857</SRS>'
        "<GeoTransform>830000, 1, 0, 5950000, 0, -1</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{n}"><ColorInterp>{colour}</ColorInterp><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>'
            for n, colour in enumerate(("Red", "Green", "Blue"), 1)
        )
        + "</VRTDataset>"
    )
    with pytest.raises(TileError, match="blocks of") as caught:
        GeoTIFF(TileSource(path=tmp_path / "a.vrt"))
    assert "a.tif" in str(caught.value)


def test_the_overviews_of_a_raster_are_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setattr(geotiff, "LARGEST_BLOCK_BYTES", 1 << 20)
    path = sparse(tmp_path / "a.tif", side=4096, block_side=256)
    GeoTIFF(TileSource(path=path)).close()
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE="1024"), rasterio.open(path, "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    with pytest.raises(TileError, match="blocks of 3 MiB"):
        GeoTIFF(TileSource(path=path))


@pytest.mark.parametrize("written", [write_xyz, write_mbtiles])
def test_a_source_that_lists_tiles_without_end_is_refused(tmp_path, monkeypatch, written):
    path = written(tmp_path / "sat.mbtiles", block())
    monkeypatch.setattr(sources, "MOST_LISTED", len(block()))
    assert survey(path).per_zoom
    monkeypatch.setattr(sources, "MOST_LISTED", len(block()) - 1)
    with pytest.raises(TileError, match="more tiles than can be listed") as caught:
        survey(path)
    assert str(path) in str(caught.value)


def test_a_raster_that_claims_tiles_without_end_is_refused_before_they_are_listed(tmp_path):
    path, began = sparse(tmp_path / "a.tif", side=4_000_000, block_side=8192, interleave="band"), time.process_time()
    with pytest.raises(TileError, match="more tiles than can be listed"):
        survey(path)
    assert time.process_time() - began < 1


def test_sheets_that_overlap_list_each_tile_once(tmp_path):
    (tmp_path / "sheets").mkdir()
    for n, (side, east) in enumerate(((2000, 0), (1500, 700), (900, 5000))):
        sparse(tmp_path / "sheets" / f"{n}.tif", side=side, block_side=256, east=east)
    store = GeoTIFF(TileSource(path=tmp_path / "sheets"))
    found = list(store.addresses())
    boxes = [tiles_in_bbox(sheet.bbox, 17) for sheet in store.sheets]
    ranges = [
        (range(left, right + 1), range(low, high + 1)) for columns, (low, high) in boxes for left, right in columns
    ]
    wanted = {(17, x, y) for columns, rows in ranges for x in columns for y in rows}
    store.close()
    assert len(found) == len(set(found))
    assert set(found) == wanted
