"""Containers, archives and rasters: the tiles' own bytes in, the same bytes out."""

import io
import json
import os
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pmtiles.reader import MmapSource, Reader, all_tiles
from pmtiles.tile import deserialize_directory

from provisioning.base.errors import TileError
from provisioning.base.geometry import geo
from provisioning.catalogue import archive as archive_module
from provisioning.catalogue import decode, iter_tiles, open_reader, scan
from provisioning.catalogue.archive import write_pmtiles
from provisioning.catalogue.inventory import take_inventory
from provisioning.catalogue.surveying import EVERYTHING, survey
from provisioning.cli import main
from provisioning.config import TileSource
from provisioning.sources import fingerprint
from provisioning.sources.containers.geotiff import png
from provisioning.sources.containers.idranges import tiles_of_run
from provisioning.sources.containers.pmtiles import PMTiles
from provisioning.sources.containers.pmtiles_format import gzip_stored, parse_directory, serialise_directory
from provisioning.sources.store import TileQuery
from tests.properties import examples
from tests.tilesets import (
    X,
    Y,
    Z,
    bbox_of,
    block,
    flight,
    image,
    scanned,
    write_mbtiles,
    write_reference_pmtiles,
    write_xyz,
)

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rasterio")


def reference(path):
    with open(path, "rb") as stream:
        return dict(all_tiles(MmapSource(stream)))


# reading PMTiles


def test_a_real_archive_reads_as_the_reference_reads_it(shared_data):
    path = shared_data / "containers" / "usgs-mt-whitney-8-15-webp-512.pmtiles"
    expected = reference(path)
    reader = PMTiles(TileSource(path=path))
    found = {(t.z, t.x, t.y): t.data for t in reader.query(TileQuery(EVERYTHING))}
    assert found == expected
    assert all(reader.read(*at) == data for at, data in expected.items())
    assert reader.read(15, 0, 0) is None
    assert sorted(reader.addresses()) == sorted(expected)
    assert decode(next(iter(found.values())), max_pixels=1 << 20).shape == (512, 512, 3)
    reader.close()


def test_a_real_archive_is_a_corpus(tmp_path, shared_data):
    path = shared_data / "containers" / "usgs-mt-whitney-8-15-webp-512.pmtiles"
    held = survey(path)
    asked = flight(tmp_path, path, bbox=held.bbox, zooms=tuple(held.per_zoom))
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.count, corpus.skipped) == (50, ())
    write_pmtiles(asked.selection, asked.build_dir, tmp_path / "out.pmtiles")
    assert reference(tmp_path / "out.pmtiles") == reference(path)


@given(st.integers(0, 5000), st.integers(1, 3000), st.integers(0, 20), st.integers(0, 20))
def test_the_tiles_of_a_run_are_those_of_its_ids_inside_the_area(first, run, x, y):
    from provisioning.area.cover import Band, Cover

    cover = Cover({z: (Band(x, x + 9, ((y, y + 5),)),) for z in (4, 5, 6)})
    expected = [tile for tile in map(geo.tileid_to_zxy, range(first, first + run)) if cover.holds(*tile)]
    assert sorted(tiles_of_run(first, run, cover)) == sorted(expected)


def test_a_table_gives_the_rows_of_a_band_and_none_between_them(tmp_path):
    from provisioning.area.cover import Band, Cover
    from provisioning.sources.stores import open_tiles

    path = write_mbtiles(tmp_path / "a.mbtiles", {(5, x, y): image(x + 10 * y) for x in range(3) for y in range(6)})
    store = open_tiles(TileSource(path=path))
    cover = Cover({5: (Band(0, 1, ((0, 1), (4, 4))),)})
    found = {(tile.z, tile.x, tile.y): tile.data for tile in store.query(TileQuery(cover))}
    assert sorted(found) == [(5, x, y) for x in range(2) for y in (0, 1, 4)]
    assert all(found[5, x, y] == store.read(5, x, y) for _, x, y in found)
    store.close()


entries = st.lists(
    st.tuples(st.integers(1, 1 << 40), st.integers(0, 300), st.integers(1, 1 << 30), st.integers(0, 1 << 40)),
    min_size=1,
)


@given(entries)
def test_directories_invert_and_equal_the_reference(rows):
    ids = np.cumsum([row[0] for row in rows]).tolist()
    columns = [ids, *([row[i] for row in rows] for i in (1, 2, 3))]
    data = serialise_directory(*columns)
    import zlib

    assert [list(column) for column in parse_directory(zlib.decompress(data, 31))] == columns
    theirs = deserialize_directory(data)
    assert [(e.tile_id, e.run_length, e.length, e.offset) for e in theirs] == list(zip(*columns, strict=True))


