"""The figures by which a user chooses: recall, its confidence, and chance beside it."""

from __future__ import annotations

import csv
import json
import math
import os
from itertools import combinations, product
from pathlib import Path
from xml.etree import ElementTree as ET

import mercantile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.crops import make_crops
from provisioning.base.errors import Error, PhotoError
from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import tile_centre
from provisioning.base.process import confined
from provisioning.build.request import read_request
from provisioning.cli import main
from provisioning.cli.begin.init import create_cache
from provisioning.cli.measure.variants import parse_variant
from provisioning.flight.signing import generate_key
from provisioning.quality.evaluate.queries import read_queries
from provisioning.quality.evaluate.run import prior_around
from provisioning.quality.evaluate.score import Answer, chance, score, wilson
from provisioning.quality.gates.values import read as read_gates
from provisioning.quality.locate import distance_m
from tests import building
from tests.building import NORTH, WEST, ZOOM


def test_wilson_is_the_published_interval():
    # Brown, Cai, DasGupta 2001, and R's prop.test(correct = FALSE)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_its_share_and_stays_within_0_and_1(trials, data):
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1
    assert wilson(trials - hits, trials) == pytest.approx((1 - high, 1 - low))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    intervals = [wilson(hits, 40) for hits in range(41)]
    coverage = [
        math.fsum(
            math.comb(40, hits) * p**hits * (1 - p) ** (40 - hits)
            for hits, (low, high) in enumerate(intervals)
            if low <= p <= high
        )
        for p in (number / 200 for number in range(1, 200))
    ]
    assert 0.94 <= sum(coverage) / len(coverage) <= 0.965


@pytest.mark.parametrize("near", [0, 1, 3, 7])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_chance_is_what_counting_every_draw_gives(near, rank):
    draws = list(combinations(range(7), rank))
    assert chance(near, 7, rank) == pytest.approx(sum(min(draw) < near for draw in draws) / len(draws))


def test_chance_of_more_draws_than_tiles_is_certain():
    assert chance(1, 3, 10) == 1


def test_recall_counts_tiles_within_the_distance():
    answers = [Answer("a", (10, 500), 2, 100), Answer("b", (60, 20, 5), 1, 100), Answer("c", (), 0, 100)]
    found = score(answers, within_m=25)
    assert [round(r.share, 4) for r in found.recalls] == [0.3333, 0.6667, 0.6667]
    assert found.recalls[0].chance == pytest.approx(0.01)
    assert found.reachable == pytest.approx(2 / 3)
    assert found.median_error_m == 60


@given(st.integers(-800_000_000, 800_000_000), st.integers(-1_800_000_000, 1_800_000_000), st.floats(1, 50_000))
def test_the_circle_of_a_prior_holds_the_truth(lat, lon, radius_m):
    prior = prior_around(Origin(lat, lon), radius_m, "a.jpg")
    assert distance_m(prior.position, Origin(lat, lon)) <= radius_m + 0.02
    assert prior == prior_around(Origin(lat, lon), radius_m, "a.jpg")


def test_the_truth_lies_anywhere_in_the_circle():
    truth = Origin(470_000_000, 85_000_000)
    away = [distance_m(prior_around(truth, 1000, str(n)).position, truth) for n in range(400)]
    assert np.mean(np.array(away) < 500) == pytest.approx(0.25, abs=0.08)  # evenly over the area


