"""The second stage: features that agree give a position with a covariance that holds, and nothing where none stands out."""

from __future__ import annotations

import importlib
import json
import math
from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image

from provisioning.base.errors import Error
from provisioning.base.geometry.geo import tile_at, tile_centre
from provisioning.cli import main
from provisioning.quality.locate import Match, distance_m
from provisioning.quality.locate.places import moved
from provisioning.quality.matching import Features, Ground, SecondStage, classical
from provisioning.quality.matching.features import matched
from provisioning.quality.matching.pose import solved
from provisioning.quality.matching.similarity import similarity
from provisioning.quality.query import Angles, Camera, View, Viewing, camera_rotation, ground_to_pixels
from tests import building
from tests.photographing import dji_jpeg, metres_per_pixel, photograph, place_at, textured

ZOOM, WEST, NORTH, SIDE = 19, 386_690, 220_241, 5


def planted(rng, count, outliers, noise=0.0):
    """Return points, their images under one similarity, and which are true, float64 [n, 2] each."""
    turn, scale, shift = math.radians(rng.uniform(-25, 25)), rng.uniform(0.7, 1.5), rng.uniform(-50, 50, 2)
    matrix = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = rng.uniform(-100, 100, (count, 2))
    images = points @ matrix.T + shift + rng.normal(0, noise, points.shape)
    true = np.arange(count) >= outliers
    images[~true] = rng.uniform(-150, 150, (outliers, 2))
    return points, images, true


def as_complex(points):
    return points[:, 0] + 1j * points[:, 1]


@pytest.mark.parametrize("outliers", [0, 40, 85])
@pytest.mark.parametrize("seed", range(4))
def test_the_similarity_is_that_of_opencv(seed, outliers):
    points, images, true = planted(np.random.default_rng(seed), 100, outliers, noise=0.3)
    found = similarity(as_complex(points), as_complex(images), within=2.0)
    assert (found.inliers & true).sum() >= 0.95 * true.sum()
    assert (found.inliers & ~true).sum() <= 2
    theirs, _ = cv2.estimateAffinePartial2D(points, images, ransacReprojThreshold=2.0, maxIters=5000)
    assert (found.a.real, found.a.imag) == pytest.approx((theirs[0, 0], theirs[1, 0]), abs=0.01)
    assert (found.b.real, found.b.imag) == pytest.approx(theirs[:, 2], abs=0.5)


def test_what_no_camera_does_is_no_similarity():
    """Turned by 90°, or four times as large: the photo was rendered to the map's heading and scale."""
    points, _, _ = planted(np.random.default_rng(1), 30, 0)
    for factor in (1j, 4, -1):
        found = similarity(as_complex(points), as_complex(points) * factor, within=0.5)
        assert found is None or found.inliers.sum() <= 3
    assert similarity(np.zeros(1, complex), np.zeros(1, complex), within=1) is None
    assert similarity(np.zeros(9, complex), np.zeros(9, complex), within=1) is None


@pytest.mark.parametrize(("name", "norm"), [("orb", cv2.NORM_HAMMING), ("sift", cv2.NORM_L2)])
def test_matches_are_mutual_and_distinct_as_opencvs_are(name, norm):
    rng = np.random.default_rng(2)
    image = np.asarray(Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).resize((320, 320)))
    shown = np.ones((320, 320), bool)
    first = classical(name)(image, shown)
    second = classical(name)(np.clip(image[20:, 10:].astype(int) + 9, 0, 255).astype(np.uint8), shown[20:, 10:])
    pairs = {tuple(pair) for pair in matched(first, second).tolist()}
    matcher = cv2.BFMatcher(norm)
    mutual = {(m.queryIdx, m.trainIdx) for m in cv2.BFMatcher(norm, crossCheck=True).match(*(
        each.descriptors for each in (first, second)))}  # fmt: skip
    both = matcher.knnMatch(first.descriptors, second.descriptors, k=2)
    ratio = {(a.queryIdx, a.trainIdx) for a, b in both if a.distance <= 0.85 * b.distance}
    assert len(pairs) > 50
    assert len(pairs ^ (mutual & ratio)) <= 0.05 * len(pairs)  # equal distances may be ordered either way


def test_nothing_matches_nothing():
    none = Features(np.empty((0, 2)), np.empty((0, 128), np.float32))
    some = Features(np.zeros((3, 2)), np.eye(128, dtype=np.float32)[:3])
    assert len(matched(none, some)) == len(matched(some, none)) == len(matched(none, none)) == 0


def test_points_outside_of_what_is_shown_are_no_features():
    image = np.random.default_rng(3).integers(0, 256, (200, 200, 3), np.uint8)
    shown = np.zeros((200, 200), bool)
    shown[:, :100] = True
    for name in ("orb", "sift"):
        found = classical(name)(image, shown)
        assert len(found.points) > 20
        assert found.points[:, 0].max() < 100