@given(st.binary(max_size=200_000))
@examples(0.2)
def test_stored_gzip_is_gzip(data):
    import gzip

    assert gzip.decompress(gzip_stored(data)) == data


# writing PMTiles


def test_the_archive_holds_the_tiles_own_bytes_each_once(tmp_path):
    tiles = block(5, 5)
    same = image(4242)
    tiles |= {(Z, X + i, Y + 4): same for i in range(5)}
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles), blank="keep")
    corpus = scan(asked.selection, asked.build_dir)
    out = tmp_path / "tiles.pmtiles"
    write_pmtiles(asked.selection, asked.build_dir, out)
    assert reference(out) == tiles
    with open(out, "rb") as stream:
        header = Reader(MmapSource(stream)).header()
    assert header["addressed_tiles_count"] == 25
    assert header["tile_contents_count"] == 21
    assert header["clustered"]
    assert header["tile_type"].name == "PNG"
    assert (header["min_zoom"], header["max_zoom"]) == (Z, Z)
    again = flight(tmp_path / "again", TileSource(path=out, name="sat"), bbox=bbox_of(tiles), blank="keep")
    assert scan(again.selection, again.build_dir).coverage_sha256 == corpus.coverage_sha256


def test_the_archives_bytes_depend_on_the_corpus_alone(tmp_path):
    tiles = block(4, 4)
    outs = []
    for n, store in enumerate((write_xyz(tmp_path / "sat", tiles), write_mbtiles(tmp_path / "s.mbtiles", tiles))):
        asked = flight(tmp_path / str(n), store, bbox=bbox_of(tiles))
        scan(asked.selection, asked.build_dir)
        write_pmtiles(asked.selection, asked.build_dir, tmp_path / f"{n}.out")
        outs.append((tmp_path / f"{n}.out").read_bytes())
    assert outs[0] == outs[1]


def test_an_archive_with_leaf_directories_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "LEAF_ENTRIES", 8)
    monkeypatch.setattr(archive_module, "ROOT_END", 200)
    tiles = block(12, 12)
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    scan(asked.selection, asked.build_dir)
    out = tmp_path / "tiles.pmtiles"
    write_pmtiles(asked.selection, asked.build_dir, out)
    with open(out, "rb") as stream:
        assert Reader(MmapSource(stream)).header()["leaf_directory_length"] > 0
    assert reference(out) == tiles
    reader = PMTiles(TileSource(path=out))
    assert {at: reader.read(*at) for at in tiles} == tiles
    reader.close()


def test_of_sources_that_share_a_tile_the_first_by_name_is_archived(tmp_path):
    tiles, others = block(2, 2), block(3, 2, seed=70)
    one = TileSource(path=write_xyz(tmp_path / "1", tiles), name="a")
    two = TileSource(path=write_xyz(tmp_path / "2", others), name="b")
    asked = flight(tmp_path, two, one, bbox=bbox_of(others))
    assert scan(asked.selection, asked.build_dir).count == 10
    write_pmtiles(asked.selection, asked.build_dir, tmp_path / "out")
    assert reference(tmp_path / "out") == others | tiles


def test_a_tile_that_changed_since_the_scan_is_not_archived(tmp_path):
    tiles = block(2, 2)
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    scan(asked.selection, asked.build_dir)
    write_xyz(store, {next(iter(tiles)): image(5)})
    with pytest.raises(TileError, match="has changed"):
        write_pmtiles(asked.selection, asked.build_dir, tmp_path / "out")


# surveys


def test_a_survey_counts_no_tile_that_the_scan_will_call_empty(tmp_path):
    tiles = block(4, 4) | {(Z, X + 3, Y + j): image(1, alpha=0) for j in range(4)}
    tiles[Z, X, Y] = image(1, alpha=10)
    for n, store in enumerate((write_xyz(tmp_path / "x", tiles), write_mbtiles(tmp_path / "m.mbtiles", tiles),
                               write_reference_pmtiles(tmp_path / "p.pmtiles", tiles))):  # fmt: skip
        held = survey(store)
        corpus = scanned(flight(tmp_path / str(n), store, bbox=held.bbox))
        assert held.per_zoom[Z][:2] == corpus.per_zoom[Z][:2] == (11, 12)


# GeoTIFF


