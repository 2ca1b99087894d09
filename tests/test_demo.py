"""Promises of the demo imagery."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from provisioning.base.geometry import geo
from provisioning.cli import main
from provisioning.cli.begin import demo_imagery as demo
from provisioning.cli.begin.demo import make_demo
from provisioning.config.parse import read_flight
from tests.sharing import made_once

WHOLE = (demo.COLUMNS, demo.ROWS)
"""Patches of the landscape as it is drawn for a user; tests have a small one, `-m slow` this one, too."""
PATCH_SHA256 = "1bdb4b211c0b752db32bf208ad61d6375bb84ca613b4e64311d325ebf009ac4e"
"""Digest of one drawn patch: the same on every processor."""


@pytest.fixture
def whole(monkeypatch):
    """Let the landscape be as large as a user has it."""
    monkeypatch.setattr(demo, "COLUMNS", WHOLE[0])
    monkeypatch.setattr(demo, "ROWS", WHOLE[1])


@pytest.fixture(params=["small", pytest.param("whole", marks=pytest.mark.slow)])
def imagery(request, tmp_path_factory) -> Path:
    """Return the folder of a small landscape, or of the whole one."""
    if request.param == "small":
        return request.getfixturevalue("demo_imagery")
    request.getfixturevalue("whole")
    return made_once(tmp_path_factory, "whole_imagery", demo.write_demo_tiles)


def _pixels(demo_imagery: Path, z: int, x: int, y: int) -> np.ndarray:
    return simplejpeg.decode_jpeg((demo_imagery / str(z) / str(x) / f"{y}.jpg").read_bytes())


def _places(demo_imagery: Path) -> list[tuple[int, int, int]]:
    return sorted(
        (int(path.parent.parent.name), int(path.parent.name), int(path.stem)) for path in demo_imagery.rglob("*.jpg")
    )


def test_imagery_has_five_hundred_tiles_on_two_levels_of_256_pixels(imagery):
    places = _places(imagery)
    assert len(places) == 5 * demo.COLUMNS * demo.ROWS
    assert 5 * WHOLE[0] * WHOLE[1] >= 500
    assert {z for z, _, _ in places} == set(demo.ZOOMS)
    assert _pixels(imagery, *places[0]).shape == (256, 256, 3)


@pytest.mark.usefixtures("whole")
def test_drawing_gives_the_same_pixels_on_every_machine():
    assert hashlib.sha256(demo.draw_patch(5, 4).tobytes()).hexdigest() == PATCH_SHA256


def test_second_drawing_gives_the_same_files(imagery, tmp_path):
    demo.write_patch(tmp_path, 3, 2)
    written = list(tmp_path.rglob("*.jpg"))
    assert len(written) == 5
    for path in written:
        assert (imagery / path.relative_to(tmp_path)).read_bytes() == path.read_bytes()


def test_parent_is_the_mean_of_its_children(imagery):
    fine, coarse = demo.ZOOMS[1], demo.ZOOMS[0]
    x, y = demo.WEST_COLUMN + 2, demo.NORTH_ROW + 1
    rows = [np.hstack([_pixels(imagery, fine, 2 * x + dx, 2 * y + dy) for dx in (0, 1)]) for dy in (0, 1)]
    difference = demo.downsample(np.vstack(rows)).astype(int) - _pixels(imagery, coarse, x, y)
    assert np.abs(difference).mean() < 5  # two JPEG compressions


def test_neighbours_meet_without_a_seam():
    left, right = demo.draw_patch(3, 3).astype(int), demo.draw_patch(4, 3).astype(int)
    across = np.abs(right[:, 0] - left[:, -1]).mean()
    within = np.abs(np.diff(left[:, -64:], axis=1)).mean()
    assert across < 1.5 * within


def test_the_area_is_covered_by_the_imagery_and_by_nothing_else(imagery):
    expected = set()
    for zoom in demo.ZOOMS:
        ranges = geo.tiles_in_bbox(demo.area(), zoom)
        ((left, right),), (top, bottom) = ranges.columns, ranges.rows
        expected |= {(zoom, x, y) for x in range(left, right + 1) for y in range(top, bottom + 1)}
    assert set(_places(imagery)) == expected


def test_places_can_be_told_apart_but_for_open_water(imagery):
    fine = [place for place in _places(imagery) if place[0] == demo.ZOOMS[1]]
    small = np.stack([_pixels(imagery, *place).reshape(16, 16, 16, 16, 3).mean(axis=(1, 3)).ravel() for place in fine])
    small -= small.mean(axis=0)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    similar = small @ small.T - 2 * np.eye(len(fine))
    assert (similar.max(axis=1) > 0.95).mean() < 0.03
    assert np.median(similar.max(axis=1)) < 0.8


def test_demo_refuses_to_touch_a_cache_that_is_there(tmp_path, capsys):
    (tmp_path / "flight.toml").write_text("mine")
    assert main(["demo", str(tmp_path)]) == 11
    assert "a cache is there already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flight.toml"]


def test_demo_makes_a_cache_whose_area_is_its_imagery(imagery, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "write_demo_tiles", lambda folder: shutil.copytree(imagery, folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    new = make_demo(tmp_path / "demo")
    patches = demo.COLUMNS * demo.ROWS
    assert new.survey is not None
    assert new.survey.bbox == demo.area()
    assert [(count.present, count.expected) for count in new.survey.per_zoom.values()] == [
        (patches, patches),
        (4 * patches,) * 2,
    ]
    flight = read_flight(tmp_path / "demo")
    assert flight.calibration[0].path.name == "camera.json"
    assert not new.key.is_relative_to(tmp_path / "demo")
