"""Recall is broken down by what makes a photo hard to find, and an error of another place is named as one."""

import mercantile
import numpy as np
import pytest
from pyproj import Geod

from provisioning.base.geometry.angles import Origin
from provisioning.quality.evaluate.conditions import Conditions, broken_down, conditions, off_centre
from provisioning.quality.evaluate.queries import Query
from provisioning.quality.evaluate.run import Asked
from provisioning.quality.evaluate.score import Answer
from provisioning.quality.evaluate.table import Result, as_json, as_text, confidence
from provisioning.quality.locate import Photo, Places
from provisioning.quality.matching import Fix
from provisioning.quality.query.metadata import Metadata

HIT, MISS = Answer("hit", (3.0,), 1, 100), Answer("miss", (9_000_000.0,), 1, 100)


def recall_by(condition, answers, known):
    groups = broken_down(answers, known, within_m=50).get(condition, ())
    return {group.name: (group.photos, group.recalls[0].share) for group in groups}


def test_headings_are_divided_into_quarters_around_north():
    headings = [0, 44.9, 315, 359, 45, 90, 134.9, 200, 270]
    answers = [HIT] * 4 + [MISS] * 3 + [HIT] * 2
    assert recall_by("heading", answers, [Conditions(heading_deg=each) for each in headings]) == {
        "north (315 to 45)": (4, 1.0),
        "east (45 to 135)": (3, 0.0),
        "south (135 to 225)": (1, 1.0),
        "west (225 to 315)": (1, 1.0),
    }


def test_heights_are_divided_into_parts_of_equally_many_photos():
    heights = [*range(60, 66), *range(120, 126), *range(300, 306)]
    answers = [HIT] * 6 + [HIT, MISS] * 3 + [MISS] * 6
    known = [Conditions(height_m=float(each)) for each in heights]
    order = np.random.default_rng(1).permutation(18)
    assert recall_by("height", [answers[n] for n in order], [known[n] for n in order]) == {
        "60 to 65 m": (6, 1.0),
        "120 to 125 m": (6, 0.5),
        "300 to 305 m": (6, 0.0),
    }


def test_photos_of_one_height_are_never_divided_by_it():
    known = [Conditions(height_m=100.0 + n / 100) for n in range(20)]
    assert recall_by("height", [HIT, MISS] * 10, known) == {}


def test_a_condition_that_few_photos_say_is_left_out():
    known = [Conditions(heading_deg=float(n * 90)) for n in range(4)] + [Conditions()] * 20
    assert recall_by("heading", [HIT] * 24, known) == {}


def test_photos_that_do_not_say_are_in_no_group():
    known = [Conditions(heading_deg=float(n % 2 * 90)) for n in range(10)] + [Conditions()] * 5
    assert sum(photos for photos, _ in recall_by("heading", [HIT] * 15, known).values()) == 10


@pytest.mark.parametrize(("lat", "lon"), [(27.63321, 85.52012), (-33.9, 151.2), (68.3, -149.9)])
def test_the_distance_to_the_centre_is_that_of_mercantile_and_a_geodesic(lat, lon):
    tile = mercantile.tile(lon, lat, 18)
    west, south, east, north = mercantile.bounds(tile)
    _, _, metres = Geod(ellps="sphere").inv(lon, lat, (west + east) / 2, (south + north) / 2)
    _, _, side = Geod(ellps="sphere").inv(west, lat, east, lat)
    found = off_centre(Places(np.zeros(0, np.int64)), Origin(round(lat * 1e7), round(lon * 1e7)), 18)
    assert found == pytest.approx(metres / side, abs=0.002)


def test_what_the_caller_knows_goes_before_the_photo():
    pixels = np.zeros((600, 900, 3), np.uint8)
    pixels[:, ::2] = 100
    photo = Photo(pixels, None, 10.0, Metadata(relative_m=80.0))
    own = conditions(photo, "no camera", heading_deg=None, height_m=None, off_centre=0.1)
    given = conditions(photo, "no camera", heading_deg=-90.0, height_m=120.0, off_centre=0.1)
    assert (own.heading_deg, own.height_m, given.heading_deg, given.height_m) == (10, 80, 270, 120)


def result(answers, known=None, radius_m=None):
    known = known or [Conditions()] * len(answers)
    query = Query("a.jpg", None, Origin(0, 0), None)
    asked = tuple(Asked(query, (), answer, "as it is", each) for answer, each in zip(answers, known, strict=True))
    return Result("cache flat", 100, 1000, 8, asked, 50.0, radius_m)


def test_a_median_error_of_another_place_is_named_in_metres_and_in_words():
    said = as_text([result([HIT, MISS, MISS])])
    assert "9,000,000 m" in said.splitlines()[1]
    assert "half of the photos are answered with another place, 9,000,000 m away or more" in said
    assert "where the first place is right the median error is 3 m" in said
    assert "--radius" in said
    assert "--radius" not in as_text([result([HIT, MISS, MISS], radius_m=1000.0)])


def test_a_median_error_of_navigation_has_no_such_line():
    assert "another place" not in as_text([result([HIT, HIT, MISS])])


def test_nothing_found_has_no_median_of_what_was_found():
    found = as_json(result([MISS, Answer("none", (), 0, 100)]))
    assert (found["median_error_m"], found["median_error_found_m"]) == (None, None)
    assert "no answer" in as_text([result([Answer("none", (), 0, 100)])])


def test_text_and_json_give_the_same_breakdown():
    known = [Conditions(heading_deg=0.0, texture=20.0), Conditions(heading_deg=90.0, texture=60.0)] * 8
    measured = result([HIT, MISS] * 8, known)
    by = as_json(measured)["by"]
    assert {each["range"]: each["recall"]["1"]["share"] for each in by["texture"]} == {"20 levels": 1, "60 levels": 0}
    table = [line.split() for line in as_text([measured]).splitlines()]
    assert ["heading", "north", "(315", "to", "45)", "8", "100", "[68,", "100]", "100", "100"] in table


def with_doubts(answers, doubts, fixes=()):
    """Return a result whose answers are doubted, and placed by features, where the flags say so."""
    plain = result(answers)
    fix = Fix(20, 30, 1.0, 0.0, 1.0)
    placed = (*fixes, *[False] * len(answers))
    asked = tuple(
        each._replace(doubt="alike" if doubt else None, fix=fix if is_placed else None)
        for each, doubt, is_placed in zip(plain.asked, doubts, placed, strict=False)
    )
    return plain._replace(asked=asked)


def test_how_often_right_and_wrong_answers_are_doubted_is_counted():
    measured = with_doubts([HIT, HIT, HIT, MISS, MISS], [True, False, False, True, False])
    assert confidence(measured) == ((1, 3), (1, 2))
    assert "called not confident: 1 of 3 right answers and 1 of 2 wrong answers" in as_text([measured])
    assert as_json(measured)["not_confident"] == {
        "right": {"doubted": 1, "answers": 3},
        "wrong": {"doubted": 1, "answers": 2},
    }


def test_photos_placed_by_features_have_a_line_of_their_own():
    measured = with_doubts([HIT, HIT, MISS], [False] * 3, fixes=[True, False, True])
    assert "2 of 3 photos placed by features, 50.0% of them right" in as_text([measured])
    assert as_json(measured)["fixed"] == 2
    assert "by features" not in as_text([with_doubts([HIT], [False])])
