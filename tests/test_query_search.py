"""A photo is found from where it was taken: rendered, with a position known roughly, from a folder as it comes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.crops import read_mosaic
from provisioning.base.errors import PhotoError
from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import pack_id, tileid_to_zxy, zxy_to_tileid
from provisioning.cli import main
from provisioning.config.schema import Backbone, Index
from provisioning.engines.accuracy.fidelity import reference_network
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from provisioning.index.among import ids_of, scores_among
from provisioning.index.read import load_index, search
from provisioning.index.write.build import build
from provisioning.network.backbone import onnx_source
from provisioning.quality.evaluate.queries import find_queries
from provisioning.quality.evaluate.run import right_tiles
from provisioning.quality.locate import Locator, Places, Prior, distance_m
from provisioning.quality.locate.asking import Question, spread, viewings_for
from provisioning.quality.locate.fusion import fused
from provisioning.quality.locate.places import decoded, distances_m, moved
from provisioning.quality.query import Angles, Camera, Viewing
from provisioning.quality.query.viewing import Known
from provisioning.sources.pixels.fitting import fit
from tests import building
from tests.building import NORTH, WEST, ZOOM
from tests.delivery import trust_anything_by
from tests.photographing import dji_jpeg, metres_per_pixel, photograph, place_at, put_landscape


def test_many_ids_are_decoded_as_one():
    rng = np.random.default_rng(1)
    tiles = [(z, *(int(v) for v in rng.integers(0, 1 << z, 2))) for z in rng.integers(0, 25, 400)]
    ids = np.array([zxy_to_tileid(*tile) for tile in tiles], np.int64)
    assert list(zip(*(part.tolist() for part in decoded(ids)), strict=True)) == [tileid_to_zxy(i) for i in ids.tolist()]


def test_a_moved_place_lies_where_it_was_moved_to():
    geod = pytest.importorskip("geographiclib.geodesic").Geodesic.WGS84
    place = Origin(473_977_000, 85_456_000)
    there = moved(place, east_m=300, north_m=-400)
    line = geod.Inverse(47.3977, 8.5456, there.lat_e7 / 1e7, there.lon_e7 / 1e7)
    assert line["s12"] == pytest.approx(500, rel=0.006)
    assert line["azi1"] == pytest.approx(math.degrees(math.atan2(300, -400)), abs=0.5)


def square_of_ids(side, zoom=ZOOM):
    return np.sort(
        np.array([pack_id(zoom, WEST + x, NORTH + y, 0, 0) for x in range(side) for y in range(side)], np.int64)
    )


def test_the_rows_near_a_place_are_those_whose_tile_touches_the_circle():
    places = Places(square_of_ids(12))
    prior = Prior(place_at(ZOOM, WEST + 5.3, NORTH + 4.8), 4000.0)
    side = places.side_m(ZOOM, prior.position.lat_e7 / 1e7)
    touching = {
        row for row in range(144)
        if math.hypot(max(abs(places.x[row] + 0.5 - WEST - 5.3) - 0.5, 0), max(abs(places.y[row] + 0.5 - NORTH - 4.8) - 0.5, 0))
        * side <= prior.radius_m * 0.995
    }  # fmt: skip
    found = set(places.rows(near=prior).tolist())
    assert touching <= found
    assert len(found) < 144
    assert all(places.distances_m(prior.position)[row] <= prior.radius_m + 0.72 * side for row in found)


@pytest.mark.parametrize("kind", ["flat", "sqfp16", "sq8", "hrq", "sq4"])
def test_every_kind_of_index_is_searched_exactly_among_some_rows(tmp_path, kind):
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((900, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = square_of_ids(30)
    build(Index(kind=kind), ids, lambda which: vectors[which], tmp_path / "index")
    index = load_index((tmp_path / "index").read_bytes())
    assert (ids_of(index) == ids).all()
    rows = np.sort(rng.choice(900, 100, replace=False)).astype(np.int64)
    scores = scores_among(index, vectors[rows[:5]], rows, ids)
    assert scores == pytest.approx(vectors[rows[:5]] @ vectors[rows].T, abs=0.06 if kind == "sq4" else 0.03)
    assert (scores.argmax(axis=1) == np.arange(5)).all()
    if kind in ("flat", "sqfp16", "sq8"):
        best, which = search(index, vectors[rows[:5]], 900)
        order = np.argsort(which, axis=1)
        assert scores == pytest.approx(np.take_along_axis(best, order, axis=1)[:, rows], abs=1e-5)


def test_patches_that_agree_outvote_one_that_is_surer():
    x, y = (each.ravel() for each in np.meshgrid(np.arange(10), np.arange(10)))
    truth, offsets = (4.5, 6.5), np.array([[0, 0], [1, 0], [0, 1], [-1, 0]], float)
    scores = np.full((4, 100), 0.1, np.float32)
    for patch, (east, south) in enumerate(offsets):
        scores[patch, int((truth[1] + south - 0.5) * 10 + truth[0] + east - 0.5)] = 0.6
    scores[0, 0] = 0.9  # one patch takes another tile for its own
    best = next(fused(scores, x, y, offsets, np.arange(100), others=scores))
    assert (best.x, best.y) == truth


def test_an_area_that_is_all_alike_takes_no_photo_of_another():
    """Six deviations within an even area are less than three of what differs everywhere."""
    x, y = (each.ravel() for each in np.meshgrid(np.arange(8), np.arange(8)))
    even = np.random.default_rng(1).normal(0.3, 0.002, (1, 64)).astype(np.float32)
    even[0, 20] = 0.32
    varied = np.random.default_rng(2).normal(0.2, 0.1, (1, 64)).astype(np.float32)
    varied[0, 9] = 0.6
    others, nowhere = np.concatenate([even, varied], axis=1), np.zeros((1, 2))
    first, second = (next(fused(each, x, y, nowhere, np.arange(64), others=others)) for each in (even, varied))
    assert second.z > first.z
    assert (second.x, second.y) == (1.5, 1.5)


def test_areas_at_other_latitudes_have_tiles_of_another_size():
    """One index of a city at the equator and one at 60 degrees north: a tile there is half as wide."""
    ids = np.sort(np.array([pack_id(15, 16384 + n, row + m, 0, 0) for row in (16384, 9474) for n in range(3)
                            for m in range(3)], np.int64))  # fmt: skip
    places = Places(ids)
    assert len(places.bands) == 2
    wide, narrow = (places.side_m(15, places.middle_lat_deg(band)) for band in places.bands)
    assert wide / narrow == pytest.approx(2, rel=0.01)
    parts = [places.rows(zoom=15, band=band) for band in places.bands]
    assert sorted(np.concatenate(parts).tolist()) == list(range(18))
    assert len(Places(square_of_ids(12)).bands) == 1


def test_heights_are_tried_as_far_as_they_are_uncertain():
    seen = Viewing(Camera.simple(400, 300, 300.0), Angles(), 100.0)
    assert [each.height_m for each in viewings_for(Question(), seen)] == [100]
    tried = sorted(each.height_m for each in viewings_for(Question(height_sigma=0.15), seen))
    assert tried == pytest.approx([70, 85, 100, 115, 130])
    assert viewings_for(Question(height_sigma=0.4), seen)[0] == seen
    assert min(each.height_m for each in viewings_for(Question(height_sigma=0.4), seen)) > 0


@pytest.mark.parametrize("angles", [Angles(0, -45, 0), Angles(0, None, 0), Angles(0, 0, 0, "body")])
def test_other_pitches_that_may_be_true_are_tried_around_the_known_one(angles):
    """Of a gimbal, of a mounting, and of an airframe whose mounting says where the camera looks."""
    seen = Viewing(Camera.simple(40, 30, 50), angles, 100, (0.0, -60.0, 0.0))
    middle = -45.0 if angles.pitch_deg == -45 else -60.0
    tried = viewings_for(Question(pitch_sigma_deg=5.0), seen)
    looks = [math.degrees(math.asin(each.view(0).rotation[2, 2])) for each in tried]
    assert looks == pytest.approx([middle, middle - 10, middle + 10])
    assert len(viewings_for(Question(pitch_sigma_deg=5.0, height_sigma=0.125), seen)) == 9


@pytest.mark.parametrize(("sigma", "reach"), [(0, 0), (3, 6), (10, 20), (200, 180)])
def test_headings_cover_two_sigma_closely(sigma, reach):
    tried = spread(sigma)
    assert max(tried) == reach
    assert min(tried) == -reach
    assert np.diff(tried).max(initial=0) <= 10 + 1e-9


SIDE = 6
FOV = 60.0
EQUIVALENT_MM = round(320 / 2 / math.tan(math.radians(FOV) / 2) / 400 * math.hypot(36, 24), 3)


@pytest.fixture(autouse=True)
def trusted(request, monkeypatch):
    """The key of the flight is the user's: a cache cannot say whom to trust."""
    if "flight" in request.fixturenames:
        cache, _ = request.getfixturevalue("flight")
        monkeypatch.setenv("FLIGHTCACHE_PUBLIC_KEY", str(cache.parent / "key.pub.pem"))


