"""Sources as other programs write them: each comes back tile for tile, at its place."""

import os
import sqlite3
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import tile_bounds_e7
from provisioning.catalogue import decode, iter_tiles, open_reader, scan
from provisioning.catalogue.surveying import survey
from provisioning.config import TileSource
from provisioning.sources.placement.layouts import KNOWN, detect
from provisioning.sources.source import EVERYTHING
from provisioning.sources.xyz import Folder, Layout
from tests.properties import examples
from tests.tilesets import bbox_of, flight, image, scanned, write_mbtiles

BERN = (17, 68_240, 46_132)
HALF_WORLD_M = 20_037_508.342789244


def tiles_at(z=BERN[0], x=BERN[1], y=BERN[2], width=3, height=2):
    return {(z, x + i, y + j): image(10 * i + j) for i in range(width) for j in range(height)}


def read_back(tmp_path, source, tiles):
    """Scan a source over exactly the area of `tiles` and return what is read, by address."""
    asked = flight(tmp_path, source, bbox=bbox_of(tiles), zooms=(max(t[0] for t in tiles),))
    scan(asked.selection, asked.build_dir)
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        return {t[:3]: reader.read(t) for t in iter_tiles(asked.build_dir)}


# directories


def quadkey(z, x, y):
    return "".join(str((x >> b & 1) + 2 * (y >> b & 1)) for b in range(z - 1, -1, -1))


PATHS = {
    "ArcGIS": lambda z, x, y: f"_alllayers/L{z:02d}/R{y:08x}/C{x:08x}.png",
    "SAS.Planet": lambda z, x, y: f"z{z + 1}/{x // 1024}/x{x}/{y // 1024}/y{y}.png",
    "MapProxy tc": lambda z, x, y: (
        f"{z:02d}/{x // 10**6:03d}/{x // 1000 % 1000:03d}/{x % 1000:03d}/"
        f"{y // 10**6:03d}/{y // 1000 % 1000:03d}/{y % 1000:03d}.png"
    ),
    "MapProxy mp": lambda z, x, y: f"{z:02d}/{x // 10**4:04d}/{x % 10**4:04d}/{y // 10**4:04d}/{y % 10**4:04d}.png",
    "quadkey": lambda z, x, y: f"{quadkey(z, x, y)}.png",
    "retina": lambda z, x, y: f"{z}/{x}/{y}@2x.png",
    "OsmAnd": lambda z, x, y: f"{z}/{x}/{y}.png.tile",
    "flat": lambda z, x, y: f"{z}_{x}_{y}.png",
    "nested": lambda z, x, y: f"export/imagery/{z}/{x}/{y}.png",
}


def write_paths(root, tiles, path):
    for at, data in tiles.items():
        file = root / path(*at)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return root


@pytest.mark.parametrize("name", PATHS)
def test_layouts_of_other_programs_are_found_and_read(tmp_path, name):
    tiles = tiles_at()
    store = write_paths(tmp_path / "sat", tiles, PATHS[name])
    scheme = "xyz" if "MapProxy" in name or name == "quadkey" else "auto"
    held = survey(TileSource(path=store, scheme=scheme))
    assert held.bbox == bbox_of(tiles)
    assert read_back(tmp_path, held.source, tiles) == tiles


@pytest.mark.parametrize("name", ["MapProxy tc", "MapProxy mp"])
def test_layouts_whose_rows_may_be_counted_either_way_are_asked_about(tmp_path, name):
    store = write_paths(tmp_path / "sat", tiles_at(), PATHS[name])
    with pytest.raises(TileError, match="north or the south") as caught:
        survey(store)
    assert "tiles.source.pattern" in caught.value.next_step


def test_a_build_that_finds_no_file_names_the_layout(tmp_path):
    tiles = tiles_at()
    store = write_paths(tmp_path / "sat", tiles, PATHS["SAS.Planet"])
    with pytest.raises(TileError, match=r"SAS\.Planet") as caught:
        scanned(flight(tmp_path, store, bbox=bbox_of(tiles)))
    assert caught.value.key == "tiles.source.pattern"


def test_a_compact_cache_is_refused_by_name(tmp_path):
    (tmp_path / "L17").mkdir()
    (tmp_path / "L17" / "R0000C0000.bundle").write_bytes(b"\3")
    with pytest.raises(TileError, match="compact cache") as caught:
        survey(tmp_path)
    assert "exploded" in caught.value.next_step


