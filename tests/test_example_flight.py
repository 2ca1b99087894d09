"""The example that flight software starts from does what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.base.geometry.geo import tile_centre
from tests import building
from tests.building import NORTH, WEST, ZOOM
from tests.shell import quote

EXAMPLE = Path(__file__).parents[1] / "examples/flight/startup.py"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("flight")
    cache = building.new_cache(root, side=3, network=building.GIST)
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
    done = fly(scene, tmp_path, f"{quote(tile)}\n{quote(tile)} 0\nmissing.jpg\n")
    assert done.returncode == 0, done.stderr
    blind, known, missing = map(json.loads, done.stdout.splitlines())
    for found in (blind, known):
        assert found["matches"][0]["tile"] == f"{ZOOM}/{WEST + 1}/{NORTH}"
        assert found["matches"][0]["heading_deg"] == 0
        assert found["doubt"] is None
    assert "error" in missing
    assert (tmp_path / "floor").read_text() == "1\n"


def test_a_frame_may_carry_a_circle_in_which_the_aircraft_is(scene, tmp_path):
    tile, other = (quote(scene[0] / f"tiles/{ZOOM}/{WEST + x}/{NORTH}.jpg") for x in (0, 2))
    here = tile_centre(ZOOM, WEST, NORTH)
    circle = f"{here.lat_e7 / 1e7} {here.lon_e7 / 1e7} 100"
    done = fly(scene, tmp_path, f"{tile} 0 {circle}\n{other} - {circle}\n\n{tile} 0 47.1\n{tile} north\n")
    assert done.returncode == 0, done.stderr
    right, elsewhere, short, word = map(json.loads, done.stdout.splitlines())
    assert [match["tile"] for match in right["matches"]] == [f"{ZOOM}/{WEST}/{NORTH}"]
    assert right["matches"][0]["similarity"] > 0.99
    assert [match["tile"] for match in elsewhere["matches"]] == [f"{ZOOM}/{WEST}/{NORTH}"]
    assert elsewhere["matches"][0]["similarity"] < 0.9
    assert "error" in short
    assert "error" in word


@pytest.mark.parametrize(
    ("change", "reason"), [({"flight": "F-2"}, "expected F-2"), ({"floor": "2\n"}, "below the floor")]
)
def test_the_example_refuses_what_is_not_for_it(scene, tmp_path, change, reason):
    done = fly(scene, tmp_path, "", **change)
    assert done.returncode == 22
    assert reason in done.stderr
    assert done.stdout == ""


STAGE = EXAMPLE.with_name("stage.py")
STAGED = ["Manifest.json", "corpus.index", "descriptor.engine", "models"]


def stage(scene, target: Path, *words: str):
    root, cache = scene
    words = (str(cache), str(target), "--public-key", str(root / "key.pub.pem"), *words)
    environment = {"PYTHONPATH": str(EXAMPLE.parents[2])}
    return subprocess.run([sys.executable, STAGE, *words], capture_output=True, text=True, check=False, env=environment)


ANYTHING = ("--any-aircraft", "--any-host", "--any-counter")


def test_what_was_verified_is_staged_under_names_that_stay(scene, tmp_path):
    target = tmp_path / "run" / "cache"
    for _ in range(2):  # a second start replaces what the first left
        done = stage(scene, target, "--flight", "F-1", *ANYTHING)
        assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in target.iterdir()) == STAGED
    manifest = json.loads((target / "Manifest.json").read_text())
    generation = scene[1] / "current"
    engine = (generation / manifest["artifacts"]["descriptor_index"]["engine"]).read_bytes()
    assert (target / "descriptor.engine").read_bytes() == engine
    assert (target / "models/descriptor/1/model.onnx").read_bytes() == engine
    assert (target / "corpus.index").read_bytes() == (generation / "corpus.index").read_bytes()


def test_nothing_is_staged_of_a_cache_that_is_refused(scene, tmp_path):
    assert stage(scene, tmp_path / "run", "--flight", "F-1", *ANYTHING).returncode == 0
    done = stage(scene, tmp_path / "run", "--flight", "F-2", *ANYTHING)
    assert (done.returncode, "expected F-2" in done.stderr) == (22, True)
    assert list((tmp_path / "run").iterdir()) == []
    unsaid = stage(scene, tmp_path / "run", "--flight", "F-1")
    assert (unsaid.returncode, "aircraft, host, counter" in unsaid.stderr) == (2, True)


def test_a_directory_that_holds_something_else_is_left_alone(scene, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = stage(scene, tmp_path, "--flight", "F-1", *ANYTHING)
    assert (done.returncode, "notes.txt" in done.stderr, "Traceback" in done.stderr) == (10, True, False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_engine_has_the_inputs_that_the_integrator_s_page_gives(scene):
    onnxruntime = pytest.importorskip("onnxruntime")
    (engine,) = (scene[1] / "current").glob("*.engine")
    session = onnxruntime.InferenceSession(engine.read_bytes())
    takes, gives = session.get_inputs()[0], session.get_outputs()[0]
    assert (takes.name, takes.type, takes.shape[3], gives.name, gives.type) == (
        "tiles", "tensor(uint8)", 3, "descriptors", "tensor(float)",
    )  # fmt: skip
    page = (EXAMPLE.parents[2] / "docs" / "for" / "integrator.md").read_text()
    for text in ('name: "tiles"', "TYPE_UINT8", 'name: "descriptors"', "TYPE_FP32", "--shapes=tiles:1x"):
        assert text in page
