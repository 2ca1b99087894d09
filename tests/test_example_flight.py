"""The example that flight software starts from does what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import building
from tests.building import NORTH, WEST, ZOOM

EXAMPLE = Path(__file__).parents[1] / "examples/flight/startup.py"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("flight")
    cache = building.new_cache(root, side=3)
    assert building.build(cache).outcome == "SUCCESS"
    return root, cache


def fly(scene, tmp_path, frames: str, *, flight: str = "F-1", floor: str = "1\n"):
    root, cache = scene
    (tmp_path / "floor").write_text(floor)
    words = [cache, "--public-key", root / "key.pub.pem", "--flight", flight, "--floor", tmp_path / "floor"]
    return subprocess.run(
        [sys.executable, EXAMPLE, *words],
        input=frames,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(EXAMPLE.parents[2])},
    )


def test_the_example_answers_frames_from_a_verified_cache(scene, tmp_path):
    tile = scene[0] / f"tiles/{ZOOM}/{WEST + 1}/{NORTH}.jpg"
    done = fly(scene, tmp_path, f"{tile}\n{tile} 0\nmissing.jpg\n")
    assert done.returncode == 0, done.stderr
    blind, known, missing = map(json.loads, done.stdout.splitlines())
    for found in (blind, known):
        assert found["matches"][0]["tile"] == f"{ZOOM}/{WEST + 1}/{NORTH}"
        assert found["matches"][0]["heading_deg"] == 0
    assert "error" in missing
    assert (tmp_path / "floor").read_text() == "1\n"


@pytest.mark.parametrize(
    ("change", "reason"), [({"flight": "F-2"}, "expected F-2"), ({"floor": "2\n"}, "below the floor")]
)
def test_the_example_refuses_what_is_not_for_it(scene, tmp_path, change, reason):
    done = fly(scene, tmp_path, "", **change)
    assert done.returncode == 22
    assert reason in done.stderr
    assert done.stdout == ""