CAMERA = Camera.simple(640, 480, 457.0)


def seen_from(pitch, *, yaw=30.0, height=75.0):
    return View(CAMERA, camera_rotation(Angles(yaw, pitch, 0.0), yaw_deg=yaw), height)


def points_seen(view, east, north, rng, count=60):
    """Return points of the ground that a camera at (east, north) shows, and where, pixel."""
    axis = view.rotation[:, 2]
    middle = np.array([east, north]) + axis[:2] / -axis[2] * view.height_m
    ground = middle + rng.uniform(-50, 50, (4 * count, 2))
    pixels, shown = ground_to_pixels(view, *(ground - [east, north]).T)
    return ground[shown][:count], pixels[shown][:count]


@pytest.mark.parametrize("pitch", [-90.0, -60.0, -45.0])
def test_exact_points_give_the_exact_position(pitch):
    ground, pixels = points_seen(seen_from(pitch), 12.0, -7.0, np.random.default_rng(4))
    found = solved(seen_from(pitch), pixels, ground, (0.0, 0.0), map_pixel_m=0.3)
    assert (found.east_m, found.north_m) == pytest.approx((12.0, -7.0), abs=0.01)


def test_a_wrong_pitch_and_height_are_told_from_a_shift_as_opencv_tells_them():
    """The pitch is 5° off and the height 10 %; OpenCV knows neither and gets the position from the points alone."""
    ground, pixels = points_seen(seen_from(-50), 12.0, -7.0, np.random.default_rng(5))
    found = solved(seen_from(-45, height=82.0), pixels, ground, (30.0, -20.0), map_pixel_m=0.3)
    assert (found.east_m, found.north_m) == pytest.approx((12.0, -7.0), abs=1.5)
    matrix = np.array([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1]])
    _, turn, shift = cv2.solvePnP(np.column_stack([ground, np.zeros(len(ground))]), pixels, matrix, None)
    theirs = -cv2.Rodrigues(turn)[0].T @ shift[:, 0]
    assert (found.east_m, found.north_m) == pytest.approx(theirs[:2], abs=1.5)


@pytest.mark.parametrize("pitch", [pytest.param(-90.0, marks=pytest.mark.slow), -45.0])
def test_the_covariance_is_that_of_the_errors(pitch):
    """Attitude, height and points are drawn as they are said to vary; error² over variance is then 1 on average."""
    rng, squared = np.random.default_rng(6), []
    for _ in range(60):
        true = View(
            CAMERA,
            camera_rotation(Angles(30, pitch + rng.normal(0, 3), rng.normal(0, 3)), yaw_deg=30 + rng.normal(0, 3)),
            75 * math.exp(rng.normal(0, 0.15)),
        )
        ground, pixels = points_seen(true, 0.0, 0.0, rng, count=40)
        found = solved(seen_from(pitch), pixels + rng.normal(0, 2.0, pixels.shape), ground, (5.0, 5.0), map_pixel_m=0.3)
        off = np.array([found.east_m, found.north_m])
        squared.append(float(off @ np.linalg.solve(found.covariance, off)) / 2)
    assert 0.6 < np.mean(squared) < 1.7


@pytest.fixture(scope="module")
def land():
    """A piece of ground, its tiles by address, and their features by the name of what extracts them."""
    whole = textured(SIDE, 11)

    def tile(z, x, y):
        left, top = (x - WEST) * 256, (y - NORTH) * 256
        inside = z == ZOOM and 0 <= left < len(whole) and 0 <= top < len(whole)
        return whole[top : top + 256, left : left + 256] if inside else None

    return whole, tile, cache(lambda name: Ground(tile, classical(name)))


def stage_of(land, name="orb", k=5):
    return SecondStage(classical(name), land[2](name), k)


def match_at(place):
    z, (x, y) = ZOOM, tile_at(ZOOM, lat_e7=place.lat_e7, lon_e7=place.lon_e7)
    return Match(z, x, y, "s", 0.9, tile_centre(z, x, y), 40.0, None, place)


MIDDLE = place_at(ZOOM, WEST + SIDE / 2, NORTH + SIDE / 2)
MPP = metres_per_pixel(ZOOM, MIDDLE)


def photo_of(land, pitch=-90.0, at=(2.4, 2.7), yaw=40.0, height=75.0):
    x, y = at
    pixels = photograph(
        land[0], (x * 256, y * 256), MPP, height=height, yaw=yaw, pitch=pitch, size=(640, 480), fov=70.0
    )
    return pixels, place_at(ZOOM, WEST + x, NORTH + y)


def viewing_of(pitch=-90.0, height=75.0):
    focal = 320 / math.tan(math.radians(35))
    return Viewing(Camera.simple(640, 480, focal), Angles(40.0, pitch, 0.0), height)


