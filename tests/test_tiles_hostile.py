"""Stores that lie, are damaged or mean harm: one clear error each, no hang, bounded memory."""

import io
import os
import random
import resource
import sqlite3
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from provisioning.base.errors import EmptyCorpusError, TileError
from provisioning.catalogue import decode, scan
from provisioning.catalogue.surveying import EVERYTHING, survey
from provisioning.config import TileSource
from provisioning.sources.containers import sqlite_file
from provisioning.sources.containers.pmtiles import PMTiles
from provisioning.sources.containers.pmtiles_format import HEADER, Header, gzip_stored, serialise_directory
from provisioning.sources.containers.tables import TileTable, open_mbtiles
from provisioning.sources.store import TileQuery
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
TILES = block()
BOX = bbox_of(TILES)
BAD = (Z, X + 1, Y + 1)


def refused(asked, match):
    start = time.monotonic()
    with pytest.raises(TileError, match=match) as caught:
        scan(asked.selection, asked.build_dir)
    assert time.monotonic() - start < 120
    return caught.value


# bytes that are no image


def bomb() -> bytes:
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10_000_000), 9)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def text_bomb() -> bytes:
    whole = image(1)
    data = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 1)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return whole[:33] + chunk + whole[33:]


NO_IMAGES = {
    "nothing": (b"", "0 bytes"),
    "text": (b"<html>sign in</html>", "text"),
    "json": (b' {"error": 1}', "text"),
    "gzip": (zlib.compress(b"vector"), "vector tile or compressed"),
    "pbf": (b"\x1a\x40\x0a\x05water", "vector tile"),
    "gif": (b"GIF89a\x01\0\x01\0", "not a JPEG, PNG, WebP or AVIF"),
    "cut jpeg": (image(1, kind="JPEG", side=256)[:2000], "JPEG image cannot be decoded"),
    "cut png": (image(1, side=64)[:3000], "PNG image cannot be decoded"),
    "cut webp": (image(1, kind="WEBP", side=64)[:500], "WEBP image cannot be decoded"),
    "bomb": (bomb, "50000 x 50000"),
    "text bomb": (text_bomb, "PNG image cannot be decoded"),
    "noise": (random.Random(1).randbytes(500), "not a JPEG"),
    "jpeg noise": (b"\xff\xd8\xff\xe0" + random.Random(2).randbytes(5000), "JPEG image cannot be decoded"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_named_with_the_reason(tmp_path, name):
    data, reason = NO_IMAGES[name]
    data = data() if callable(data) else data
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = refused(
        flight(tmp_path, write_xyz(tmp_path / "sat", TILES | {BAD: data}), bbox=BOX), "1 tile cannot be used"
    )
    assert reason in error.facts["sat {}/{}/{}".format(*BAD)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_broken_pngs_of_the_suite_never_pass_in_silence(shared_data):
    for path in sorted((shared_data / "broken" / "pngsuite").glob("x*.png")):
        with pytest.raises(TileError):
            decode(path.read_bytes(), max_pixels=1 << 22)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("side", [256, 512])
def test_good_images_decode_by_their_bytes(kind, side):
    pixels = decode(image(3, kind=kind, side=side), max_pixels=1 << 22)
    assert (pixels.shape, pixels.dtype) == ((side, side, 3), np.uint8)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024)
    out = io.BytesIO()
    (deep if mode == "I;16" else grey.convert(mode)).save(out, "JPEG" if mode == "CMYK" else "PNG")
    pixels = decode(out.getvalue(), max_pixels=1 << 22)
    assert pixels.shape == (8, 8, 3)
    if mode in ("L", "RGB", "I;16"):
        assert (pixels[..., 0] == np.arange(64).reshape(8, 8) * 4).all()


def test_transparent_pixels_take_the_mean_colour_of_the_others():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[0] = (10, 20, 31, 255)
    rgba[1] = (20, 20, 30, 255)
    rgba[2:] = (255, 0, 0, 127)
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "PNG")
    pixels = decode(out.getvalue(), max_pixels=100)
    assert (pixels[2:] == (15, 20, 30)).all()
    assert (pixels[0] == (10, 20, 31)).all()


# directories


def test_names_that_are_no_tiles_are_passed_over(tmp_path):
    store = write_xyz(tmp_path / "sat", TILES)
    column = store / str(Z) / str(X)
    for name in (
        "thumbs.db",
        "007.png",
        "+1.png",
        "1_0.png",
        f"{Y}.png.aux.xml",
        "²³.png",
        "x" * 200,
        f".{Y}.png.swp",
        f"{Y}.png~",
        f"{Y}.",
    ):
        (column / name).write_bytes(b"?")
    for folder in ("abc", str(1 << Z), "-1", "99999999999999999999", f"0{X}"):
        (store / str(Z) / folder).mkdir()
        (store / str(Z) / folder / f"{Y}.png").write_bytes(b"?")
    for zoom in ("99", "-1", "z", "15x"):
        (store / zoom / str(X)).mkdir(parents=True)
        (store / zoom / str(X) / f"{Y}.png").write_bytes(b"?")
    (column / f"{1 << Z}.png").write_bytes(b"?")
    assert scanned(flight(tmp_path, store, bbox=BOX)).count == 9


def test_two_files_for_one_tile_are_refused(tmp_path):
    store = write_xyz(tmp_path / "sat", TILES)
    write_xyz(store, {BAD: image(5)}, suffix=".jpg")
    error = refused(flight(tmp_path, store, bbox=BOX), "two files are tile")
    assert "{}/{}/{}".format(*BAD) in error.what


def test_loops_of_links_end(tmp_path):
    store = write_xyz(tmp_path / "sat", TILES)
    os.symlink(store, store / str(Z) / str(X) / "loop")
    os.symlink(".", store / str(Z) / str(X + 5))
    os.symlink("..", store / str(Z) / "up")
    assert scanned(flight(tmp_path, store, bbox=bbox_of(TILES | block(1, 3, x=X + 5)))).count == 9


@pytest.mark.parametrize("target", ["itself", "nowhere"])
def test_a_tile_that_is_a_link_to_nothing_is_named(tmp_path, target):
    store = write_xyz(tmp_path / "sat", {at: data for at, data in TILES.items() if at != BAD})
    path = store / "{}/{}/{}.png".format(*BAD)
    os.symlink(path.name if target == "itself" else target, path)
    error = refused(flight(tmp_path, store, bbox=BOX), "1 tile cannot be used")
    assert "cannot be read" in error.facts["sat {}/{}/{}".format(*BAD)]


def test_a_tile_that_is_a_link_to_an_image_is_that_image(tmp_path):
    store = write_xyz(tmp_path / "sat", TILES)
    path = store / "{}/{}/{}.png".format(*BAD)
    os.rename(path, tmp_path / "one.png")
    os.symlink(tmp_path / "one.png", path)
    assert scanned(flight(tmp_path, store, bbox=BOX)).count == 9


@pytest.mark.parametrize("kind", ["pipe", "directory", "device"])
def test_what_is_no_regular_file_is_never_waited_for(tmp_path, kind):
    store = write_xyz(tmp_path / "sat", {at: data for at, data in TILES.items() if at != BAD})
    path = store / "{}/{}/{}.png".format(*BAD)
    {"pipe": os.mkfifo, "directory": os.mkdir, "device": lambda p: os.symlink("/dev/zero", p)}[kind](path)
    error = refused(flight(tmp_path, store, bbox=BOX), "1 tile cannot be used")
    assert "not a regular file" in error.facts["sat {}/{}/{}".format(*BAD)]


def test_a_file_larger_than_any_tile_is_not_read(tmp_path):
    store = write_xyz(tmp_path / "sat", TILES)
    os.truncate(store / "{}/{}/{}.png".format(*BAD), 1 << 40)
    error = refused(flight(tmp_path, store, bbox=BOX), "1 tile cannot be used")
    assert "larger than" in error.facts["sat {}/{}/{}".format(*BAD)]


def test_a_source_that_is_nothing_known_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"hello")
    refused(flight(tmp_path, tmp_path / "x.bin", bbox=BOX), "not an XYZ directory, MBTiles, GeoPackage")
    with pytest.raises(EmptyCorpusError):
        survey((tmp_path / "empty").mkdir() or tmp_path / "empty")