@given(st.sampled_from(KNOWN), st.integers(0, 24), st.floats(0, 0.999), st.floats(0, 0.999), st.booleans())
def test_paths_invert(known, z, across, down, tms):
    if known.pattern == "{q}":
        z = max(z, 1)
    x, y = int(across * (1 << z)), int(down * (1 << z))
    layout = Layout(TileSource(path=Path("r"), pattern=known.pattern, scheme="tms" if tms else "xyz"))
    folder, _, leaf = str(layout.path(z, x, y, ".png").relative_to("r")).rpartition("/")
    fixed = layout.fixed_by(folder)
    assert all(low <= {"z": z, "x": x, "y": y}[name] <= high for name, (low, high) in fixed.items())
    assert layout.tile_of(Folder(folder, fixed), EVERYTHING)(leaf) == (z, x, y, ".png")


def test_a_path_whose_parts_contradict_each_other_is_no_tile(tmp_path):
    store = write_paths(tmp_path / "sat", tiles_at(), PATHS["SAS.Planet"])
    found = detect(store)
    wrong = store / "z18" / "9" / "x68240" / "45" / "y46132.png"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(image(1))
    held = survey(TileSource(path=store, pattern=found.pattern))
    assert held.per_zoom[17].present == 6


def test_tiles_that_go_from_a_split_layout_are_forgotten(tmp_path):
    tiles = tiles_at(y=46_999, height=3)  # rows on both sides of a thousand
    store = write_paths(tmp_path / "sat", tiles, PATHS["MapProxy tc"])
    source = TileSource(path=store, pattern=KNOWN[3].pattern, scheme="xyz")
    assert read_back(tmp_path, source, tiles) == tiles
    first = next(iter(tiles))
    (store / PATHS["MapProxy tc"](*first)).unlink()
    assert read_back(tmp_path, source, tiles) == {at: data for at, data in tiles.items() if at != first}


# SQLite


def write_geopackage(path, tiles, *, table="tiles", code=3857, box=None, whole=True, more=()):
    """Write a GeoPackage's tables as the specification has them; `whole`: the tile matrix set is the world's."""
    z = max(t[0] for t in tiles)
    side = 2 * HALF_WORLD_M / (1 << z)
    left, top = (0, 0) if whole else (min(t[1] for t in tiles), min(t[2] for t in tiles))
    right, bottom = (1 << z, 1 << z) if whole else (left + 3, top + 2)
    sides = (
        left * side - HALF_WORLD_M,
        HALF_WORLD_M - bottom * side,
        right * side - HALF_WORLD_M,
        HALF_WORLD_M - top * side,
    )
    db = sqlite3.connect(path)
    db.executescript("""
      CREATE TABLE gpkg_spatial_ref_sys(srs_name, srs_id, organization, organization_coordsys_id, definition);
      CREATE TABLE gpkg_contents(table_name, data_type, identifier, min_x, min_y, max_x, max_y, srs_id);
      CREATE TABLE gpkg_tile_matrix_set(table_name, srs_id, min_x, min_y, max_x, max_y);
      CREATE TABLE gpkg_tile_matrix(table_name, zoom_level, matrix_width, matrix_height, tile_width, tile_height,
        pixel_x_size, pixel_y_size);""")
    db.execute("PRAGMA application_id = 0x47504B47")
    db.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('', 7, 'EPSG', ?, '')", (code,))
    for name in (table, *more):
        db.execute("INSERT INTO gpkg_contents VALUES (?, 'tiles', '', ?, ?, ?, ?, 7)", (name, *(box or sides)))
        db.execute("INSERT INTO gpkg_tile_matrix_set VALUES (?, 7, ?, ?, ?, ?)", (name, *sides))
        stored = z if whole else 0
        size = (right - left, bottom - top, 256, 256, side / 256, side / 256)
        db.execute("INSERT INTO gpkg_tile_matrix VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (name, stored, *size))
        db.execute(f'CREATE TABLE "{name}"(zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB)')
        rows = [(stored, x - left, y - top, data) for (_, x, y), data in tiles.items()]
        db.executemany(f'INSERT INTO "{name}" VALUES (?, ?, ?, ?)', rows)
    db.commit()
    db.close()
    return path


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("table", ["tiles", "my map"])
def test_a_geopackage_on_the_grid_is_read_tile_for_tile(tmp_path, whole, table):
    tiles = tiles_at()
    held = survey(write_geopackage(tmp_path / "a.gpkg", tiles, table=table, whole=whole))
    assert (held.kind, held.bbox) == ("geopackage", bbox_of(tiles))
    assert read_back(tmp_path, held.source, tiles) == tiles


def test_a_geopackage_in_another_system_is_refused(tmp_path):
    path = write_geopackage(tmp_path / "a.gpkg", tiles_at(), code=2056)
    with pytest.raises(TileError, match="2056") as caught:
        survey(path)
    assert "gdal_translate" in caught.value.next_step


def test_a_geopackage_whose_contents_lie_elsewhere_is_refused(tmp_path):
    path = write_geopackage(tmp_path / "a.gpkg", tiles_at(), box=(1e6, -6e6, 1.1e6, -5.9e6))
    with pytest.raises(TileError, match="do not lie where"):
        survey(path)


def test_of_several_tile_tables_one_is_to_be_named(tmp_path):
    tiles = tiles_at()
    path = write_geopackage(tmp_path / "a.gpkg", tiles, table="a", more=["b"])
    with pytest.raises(TileError, match="2 tile tables") as caught:
        survey(path)
    assert caught.value.key == "tiles.source.table"
    assert read_back(tmp_path, TileSource(path=path, table="b"), tiles) == tiles


@pytest.mark.parametrize("numbering", [None, "BigPlanet", "simple"])
@pytest.mark.parametrize("south", [False, True])
def test_sqlitedb_of_rmaps_osmand_and_locus(tmp_path, numbering, south):
    tiles = tiles_at(z=15, x=17_059, y=11_532)
    db = sqlite3.connect(tmp_path / "a.sqlitedb")
    db.execute("CREATE TABLE tiles(x int, y int, z int, s int, image blob, PRIMARY KEY (x, y, z, s))")
    columns = {"minzoom": 2, "maxzoom": 2, "inverted_y": int(south)} | (
        {"tilenumbering": numbering} if numbering else {}
    )
    if numbering == "simple":
        columns |= {"minzoom": 15, "maxzoom": 15}
    db.execute(f"CREATE TABLE info({', '.join(columns)})")
    db.execute(f"INSERT INTO info VALUES ({', '.join('?' * len(columns))})", list(columns.values()))
    for (z, x, y), data in tiles.items():
        row = (1 << z) - 1 - y if south else y
        db.execute("INSERT INTO tiles VALUES (?, ?, ?, 0, ?)", (x, row, z if numbering == "simple" else 17 - z, data))
    db.commit()
    db.close()
    held = survey(tmp_path / "a.sqlitedb")
    assert (held.kind, held.bbox) == ("sqlitedb", bbox_of(tiles))
    assert read_back(tmp_path, held.source, tiles) == tiles


def test_elliptical_mercator_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / "a.sqlitedb")
    db.executescript("CREATE TABLE tiles(x, y, z, s, image); CREATE TABLE info(ellipsoid); INSERT INTO info VALUES (1)")
    db.close()
    with pytest.raises(TileError, match="elliptical"):
        survey(tmp_path / "a.sqlitedb")