@pytest.fixture(scope="module")
def flight(tmp_path_factory):
    """A built cache over synthetic tiles, and a folder of photos of a DJI camera over them, one without a position."""
    root = tmp_path_factory.mktemp("flight")
    cache = building.new_cache(root, side=SIDE)
    ground = put_landscape(root / "tiles", ZOOM, WEST, NORTH, SIDE)
    assert building.build(cache).outcome == "SUCCESS"
    folder = root / "photos"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for number in range(8):
        yaw, pitch, height = float(rng.uniform(0, 360)), (-90.0, -60.0)[number % 2], 5000.0
        middle = place_at(ZOOM, WEST + 3, NORTH + 3)
        ahead = height / math.tan(math.radians(-pitch)) / metres_per_pixel(ZOOM, middle) / 256
        # the network finds little between tiles: what the camera looks at is near the middle of one
        x = rng.choice([2.5, 3.5]) + rng.uniform(-0.06, 0.06) - ahead * math.sin(math.radians(yaw))
        y = rng.choice([2.5, 3.5]) + rng.uniform(-0.06, 0.06) + ahead * math.cos(math.radians(yaw))
        place = place_at(ZOOM, WEST + x, NORTH + y)
        seen = photograph(
            ground, (x * 256, y * 256), metres_per_pixel(ZOOM, place), height=height, yaw=yaw, pitch=pitch, fov=FOV
        )
        at = None if number == 7 else place
        dji_jpeg(
            folder / f"DJI_{number:04}.JPG", seen, at, height=height, yaw=yaw, pitch=pitch, equivalent_mm=EQUIVALENT_MM
        )
    return cache, folder


