"""Never silently elsewhere: random placements through many writers come back at their place, or are refused.

Writers are GDAL's own drivers, the pmtiles package, and the directory and table forms of mb-util, rio-mbtiles,
TileMill, MapProxy, TileCache, SAS.Planet, ArcGIS, Bing and OsmAnd. mercantile computes their places.
"""

import io
import json
import sqlite3
import warnings

import mercantile
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from provisioning.base.errors import Error
from provisioning.catalogue import iter_tiles, open_reader, scan
from provisioning.catalogue.surveying import survey
from provisioning.config import TileSource
from tests.locales import case_of_ascii
from tests.properties import examples
from tests.test_places_sources import PATHS, write_paths
from tests.tilesets import flight, write_mbtiles, write_xyz


def picture(z, x, y, side=256):
    """Return pixels whose colours tell the tile that they are of."""
    pixels = np.random.default_rng([z, x, y]).integers(0, 60, (side, side, 3), np.uint8)
    return pixels + np.array([x * 37 % 190, y * 53 % 190, (x + y) * 17 % 190], np.uint8)


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def box_of(tiles):
    boxes = [mercantile.bounds(x, y, z) for z, x, y in tiles]
    return [min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)]


def raster(root, tiles):
    """Write the tiles as one raster on their own pixel grid."""
    import rasterio
    from rasterio.transform import from_bounds

    z = next(iter(tiles))[0]
    xs, ys = sorted({x for _, x, _ in tiles}), sorted({y for *_, y in tiles})
    whole = np.vstack([np.hstack([picture(z, x, y) for x in xs]) for y in ys])
    west, south, east, north = box_of(tiles)
    (left, bottom), (right, top) = mercantile.xy(west, south), mercantile.xy(east, north)
    height, width = whole.shape[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(root / "whole.tif", "w", driver="GTiff", count=3, dtype="uint8", height=height, width=width,
                           crs="EPSG:3857", transform=from_bounds(left, bottom, right, top, width, height)) as file:  # fmt: skip
            file.write(whole.transpose(2, 0, 1))
    return root / "whole.tif"


def by_gdal(driver, name, **options):
    def write(root, tiles):
        pytest.importorskip("rasterio", reason="GDAL's drivers come with the extra geotiff")
        from rasterio.shutil import copy

        with case_of_ascii():
            copy(raster(root, tiles), root / name, driver=driver, **options)
        return root / name

    return write


def by_pmtiles(root, tiles):
    west, south, east, north = (round(side * 1e7) for side in box_of(tiles))
    z = next(iter(tiles))[0]
    with open(root / "a.pmtiles", "wb") as stream:
        writer = Writer(stream)
        for number, data in sorted((zxy_to_tileid(*at), data) for at, data in tiles.items()):
            writer.write_tile(number, data)
        header = {"tile_type": TileType.PNG, "tile_compression": Compression.NONE, "min_zoom": z, "max_zoom": z,
                  "min_lon_e7": west, "min_lat_e7": south, "max_lon_e7": east, "max_lat_e7": north,
                  "center_zoom": z, "center_lon_e7": west, "center_lat_e7": south}  # fmt: skip
        writer.finalize(header, {})
    return root / "a.pmtiles"


def as_mbtiles(*, north, said):
    """Return a writer of MBTiles whose rows count from the north or south; `said` is what its metadata name."""

    def write(root, tiles):
        z = next(iter(tiles))[0]
        box = ",".join(f"{side:.7f}" for side in box_of(tiles))
        facts = {"bounds": box, "scheme": "xyz" if north else "tms", "minzoom": str(z), "format": "png"}
        stored = {(z, x, (1 << z) - 1 - y if north else y): data for (z, x, y), data in tiles.items()}
        return write_mbtiles(root / "a.mbtiles", stored, metadata=[(k, facts[k]) for k in said])

    return write


def by_tilemill(root, tiles):
    """Write MBTiles as TileMill and mbutil --dedupe do: a view over a map and its images."""
    db = sqlite3.connect(root / "a.mbtiles")
    db.execute("CREATE TABLE map(zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_id TEXT)")
    db.execute("CREATE TABLE images(tile_id TEXT, tile_data BLOB)")
    db.execute("CREATE TABLE metadata(name TEXT, value TEXT)")
    db.execute(
        "CREATE VIEW tiles AS SELECT zoom_level, tile_column, tile_row, tile_data FROM map"
        " JOIN images ON images.tile_id = map.tile_id"
    )
    db.execute("INSERT INTO metadata VALUES ('bounds', ?)", (",".join(map(str, box_of(tiles))),))
    for (z, x, y), data in tiles.items():
        db.execute("INSERT INTO map VALUES (?, ?, ?, ?)", (z, x, (1 << z) - 1 - y, f"{x}-{y}"))
        db.execute("INSERT INTO images VALUES (?, ?)", (f"{x}-{y}", data))
    db.commit()
    db.close()
    return root / "a.mbtiles"


def as_directory(*, tms, evidence):
    def write(root, tiles):
        store = write_xyz(root / "sat", tiles, tms=tms)
        if evidence:
            (store / "metadata.json").write_text(json.dumps({"bounds": ",".join(map(str, box_of(tiles)))}))
        return store

    return write


def in_layout(name):
    def write(root, tiles):
        store = write_paths(root / "sat", tiles, PATHS[name])
        return TileSource(path=store, scheme="xyz" if "MapProxy" in name or name == "quadkey" else "auto")

    return write


WRITERS = {
    "MBTiles by GDAL": by_gdal("MBTiles", "a.mbtiles", TILE_FORMAT="PNG"),
    "GeoPackage by GDAL": by_gdal("GPKG", "a.gpkg", TILING_SCHEME="GoogleMapsCompatible", TILE_FORMAT="PNG"),
    "GeoPackage by GDAL, its own grid": by_gdal("GPKG", "a.gpkg", TILE_FORMAT="PNG"),
    "GeoTIFF by GDAL": raster,
    "COG by GDAL": by_gdal("COG", "c.tif", compress="deflate"),
    "PMTiles by pmtiles": by_pmtiles,
    "MBTiles by mb-util": as_mbtiles(north=False, said=("format",)),
    "MBTiles by rio-mbtiles": as_mbtiles(north=False, said=("bounds", "minzoom", "format")),
    "MBTiles, rows from the north, scheme named": as_mbtiles(north=True, said=("bounds", "scheme")),
    "MBTiles, rows from the north, bounds alone": as_mbtiles(north=True, said=("bounds",)),
    "MBTiles by TileMill": by_tilemill,
    "directory, evidence": as_directory(tms=False, evidence=True),
    "directory, rows from the south, evidence": as_directory(tms=True, evidence=True),
    **{f"directory of {name}": in_layout(name) for name in PATHS},
}
REFUSABLE = {"GeoPackage by GDAL, its own grid"}
"""Where a place does not lie on the grid of all zoom levels."""
SLOW = {name for name in WRITERS if "GDAL" in name}
PLACES = st.tuples(st.integers(6, 19), st.floats(0, 0.99), st.floats(0.02, 0.97), st.integers(1, 3), st.integers(1, 3))


def comes_back(root, name, place):
    """Write tiles at a place; what is read must lie there and show it. Return False if the source is refused."""
    z, across, down, width, height = place
    x, y = int(across * ((1 << z) - width)), int(down * ((1 << z) - height))
    at = [(z, x + i, y + j) for i in range(width) for j in range(height)]
    side = 256 if name in SLOW else 32
    tiles = {tile: png(picture(*tile, side)) for tile in at}
    try:
        held = survey(WRITERS[name](root, tiles))
    except Error:
        return False
    expected = box_of(tiles)
    assert max(held.per_zoom) == z
    assert all(abs(side / 1e7 - wanted) < 2e-6 for side, wanted in zip(held.bbox, expected, strict=True)), held
    asked = flight(root, held.source, bbox=held.bbox, zooms=(z,))
    assert scan(asked.selection, asked.build_dir).count == len(tiles)
    if any("holds for both row orders" in note for note in held.notes):
        return False
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        for tile in iter_tiles(asked.build_dir):
            pixels = np.asarray(Image.open(io.BytesIO(reader.read(tile))).convert("RGB")).astype(int)
            assert np.abs(pixels - picture(tile.z, tile.x, tile.y, side)).mean() < 2
    return True


def may_be_refused(name, place):
    """Tell whether both readings of the rows may fit: only so near to the equator that they overlap."""
    z, _, down, _, height = place
    y = int(down * ((1 << z) - height))
    return "evidence" in name or "bounds" in name or "rio" in name or y - 3 <= (1 << z) - 1 - y <= y + 3


@given(place=PLACES, name=st.sampled_from(sorted(WRITERS.keys() - SLOW)))
@example(place=(14, 0.52, 0.36, 2, 2), name="MBTiles, rows from the north, bounds alone")
@example(place=(10, 0.0, 0.97, 3, 1), name="PMTiles by pmtiles")
@example(place=(6, 0.0, 0.5, 1, 2), name="MBTiles, rows from the north, bounds alone")
@examples(0.2)
def test_random_placements_come_back_or_are_refused(tmp_path_factory, place, name):
    assert comes_back(tmp_path_factory.mktemp("w"), name, place) or may_be_refused(name, place)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("place", [(15, 0.52, 0.36, 2, 2), pytest.param((11, 0.9, 0.7, 3, 1), marks=pytest.mark.slow)])
def test_each_writer_s_tiles_come_back_at_their_place(tmp_path, name, place):
    assert comes_back(tmp_path, name, place) or name in REFUSABLE


@given(place=PLACES, name=st.sampled_from(sorted(SLOW)))
@examples(0.1)
@pytest.mark.slow
def test_random_placements_by_gdal_come_back(tmp_path_factory, place, name):
    assert comes_back(tmp_path_factory.mktemp("w"), name, place) or name in REFUSABLE