def wal_of(path, tiles):
    """Make an MBTiles file whose last tile is only in its log, as a stick has it that was pulled."""
    write_mbtiles(path, tiles)
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = wal")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    z, x, y = next(iter(tiles))
    more = (z, x, y - 1), image(99)
    db.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (z, x, (1 << z) - 1 - (y - 1), more[1]))
    db.commit()
    kept = {name: (path.parent / name).read_bytes() for name in (path.name, f"{path.name}-wal")}
    db.close()
    for name, data in kept.items():
        (path.parent / name).write_bytes(data)
    (path.parent / f"{path.name}-shm").unlink(missing_ok=True)
    return tiles | {more[0]: more[1]}


def test_a_log_without_its_shm_is_read_and_nothing_is_written_beside_it(tmp_path):
    (tmp_path / "stick").mkdir()
    path = tmp_path / "stick" / "a.mbtiles"
    tiles = wal_of(path, tiles_at())
    before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}
    assert sorted(before) == ["a.mbtiles", "a.mbtiles-wal"]
    assert read_back(tmp_path, TileSource(path=path), tiles) == tiles
    assert {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)} == before


def test_a_file_in_wal_mode_without_a_log_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "stick").mkdir()
    path = write_mbtiles(tmp_path / "stick" / "a.mbtiles", tiles_at())
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = wal")
    db.close()
    assert read_back(tmp_path, TileSource(path=path), tiles_at()) == tiles_at()
    assert os.listdir(path.parent) == ["a.mbtiles"]