# MBTiles


def test_a_malformed_sqlite_file_is_named(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", block(8, 8))
    data = bytearray(path.read_bytes())
    data[4096:] = random.Random(1).randbytes(len(data) - 4096)
    path.write_bytes(data)
    assert refused(flight(tmp_path, path, bbox=bbox_of(block(8, 8))), "SQLite file cannot be used").file == str(path)


def test_a_cut_off_sqlite_file_is_named(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", block(8, 8))
    os.truncate(path, 20_000)
    refused(flight(tmp_path, path, bbox=bbox_of(block(8, 8))), "SQLite file cannot be used")


def test_a_database_without_tiles_is_named(tmp_path):
    db = sqlite3.connect(tmp_path / "a.mbtiles")
    db.execute("CREATE TABLE other(a)")
    db.commit()
    db.close()
    refused(flight(tmp_path, tmp_path / "a.mbtiles", bbox=BOX), "no table or view named tiles")


def test_vector_tiles_are_refused_by_name(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES, metadata=[("format", "pbf")])
    refused(flight(tmp_path, path, bbox=BOX), "vector tiles")


@pytest.mark.parametrize("value", [None, "a text", 5, 2.5])
def test_a_row_without_an_image_is_named(tmp_path, value):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES | {BAD: value})
    error = refused(flight(tmp_path, path, bbox=BOX), "1 tile cannot be used")
    assert error.facts["sat {}/{}/{}".format(*BAD)] == "the row holds no image"


def test_a_row_with_a_monstrous_blob_is_named_and_not_read(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tiles SET tile_data = zeroblob(120000000) WHERE tile_column = ? AND tile_row = ?",
                   (BAD[1], (1 << Z) - 1 - BAD[2]))  # fmt: skip
    db.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(flight(tmp_path, path, bbox=BOX), "1 tile cannot be used")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_rows_whose_numbers_are_no_tile_are_passed_over(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES, index=False)
    with sqlite3.connect(path) as db:
        for row in (
            (Z, -1, -1),
            (Z, "x", 3),
            (Z, 1 << 40, 1),
            (99, 1, 1),
            (None, None, None),
            (Z, X, None),
            (Z, X + 0.5, 1),
        ):
            db.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (*row, b"?"))
    db.close()
    assert scanned(flight(tmp_path, path, bbox=BOX)).count == 9
    assert survey(path).per_zoom[Z].present == 9