@pytest.mark.parametrize("zooms", [(8, 9), pytest.param((8, 9, 10), marks=pytest.mark.slow)])
def test_a_raster_is_cut_into_the_tiles_that_it_touches(tmp_path, shared_data, zooms):
    pytest.importorskip("rasterio")
    path = shared_data / "containers" / "RGB.byte.tif"
    held = survey(path)
    assert list(held.per_zoom) == [9]
    asked = flight(tmp_path, path, bbox=held.bbox, zooms=zooms, max_empty=Decimal("0.99"))
    corpus = scan(asked.selection, asked.build_dir)
    assert corpus.per_zoom[9].present >= held.per_zoom[9].present > 4
    assert corpus.skipped == ()
    assert scanned(flight(tmp_path / "again", path, bbox=held.bbox, zooms=zooms, max_empty=Decimal("0.99"))
                ).coverage_sha256 == corpus.coverage_sha256  # fmt: skip
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        for tile in iter_tiles(asked.build_dir):
            assert decode(reader.read(tile), max_pixels=1 << 20).shape == (256, 256, 3)


def test_a_raster_on_the_grid_gives_its_own_pixels(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    import math

    z, x, y = 12, 2200, 1400
    pixel = 2 * math.pi * 6_378_137 / (256 << z)
    corner = rasterio.transform.from_origin(
        x * 256 * pixel - math.pi * 6_378_137, math.pi * 6_378_137 - y * 256 * pixel, pixel, pixel
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 512, 512), dtype=np.uint8)
    path = tmp_path / "aligned.tif"
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    with rasterio.open(path, "w", transform=corner, **profile) as out:
        out.write(pixels)
    asked = flight(tmp_path, path, bbox=bbox_of([(z, x, y), (z, x + 1, y + 1)]), zooms=(z,))
    assert scan(asked.selection, asked.build_dir).count == 4
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        for tile in iter_tiles(asked.build_dir):
            left, top = (tile.x - x) * 256, (tile.y - y) * 256
            expected = pixels[:, top : top + 256, left : left + 256].transpose(1, 2, 0)
            assert (decode(reader.read(tile), max_pixels=1 << 20) == expected).all()


def test_our_png_is_a_png():
    rgba = np.random.default_rng(0).integers(0, 256, (31, 17, 4), dtype=np.uint8)
    with Image.open(io.BytesIO(png(rgba))) as found:
        found.verify()
    assert (np.asarray(Image.open(io.BytesIO(png(rgba)))) == rgba).all()


# capture dates


def dated(tmp_path, captured, tiles=None, store=None):
    tiles = tiles or block(2, 2)
    store = store or write_xyz(tmp_path / "sat", tiles)
    return flight(tmp_path, TileSource(path=store, name="sat", captured=captured), bbox=bbox_of(tiles))


def test_a_source_may_have_one_date(tmp_path):
    assert scanned(dated(tmp_path, "2024-02-29")).oldest_capture == "2024-02-29"
    again = scanned(dated(tmp_path, "2023-01-01"))
    assert (again.oldest_capture, again.undated, again.changed) == ("2023-01-01", 0, 0)
    never = scanned(dated(tmp_path, ""))
    assert (never.oldest_capture, never.undated) == (None, 4)


def test_dates_change_without_reading_a_tile(tmp_path, monkeypatch):
    import time

    from provisioning.catalogue.scanning.inspecting import Inspector

    first = dated(tmp_path, "2024-02-29")
    time.sleep(0.05)
    scan(first.selection, first.build_dir)
    monkeypatch.setattr(Inspector, "_some", lambda *_: pytest.fail("a tile was read"))
    assert scanned(dated(tmp_path, "2020-02-02", store=tmp_path / "sat")).oldest_capture == "2020-02-02"


def test_dates_may_come_from_a_csv_by_tile(tmp_path):
    asked = dated(tmp_path, "dates.csv")
    asked.root.mkdir()
    csv = asked.root / "dates.csv"
    csv.write_text(f"z,x,y,date\n{Z},{X},{Y},2021-03-04\n{Z},{X + 1},{Y},2022-03-04\n9,1,1,1999-01-01\n")
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.oldest_capture, corpus.undated) == ("2021-03-04", 2)
    csv.write_text(f"{Z},{X},{Y},2020-03-04\n")
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.oldest_capture, corpus.undated) == ("2020-03-04", 3)
    write_xyz(tmp_path / "sat", {(Z, X, Y): image(800)})
    assert scan(asked.selection, asked.build_dir).oldest_capture == "2020-03-04"


@pytest.mark.parametrize("line", ["1,2,3", "a,b,c,d\n1,2,x,2020-01-01", "1,2,3,2020-13-01", "1,2,3,2020-01-01,5"])
def test_a_csv_that_is_none_is_named_with_its_line(tmp_path, line):
    asked = dated(tmp_path, "dates.csv")
    asked.root.mkdir()
    (asked.root / "dates.csv").write_text(line)
    with pytest.raises(TileError, match=r"line [12]"):
        scan(asked.selection, asked.build_dir)