def test_a_hot_journal_is_refused_with_the_way_out(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", tiles_at())
    (tmp_path / "a.mbtiles-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    with pytest.raises(TileError, match="hot journal") as caught:
        survey(path)
    assert "VACUUM INTO" in caught.value.next_step
    (tmp_path / "a.mbtiles-journal").write_bytes(bytes(512))  # one that was left behind after its transaction
    assert survey(path).per_zoom[17].present == 6


# rasters

rasterio = pytest.importorskip("rasterio", reason="rasters need the extra geotiff")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rasterio")


def write_raster(
    path, pixels, *, tile=(17, 68_240, 46_132), crs="EPSG:3857", colours=None, mask=None, palette=None, **profile
):
    """Write [bands, H, W] pixels whose upper left corner is that of `tile`, a pixel being one of its 256."""
    from rasterio.transform import from_origin

    pixel = 2 * HALF_WORLD_M / (256 << tile[0])
    west, north = tile[1] * 256 * pixel - HALF_WORLD_M, HALF_WORLD_M - tile[2] * 256 * pixel
    count, height, width = pixels.shape
    given = {
        "count": count,
        "height": height,
        "width": width,
        "dtype": pixels.dtype,
        "crs": crs,
        "driver": "GTiff",
    } | profile
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **given, transform=from_origin(west, north, pixel, pixel)) as file:
            if colours:
                file.colorinterp = [rasterio.enums.ColorInterp[name] for name in colours]
            if palette:
                file.write_colormap(1, palette)
            file.write(pixels)
            if mask is not None:
                file.write_mask(mask)
    return path


def noise(*shape, dtype="uint8", high=255):
    return np.random.default_rng(1).integers(1, high, shape).astype(dtype)


def first_tile(tmp_path, source):
    held = survey(source)
    asked = flight(tmp_path, held.source, bbox=held.bbox, zooms=(17,))
    scan(asked.selection, asked.build_dir)
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        return decode(reader.read(next(iter_tiles(asked.build_dir))), max_pixels=1 << 20)


RGB = noise(3, 256, 256)
OPAQUE = np.full((1, 256, 256), 255, np.uint8)
NAMES = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("pixels", "options", "expected"),
    [
        (np.concatenate([RGB, OPAQUE]), {"colours": [*NAMES, "alpha"]}, RGB),
        (np.concatenate([RGB[:1], OPAQUE]), {"colours": ["gray", "alpha"]}, RGB[[0, 0, 0]]),
        (RGB[::-1], {"colours": NAMES[::-1]}, RGB),
        (np.concatenate([noise(1, 256, 256), RGB]), {"colours": ["undefined", *NAMES]}, RGB),
        (RGB, {"nodata": 0}, RGB),
        (RGB, {"mask": OPAQUE[0]}, RGB),
        (RGB, {"compress": "deflate", "tiled": True}, RGB),
    ],
    ids=["rgba", "grey and alpha", "bgr", "infrared first", "nodata", "mask", "cog-like"],
)
def test_a_raster_on_the_grid_gives_its_own_colours(tmp_path, pixels, options, expected):
    path = write_raster(tmp_path / "a.tif", pixels, **options)
    assert (first_tile(tmp_path, path) == expected.transpose(1, 2, 0)).all()


def test_a_palette_is_looked_up_not_interpolated(tmp_path):
    indices = noise(1, 256, 256, high=4)
    palette = {0: (0, 0, 0, 255), 1: (200, 10, 20, 255), 2: (5, 250, 7, 255), 3: (9, 8, 255, 255)}
    path = write_raster(tmp_path / "a.tif", indices, palette=palette)
    table = np.array([palette[n][:3] for n in range(4)], np.uint8)
    assert (first_tile(tmp_path, path) == table[indices[0]]).all()