def write_queries(path, rows, header=("file", "lat", "lon", "yaw")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def test_queries_are_read_with_their_headings(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    file = write_queries(tmp_path / "q.csv", [["a.jpg", "-33.5", "151.25", "-90"], ["a.jpg", "1", "2", ""]])
    first, second = read_queries(file)
    assert (first.place, first.heading_deg, first.path) == (
        Origin(-335_000_000, 1_512_500_000),
        -90,
        tmp_path / "a.jpg",
    )
    assert second.heading_deg is None


def test_a_spreadsheet_s_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "q.csv").write_bytes(b"\xef\xbb\xbffile,lat,lon\r\na.jpg,1,2\r\n")
    assert read_queries(tmp_path / "q.csv")[0].heading_deg is None


def test_every_bad_row_is_named_at_once(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    rows = [
        ["a.jpg", "91", "0", ""],
        ["gone.jpg", "1", "1", ""],
        ["a.jpg", "1", "1", "north"],
        ["a.jpg", "nan", "1", ""],
    ]
    with pytest.raises(PhotoError) as caught:
        read_queries(write_queries(tmp_path / "q.csv", rows))
    issues = list(caught.value.facts.values())
    assert len(issues) == 4
    assert issues[1].startswith("line 3: no photo at 'gone.jpg'")


@pytest.mark.parametrize("text", ["", "file,lat\na,1\n", "file,lat,lon\n"])
def test_a_list_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(PhotoError):
        read_queries(tmp_path / "q.csv")


@pytest.mark.parametrize("text", ["transform", "colour=red", "rotations=many", "kind=flat,kind=sq8", "zooms=1-2"])
def test_a_setting_to_try_that_is_none_is_refused(text):
    with pytest.raises(Error, match="--try"):
        parse_variant(text)


def test_settings_to_try_are_read():
    variant = parse_variant("transform=pca-whiten(32), rotations=4,zooms=18+17,rotate=8,overlap=2")
    assert variant[1:] == ("pca-whiten(32)", 4, None, (17, 18), 8, None, None, 2)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A built cache over synthetic tiles with a list of its own tiles as queries."""
    root = tmp_path_factory.mktemp("evaluate")
    cache = building.new_cache(root)
    assert building.build(cache).outcome == "SUCCESS"
    rows = []
    for column in range(4):
        for row in range(4):
            centre = tile_centre(ZOOM, WEST + column, NORTH + row)
            name = f"tiles/{ZOOM}/{WEST + column}/{NORTH + row}.jpg"
            rows.append([name, centre.lat_e7 / 1e7, centre.lon_e7 / 1e7, ""])
    return cache, write_queries(root / "queries.csv", rows)


@pytest.fixture(scope="module")
def four(scene):
    """The first four of those queries, for processes of their own: each photo starts one."""
    queries = scene[1]
    few = queries.with_name("four.csv")
    few.write_text("\n".join(queries.read_text().splitlines()[:5]) + "\n")
    return few


def evaluated(words, capsys):
    key = next(Path(word) for word in words[1:] if (Path(word) / "flight.toml").is_file()).parent / "key.pub.pem"
    assert main(["evaluate", *map(str, words), "--public-key", str(key), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_tiles_as_queries_are_all_found_and_chance_is_one_in_sixteen(scene, capsys):
    cache, queries = scene
    (found,) = evaluated([queries, cache, "--within", "10"], capsys)
    assert found["recall"]["1"]["share"] == 1
    assert found["recall"]["1"]["chance"] == pytest.approx(1 / 16, abs=1e-4)
    assert found["recall"]["10"]["chance"] == pytest.approx(10 / 16, abs=1e-4)
    assert (found["queries"], found["tiles"], found["reachable"]) == (16, 16, 1)


def test_recall_is_broken_down_by_heading_height_and_distance_to_the_centre(scene, capsys):
    cache, _ = scene
    rows = []
    for x, y in product(range(WEST, WEST + 4), range(NORTH, NORTH + 4)):
        west, south, east, north = mercantile.bounds(x, y, ZOOM)
        lon = west + (east - west) * (0.9 if y % 2 else 0.5)
        rows.append(
            [f"tiles/{ZOOM}/{x}/{y}.jpg", (south + north) / 2, lon, 0 if y < NORTH + 2 else 180, 100 + 9 * x % 50]
        )
    list_ = write_queries(cache.parent / "turned.csv", rows, ("file", "lat", "lon", "yaw", "height_m"))
    by = evaluated([list_, cache], capsys)[0]["by"]
    north_up, turned = by["heading"]
    assert (north_up["range"], turned["range"]) == ("north (315 to 45)", "south (135 to 225)")
    assert (north_up["queries"], north_up["recall"]["1"]["share"]) == (8, 1)
    assert turned["recall"]["1"]["share"] < 0.5  # upright tiles, looked up as if their top pointed south
    assert [each["range"] for each in by["centre"]] == ["up to 0.25 sides", "0.25 to 0.5 sides"]
    assert sum(each["queries"] for each in by["height"]) == 16
    assert main(["evaluate", str(list_), str(cache), "--public-key", str(cache.parent / "key.pub.pem")]) == 0
    assert "south (135 to 225)" in capsys.readouterr().out


def test_how_many_photos_gave_no_heading_or_pitch_is_said_with_what_was_assumed(scene, capsys):
    cache, _ = scene
    centre = tile_centre(ZOOM, WEST, NORTH)
    place = [centre.lat_e7 / 1e7, centre.lon_e7 / 1e7]
    name = f"tiles/{ZOOM}/{WEST}/{NORTH}.jpg"
    rows = [[name, *place, 90, "", 900, 100], [name, *place, "", -90, 900, 100], [name, *place, "", "", "", ""]]
    header = ("file", "lat", "lon", "yaw", "pitch", "height_m", "fov_deg")
    list_ = write_queries(cache.parent / "unsaid.csv", rows, header)
    (found,) = evaluated([list_, cache], capsys)
    assert found["assumed"] == {"heading_deg": {"photos": 2, "value": 0}, "pitch_deg": {"photos": 1, "value": -90}}
    assert main(["evaluate", str(list_), str(cache), "--public-key", str(cache.parent / "key.pub.pem")]) == 0
    assert "of 3 photos 2 give no heading (north assumed), 1 give no pitch (-90° assumed)" in capsys.readouterr().out


@pytest.mark.parametrize("cores", [1, 2])
def test_photos_are_answered_alike_by_as_many_processes_as_there_are_cores(scene, four, capsys, monkeypatch, cores):
    cache, _ = scene
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    asked_for, several = [], confined.processes
    monkeypatch.setattr(confined, "processes", lambda count: asked_for.append(count) or several(count))
    with confined.apart():
        (found,) = evaluated([four, cache, "--within", "10"], capsys)
    assert found["recall"]["1"]["share"] == 1
    assert asked_for == ([] if cores == 1 else [cores])


def test_of_several_damaged_photos_the_first_of_the_list_is_named(scene, four, capsys, monkeypatch):
    cache, _ = scene
    for number in (1, 2):
        (cache.parent / f"bad{number}.jpg").write_bytes(b"no photo")
    header, *rows = four.read_text().splitlines()
    for number in (2, 1):
        rows.insert(number, f"bad{number}.jpg,{rows[0].split(',', 1)[1]}")
    listed = cache.parent / "damaged.csv"
    listed.write_text("\n".join([header, *rows]) + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    with confined.apart():
        code = main(["evaluate", str(listed), str(cache), "--public-key", str(cache.parent / "key.pub.pem")])
    assert code == PhotoError.exit_code
    assert "bad1.jpg" in capsys.readouterr().err


def test_places_outside_the_cache_are_reported_as_out_of_reach(scene, tmp_path, capsys):
    cache, _ = scene
    rows = [["far.jpg", "0", "0", ""]]
    (tmp_path / "far.jpg").write_bytes(building.tile_image(0))
    (found,) = evaluated([write_queries(tmp_path / "q.csv", rows), cache], capsys)
    assert (found["reachable"], found["recall"]["1"]["share"], found["recall"]["1"]["chance"]) == (0, 0, 0)


def test_the_map_of_the_report_marks_the_tiles_that_flights_would_not_find(scene):
    cache, _ = scene
    missed = read_gates(read_request(cache).gates.path).mistaken
    page = (cache / "current/report.html").read_text()
    assert missed  # the tiny network does not find all of this noise at any heading
    for tile, taken_for, why in missed:
        said = f"not recognised: {why}, taken for {'/'.join(map(str, taken_for[:3]))}"
        assert json.dumps([*tile[:3], said], separators=(",", ":")) in page
        assert f'alt="{"/".join(map(str, tile[:3]))} of {tile.source}"' in page
    assert page.count("<img ") == 2 * len(missed)
    assert 'class="layer-marks-not-recognised"' in page


def test_other_settings_are_compared_and_nothing_is_published(scene, capsys):
    cache, queries = scene
    before = sorted(path.name for path in (cache / "generations").iterdir())
    settings = ["transform=center", "transform=pca-whiten(8)", "rotations=2", "kind=sq8", "rotate=2"]
    tries = [word for setting in settings for word in ("--try", setting)]
    found = evaluated([queries, cache, "--within", "10", "--own", *tries], capsys)
    assert [row["setting"] for row in found[1:]] == settings
    assert all(row["recall"]["1"]["share"] >= 0.9 for row in found)
    assert found[3]["index_bytes"] > 1.8 * found[0]["index_bytes"]
    assert sorted(path.name for path in (cache / "generations").iterdir()) == before
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"


def test_answers_and_plot_are_written(scene, tmp_path, capsys):
    cache, queries = scene
    words = [
        queries,
        cache,
        "--csv",
        tmp_path / "a.csv",
        "--plot",
        tmp_path / "p.svg",
        "--own",
        "--try",
        "transform=center",
    ]
    evaluated(words, capsys)
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    assert all(row["hit@1"] == "1" for row in rows if row["setting"] != "transform=center")
    svg = ET.fromstring((tmp_path / "p.svg").read_bytes())
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "transform=center" in texts


def test_the_table_shows_interval_and_chance(scene, capsys):
    cache, queries = scene
    assert (
        main(
            ["evaluate", str(queries), str(cache), "--within", "10", "--public-key", str(cache.parent / "key.pub.pem")]
        )
        == 0
    )
    output = capsys.readouterr().out
    assert "100.0 [81, 100]" in output
    assert "6.2" in output
    assert "within 10 m" in output


SQUEEZENET = {
    '# channels = "rgb"': 'channels = "bgr"',
    "# scale = 0.00392156862745098": "scale = 1",
    "# mean = []": "mean = [103.94, 116.78, 123.68]",
}


def real_cache(shared_data, root, backbone=None):
    """Build a cache over 64 real tiles and return it with the folder of the tiles."""
    tiles = shared_data / "tiles/oam_banepa"
    generate_key(root / "key.pem", password=None)
    onnx = shared_data / backbone if backbone else None
    create_cache(root / "cache", tiles=tiles, key=root / "key.pem", backbone=onnx, index_overlap=1)
    for old, new in SQUEEZENET.items() if backbone else ():
        building.edit(root / "cache", old, new)
    building.edit(root / "cache", "# samples = 64", "samples = 4")  # the gates are no part of this
    built = building.build(root / "cache")
    assert built.outcome == "SUCCESS", built.failure
    return root / "cache", tiles


@pytest.fixture(scope="module")
def gist(shared_data, tmp_path_factory):
    """A cache over 64 real tiles with the built-in backbone, and their folder."""
    return real_cache(shared_data, tmp_path_factory.mktemp("gist"))


@pytest.fixture(scope="module")
def crops(shared_data, tmp_path_factory):
    """Photos up to 15 % of a side off any tile, in other light, blurred, compressed."""
    folder = tmp_path_factory.mktemp("crops") / "photos"
    make_crops(shared_data / "tiles/oam_banepa", 19, folder, offset=0.15, turned=False, each=1)
    return folder / "queries.csv"


def recall_of(crops, cache, capsys):
    """Recall@1 and chance@1 of these photos."""
    (found,) = evaluated([crops, cache], capsys)
    assert found["queries"] >= 35
    return found["recall"]["1"]["share"], found["recall"]["1"]["chance"]


@pytest.mark.slow  # those turned, below, are found by the same network
def test_perturbed_crops_of_real_tiles_are_found(gist, crops, capsys):
    share, guessed = recall_of(crops, gist[0], capsys)
    assert share >= 0.95
    assert guessed < 0.06


@pytest.mark.slow  # test_descriptors.py has the same network on real tiles
def test_perturbed_crops_of_real_tiles_are_found_by_squeezenet(shared_data, crops, tmp_path, capsys):
    cache, _ = real_cache(shared_data, tmp_path, "models/squeezenet_gap512.onnx")
    share, guessed = recall_of(crops, cache, capsys)
    assert share >= 0.85
    assert guessed < 0.06


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_photos_of_any_heading_are_found_by_their_yaw_or_by_turning_them(gist, tmp_path, capsys, every):
    cache, tiles = gist
    make_crops(tiles, 19, tmp_path / "photos", offset=0.15, turned=True, each=1, every=every)
    words = [tmp_path / "photos/queries.csv", cache, "--own", "--try", "rotate=1", "--try", "rotate=16"]
    own, north, sixteen = (row["recall"]["1"]["share"] for row in evaluated(words, capsys))
    assert own >= 0.9
    assert north < 0.5  # the heading matters
    assert sixteen >= 0.8
