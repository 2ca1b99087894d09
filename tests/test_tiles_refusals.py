"""Sources that cannot be read: named with their file, wherever in the reading it comes out."""

import os
import time

import numpy as np
import pytest

from provisioning.area.cover import Band, Cover
from provisioning.base.errors import EmptyCorpusError, FilesystemError, TileError
from provisioning.catalogue import scan
from provisioning.catalogue.archive import write_pmtiles
from provisioning.catalogue.surveying import survey
from provisioning.config import TileSource
from provisioning.sources.containers import pmtiles as pmtiles_module
from provisioning.sources.containers.geotiff import GeoTIFF
from provisioning.sources.containers.pmtiles import PMTiles
from provisioning.sources.source import file_stamp, head_of
from provisioning.sources.store import TileQuery
from provisioning.sources.stores import kind_of
from provisioning.sources.tile_file import read_file
from provisioning.sources.xyz import Layout, names_in
from tests.test_tiles_containers import dated
from tests.test_tiles_hostile import archive, directory
from tests.tilesets import Z, bbox_of, block, flight, image, scanned, write_mbtiles, write_reference_pmtiles, write_xyz


def test_a_kind_that_is_told_is_believed(tmp_path):
    assert kind_of(TileSource(path=tmp_path, kind="mbtiles")) == "mbtiles"


@pytest.mark.parametrize(
    "read",
    [
        lambda path: kind_of(TileSource(path=path)),
        lambda path: file_stamp(path, now_ns=time.time_ns()),
        lambda path: head_of(path, 16),
        lambda path: PMTiles(TileSource(path=path)),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path, read):
    with pytest.raises(TileError, match="cannot be read: No such file") as caught:
        read(tmp_path / "none")
    assert caught.value.file == str(tmp_path / "none")


def test_a_file_that_was_written_just_now_has_no_stamp(tmp_path):
    """Its clock ticks too slowly to tell it from one that is written over now."""
    (tmp_path / "a").write_bytes(b"")
    assert file_stamp(tmp_path / "a", now_ns=(tmp_path / "a").stat().st_mtime_ns) == ""


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TileError, match="tile directory cannot be read"):
        names_in(tmp_path / "none")


def test_a_pattern_that_names_a_number_twice_is_refused(tmp_path):
    with pytest.raises(TileError, match=r"names \{z\} twice"):
        Layout(TileSource(path=tmp_path, pattern="{z}/{x}/{z}_{y}"))


@pytest.mark.parametrize("folder", ["", "15", "15/x17", "15/17000/3"])
def test_a_folder_that_fits_no_pattern_fixes_nothing(tmp_path, folder):
    assert Layout(TileSource(path=tmp_path)).fixed_by(folder) is None


def test_a_folder_fixes_what_its_name_says(tmp_path):
    assert Layout(TileSource(path=tmp_path)).fixed_by("15/17000") == {"z": (15, 15), "x": (17_000, 17_000)}


@pytest.mark.parametrize("tms", [False, True])
def test_columns_may_come_before_zooms(tmp_path, tms):
    tiles = block(2, 2)
    store = write_xyz(tmp_path / "sat", tiles, pattern="{y}/{z}/{x}", tms=tms)
    (store / "readme").mkdir()
    (next(store.glob("[0-9]*")) / str(Z) / "notes.txt").write_text("no tile")
    source = TileSource(path=store, name="sat", pattern="{y}/{z}/{x}", scheme="tms" if tms else "xyz")
    assert scanned(flight(tmp_path, source, bbox=bbox_of(tiles))).count == 4


def test_a_file_that_comes_in_pieces_is_read_to_its_end(tmp_path, monkeypatch):
    real = os.read
    (tmp_path / "a.png").write_bytes(image(1))
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, min(size, 7)))
    assert read_file(tmp_path / "a.png") == image(1)


def test_an_archive_of_no_tiles_is_no_imagery(tmp_path):
    asked = flight(tmp_path, tmp_path / "sat", bbox=bbox_of(block()))
    with pytest.raises(EmptyCorpusError, match="not been scanned"):
        write_pmtiles(asked.selection, asked.build_dir, tmp_path / "a.pmtiles")


ONE_TILE = directory((0, 1, 10, 0))


def pmtiles(path, root=ONE_TILE, **changed):
    return PMTiles(TileSource(path=archive(path, root, **changed)))


def test_an_archive_that_ends_within_its_header_is_named(tmp_path):
    (tmp_path / "a.pmtiles").write_bytes(b"PMTiles\x03")
    with pytest.raises(TileError, match="ends within its header"):
        PMTiles(TileSource(path=tmp_path / "a.pmtiles"))


def test_directories_may_be_stored_as_they_are(tmp_path):
    import gzip

    plain = gzip.decompress(directory((0, 1, 10, 0)))
    reader = pmtiles(tmp_path / "a.pmtiles", plain, internal_compression=1)
    assert reader.read(0, 0, 0) == b"x" * 10


def test_a_root_directory_larger_than_any_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("provisioning.sources.containers.pmtiles.MOST_DIRECTORY_BYTES", 4)
    with pytest.raises(TileError, match="larger than 4 bytes"):
        pmtiles(tmp_path / "a.pmtiles").read(0, 0, 0)


def test_a_tile_larger_than_any_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("provisioning.sources.containers.pmtiles.MOST_TILE_BYTES", 9)
    assert pmtiles(tmp_path / "a.pmtiles").read(0, 0, 0) is None


def test_a_tile_before_the_first_of_an_archive_is_not_there(tmp_path):
    assert pmtiles(tmp_path / "a.pmtiles", directory((5, 1, 10, 0))).read(0, 0, 0) is None


