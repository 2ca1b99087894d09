"""Photos are found where they were taken, by what their pixels and their metadata say."""

from __future__ import annotations

import io
import json
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from provisioning.base.errors import EngineError, PhotoError, VerificationError
from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import tile_bounds_e7, tile_centre
from provisioning.cli import main
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from provisioning.quality.locate import (
    Locator,
    Row,
    contact_sheet,
    distance_m,
    evenly_turned,
    read_photo,
    to_geojson,
    turned_north_up,
)
from provisioning.quality.locate.photo import gps_heading_deg, gps_position
from provisioning.quality.locate.places import moved
from provisioning.quality.query.metadata import xmp_angles
from tests import building
from tests.building import NORTH, WEST, ZOOM
from tests.delivery import trust_anything_by


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A real cache over 16 synthetic tiles, and where its tiles and its public key are."""
    root = tmp_path_factory.mktemp("locate")
    cache = building.new_cache(root, network=building.GIST)
    assert building.build(cache).outcome == "SUCCESS"
    return cache, root / "tiles", root / "key.pub.pem"


@pytest.fixture(autouse=True)
def trusted(scene, monkeypatch):
    """The user trusts the key of the scene: a cache cannot say whom to trust."""
    monkeypatch.setenv("FLIGHTCACHE_PUBLIC_KEY", str(scene[0].parent / "key.pub.pem"))


@pytest.fixture(scope="module")
def locator(scene):
    cache, _, key = scene
    with verify(cache, trust_anything_by(load_public_key(key))) as verdict:
        return Locator.from_verdict(verdict)


def tile(tiles: Path, column: int, row: int) -> Path:
    return tiles / str(ZOOM) / str(WEST + column) / f"{NORTH + row}.jpg"


def pixels(path: Path) -> np.ndarray:
    return read_photo(path).pixels


def test_every_tile_finds_itself_first(scene, locator):
    for column in range(4):
        for row in range(4):
            best = locator.locate(pixels(tile(scene[1], column, row)))[0]
            assert (best.z, best.x, best.y, best.source) == (ZOOM, WEST + column, NORTH + row, "tiles")
            assert best.similarity == pytest.approx(1, abs=1e-5)


def test_matches_come_best_first_and_each_tile_once(scene, locator):
    matches = locator.locate(pixels(tile(scene[1], 1, 1)), k=10, headings=evenly_turned(4))
    assert len({(match.x, match.y) for match in matches}) == 10
    assert [match.similarity for match in matches] == sorted((match.similarity for match in matches), reverse=True)


def test_no_more_matches_than_tiles(scene, locator):
    assert len(locator.locate(pixels(tile(scene[1], 0, 0)), k=500)) == 16


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_turned_photo_is_found_with_its_heading(scene, locator, quarter):
    seen = np.ascontiguousarray(np.rot90(pixels(tile(scene[1], 2, 1)), quarter))
    best = locator.locate(seen, headings=evenly_turned(4))[0]
    assert (best.x, best.y, best.heading_deg) == (WEST + 2, NORTH + 1, 90 * quarter)
    assert locator.locate(seen, headings=(90.0 * quarter,))[0].similarity == pytest.approx(1, abs=1e-5)
    assert locator.locate(seen)[0].similarity < 0.9


def test_the_centre_of_the_match_is_that_of_its_tile_and_the_distance_is_measured_from_it(scene, locator):
    position = Origin(*tile_centre(ZOOM, WEST + 3, NORTH)[:2])
    best = locator.locate(pixels(tile(scene[1], 0, 0)), position=position)[0]
    assert best.centre == tile_centre(ZOOM, WEST, NORTH)
    side = distance_m(tile_centre(ZOOM, WEST, NORTH), tile_centre(ZOOM, WEST + 1, NORTH))
    assert best.distance_m == pytest.approx(3 * side, rel=1e-3)


def test_a_photo_that_is_not_square_is_looked_up_by_its_centre(scene, locator):
    square = pixels(tile(scene[1], 1, 2))
    wide = np.concatenate([np.zeros_like(square), square, np.zeros_like(square)], axis=1)
    assert locator.locate(wide)[0].similarity == pytest.approx(1, abs=1e-5)


def test_nothing_is_loaded_from_a_cache_that_is_refused(scene):
    cache, _, key = scene
    expect = trust_anything_by(load_public_key(key))._replace(flight_id="another")
    with verify(cache, expect) as verdict, pytest.raises(VerificationError):
        Locator.from_verdict(verdict)


def test_an_index_of_another_engine_is_refused(locator):
    class Wrong:
        dimension = 3

    with pytest.raises(EngineError, match="do not fit"):
        Locator(Wrong(), locator.index, sources=("tiles",), rotations=1)


def test_a_clone_answers_alike(scene, locator):
    photo = pixels(tile(scene[1], 3, 3))
    assert locator.clone().locate(photo) == locator.locate(photo)


def test_headings_in_the_index_find_turned_photos_without_turning_them(tmp_path):
    cache = building.new_cache(tmp_path, side=3)
    building.edit(cache, "# rotations = 1", "rotations = 4")
    assert building.build(cache).outcome == "SUCCESS"
    with verify(cache, trust_anything_by(load_public_key(tmp_path / "key.pub.pem"))) as verdict:
        four = Locator.from_verdict(verdict)
    seen = np.ascontiguousarray(np.rot90(pixels(tile(tmp_path / "tiles", 1, 1)), 1))
    matches = four.locate(seen, k=5)
    assert (matches[0].x, matches[0].y, matches[0].heading_deg) == (WEST + 1, NORTH + 1, 90)
    assert matches[0].similarity == pytest.approx(1, abs=1e-5)
    assert len({(match.x, match.y) for match in matches}) == 5


# What metadata say


def jpeg(path: Path, *, gps: dict | None = None, xmp: bytes = b"", orientation: int | None = None) -> Path:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    exif[0x8825] = gps or {}
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20] = 200
    Image.fromarray(picture).save(path, "JPEG", quality=95, exif=exif, xmp=xmp)
    return path


SOUTH_WEST = {1: "S", 2: (33.0, 51.0, 30.6), 3: "W", 4: (70.0, 12.0, 0.0)}


def test_exif_position_is_read_with_its_hemispheres(tmp_path):
    photo = read_photo(jpeg(tmp_path / "a.jpg", gps=SOUTH_WEST))
    assert photo.position == Origin(-338585000, -702000000)


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "S", 2: (33.0, 51.0, 30.6)},
        {1: "X", 2: (1.0, 0.0, 0.0), 3: "W", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (float("nan"), 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: 5, 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (1.0, 2.0), 3: "E", 4: (1.0, 0.0, 0.0)},
    ],
)
def test_a_position_that_makes_no_sense_is_none(gps):
    assert gps_position(gps) is None


@pytest.mark.parametrize(
    ("xmp", "heading"),
    [
        (b'drone-dji:GimbalYawDegree="-90.50"', 269.5),
        (b"drone-dji:GimbalYawDegree='+12'", 12),
        (b"<drone-dji:FlightYawDegree>+181.2</drone-dji:FlightYawDegree>", 181.2),
        (b'drone-dji:FlightYawDegree="10" drone-dji:GimbalYawDegree="20"', 20),
        (b"<Camera:Yaw>359.9</Camera:Yaw>", 359.9),
        (b'drone-dji:GimbalYawDegree="north"', None),
        (b"", None),
    ],
)  # fmt: skip
def test_the_yaw_of_common_drones_is_read(xmp, heading):
    assert xmp_angles(xmp).yaw_deg == (None if heading is None else pytest.approx(heading))


def test_xmp_yaw_comes_before_the_image_direction(tmp_path):
    gps = {**SOUTH_WEST, 16: "T", 17: 77.0}
    assert read_photo(jpeg(tmp_path / "a.jpg", gps=gps)).heading_deg == pytest.approx(77)
    both = jpeg(tmp_path / "b.jpg", gps=gps, xmp=b'<x drone-dji:GimbalYawDegree="-10.0"/>')
    assert read_photo(both).heading_deg == pytest.approx(350)


def test_a_magnetic_direction_is_not_taken_for_a_true_one():
    assert gps_heading_deg({16: "M", 17: 77.0}) is None


def test_a_photo_stored_on_its_side_is_stood_up(tmp_path):
    upright, turned = (read_photo(jpeg(tmp_path / f"{o}.jpg", orientation=o)).pixels for o in (1, 6))
    assert upright.shape == (40, 60, 3)
    assert turned.shape == (60, 40, 3)
    assert turned[:, -1].mean() > 150 > turned[:, 0].mean()


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(50)])
def test_what_is_no_photo_is_named(tmp_path, data):
    (tmp_path / "bad.jpg").write_bytes(data)
    with pytest.raises(PhotoError) as caught:
        read_photo(tmp_path / "bad.jpg")
    assert caught.value.file == str(tmp_path / "bad.jpg")


def test_a_truncated_photo_is_refused(tmp_path):
    whole = building.tile_image(1)
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PhotoError, match="truncated"):
        read_photo(tmp_path / "cut.jpg")


def test_a_photo_that_would_fill_the_memory_is_refused(tmp_path):
    side = 20_000
    rows = zlib.compress(bytes((1 + side // 8) * side), 1)  # black, one bit a pixel
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    whole = [struct.pack(">I", len(of)) + kind + of + struct.pack(">I", zlib.crc32(kind + of)) for kind, of in chunks]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    with pytest.raises(PhotoError):
        read_photo(tmp_path / "bomb.png")


def test_broken_pictures_are_photos_or_photo_errors_and_nothing_else(shared_data):
    refused = 0
    for path in sorted((shared_data / "broken/pngsuite").iterdir()):
        with suppress(PhotoError):
            read_photo(path)
            continue
        refused += 1
    assert refused >= 10


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0, 720))
def test_any_photo_turns_into_its_central_square(height, width, heading):
    turned = turned_north_up(np.full((height, width, 3), 77, np.uint8), heading)
    assert turned.shape == (min(height, width), min(height, width), 3)
    assert (turned == 77).all()  # no invented colour in the corners


def test_turning_by_a_small_angle_keeps_the_middle_where_it_is():
    dot = np.zeros((101, 101, 3), np.uint8)
    dot[48:53, 48:53] = 255
    for heading in (0.1, 33.0, 89.9, 200.0):
        weights = turned_north_up(dot, heading)[..., 0].astype(float)
        centre = (weights.sum(0) @ np.arange(101) / weights.sum(), weights.sum(1) @ np.arange(101) / weights.sum())
        assert centre == pytest.approx((50, 50), abs=0.6)


@given(st.integers(-850_000_000, 850_000_000), st.integers(-1_800_000_000, 1_800_000_000))
def test_distance_is_nought_to_oneself_and_the_same_both_ways(lat, lon):
    here, there = Origin(lat, lon), Origin(473_900_000, 85_400_000)
    assert distance_m(here, here) == 0
    assert distance_m(here, there) == pytest.approx(distance_m(there, here))


def test_a_degree_of_latitude_is_111_kilometres():
    assert distance_m(Origin(0, 0), Origin(10_000_000, 0)) == pytest.approx(111_195, abs=1)


# The command


def test_the_command_names_tile_place_and_similarity(scene, capsys):
    cache, tiles, _ = scene
    assert main(["locate", str(tile(tiles, 1, 2)), "--cache", str(cache), "-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].strip() == "north assumed: the photo has no heading; try --rotate 16"
    assert "pitch" not in "".join(lines)  # compared as it is: no pitch is needed
    assert lines[2].split() == ["rank", "tile", "lat", "lon", "similarity", "stands", "out", "heading"]
    assert f"{ZOOM}/{WEST + 1}/{NORTH + 2}" in lines[3]
    assert "1.000" in lines[3]


def test_the_command_uses_the_photo_s_own_heading_and_position(scene, tmp_path, capsys):
    cache, tiles, _ = scene
    seen = Image.fromarray(np.rot90(pixels(tile(tiles, 1, 2)), 1))
    box = tile_bounds_e7(ZOOM, WEST + 1, NORTH + 2)
    lat, lon = (box.south + box.north) / 2e7, (box.west + box.east) / 2e7
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (lat, 0.0, 0.0), 3: "E", 4: (lon, 0.0, 0.0)}
    seen.save(tmp_path / "photo.png", exif=exif, xmp=b'<a drone-dji:GimbalYawDegree="90.0"/>')
    seen.save(tmp_path / "photo.jpg", quality=95, exif=exif, xmp=b'<a drone-dji:GimbalYawDegree="90.0"/>')
    assert main(["locate", str(tmp_path / "photo.jpg"), "--cache", str(cache), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    best = found["matches"][0]
    assert found["heading_deg"] == 90
    assert (best["tile"], best["heading_deg"]) == (f"{ZOOM}/{WEST + 1}/{NORTH + 2}", 90)
    assert best["distance_m"] < 5


def test_what_a_photo_does_not_say_is_said_with_what_stood_for_it(scene, tmp_path, capsys):
    cache = building.copy_site(scene[0].parent, tmp_path / "site")
    building.edit(cache, "# height_m = …", "height_m = 900")
    assert building.build(cache).outcome == "SUCCESS"
    words = ["locate", str(tile(scene[1], 1, 2)), "--cache", str(cache), "--fov", "100"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "north assumed" in output
    assert "pitch of -90° assumed: the photo has none; --pitch DEG says it" in output
    assert "900 m above ground assumed (camera.height_m): the photo has no height; --height M says it" in output
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["assumed"] == {"heading_deg": 0, "pitch_deg": -90, "height_m": 900}
    assert main([*words, "--json", "--heading", "5", "--pitch=-80", "--height", "800"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["assumed"] == {}


def test_the_command_writes_geojson_and_a_contact_sheet(scene, tmp_path):
    cache, tiles, _ = scene
    words = [
        "locate",
        str(tile(tiles, 1, 2)),
        str(tile(tiles, 0, 0)),
        "--cache",
        str(cache),
        "-k",
        "3",
        "--rotate",
        "4",
    ]
    files = ["--geojson", str(tmp_path / "f.geojson"), "--contact-sheet", str(tmp_path / "s.png"), "--own"]
    assert main([*words, *files]) == 0
    features = json.loads((tmp_path / "f.geojson").read_text())["features"]
    assert [f["properties"]["rank"] for f in features] == [1, 2, 3, 1, 2, 3]
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    photo, best, second = (sheet[8:200, left : left + 192].astype(int) for left in (8, 408, 608))
    assert np.abs(photo - best).mean() < 3  # the photo is the tile
    assert np.abs(photo - second).mean() > 20
    map_ = sheet[8:200, 208:400].astype(int)
    middle = np.asarray(Image.open(tile(tiles, 1, 2)).convert("RGB").resize((64, 64))).astype(int)
    off = np.abs(map_[64:128, 64:128] - middle)
    assert np.median(off) < 8  # three tiles to each side, the answer's in the middle
    assert tuple(map_[96, 96]) == (220, 20, 20)


def test_the_map_marks_the_answers_and_the_photo_s_own_place(scene, locator):
    photo = pixels(tile(scene[1], 1, 1))
    first, *_ = locator.locate(photo, k=1)
    east = first._replace(position=moved(first.position, east_m=side_of(first) / 2, north_m=0))
    truth = moved(first.position, east_m=0, north_m=side_of(first))
    row = Row("a.jpg", photo, (first, east), position=truth)
    map_ = np.asarray(Image.open(io.BytesIO(contact_sheet([row], lambda _: None))))[8:200, 208:400]
    assert tuple(map_[96, 96]) == (220, 20, 20)  # the first in the middle
    assert tuple(map_[96, 128]) == (20, 20, 20)  # the second half a tile of 64 pixels east
    blue = np.argwhere((map_ == (20, 90, 255)).all(axis=-1))
    assert blue.mean(axis=0) == pytest.approx((32, 96), abs=1)  # a tile north


def side_of(match):
    return distance_m(tile_centre(match.z, match.x, match.y), tile_centre(match.z, match.x + 1, match.y))


def test_a_sheet_without_imagery_says_so(scene, locator):
    photo = pixels(tile(scene[1], 0, 0))
    sheet = contact_sheet([Row("a.jpg", photo, locator.locate(photo, k=1))], lambda _: None)
    assert Image.open(io.BytesIO(sheet)).size == (608, 252)


def test_geojson_joins_position_and_first_match(scene, locator):
    position = tile_centre(ZOOM, WEST + 1, NORTH)
    matches = locator.locate(pixels(tile(scene[1], 0, 0)), k=2, position=position)
    kinds = [f["properties"]["kind"] for f in json.loads(to_geojson([("a", position, matches)]))["features"]]
    assert kinds == ["position in the photo", "match", "match", "error"]