def test_sixteen_bits_are_scaled_by_values_that_are_written_down(tmp_path):
    pixels = noise(1, 256, 256, dtype="uint16", high=2047)
    path = write_raster(tmp_path / "a.tif", pixels)
    with pytest.raises(TileError, match="black and white") as caught:
        scanned(flight(tmp_path, path, bbox=bbox_of([BERN]), zooms=(17,)))
    assert caught.value.key == "tiles.source.values"
    low, high = survey(path).source.values
    assert (low, high) == tuple(np.percentile(pixels, (2, 98)).astype(int))
    expected = ((pixels[0].astype(int) - low) * 255 // (high - low)).clip(0, 255)
    assert (first_tile(tmp_path, path)[..., 0] == expected).all()


def test_a_mask_leaves_no_imagery(tmp_path):
    mask = OPAQUE[0].copy()
    mask[:200] = 0
    path = write_raster(tmp_path / "a.tif", RGB, mask=mask)
    with pytest.raises(Exception, match="no imagery"):
        survey(path)


def test_sheets_are_one_mosaic(tmp_path):
    whole = noise(3, 512, 512)
    (tmp_path / "sheets").mkdir()
    cuts = [(0, 300), (300, 512)]
    pixel = 2 * HALF_WORLD_M / (256 << 17)
    from rasterio.transform import from_origin

    west, north = 68_240 * 256 * pixel - HALF_WORLD_M, HALF_WORLD_M - 46_132 * 256 * pixel
    for a, (top, bottom) in enumerate(cuts):
        for b, (left, right) in enumerate(cuts):
            part = whole[:, top:bottom, left:right]
            at = from_origin(west + left * pixel, north - top * pixel, pixel, pixel)
            with rasterio.open(tmp_path / "sheets" / f"{a}{b}.tif", "w", driver="GTiff", count=3, dtype="uint8",
                               height=part.shape[1], width=part.shape[2], crs="EPSG:3857", transform=at) as file:  # fmt: skip
                file.write(part)
    held = survey(tmp_path / "sheets")
    assert (held.kind, held.per_zoom[17][:2]) == ("geotiff", (4, 4))
    each = [TileSource(path=path, name=path.name) for path in sorted((tmp_path / "sheets").iterdir())]
    for n, sources in enumerate(([held.source], each)):
        asked = flight(tmp_path / str(n), *sources, bbox=held.bbox, zooms=(17,))
        corpus = scan(asked.selection, asked.build_dir)
        assert (corpus.count, corpus.per_zoom[17].present) == (4, 4)
        with open_reader(asked.tiles.source, asked.build_dir) as reader:
            for tile in iter_tiles(asked.build_dir):
                x, y = (tile.x - 68_240) * 256, (tile.y - 46_132) * 256
                expected = whole[:, y : y + 256, x : x + 256].transpose(1, 2, 0)
                assert (decode(reader.read(tile), max_pixels=1 << 20) == expected).all(), tile


def test_a_vrt_of_local_sheets_is_read_and_one_that_reaches_out_is_not(tmp_path):
    import rasterio.shutil

    path = write_raster(tmp_path / "a.tif", RGB)
    with rasterio.open(path) as file:
        rasterio.shutil.copy(file, tmp_path / "a.vrt", driver="VRT")
    assert (first_tile(tmp_path, tmp_path / "a.vrt") == RGB.transpose(1, 2, 0)).all()
    text = (tmp_path / "a.vrt").read_text()
    (tmp_path / "b.vrt").write_text(text.replace(">a.tif<", ">/vsicurl/http://127.0.0.1/a.tif<"))
    with pytest.raises(TileError, match="vsicurl"):
        survey(tmp_path / "b.vrt")


def test_jpeg_2000_is_read(tmp_path):
    path = write_raster(tmp_path / "a.jp2", RGB, driver="JP2OpenJPEG", quality="100", reversible="YES")
    assert (first_tile(tmp_path, path) == RGB.transpose(1, 2, 0)).all()


def test_no_sidecar_is_read_or_written(tmp_path):
    path = write_raster(tmp_path / "a.tif", RGB)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    before = sorted(os.listdir(tmp_path))
    assert survey(path).bbox == bbox_of([BERN])
    assert sorted(os.listdir(tmp_path)) == before


def test_a_raster_over_the_antimeridian_keeps_its_width(tmp_path):
    from rasterio.transform import from_origin

    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=3, dtype="uint8", height=300, width=300,
                       crs="EPSG:32701", transform=from_origin(160_000, 8_200_000, 10, 10)) as file:  # fmt: skip
        file.write(noise(3, 300, 300))
    held = survey(tmp_path / "a.tif")
    east_of_it = (held.bbox.east - held.bbox.west) % 3_600_000_000 / 1e7
    assert east_of_it < 0.2
    assert held.per_zoom[max(held.per_zoom)].present > 0


@given(st.integers(0, 22), st.floats(0, 0.99), st.floats(0.02, 0.95))
@examples(0.1, nightly=0.2)
def test_boxes_of_sheets_hold_their_tiles(tmp_path_factory, z, across, down):
    z = max(z, 8)
    x, y = int(across * (1 << z)), int(down * (1 << z))
    path = write_raster(tmp_path_factory.mktemp("r") / "a.tif", RGB, tile=(z, x, y))
    held = survey(path)
    expected = tile_bounds_e7(z, x, y)
    assert set(held.per_zoom) == {z}
    assert all(abs(a - b) <= 2 for a, b in zip(held.bbox, expected, strict=True))


def test_bytes_that_look_like_a_tiff_are_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + bytes(100))
    with pytest.raises(TileError, match="GeoTIFF cannot be used"):
        survey(tmp_path / "a.tif")