def test_a_tile_that_is_there_twice_is_named(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES, index=False)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO tiles SELECT * FROM tiles LIMIT 1")
    db.close()
    refused(flight(tmp_path, path, bbox=BOX), "twice")


def test_a_view_that_never_ends_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "PATIENCE_S", 0.5)
    db = sqlite3.connect(tmp_path / "a.mbtiles")
    db.execute("CREATE VIEW tiles AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
               " SELECT 15 AS zoom_level, -i AS tile_column, -i AS tile_row, x'00' AS tile_data FROM n")  # fmt: skip
    db.commit()
    db.close()
    refused(flight(tmp_path, tmp_path / "a.mbtiles", bbox=BOX), "yields nothing for")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
CONTENTS = "CREATE TABLE gpkg_contents(table_name, data_type, min_x, min_y, max_x, max_y);INSERT INTO gpkg_contents VALUES('t','tiles',0,0,1,1);"
SETS = "CREATE TABLE gpkg_tile_matrix_set(table_name, srs_id, min_x, min_y, max_x, max_y);INSERT INTO gpkg_tile_matrix_set VALUES('t',3857,0,0,1,1);"


@pytest.mark.parametrize(
    "schema",
    [
        f"CREATE VIEW gpkg_contents AS {ENDLESS} SELECT 'same' AS table_name, 'features' AS data_type FROM n",
        f"CREATE VIEW gpkg_contents AS {ENDLESS} SELECT i AS table_name, 'tiles' AS data_type FROM n WHERE i < 0",
        f"{CONTENTS}CREATE VIEW gpkg_tile_matrix_set AS {ENDLESS} SELECT i AS table_name FROM n WHERE i < 0",
        f"{CONTENTS}{SETS}CREATE VIEW gpkg_spatial_ref_sys AS {ENDLESS} SELECT i AS srs_id FROM n WHERE i < 0",
    ],
)
def test_a_schema_whose_views_never_end_is_given_up_whatever_is_asked_of_it(tmp_path, monkeypatch, schema):
    monkeypatch.setattr(sqlite_file, "PATIENCE_S", 0.3)
    db = sqlite3.connect(tmp_path / "a.gpkg")
    db.executescript(schema)
    db.close()
    started = time.monotonic()
    with pytest.raises(TileError):
        scanned(flight(tmp_path, tmp_path / "a.gpkg", bbox=BOX))
    assert time.monotonic() - started < 120