def evaluated(words, capsys):
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def test_a_folder_of_dji_photos_is_evaluated_as_it_comes(flight, capsys):
    cache, folder = flight
    words = [folder, cache, "--within", "700", "--radius", "5000", "--patches", "1", "--own", "--try", "patches=0"]
    (found, as_it_is), _ = evaluated(words, capsys)
    assert (found["queries"], found["rendered"], found["radius_m"]) == (7, 7, 5000)
    assert found["recall"]["1"]["share"] >= 0.85
    assert found["median_error_m"] < 500
    assert as_it_is["rendered"] == 0
    assert as_it_is["recall"]["1"]["share"] < found["recall"]["1"]["share"]


@pytest.mark.slow
def test_nine_patches_of_real_ground_find_more_than_one(shared_data):
    """On drone imagery of Kampala seen from 35 m, with the built-in network; other light and noise in the photos."""
    tiles = {tile: pixels for tile, pixels in read_mosaic(shared_data / "tiles/oam_kampala", 21).items()
             if (pixels[..., 3] > 250).mean() > 0.5}  # fmt: skip
    west, north = (min(each) for each in zip(*tiles, strict=True))
    side = 1 + max(max(x - west, y - north) for x, y in tiles)
    ground = np.zeros((side * 256, side * 256, 3), np.uint8)
    for (x, y), pixels in tiles.items():
        ground[(y - north) * 256 :, (x - west) * 256 :][:256, :256] = pixels[..., :3] * (pixels[..., 3:] > 250)
    locator = locator_of(tiles, 21)
    rng, found = np.random.default_rng(5), {1: 0, 9: 0}
    asked = 0
    while asked < 10:
        x, y = rng.uniform(0, side, 2)
        place, yaw = place_at(21, west + x, north + y), float(rng.uniform(0, 360))
        mpp = metres_per_pixel(21, place)
        photo = photograph(ground, (x * 256, y * 256), mpp, height=35.0, yaw=yaw, size=(480, 360), fov=70.0)
        if (photo == 0).all(axis=-1).mean() > 0.03:
            continue
        asked += 1
        photo = np.clip(photo * rng.uniform(0.8, 1.2) + rng.normal(0, 5, photo.shape), 0, 255).astype(np.uint8)
        camera = Camera.simple(480, 360, 240 / math.tan(math.radians(35)))
        for patches in found:
            best = locator.locate_view(photo, Viewing(camera, Angles(yaw), 35.0), position=place, patches=patches)[0]
            found[patches] += best.distance_m <= 15
    assert found[9] >= 4
    assert found[9] > found[1]