def test_a_run_longer_than_any_imagery_is_refused(tmp_path, monkeypatch):
    assert pmtiles_module.MOST_OF_A_RUN < 1 << 25
    monkeypatch.setattr(pmtiles_module, "MOST_OF_A_RUN", 1 << 10)  # all of those would be yielded first
    with pytest.raises(TileError, match="share one image"):
        list(pmtiles(tmp_path / "a.pmtiles", directory((0, 1 << 25, 10, 0))).addresses())


def test_leaves_without_a_tile_of_the_area_are_passed_over(tmp_path):
    leaf = directory((0, 1, 10, 0))
    root = directory((0, 0, len(leaf), 0), (5, 0, 1, len(leaf)))  # what is no directory lies beyond the area
    reader = pmtiles(tmp_path / "a.pmtiles", root, leaves=leaf + b"?")
    whole_world = Cover({0: (Band(0, 0, ((0, 0),)),)})
    assert [tile[:3] for tile in reader.query(TileQuery(whole_world))] == [(0, 0, 0)]


def test_an_archive_that_cannot_be_read_any_more_is_named(tmp_path):
    reader = pmtiles(tmp_path / "a.pmtiles")
    os.close(reader._fd)
    try:
        with pytest.raises(FilesystemError, match="Bad file descriptor"):
            reader.read(0, 0, 0)
    finally:
        reader._fd = os.open(os.devnull, os.O_RDONLY)
        reader.close()


def test_metadata_that_are_no_json_are_none(tmp_path):
    reader = pmtiles(tmp_path / "a.pmtiles", metadata_length=3)
    assert reader.metadata() == {}


def test_dates_may_be_those_of_a_container(tmp_path):
    tiles = block(2, 2)
    store = write_reference_pmtiles(tmp_path / "a.pmtiles", tiles)
    os.utime(store, (1_500_000_000, 1_500_000_000))
    assert scanned(dated(tmp_path, "mtime", tiles, store)).oldest_capture == "2017-07-14"


def test_metadata_of_a_directory_that_are_no_json_are_named(tmp_path):
    store = write_xyz(tmp_path / "x", block(2, 2))
    (store / "metadata.json").write_text("{")
    with pytest.raises(TileError, match=r"metadata\.json lies beside the tiles"):
        scanned(dated(tmp_path, "metadata", block(2, 2), store))


def test_dates_in_a_csv_that_is_no_text_are_named(tmp_path):
    asked = dated(tmp_path, "dates.csv")
    asked.root.mkdir()
    (asked.root / "dates.csv").write_bytes(b"z,x,y,date\n\xff\xfe\n")
    with pytest.raises(TileError, match="capture dates cannot be read"):
        scan(asked.selection, asked.build_dir)


def test_mbtiles_rows_without_a_number_are_no_addresses(tmp_path):
    import sqlite3

    path = write_mbtiles(tmp_path / "a.mbtiles", block(2, 2), index=False)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO tiles VALUES ('high', 3, 4, x'00')")
        db.execute("INSERT INTO tiles VALUES (3, 9, 1, x'00')")  # zoom 3 has eight columns
    db.close()
    assert survey(path).per_zoom.keys() == {Z}


# GeoTIFF


def raster(path, *, left=8.0, top=47.0, crs="EPSG:4326", **tags):
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(0).integers(1, 256, (3, 1000, 1000), dtype=np.uint8)
    profile = {"driver": "GTiff", "width": 1000, "height": 1000, "count": 3, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", transform=rasterio.transform.from_origin(left, top, 1e-4, 1e-4), **profile) as out:
        out.write(pixels)
        out.update_tags(**tags)
    return path


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rasterio")
def test_the_date_of_a_raster_is_in_its_tags(tmp_path):
    store = raster(tmp_path / "a.tif", TIFFTAG_DATETIME="2023:04:05 10:11:12")
    held = survey(store)
    asked = dated(tmp_path, "metadata", {(z, 0, 0): b"" for z in held.per_zoom}, store)
    from dataclasses import replace

    asked = replace(asked, area=replace(asked.area, bbox=held.bbox, zooms=tuple(held.per_zoom)))
    assert scan(asked.selection, asked.build_dir).oldest_capture == "2023-04-05"


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rasterio")
def test_a_tile_beside_a_raster_is_not_there(tmp_path):
    reader = GeoTIFF(TileSource(path=raster(tmp_path / "a.tif")))
    z, x, y = next(iter(reader.addresses()))
    assert reader.read(z, x, y) is not None
    assert reader.read(z, x, y - 5) is None
    assert reader.metadata().get("datetime") is None
    reader.close()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rasterio")
def test_a_raster_is_cut_in_its_own_columns_only(tmp_path):
    reader = GeoTIFF(TileSource(path=raster(tmp_path / "a.tif")))
    there, z = set(reader.addresses()), reader.native_zoom
    x, y = min(t[1] for t in there), min(t[2] for t in there)
    around = Cover({z: (Band(x - 3, x + 10, ((y - 3, y + 10),)),)})
    assert {tile[:3] for tile in reader.query(TileQuery(around))} == there
    reader.close()


def test_a_raster_without_what_reads_it_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(TileError, match="needs rasterio") as caught:
        GeoTIFF(TileSource(path=tmp_path / "a.tif"))
    assert "flightcache[geotiff]" in caught.value.next_step


def test_what_was_not_installed_gives_no_stamp_that_could_be_trusted(tmp_path, monkeypatch):

    from provisioning.sources.containers import geotiff

    (tmp_path / "a.tif").write_bytes(b"II*\0")
    later = (tmp_path / "a.tif").stat().st_mtime_ns + 10**10
    monkeypatch.setattr(geotiff, "installed_version", lambda _name: None)
    assert geotiff.stamp(TileSource(path=tmp_path / "a.tif"), now_ns=later) == ""