def test_metadata_that_never_ends_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "PATIENCE_S", 0.3)
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES)
    db = sqlite3.connect(path)
    db.executescript(
        "DROP TABLE IF EXISTS metadata;"
        f"CREATE VIEW metadata AS {ENDLESS} SELECT i AS name, i AS value FROM n WHERE i < 0"
    )
    db.close()
    table = TileTable(TileSource(path=path), open_mbtiles)  # in this process; a scan's own has the whole patience
    assert table.metadata() == {}
    assert len(list(table.query(TileQuery(EVERYTHING)))) == 9
    table.close()


def test_mbtiles_through_a_view_are_read(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES)
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE tiles RENAME TO map")
        db.execute("CREATE VIEW tiles AS SELECT zoom_level, tile_column, tile_row, tile_data FROM map")
    db.close()
    assert scanned(flight(tmp_path, path, bbox=BOX)).count == 9


def test_mbtiles_in_a_directory_that_cannot_be_written_are_read(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
    db.close()
    assert scanned(flight(tmp_path, path, bbox=BOX)).count == 9


# PMTiles


def header(**changed) -> Header:
    fields = dict.fromkeys(Header._fields, 0) | {"magic": b"PMTiles", "version": 3, "internal_compression": 2,
                                                 "tile_compression": 1, "tile_type": 2, "root_offset": 127}  # fmt: skip
    return Header(**(fields | changed))


def archive(path, root: bytes, *, leaves: bytes = b"", data: bytes = b"x" * 100, **changed):
    """Write an archive from its parts, whatever they say."""
    meta = gzip_stored(b"{}")
    at = 127 + len(root)
    sections = {"root_length": len(root), "metadata_offset": at, "metadata_length": len(meta),
                "leaf_offset": at + len(meta), "leaf_length": len(leaves),
                "data_offset": at + len(meta) + len(leaves), "data_length": len(data)}  # fmt: skip
    path.write_bytes(HEADER.pack(*header(**(sections | changed))) + root + meta + leaves + data)
    return path


def directory(*entries) -> bytes:
    """Return a directory with entries (id, run, length, offset)."""
    return serialise_directory(*(list(column) for column in zip(*entries, strict=True)))


LEAF_LOOP = directory((0, 0, 40, 0))
HOSTILE = {
    "wrong magic": ({"magic": b"PMTilez"}, "not an XYZ directory"),
    "version 2": ({"version": 2}, "version is 2"),
    "vector tiles": ({"tile_type": 1}, "vector tiles"),
    "maplibre tiles": ({"tile_type": 6}, "vector tiles"),
    "brotli directories": ({"internal_compression": 3}, "Brotli"),
    "unknown directories": ({"internal_compression": 77}, "77"),
    "gzip tiles": ({"tile_compression": 2}, "gzip over"),
    "root too far": ({"root_offset": 16_000, "root_length": 800}, "first 16 KiB"),
    "root in the header": ({"root_offset": 0}, "first 16 KiB"),
    "no root": ({"root_length": 0}, "first 16 KiB"),
    "data beyond the end": ({"data_length": 1 << 40}, "beyond the end"),
    "leaves beyond the end": ({"leaf_offset": 1 << 63}, "beyond the end"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_with_a_bad_header_is_named(tmp_path, name):
    changed, reason = HOSTILE[name]
    path = archive(tmp_path / "a.pmtiles", directory((0, 1, 10, 0)), **changed)
    refused(flight(tmp_path, path, bbox=BOX), reason)


ROOTS = {
    "not gzip": (b"\x05" * 60, "not gzip"),
    "cut gzip": (gzip_stored(b"\x01" * 50)[:-20], "cut off"),
    "empty gzip": (gzip_stored(b""), "damaged"),
    "more entries than bytes": (gzip_stored(b"\xff\xff\xff\xff\x7f"), "damaged"),
    "an endless number": (gzip_stored(b"\x01" + b"\xff" * 30), "damaged"),
    "overlapping runs": (directory((0, 5, 10, 0), (3, 1, 10, 0)), "overlap"),
    "an empty tile": (directory((0, 1, 0, 0)), "beyond its section"),
    "a tile beyond the data": (directory((0, 1, 200, 0)), "beyond its section"),
    "a leaf beyond the leaves": (directory((0, 0, 20, 0)), "beyond its section"),
    "ids beyond every zoom": (directory((1 << 60, 1, 10, 0)), "overlap"),
    "an id twice": (gzip_stored(bytes([2, 0, 0, 1, 1, 1, 1, 1, 1])), "damaged"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_an_archive_with_a_bad_directory_is_named(tmp_path, name):
    root, reason = ROOTS[name]
    path = archive(tmp_path / "a.pmtiles", root)
    refused(flight(tmp_path, path, bbox=BOX), reason)


def test_a_loop_of_directories_ends(tmp_path):
    leaf = directory((0, 0, len(LEAF_LOOP), 0))
    path = archive(tmp_path / "a.pmtiles", leaf, leaves=leaf + bytes(200))
    reader = PMTiles(TileSource(path=path))
    with pytest.raises(TileError, match="deep"):
        list(reader.query(TileQuery(EVERYTHING)))
    with pytest.raises(TileError, match="deep"):
        reader.read(0, 0, 0)
    reader.close()


def test_directories_that_share_a_leaf_do_not_multiply(tmp_path):
    leaf = directory((0, 1, 10, 0), (5, 1, 10, 0))
    root = directory(*((n * 10, 0, len(leaf), 0) for n in range(20)))
    path = archive(tmp_path / "a.pmtiles", root, leaves=leaf)
    reader = PMTiles(TileSource(path=path))
    with pytest.raises(TileError, match="belong to another"):
        list(reader.query(TileQuery(EVERYTHING)))
    reader.close()


def test_a_directory_that_inflates_without_end_is_given_up(tmp_path):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    root = packer.compress(bytes(11_000_000)) + packer.flush()
    assert len(root) < 16_000
    refused(
        flight(tmp_path, archive(tmp_path / "a.pmtiles", root), bbox=BOX), "larger than 8388608 bytes when decompressed"
    )


def test_a_run_over_the_whole_world_costs_no_more_than_the_area(tmp_path):
    png = image(1)
    base = ((1 << 2 * Z) - 1) // 3
    path = archive(tmp_path / "a.pmtiles", directory((base, 1 << 2 * Z, len(png), 0)), data=png)
    start = time.monotonic()
    assert scanned(flight(tmp_path, path, bbox=BOX)).count == 9
    assert time.monotonic() - start < 120


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_give_an_error_or_the_right_tiles(tmp_path, seed):
    path = write_reference_pmtiles(tmp_path / "a.pmtiles", TILES)
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(3):
        data[rng.randrange(0, 400)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        reader = PMTiles(TileSource(path=path))
        found = sum(1 for _ in zip(range(10_000), reader.query(TileQuery(EVERYTHING)), strict=False))
        reader.close()
    except TileError:
        return
    assert found < 10_000


# GeoTIFF


def test_a_raster_that_is_no_imagery_is_named(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    where = rasterio.transform.from_origin(8, 47, 0.001, 0.001)
    cases = {"uint16": ("uint16", 1, "EPSG:4326", "pixels are uint16"), "bands": ("uint8", 7, "EPSG:4326", "7 bands"),
             "nowhere": ("uint8", 3, None, "where it is")}  # fmt: skip
    for name, (kind, count, crs, reason) in cases.items():
        path = tmp_path / f"{name}.tif"
        profile = {
            "driver": "GTiff",
            "width": 8,
            "height": 8,
            "count": count,
            "dtype": kind,
            "crs": crs,
            "transform": where,
        }
        with rasterio.open(path, "w", **profile) as out:
            out.write(np.ones((count, 8, 8), kind))
        refused(flight(tmp_path / name, path, bbox=BOX), reason)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "bands.tif").read_bytes()[:60])
    refused(flight(tmp_path / "cut", tmp_path / "cut.tif", bbox=BOX), "GeoTIFF cannot be used")