def locator_of(tiles, zoom):
    """Return a locator with the built-in network over tile images by (x, y), without a cache around it."""
    import faiss

    backbone = Backbone(name="n")
    network = reference_network(backbone, onnx_source(backbone, Path(), None))
    ids = {pack_id(zoom, x, y, 0, 0): pixels for (x, y), pixels in tiles.items()}
    order = sorted(ids)
    images = [fit(np.ascontiguousarray(ids[each][..., :3]), network.size, "resize") for each in order]
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(network.dimension))
    index.add_with_ids(network(np.stack(images)), np.array(order, np.int64))
    return Locator(network, index, sources=("s",), rotations=1)


def test_photos_compared_as_they_are_are_counted_with_the_reason(flight, tmp_path, capsys):
    cache, _ = flight
    (tmp_path / "a.jpg").write_bytes(building.tile_image(0))
    (tmp_path / "q.csv").write_text("file,lat,lon\na.jpg,0,0\n")
    assert main(["evaluate", str(tmp_path / "q.csv"), str(cache)]) == 0
    assert "1 of 1 photos compared as they are (no focal length: declare [camera]" in capsys.readouterr().out


def test_located_photos_name_the_position_of_the_camera_and_stay_near(flight, capsys):
    cache, folder = flight
    photo = find_queries(folder)[1]  # oblique
    near = f"--near={photo.place.lat_e7 / 1e7},{photo.place.lon_e7 / 1e7}"
    assert (
        main(["locate", str(photo.path), "--cache", str(cache), near, "--radius", "2500", "--patches", "1", "--json"])
        == 0
    )
    (found,) = json.loads(capsys.readouterr().out)
    assert found["compared"].startswith("rendered from 5000 m")
    assert found["matches"][0]["distance_m"] < 700
    assert all(match["distance_m"] < 2500 + 1400 for match in found["matches"])


def test_where_no_tile_lies_near_nothing_is_named(flight, capsys):
    cache, folder = flight
    assert main(["locate", str(folder / "DJI_0000.JPG"), "--cache", str(cache), "--near", "1,1"]) == 0
    assert "no tile of the cache" in capsys.readouterr().out


def test_a_radius_around_nothing_is_refused_as_wrong_usage(flight):
    cache, folder = flight
    assert main(["locate", str(folder / "DJI_0000.JPG"), "--cache", str(cache), "--radius", "9"]) == 2


