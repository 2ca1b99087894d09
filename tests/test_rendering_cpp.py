"""The example in C++ puts the ground at the pixels of the vectors, and renders the patches that Python renders."""

import functools
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from provisioning.quality.query import Angles, Camera, View, camera_rotation, render_patch
from tests.compiling import PLAIN, SANITIZED, WARNINGS, compile_by
from tests.sharing import made_once

ROOT = Path(__file__).resolve().parents[1]
CASES = {case["name"]: case for case in json.loads((ROOT / "tests/vectors/camera.json").read_text())["cases"]}


@pytest.fixture(scope="session", params=[PLAIN, SANITIZED])
def program(request, tmp_path_factory):
    """The example, compiled with warnings as errors."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (apt-get install g++)")
    name = f"rendering{'-'.join(request.param)}"
    return made_once(tmp_path_factory, name, lambda folder: _compile(compiler, request.param, folder)) / "render"


def _compile(compiler, flags, folder):
    source = ROOT / "examples/rendering_cpp/main.cpp"
    compile_by([compiler, "-std=c++17", *WARNINGS, *flags, "-o", folder / "render", source], flags)


def words_of(case):
    """The camera, its attitude and height as the program reads them."""
    camera = case["camera"]
    numbers = [camera[name] for name in ("width", "height", "fx", "fy", "cx", "cy")]
    numbers += [camera["model"], len(camera["distortion"]), *camera["distortion"]]
    return [*numbers, case["yaw_deg"], case["pitch_deg"], case["roll_deg"], case["height_m"]]


def ran(program, *words, given):
    return subprocess.run([program, *words], input=given.encode(), capture_output=True, timeout=120, check=False)


def test_ground_lies_at_the_pixels_of_the_vectors(program):
    points = [(case, point) for case in CASES.values() for point in case["points"]]
    lines = [" ".join(map(str, [*words_of(case), point["east_m"], point["north_m"]])) for case, point in points]
    said = ran(program, "project", given="\n".join(lines))
    assert said.returncode == 0, said.stderr
    found = [line.split() for line in said.stdout.decode().splitlines()]
    assert [int(seen) for *_, seen in found] == [int(point["seen"]) for _, point in points]
    pixels = np.array([[float(x), float(y)] for x, y, _ in found])
    assert pixels == pytest.approx(np.array([point["pixel"] for _, point in points]), abs=1e-4)


@functools.cache
def photo_of(width, height):
    """A picture with detail at every scale."""
    rng = np.random.default_rng(4)
    fine = rng.integers(0, 60, (height, width, 3))
    coarse = np.kron(rng.integers(0, 190, (height // 40 + 1, width // 40 + 1, 3)), np.ones((40, 40, 1)))
    return (fine + coarse[:height, :width]).astype(np.uint8)


def smaller(camera):
    """Return the camera with a quarter of its pixels each way: photos that a program without optimisation reads fast."""
    return {
        **camera,
        **{name: camera[name] // 4 for name in ("width", "height")},
        **{name: camera[name] / 4 for name in ("fx", "fy", "cx", "cy")},
    }


@pytest.mark.parametrize("side_m", [12.0, 60.0, 900.0], ids=["magnified", "shrunk", "beyond the edges and behind"])
@pytest.mark.parametrize("name", CASES)
def test_patches_are_those_that_python_renders(program, tmp_path, name, side_m):
    case = {**CASES[name], "camera": smaller(CASES[name]["camera"])}
    camera = Camera(**{**case["camera"], "distortion": tuple(case["camera"]["distortion"])})
    attitude = camera_rotation(Angles(None, case["pitch_deg"], case["roll_deg"]), yaw_deg=case["yaw_deg"])
    east, north = case["points"][0]["east_m"], case["points"][0]["north_m"]
    photo = photo_of(camera.width, camera.height)
    Image.fromarray(photo).save(tmp_path / "photo.ppm")
    wanted = render_patch(
        photo, View(camera, attitude, case["height_m"]), east_m=east, north_m=north, side_m=side_m, size=16
    )
    line = " ".join(map(str, [*words_of(case), east, north, side_m, 16]))
    said = ran(program, "patch", tmp_path / "photo.ppm", given=line)
    assert said.returncode == 0, said.stderr
    found = np.asarray(Image.open(io.BytesIO(said.stdout))).astype(int)
    assert np.abs(found - wanted.pixels).max() <= 1  # Python samples in float32


@pytest.mark.parametrize(
    "line", ["", "640 480", "0 480 1 1 1 1 brown 0 0 0 0 9 0 0 9 9", "640 480 1 1 1 1 lens 0 0 0 0 9 0 0 9 9"]
)
def test_what_is_no_camera_is_refused(program, line):
    said = ran(program, "patch", "nowhere.ppm", given=line)
    assert (said.returncode, said.stdout) == (1, b"")
    assert said.stderr.startswith(b"render: ")
