"""Promises of the report's map that moves: what its script is given, and the picture of the build's steps."""

import dataclasses
import json
import re

import pytest

from provisioning.report.map.moving import _data, layers, toggle
from provisioning.report.map.tilemap import Run, tile_map
from provisioning.report.model import ReportModel, Step, TileMark
from provisioning.report.page import render
from provisioning.report.steps import _places, steps
from tests import report_models

BBOX = report_models.BBox(75476074, 472792290, 76794434, 473611530)
MARKS = (TileMark(11, 1069, 720, "degenerate", "no <texture>"), TileMark(11, 1067, 720, "left out"))


@pytest.fixture
def model():
    tiles = tile_map(
        11,
        [Run(719, 1067, 1070), Run(720, 1067, 1070)],
        [(x, y, "2021-05-30" if x < 1069 else None) for y in (719, 720) for x in (1067, 1068, 1069)],
        origins=[(x, y, "ortho") for y in (719, 720) for x in (1067, 1068, 1069)] + [(1067, 719, "old")],
    )
    coarse = tile_map(10, [Run(360, 533, 535)], [])
    manifest = report_models.manifest(BBOX, {11: report_models.ZoomCount(6, 8, 0)})
    return ReportModel(manifest=manifest, maps=(coarse, tiles), marks=MARKS)


def given(page: bytes) -> dict[str, object]:
    (text,) = re.findall(r'<script type="application/json" id="map-data">(.*?)</script>', page.decode())
    return json.loads(text)


def test_the_script_gets_every_cell_once_finest_zoom_first(model):
    data = given(render(model))
    assert [found["zoom"] for found in data["maps"]] == [11, 10]
    cells = [(row, first + n) for row, first, count, *_ in data["maps"][0]["runs"] for n in range(count)]
    assert sorted(cells) == [(y, x) for y in (719, 720) for x in range(1067, 1071)]


def test_runs_say_tiles_date_and_sources(model):
    data = _data(model)
    runs = {tuple(run[:2]): run[2:] for run in data["maps"][0]["runs"]}
    count, present, expected, date, source = runs[719, 1067]
    assert (count, present, expected, data["dates"][date], data["sources"][source]) == (
        1,
        1,
        1,
        "2021-05-30",
        "old, ortho",
    )
    assert runs[719, 1069][3] == -1
    assert runs[719, 1070][1] == 0


def test_text_of_others_cannot_end_the_data(model):
    evil = dataclasses.replace(model, marks=(TileMark(11, 1067, 719, "degenerate", "</script><script>x()"),))
    page = render(evil)
    assert page.count(b"</script>") == 2
    assert given(page)["marks"][0][3] == "degenerate: </script><script>x()"


def test_each_layer_has_a_box_and_a_drawing(model):
    page = render(model).decode()
    names = [name for name, _, _ in layers(model, model.maps[1])]
    assert names == ["zoom-10-gaps", "marks-degenerate", "marks-left-out"]
    for name in (*names, "gaps", "outline"):
        assert f'id="layer-{name}"' in page
        assert f'<g class="layer-{name}">' in page
        assert toggle(name, name)[1] in page


def test_tiles_under_the_route_are_a_layer_at_their_own_zoom(model):
    required = tile_map(12, [Run(1439, 2135, 2137)], ())
    page = render(dataclasses.replace(model, required=(required,))).decode()
    (drawn,) = re.findall(r'<g class="layer-required"><path class="required" d="(M[^"]*)"', page)
    (side, *_) = (float(width) for width in re.findall(r"h([\d.]+)v", drawn))
    assert drawn.count("M") == 3
    assert side == pytest.approx(given(page.encode())["frame"]["scale"] / 2, abs=0.01)
    assert 'id="layer-required"' in page


def test_a_layer_of_another_zoom_lies_where_its_tiles_are(model):
    fine, coarse = model.maps[1], model.maps[0]
    drawn = next(drawing for name, _, drawing in layers(model, fine) if name == "zoom-10-gaps")
    sides = [float(width) for width in re.findall(r"h([\d.]+)v", drawn)]
    frame = given(render(model))["frame"]
    assert len(sides) == len(coarse.cells)
    assert sides[0] == pytest.approx(2 * frame["scale"], abs=0.01)


def test_steps_stand_behind_what_they_need():
    places = _places({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()})
    columns = {name: x for name, (x, _) in places.items()}
    assert columns["a"] == columns["e"] < columns["b"] == columns["c"] < columns["d"]
    assert len(set(places.values())) == 5


def test_a_group_stands_for_each_of_its_tasks(model):
    given_steps = (Step("engine:a", ()), Step("engine:b", ()), Step("gates", ("engine",)))
    drawn = steps(dataclasses.replace(model, steps=given_steps))
    assert "gates after engine:a, engine:b" in drawn
    assert drawn.count("step-line") == 2


def test_without_steps_there_is_no_section(model):
    assert 'id="steps"' not in render(model).decode()