@pytest.mark.parametrize(
    "words",
    [["--near=1,1", "--radius", "-5"], ["--height", "0"], ["--fov", "180"], ["--pitch", "91"],
     ["--patches", "-1"], ["--height-sigma", "50"], ["--heading-sigma", "-1"], ["--pitch-sigma", "21"]],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(flight, words, capsys):
    cache, folder = flight
    assert main(["locate", str(folder / "DJI_0000.JPG"), "--cache", str(cache), *words]) == 10


def test_the_camera_is_the_one_that_was_signed(flight, tmp_path, capsys):
    """[camera] counts from the build on that signs it; before, and in a cache that somebody edited, it does not."""
    cache, query = building.copy_site(flight[0].parent, tmp_path / "site"), find_queries(flight[1])[0]
    Image.open(query.path).save(tmp_path / "bare.png", exif=b"")
    words = ["locate", str(tmp_path / "bare.png"), "--cache", str(cache), "--json", "--patches", "1"]
    building.edit(cache, "[camera]\n", f"[camera]\nfov_deg = {FOV}\nheight_m = 5000\n")
    assert main(words) == 0
    assert "no focal length" in json.loads(capsys.readouterr().out)[0]["compared"]
    assert building.build(cache).outcome == "SUCCESS"
    assert main([*words, "--rotate", "36"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["compared"].startswith("rendered from 5000 m")
    best = found["matches"][0]
    assert distance_m(Origin(round(best["lat"] * 1e7), round(best["lon"] * 1e7)), query.place) < 1200
    with verify(cache, trust_anything_by(load_public_key(cache.parent / "key.pub.pem"))) as verdict:
        assert verdict.require().camera.fov_e7 == round(FOV * 1e7)


def test_a_camera_that_sees_no_ground_says_so(flight, capsys):
    cache, folder = flight
    assert main(["locate", str(folder / "DJI_0000.JPG"), "--cache", str(cache), "--pitch", "60"]) == 0
    assert 'camera.angles_of = "body"' in capsys.readouterr().out


def test_right_tiles_are_counted_among_those_compared():
    places = Places(square_of_ids(12))
    truth = place_at(ZOOM, WEST + 5.5, NORTH + 5.5)
    side = places.side_m(ZOOM, truth.lat_e7 / 1e7)
    assert right_tiles(places, truth, side * 1.1) == (5, 144)
    right, held = right_tiles(places, truth, side * 1.1, near=Prior(truth, side * 2))
    assert right == 5
    assert 13 <= held < 40
    assert right_tiles(Places(square_of_ids(2)), Origin(0, 0), 100.0) == (0, 4)


SRT = """1
00:00:00,000 --> 00:00:00,033
<font size="28">FrameCnt: 1, DiffTime: 33ms
2023-06-10 11:02:33.123
[iso: 100] [shutter: 1/1000.0] [fnum: 2.8] [latitude: 47.397700] [longitude: -8.545600] [rel_alt: 101.500 abs_alt: 503.111] [gb_yaw: -97.5 gb_pitch: -60.0 gb_roll: 0.0] </font>

2
00:00:00,033 --> 00:00:00,066
<font size="28">FrameCnt: 2, DiffTime: 33ms
[latitude: 0.000000] [longitude: 0.000000] [rel_alt: 0.0 abs_alt: 0.0] </font>

3
00:00:00,066 --> 00:00:00,100
<font size="28">FrameCnt: 3, DiffTime: 33ms
[latitude: 47.397800] [longitude: -8.545600] [rel_alt: 102.500 abs_alt: 504.111] </font>
"""
OLDER = """1
00:00:01,000 --> 00:00:02,000
HOME(8.5450,47.3970) 2017.08.05 14:11:51
GPS(8.5456,47.3977,19) BAROMETER:40.1
ISO:100 Shutter:60 EV: Fnum:2.2
"""


def test_frames_are_placed_by_the_subtitle_beside_them(tmp_path):
    (tmp_path / "DJI_0007.SRT").write_text(SRT)
    for number in (1, 2, 3, 9):
        (tmp_path / f"frame_{number:04}.png").write_bytes(b"")
    first, third = find_queries(tmp_path)
    assert first.place == Origin(473_977_000, -85_456_000)
    assert first.known.relative_m == 101.5
    assert first.known.angles == (262.5, -60, 0, "camera")
    assert third.name == "frame_0003.png"
    second = find_queries(tmp_path, frame_step=2)[1]  # image 2 is frame 3
    assert (second.name, second.known.relative_m) == ("frame_0002.png", 102.5)


def test_an_older_subtitle_gives_longitude_first(tmp_path):
    (tmp_path / "DJI_0001.SRT").write_text(OLDER)
    (tmp_path / "1.jpg").write_bytes(b"")
    assert find_queries(tmp_path)[0].place == Origin(473_977_000, 85_456_000)


@pytest.mark.parametrize("files", [[], ["a.txt"], ["a.jpg"], ["a.srt", "b.SRT", "1.jpg"], ["a.srt", "1.jpg"]])
def test_a_folder_without_a_place_is_refused_with_what_to_give(tmp_path, files):
    for name in files:
        data = building.tile_image(1) if name.endswith("jpg") else b""
        (tmp_path / name).write_bytes(data)
    with pytest.raises(PhotoError) as refusal:
        find_queries(tmp_path)
    assert refusal.value.next_step


def test_a_list_gives_attitude_height_and_field_of_view(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "q.csv").write_text(
        "file,lat,lon,yaw,gimbal_pitch,agl,hfov\na.jpg,1,2,30,-45,120,69.5\na.jpg,1,2,,,,\n"
    )
    first, second = find_queries(tmp_path / "q.csv")
    assert (first.known.angles[:2], first.known.height_m, first.known.fov_deg) == ((30, -45), 120, 69.5)
    assert second.known == Known()
    (tmp_path / "q.csv").write_text("file,lat,lon,height_m\na.jpg,1,2,-3\n")
    with pytest.raises(PhotoError, match="cannot be used"):
        find_queries(tmp_path / "q.csv")


def test_distances_of_many_are_those_of_one():
    a, b = Origin(473_977_000, 85_456_000), Origin(474_977_000, -1_795_456_000)
    many = distances_m(np.array([a.lat_e7 / 1e7]), np.array([a.lon_e7 / 1e7]), b.lat_e7 / 1e7, b.lon_e7 / 1e7)
    assert many[0] == pytest.approx(distance_m(a, b))