@pytest.mark.parametrize("name", ["orb", pytest.param("sift", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pitch", [pytest.param(-90.0, marks=pytest.mark.slow), -60.0])  # straight down: those below
def test_the_right_place_goes_first_with_its_position_in_metres(land, name, pitch):
    pixels, truth = photo_of(land, pitch)
    near, far = moved(truth, east_m=20, north_m=-15), place_at(ZOOM, WEST + 0.5, NORTH + 0.5)
    found, fix = stage_of(land, name).refined(pixels, viewing_of(pitch), [match_at(far), match_at(near)], truth)
    assert fix.inliers >= 12
    assert distance_m(found[0].position, truth) < 4
    assert found[0].distance_m == pytest.approx(distance_m(found[0].position, truth))
    assert len(found) == 2
    assert 0 < fix.east_m2 < 100
    assert fix.east_m2 * fix.north_m2 > fix.east_north_m2**2


def test_a_height_that_is_wrong_by_a_fifth_does_not_move_the_position(land):
    pixels, truth = photo_of(land)
    found, fix = stage_of(land).refined(pixels, viewing_of(height=90.0), [match_at(truth)], None)
    assert fix
    assert distance_m(found[0].position, truth) < 4


def test_a_photo_of_no_known_camera_is_placed_by_its_middle(land):
    """About as wide as a tile, as an index without a camera asks for it."""
    pixels, truth = photo_of(land, yaw=0.0, height=0.5 * 256 * MPP / math.tan(math.radians(35)) * 640 / 480)
    match = match_at(moved(truth, east_m=12, north_m=9))._replace(heading_deg=0.0)
    found, fix = stage_of(land).refined(pixels, "no height", [match], None)
    assert fix
    assert distance_m(found[0].position, truth) < 2


@pytest.mark.parametrize("name", ["orb", pytest.param("sift", marks=pytest.mark.slow)])
def test_noise_another_landscape_and_nothing_change_nothing(land, name):
    rng, stage = np.random.default_rng(8), stage_of(land, name)
    matches = [match_at(place_at(ZOOM, WEST + x, NORTH + y)) for x, y in ((1.5, 1.5), (3.5, 3.5))]
    noise = rng.integers(0, 256, (480, 640, 3), np.uint8)
    blurred = np.asarray(Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).resize((640, 480)))
    for pixels in (noise, blurred, np.zeros_like(noise), np.ascontiguousarray(photo_of(land)[0][:, ::-1])):
        assert stage.refined(pixels, viewing_of(), matches, None) == (tuple(matches), None)


def test_two_places_that_look_alike_are_left_as_the_index_named_them(land):
    """The ground repeats: wherever the photo was taken, another place has as many features; one alone is believed."""

    def home(z, x, y):
        return z, WEST + (x - WEST) % SIDE, NORTH + (y - NORTH) % SIDE

    _, tile, ground_of = land
    ground = Ground(lambda *at: tile(*home(*at)), classical("orb"))
    ground.of_tile = lambda *at: ground_of("orb").of_tile(*home(*at))
    stage, (pixels, _) = SecondStage(classical("orb"), ground, 5), photo_of(land)
    matches = tuple(match_at(place_at(ZOOM, WEST + x, NORTH + 2.7)) for x in (2.4, 2.4 + SIDE))
    assert stage.refined(pixels, viewing_of(), matches, None) == (matches, None)
    assert stage.refined(pixels, viewing_of(), matches[:1], None)[1] is not None


def test_only_the_first_places_are_tried(land):
    pixels, truth = photo_of(land)
    far = [match_at(place_at(ZOOM, WEST + 40 + 3 * n, NORTH)) for n in range(4)]
    matches = [*far, match_at(truth)]
    assert stage_of(land, k=4).refined(pixels, viewing_of(), matches, None)[1] is None
    assert stage_of(land, k=5).refined(pixels, viewing_of(), matches, None)[1] is not None


def test_where_the_imagery_ends_nothing_is_found_and_nothing_fails(land):
    pixels, _ = photo_of(land)
    outside = match_at(place_at(ZOOM, WEST + 300, NORTH + 300))
    assert stage_of(land).refined(pixels, viewing_of(), [outside], None) == ((outside,), None)
    assert stage_of(land).refined(pixels, viewing_of(), [], None) == ((), None)


def test_the_features_of_a_tile_do_not_depend_on_what_is_asked_beside_it(land):
    extract = classical("orb")
    ground = Ground(land[1], extract)
    whole = ground.around(ZOOM, WEST + 2.5, NORTH + 2.5, reach=2.4)
    alone = Ground(land[1], extract).around(ZOOM, WEST + 2.5, NORTH + 2.5, reach=0.1)
    inside = ((whole.points >= [WEST + 2, NORTH + 2]) & (whole.points < [WEST + 3, NORTH + 3])).all(axis=1)
    np.testing.assert_array_equal(whole.points[inside], alone.points)
    np.testing.assert_array_equal(whole.descriptors[inside], alone.descriptors)


# as commands


def located(cache, capsys, *words):
    key = str(cache.parent / "key.pub.pem")
    code = main(["locate", str(cache.parent / "a.jpg"), "--cache", str(cache), "--public-key", key, *words])
    return code, capsys.readouterr()


def test_locate_gives_the_position_with_its_covariance(flown, capsys):
    cache, _ = flown
    code, said = located(cache, capsys, "--fov", "65", "--second-stage", "orb", "--json")
    assert code == 0, said.err
    (row,) = json.loads(said.out)
    assert row["fix"]["features"] >= 12
    assert row["matches"][0]["distance_m"] < 60  # tiles are 2.4 km wide, a pixel 6.5 m
    (a, b), (c, d) = row["fix"]["covariance_m2"]
    assert b == c
    assert a * d > b * b
    code, said = located(cache, capsys, "--fov", "65", "--second-stage", "orb", "--rerank", "1")
    assert "features" in said.out


def test_a_cut_that_the_index_names_is_placed_by_features(flown, tmp_path, capsys):
    """With index.overlap = 2, a photo of a corner of tiles is most like a cut, and its position is found all the same."""
    cache = building.copy_site(flown[0].parent, tmp_path / "site")
    building.edit(cache, "# overlap = 1", "overlap = 2")
    assert building.build(cache).outcome == "SUCCESS"
    truth = place_at(building.ZOOM, building.WEST + 2.05, building.NORTH + 1.95)
    mpp = metres_per_pixel(building.ZOOM, truth)
    ground = textured(4, 12)
    half_a_tile = 128 * mpp / math.tan(math.radians(32.5)) * 4 / 3  # so high that its shorter side shows one tile
    pixels = photograph(ground, (2.05 * 256, 1.95 * 256), mpp, height=half_a_tile, fov=65.0)
    dji_jpeg(cache.parent / "a.jpg", pixels, truth, height=half_a_tile, yaw=0, pitch=-90, equivalent_mm=0)
    code, said = located(cache, capsys, "--patches", "0", "--json")
    assert code == 0, said.err
    plain = json.loads(said.out)[0]["matches"][0]
    assert plain["cut"] == 3
    code, said = located(cache, capsys, "--patches", "0", "--second-stage", "orb", "--json")
    (row,) = json.loads(said.out)
    assert row["fix"]["features"] >= 12
    assert (row["matches"][0]["tile"], row["matches"][0]["cut"]) == (plain["tile"], 3)
    assert row["matches"][0]["distance_m"] < 20 < plain["distance_m"]  # a pixel is 6.5 m, the cut's centre 180 m away


def test_without_it_nothing_is_said_of_it(flown, capsys):
    code, said = located(flown[0], capsys, "--fov", "65", "--json")
    assert code == 0
    assert json.loads(said.out)[0]["fix"] is None


def test_evaluate_counts_the_photos_that_features_placed(flown, capsys):
    assert_evaluate_counts_the_placed(*flown, capsys, "orb")


def assert_evaluate_counts_the_placed(cache, truth, capsys, features):
    listed = cache.parent / "q.csv"
    listed.write_text(f"file,lat,lon,fov_deg\na.jpg,{truth.lat_e7 / 1e7},{truth.lon_e7 / 1e7},65\n")
    words = ["evaluate", str(listed), str(cache), "--second-stage", features, "--rerank", "1", "--public-key",
             str(cache.parent / "key.pub.pem")]  # fmt: skip
    assert main(words) == 0
    assert "1 of 1 photos placed by features" in capsys.readouterr().out


def test_a_cache_without_imagery_says_what_to_set(flown, tmp_path, capsys):
    cache = building.copy_site(flown[0].parent, tmp_path / "site")
    building.edit(cache, 'on_board = "pmtiles"', 'on_board = "none"')
    assert building.build(cache).outcome == "SUCCESS"
    code, said = located(cache, capsys, "--second-stage", "orb")
    assert code != 0
    assert "tiles.on_board" in said.err


@pytest.mark.parametrize("words", [["--rerank", "3"], ["--second-stage", "orb", "--rerank", "0"]])
def test_numbers_that_make_no_sense_are_refused(flown, capsys, words):
    code, said = located(flown[0], capsys, *words)
    assert code != 0
    assert "--rerank" in said.err


def test_without_opencv_the_extra_is_named(monkeypatch):
    def absent(name, *_):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Error, match="OpenCV") as refusal:
        classical("orb")
    assert "flightcache[match]" in refusal.value.next_step
