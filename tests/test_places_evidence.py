"""Tiles lie where their own evidence says, in whatever form they come; or they are refused. Never silently elsewhere."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import mercantile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.area.place import describe_place, place_facts
from provisioning.base.errors import TileError
from provisioning.base.geometry.angles import BBox
from provisioning.catalogue import scan
from provisioning.catalogue.surveying import survey
from provisioning.config import TileSource
from provisioning.sources.placement.evidence import READERS
from tests.properties import examples
from tests.tilesets import bbox_of, block, flight, image, scanned, write_mbtiles, write_xyz

BERN = (15, 17_059, 11_532)
"""46.95 N 7.42 E"""


def tiles_at(z, x, y, width=3, height=2):
    return {(z, x + i, y + j): image(10 * i + j) for i in range(width) for j in range(height)}


def bounds(tiles):
    boxes = [mercantile.bounds(x, y, z) for z, x, y in tiles]
    return (
        min(b.west for b in boxes),
        min(b.south for b in boxes),
        max(b.east for b in boxes),
        max(b.north for b in boxes),
    )


def close(found, expected):
    return all(abs(side / 1e7 - wanted) < 1e-5 for side, wanted in zip(found, expected, strict=True))


def tilemapresource(box, profile="mercator", srs="EPSG:3857", zoom=15):
    west, south, east, north = box
    return (
        f'<?xml version="1.0"?><TileMap version="1.0.0"><SRS>{srs}</SRS><BoundingBox minx="{west}" miny="{south}"'
        f' maxx="{east}" maxy="{north}"/><Origin x="{west}" y="{south}"/><TileSets profile="{profile}">'
        f'<TileSet href="{zoom}" units-per-pixel="4.777" order="{zoom}"/></TileSets></TileMap>'
    )


WRITERS = ("tilemapresource.xml", "metadata.json", "doc.kml", "leaflet.html", "mbtiles", "conf.cdi", "nothing")


def written(root, tiles, writer, *, tms):
    """Write a store whose evidence, in the form of `writer`, says where `tiles` are."""
    west, south, east, north = box = bounds(tiles)
    if writer == "mbtiles":
        stored = {(z, x, (1 << z) - 1 - y) if not tms else (z, x, y): data for (z, x, y), data in tiles.items()}
        return write_mbtiles(root / "a.mbtiles", stored, metadata=[("bounds", ",".join(map(str, box)))])
    store = write_xyz(root / "sat", tiles, tms=tms)
    texts = {
        "tilemapresource.xml": tilemapresource(box, zoom=next(iter(tiles))[0]),
        "metadata.json": json.dumps({"bounds": list(box)}),
        "leaflet.html": f"<script>map.fitBounds([[{south}, {east}], [{north}, {west}]]);</script>",
        "doc.kml": f"<kml><Region><LatLonAltBox><north>{north}</north><south>{south}</south><east>{east}</east>"
        f"<west>{west}</west></LatLonAltBox></Region></kml>",
        "conf.cdi": "<EnvelopeN><XMin>{}</XMin><YMin>{}</YMin><XMax>{}</XMax><YMax>{}</YMax></EnvelopeN>".format(
            *mercantile.xy(west, south), *mercantile.xy(east, north)
        ),
    }
    if writer in texts:
        (store / writer).write_text(texts[writer])
    return store


@given(
    st.integers(5, 20), st.floats(0, 0.99), st.floats(0.02, 0.97), st.integers(1, 4), st.integers(1, 4),
    st.sampled_from(WRITERS[:-1]), st.booleans(),
)  # fmt: skip
@examples(0.2, nightly=0.5)
def test_random_places_come_back_or_are_refused(tmp_path_factory, z, across, down, width, height, writer, tms):
    x, y = int(across * ((1 << z) - width)), int(down * ((1 << z) - height))
    tiles = tiles_at(z, x, y, width, height)
    store = written(tmp_path_factory.mktemp("store"), tiles, writer, tms=tms)
    try:
        held = survey(store)
    except TileError:
        rows, last = {at[2] for at in tiles}, (1 << z) - 1
        assert rows & {last - row for row in rows}, "only near the equator may both readings fit"
        return
    assert close(held.bbox, bounds(tiles)), (held.source, held.notes)
    asked = flight(store.parent, held.source, bbox=held.bbox, zooms=(z,))
    assert scan(asked.selection, asked.build_dir).count == len(tiles)


@pytest.mark.parametrize("writer", WRITERS[:-1])
@pytest.mark.parametrize("tms", [False, True])
def test_each_form_of_evidence_gives_the_place(tmp_path, writer, tms):
    tiles = tiles_at(*BERN)
    held = survey(written(tmp_path, tiles, writer, tms=tms))
    assert close(held.bbox, bounds(tiles))
    assert describe_place(held.bbox).startswith("46.9 N 7.4 E")


def test_without_evidence_both_places_are_said(tmp_path):
    held = survey(written(tmp_path, tiles_at(*BERN), "nothing", tms=True))
    assert not held.has_evidence
    assert (describe_place(held.bbox)[:6], held.mirrored[:6]) == ("46.9 S", "46.9 N")


@pytest.mark.parametrize("writer", WRITERS[:-1])
def test_a_build_stops_where_the_configured_rows_contradict_the_evidence(tmp_path, writer):
    tiles = tiles_at(*BERN)
    store = written(tmp_path, tiles, writer, tms=writer != "mbtiles")
    for source in (TileSource(path=store), TileSource(path=store, scheme="tms" if writer == "mbtiles" else "xyz")):
        with pytest.raises(TileError, match="do not lie where") as caught:
            scanned(flight(tmp_path, source, bbox=bbox_of(tiles)))
        assert caught.value.key == "tiles.source.scheme"
        assert {text[:10] for text in caught.value.facts.values()} >= {"46.9 S 7.4", "46.9 N 7.4"}
    right = TileSource(path=store, scheme="xyz" if writer == "mbtiles" else "tms")
    assert scanned(flight(tmp_path, right, bbox=bbox_of(tiles))).count == len(tiles)


def test_evidence_can_be_overruled_by_the_user(tmp_path):
    tiles = tiles_at(*BERN)
    store = written(tmp_path, tiles, "metadata.json", tms=False)
    (store / "metadata.json").write_text('{"bounds": [100, 10, 101, 11]}')
    with pytest.raises(TileError, match="do not lie where"):
        survey(store)
    assert close(survey(TileSource(path=store, evidence="ignore")).bbox, bounds(tiles))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tilemapresource.xml", tilemapresource((7.4, 46.9, 7.5, 47), "geodetic", "EPSG:4326")),
        ("tilemapresource.xml", tilemapresource((0, 0, 400, 300), "raster", "")),
        ("metadata.json", '{"profile": "geodetic"}'),
        ("conf.xml", "<CacheInfo><TileCacheInfo><SpatialReference><WKID>2056</WKID></SpatialReference></TileCacheInfo></CacheInfo>"),
        ("conf.xml", "<C><WKID>102100</WKID><TileOrigin><X>-400</X><Y>400</Y></TileOrigin></C>"),
        ("conf.xml", "<C><WKID>3857</WKID><TileCols>256</TileCols><LODInfo><LevelID>0</LevelID><Resolution>1.19</Resolution></LODInfo></C>"),
        ("WMTSCapabilities.xml", "<C><SupportedCRS>urn:ogc:def:crs:EPSG::4326</SupportedCRS></C>"),
    ],
)  # fmt: skip
def test_other_grids_are_refused_by_name(tmp_path, name, text):
    store = write_xyz(tmp_path / "sat", tiles_at(*BERN))
    (store / name).write_text(text)
    with pytest.raises(TileError, match=name.replace(".", r"\.")) as caught:
        survey(store)
    assert caught.value.next_step


@pytest.mark.parametrize("text", ["<TileMap", '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>', "\0"])
def test_damaged_or_hostile_evidence_stops_with_a_way_out(tmp_path, text):
    store = write_xyz(tmp_path / "sat", tiles_at(*BERN))
    (store / "tilemapresource.xml").write_text(text)
    with pytest.raises(TileError, match="cannot be read") as caught:
        survey(store)
    assert 'evidence = "ignore"' in caught.value.next_step


def test_columns_and_rows_exchanged_are_recognised_by_the_box(tmp_path):
    tiles = tiles_at(*BERN)
    store = write_xyz(tmp_path / "sat", tiles, pattern="{z}/{y}/{x}")
    (store / "metadata.json").write_text(json.dumps({"bounds": bounds(tiles)}))
    held = survey(store)
    assert close(held.bbox, bounds(tiles))
    assert held.source.pattern == "{z}/{y}/{x}"


def test_stated_rows_without_a_place_are_asked_for(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", tiles_at(*BERN), metadata=[("scheme", "xyz")])
    with pytest.raises(TileError, match="nothing says where") as caught:
        survey(path)
    assert len(caught.value.facts) == 2


def test_zooms_that_contradict_the_metadata_are_refused(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", tiles_at(*BERN), metadata=[("minzoom", "17"), ("maxzoom", "18")])
    with pytest.raises(TileError, match="zoom 17 to 18"):
        survey(path)


def test_a_center_is_evidence(tmp_path):
    tiles = tiles_at(*BERN)
    west, south, east, north = bounds(tiles)
    centre = f"{(west + east) / 2},{(south + north) / 2},15"
    stored = {(z, x, (1 << z) - 1 - y): data for (z, x, y), data in tiles.items()}
    held = survey(write_mbtiles(tmp_path / "a.mbtiles", stored, metadata=[("center", centre)]))
    assert (held.source.scheme, describe_place(held.bbox)[:6]) == ("xyz", "46.9 N")


def test_pmtiles_whose_header_is_elsewhere_is_refused(tmp_path):
    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    with open(tmp_path / "a.pmtiles", "wb") as stream:
        writer = Writer(stream)
        for tileid, data in sorted((zxy_to_tileid(*at), data) for at, data in tiles_at(*BERN).items()):
            writer.write_tile(tileid, data)
        sides = dict(
            zip(
                ("min_lon_e7", "min_lat_e7", "max_lon_e7", "max_lat_e7"),
                (70_000_000, -480_000_000, 80_000_000, -460_000_000),
                strict=True,
            )
        )
        writer.finalize({"tile_type": TileType.PNG, "tile_compression": Compression.NONE, "min_zoom": 15, "max_zoom": 15,
                         "center_zoom": 15, "center_lon_e7": 0, "center_lat_e7": 0, **sides}, {})  # fmt: skip
    with pytest.raises(TileError, match="do not lie where"):
        survey(tmp_path / "a.pmtiles")


GDAL2TILES = Path("/usr/bin/gdal2tiles.py")


@pytest.mark.slow
@pytest.mark.skipif(not GDAL2TILES.exists(), reason="gdal2tiles (Debian package gdal-bin) is not installed")
@pytest.mark.parametrize("options", [[], ["--xyz"], ["-k"], ["-p", "geodetic"]])
def test_what_gdal2tiles_writes_is_placed_or_refused(tmp_path, options):
    rasterio = pytest.importorskip("rasterio")
    import numpy as np
    from rasterio.transform import from_origin

    pixels = np.random.default_rng(0).integers(1, 255, (3, 300, 400), np.uint8)
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=400, height=300, count=3, dtype="uint8",
                       crs="EPSG:4326", transform=from_origin(7.42, 46.95, 2e-5, 2e-5)) as file:  # fmt: skip
        file.write(pixels)
    subprocess.run(["/usr/bin/python3", GDAL2TILES, "-q", "-z", "15-17", *options, tmp_path / "a.tif", tmp_path / "t"],
                   check=True)  # fmt: skip
    if options[:1] == ["-p"]:
        with pytest.raises(TileError, match="geodetic"):
            survey(tmp_path / "t")
        return
    assert describe_place(survey(tmp_path / "t").bbox).startswith("46.9 N 7.4 E")


def test_a_place_in_words_and_numbers():
    box = BBox(123_000_000, 540_900_000, 125_140_000, 541_710_000)
    assert describe_place(box) == "54.1 N 12.4 E, 14 × 9 km"
    facts = place_facts(box)
    assert facts["centre"].startswith("54.13050, 12.40700")
    assert "northern and eastern hemisphere" in facts["size"]
    over = BBox(1_799_000_000, -10_000_000, -1_799_000_000, 10_000_000)
    assert describe_place(over).startswith("0.0 N 180.0 W, 22 × 221 km")
    assert "antimeridian" in place_facts(over)["size"]
    assert "equator" in place_facts(over)["size"]


def test_rows_that_are_no_tiles_are_not_passed_over_in_silence(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles", {})
    with sqlite3.connect(path) as db:
        db.executemany("INSERT INTO tiles VALUES (2, ?, ?, ?)", [(17_000 + n, 11_000, image(n)) for n in range(4)])
    with pytest.raises(TileError, match="4 of its 4 rows are no tiles"):
        survey(path)


def test_init_writes_the_rows_that_the_evidence_asks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    store = written(tmp_path, block(3, 3), "tilemapresource.xml", tms=True)
    text = (store / "tilemapresource.xml").read_text().replace('minx="0"', 'minx="0.0"')
    (store / "tilemapresource.xml").write_text(text)
    done = subprocess.run([sys.executable, "-m", "provisioning.cli", "init", tmp_path / "cache", "--tiles", store],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "rows from the south" in done.stdout
    assert 'scheme = "tms"' in (tmp_path / "cache" / "flight.toml").read_text().splitlines()


CORNER = "<TileOrigin><X>-20037508.342787</X><Y>{}</Y></TileOrigin>"
LEVEL = "<TileCols>256</TileCols><LODInfo><LevelID>15</LevelID><Resolution>4.777314267823516</Resolution></LODInfo>"


def test_an_arcgis_cache_on_the_grid_is_taken_and_one_from_another_row_is_not(tmp_path):
    tiles = tiles_at(*BERN)
    store = write_xyz(tmp_path / "sat", tiles)
    code = "<C><WKID>2056</WKID><LatestWKID>3857</LatestWKID>"
    (store / "conf.xml").write_text(code + CORNER.format("20037508.342787") + LEVEL + "</C>")
    assert close(survey(store).bbox, bounds(tiles))
    (store / "conf.xml").write_text(code + CORNER.format("30037508.342787") + LEVEL + "</C>")
    with pytest.raises(TileError, match="another corner"):
        survey(store)


def test_a_compact_arcgis_cache_is_to_be_exported_anew(tmp_path):
    store = write_xyz(tmp_path / "sat", tiles_at(*BERN))
    (store / "conf.xml").write_text("<C><StorageFormat>esriMapCacheStorageModeCompactV2</StorageFormat></C>")
    with pytest.raises(TileError, match="compact cache") as caught:
        survey(store)
    assert "exploded cache" in caught.value.next_step


def test_capabilities_with_one_web_mercator_among_others_give_the_place(tmp_path):
    tiles = tiles_at(*BERN)
    store = write_xyz(tmp_path / "sat", tiles)
    west, south, east, north = bounds(tiles)
    box = "<WGS84BoundingBox><LowerCorner>{} {}</LowerCorner><UpperCorner>{} {}</UpperCorner></WGS84BoundingBox>"
    systems = "".join(f"<SupportedCRS>urn:ogc:def:crs:EPSG::{code}</SupportedCRS>" for code in (4326, 3857))
    (store / "WMTSCapabilities.xml").write_text(f"<C>{box.format(west, south, east, north)}{systems}</C>")
    held = survey(store)
    assert held.has_evidence
    assert close(held.bbox, (west, south, east, north))
    (store / "WMTSCapabilities.xml").write_text(f"<C>{box.format(100, 10, 101, 11)}{systems}</C>")
    with pytest.raises(TileError, match="do not lie where"):
        survey(store)


def test_a_leaflet_page_states_its_rows():
    def read(page):
        return READERS["leaflet.html"]("leaflet.html", page)

    assert [read(b"\xff {tms: %b}" % word).scheme for word in (b"true", b"1", b"false", b"0")] == [
        "tms",
        "tms",
        "xyz",
        "xyz",
    ]
    assert read(b"<html>") is None
    assert read(b"map.setView([46.95, 7.42], 12)").centre == (7.42, 46.95)