def test_dates_may_be_the_files_own(tmp_path):
    asked = dated(tmp_path, "mtime")
    store = tmp_path / "sat"
    for path in store.rglob("*.png"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    os.utime(store / f"{Z}/{X}/{Y}.png", (1_500_000_000, 1_500_000_000))
    assert scan(asked.selection, asked.build_dir).oldest_capture == "2017-07-14"
    (row,) = take_inventory(asked.selection, asked.build_dir).sources
    assert (row.oldest, row.newest) == ("2017-07-14", "2020-09-13")


@pytest.mark.parametrize("write", [write_xyz, write_mbtiles])
def test_a_time_that_no_database_holds_is_its_latest(tmp_path, write):
    """A camera or a wrong clock writes any year; 64 bits of nanoseconds end in April 2262."""
    tiles = block(2, 2)
    store = write(tmp_path / "sat.mbtiles", tiles)
    asked = dated(tmp_path, "mtime", tiles, store)
    for path in [store, *store.rglob("*.png")]:
        os.utime(path, (13_000_000_000, 13_000_000_000))
        if path.stat().st_mtime < 13_000_000_000:
            pytest.skip("this file system ends before")
    for _ in range(2):
        corpus = scan(asked.selection, asked.build_dir)
        assert (corpus.count, corpus.oldest_capture) == (4, "2262-04-11")


def test_an_inode_that_no_database_holds_is_a_number_all_the_same(tmp_path, monkeypatch):
    """An overlay over several file systems keeps their number in the highest bits."""
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", block(2, 2)), bbox=bbox_of(block(2, 2)))
    read = fingerprint.read_listing
    monkeypatch.setattr(
        fingerprint, "read_listing", lambda *given: [(*row[:5], row[5] | 1 << 63) for row in read(*given)]
    )
    assert scan(asked.selection, asked.build_dir).count == 4


def test_dates_may_come_from_metadata(tmp_path):
    tiles = block(2, 2)
    stores = {
        "m": write_mbtiles(tmp_path / "a.mbtiles", tiles, metadata=[("captured", "2024-05-06"), ("name", "x")]),
        "p": write_reference_pmtiles(tmp_path / "a.pmtiles", tiles),
        "x": write_xyz(tmp_path / "x", tiles),
    }
    (stores["x"] / "metadata.json").write_text(json.dumps({"acquisition_date": "2024-05-06T10:00:00Z"}))
    for name, store in stores.items():
        assert scanned(dated(tmp_path / name, "metadata", tiles, store)).oldest_capture == "2024-05-06", name


def test_metadata_without_a_date_are_an_error_and_no_guess(tmp_path):
    tiles = block(2, 2)
    with pytest.raises(TileError, match="no capture date"):
        scanned(dated(tmp_path / "m", "metadata", tiles, write_mbtiles(tmp_path / "a.mbtiles", tiles)))
    with pytest.raises(TileError, match=r"none of metadata\.json"):
        scanned(dated(tmp_path / "x", "metadata", tiles, write_xyz(tmp_path / "x", tiles)))


# flightcache tiles


def configured(tmp_path):
    from provisioning.cli.begin.init import create_cache

    tiles = block(4, 4)
    del tiles[Z, X + 1, Y + 1]
    create_cache(tmp_path / "cache", tiles=write_xyz(tmp_path / "sat", tiles), key=keyed(tmp_path))
    return tmp_path / "cache"


def keyed(tmp_path):
    from provisioning.flight.signing import generate_key

    generate_key(tmp_path / "k.pem", password=None)
    return tmp_path / "k.pem"


def test_the_tiles_command_counts_by_zoom_and_source(tmp_path, capsys):
    cache = configured(tmp_path)
    assert main(["tiles", str(cache)]) == 12
    assert "have not been scanned" in capsys.readouterr().err
    assert main(["tiles", str(cache), "--scan"]) == 0
    text = capsys.readouterr().out
    assert "15 tiles" in text
    assert "1 hole" in text
    assert main(["tiles", str(cache), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (zoom,) = said["zooms"]
    (source,) = said["sources"]
    assert (zoom["present"], zoom["expected"], zoom["holes"], source["taken"]) == (15, 16, 1, 15)
    assert zoom["present_km2"] == pytest.approx(zoom["expected_km2"] * 15 / 16, rel=1e-3)


def test_what_a_survey_found_is_covered_when_it_is_scanned(tmp_path):
    from provisioning.config.parse import read_flight

    asked = read_flight(configured(tmp_path))
    for z, counted in scan(asked.selection, asked.build_dir).per_zoom.items():
        assert Decimal(counted.present) / counted.expected >= asked.area.min_coverage.get(z, 1)
        assert asked.area.min_coverage[z] > Decimal("0.9")
