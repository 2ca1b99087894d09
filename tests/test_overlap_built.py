"""Promises of index.overlap = 2 through the product: built, said by plan, published, verified, and found by."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import Origin
from provisioning.build.plan import make_plan
from provisioning.cli import main
from provisioning.cli.measure.variants import parse_variant, varied
from provisioning.config.parse import read_flight
from provisioning.flight.manifest import parse
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import ANY, Expectations, verify
from provisioning.quality.locate import Locator, Prior, distance_m
from provisioning.quality.query import Angles, Camera, Viewing
from tests import building
from tests.building import NORTH, WEST, ZOOM

SIDE = 4


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A cache over four by four tiles with their cuts, published."""
    root = tmp_path_factory.mktemp("cuts")
    cache = building.new_cache(root, side=SIDE, overlap=2, network=building.GIST)
    plan = make_plan(cache)
    done = building.build(cache)
    assert done.failure is None
    return cache, plan, done.report


@pytest.fixture(scope="session")
def cache(site):
    return site[0]


@pytest.fixture(scope="session")
def locator(cache):
    expect = Expectations(
        keys=(load_public_key(cache.parent / "key.pub.pem"),),
        flight_id=ANY,
        aircraft_id=ANY,
        host=ANY,
        counter_floor=ANY,
    )
    with verify(cache, expect) as verdict:
        return Locator.from_verdict(verdict)


def mosaic():
    """The ground: the tiles side by side, uint8 [H, W, 3]."""
    rows = [
        np.concatenate([np.asarray(Image.open(building_tile(x, y)).convert("RGB")) for x in range(SIDE)], axis=1)
        for y in range(SIDE)
    ]
    return np.concatenate(rows, axis=0)


def building_tile(x, y):
    import io

    return io.BytesIO(building.tile_image(y * 100 + x))


def manifest_of(cache):
    return parse((cache / "current/Manifest.json").read_bytes())


def test_plan_says_the_cuts_before_they_are_described(site):
    cache, plan, report = site
    assert plan.descriptors == report.descriptors_generated == 49
    entry = manifest_of(cache).descriptor_index
    assert (entry.overlap, entry.rotations, entry.vectors) == (2, 1, 49)
    assert manifest_of(cache).tiles.count == 16


def test_a_second_build_has_nothing_to_do(cache):
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"


def test_a_photo_between_tiles_is_found_at_the_centre_of_its_cut(locator):
    ground = mosaic()
    for number, (east, south) in enumerate(geo.CUTS):
        left, top = 256 + 128 * east, 256 + 128 * south
        best, second = locator.locate(ground[top : top + 256, left : left + 256], k=2)
        assert (best.z, best.x, best.y, best.cut) == (ZOOM, WEST + 1, NORTH + 1, number)
        assert best.centre == geo.cut_centre(ZOOM, WEST + 1, NORTH + 1, number)
        assert max(abs(half(second)[0] - half(best)[0]), abs(half(second)[1] - half(best)[1])) > 1


def half(match):
    east, south = geo.CUTS[match.cut]
    return 2 * match.x + east, 2 * match.y + south


def test_the_circle_of_a_prior_is_around_the_centres(locator):
    """Of a circle smaller than a tile nothing is compared that lies a tile away from it."""
    centre = geo.cut_centre(ZOOM, WEST + 1, NORTH + 1, 3)
    rows = locator.places.rows(near=Prior(centre, 1.0))
    found = [geo.unpack_id(int(each), 1) for each in locator.ids[rows]]
    side = locator.places.side_m(ZOOM, centre.lat_e7 / 1e7)
    assert (WEST + 1, NORTH + 1, 3) in {(each.x, each.y, each.cut) for each in found}
    assert len(found) == 9
    assert all(distance_m(each.centre, centre) <= side / math.sqrt(2) + 1 for each in found)


def test_a_view_is_placed_by_the_cuts_it_lies_between(locator):
    """A camera above a point that is on neither grid: what it sees is interpolated between tiles and cuts."""
    ground = mosaic()
    left, top = 256 + 96, 256 + 160
    side_m = locator.places.side_m(ZOOM, geo.tile_centre(ZOOM, WEST + 1, NORTH + 1).lat_e7 / 1e7)
    true_x, true_y = WEST + (left + 128) / 256, NORTH + (top + 128) / 256
    truth = at(true_x, true_y)
    viewing = Viewing(Camera.simple(256, 256, 128.0), Angles(0.0, -90.0, 0.0), side_m / 2)
    found = locator.locate_view(ground[top : top + 256, left : left + 256], viewing, k=1, patches=1)
    assert distance_m(found[0].position, truth) < 0.3 * side_m


def at(x, y):
    lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / (1 << ZOOM)))))
    return Origin(round(lat * 1e7), round((x / (1 << ZOOM) * 360 - 180) * 1e7))


def test_locate_says_the_cut(cache, tmp_path, capsys):
    photo = tmp_path / "between.png"
    Image.fromarray(mosaic()[256:512, 384:640]).save(photo)
    words = ["locate", str(photo), "--cache", str(cache), "--public-key", str(cache.parent / "key.pub.pem"), "-k", "1"]
    assert main([*words, "--json"]) == 0
    match = json.loads(capsys.readouterr().out)[0]["matches"][0]
    assert (match["tile"], match["cut"]) == (f"{ZOOM}/{WEST + 1}/{NORTH + 1}", 1)
    assert main([*words, "--own", "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    assert f"{ZOOM}/{WEST + 1}/{NORTH + 1}+E" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 256


@pytest.mark.parametrize(("settings", "key"), [("overlap=3", "overlap"), ("overlap=2,rotations=17", "rotations")])
def test_a_setting_that_flight_toml_would_not_take_is_not_tried(cache, settings, key):
    with pytest.raises(building.Error, match=f"--try {settings}: index.{key}: "):
        varied(read_flight(cache), parse_variant(settings))


def test_one_changed_tile_costs_itself_and_its_cuts(site, tmp_path):
    cache = building.copy_site(site[0].parent, tmp_path / "copy")
    building.put_tile(tmp_path / "copy/tiles", WEST + 1, NORTH + 1, seed=4711)
    done = building.build(cache)
    assert (done.outcome, done.report.descriptors_generated) == ("SUCCESS", 9)
    building.edit(cache, "overlap = 2", "overlap = 1")
    done = building.build(cache)
    assert (done.outcome, done.report.descriptors_generated) == ("SUCCESS", 0)
    entry = manifest_of(cache).descriptor_index
    assert (entry.overlap, entry.vectors) == (None, 16)


def test_ids_have_no_room_for_more_than_16_headings_of_each_cut(site, tmp_path):
    cache = building.copy_site(site[0].parent, tmp_path / "copy")
    building.edit(cache, "# rotations = 1", "rotations = 17")
    with pytest.raises(building.Error, match=r"index.rotations.*at most 16 with index.overlap = 2"):
        read_flight(cache)
