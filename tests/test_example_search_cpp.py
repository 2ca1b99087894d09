"""The example that looks up in C++ finds what Python finds, and refuses what it must."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from provisioning.base.geometry.geo import unpack_id
from provisioning.cli import main
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from provisioning.index.read import search
from provisioning.quality.locate import Locator
from tests import building
from tests.building import NORTH, WEST, ZOOM
from tests.delivery import trust_anything_by

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The example, compiled by its own command line; a skip says what is missing."""
    compiler = shutil.which("g++")
    probe = "#include <faiss/Index.h>\n#include <openssl/evp.h>\n"
    if (
        compiler is None
        or subprocess.run(
            [compiler, "-x", "c++", "-fsyntax-only", "-"], input=probe.encode(), capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no g++, FAISS or OpenSSL headers (apt-get install g++ libssl-dev libfaiss-dev liblapack-dev)")
    output = tmp_path_factory.mktemp("cpp") / "search"
    libraries = ["-pthread", "-fopenmp", "-lfaiss", "-llapack", "-lblas", "-lcrypto"]
    assert " ".join(libraries) in (EXAMPLES / "search_cpp" / "README.md").read_text()
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-o", output, "main.cpp", *libraries]
    built = subprocess.run(command, cwd=EXAMPLES / "search_cpp", capture_output=True, text=True, check=False)
    if "cannot find -l" in built.stderr:
        pytest.skip(built.stderr[-200:])
    assert (built.returncode, built.stderr) == (0, "")
    return output


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    cache = building.new_cache(root, side=3)
    building.edit(cache, "# aircraft = …", 'aircraft = "AC-7"')
    assert building.build(cache).outcome == "SUCCESS"
    assert main(["keygen", str(root / "root.pem")]) == 0
    words = ["--root", str(root / "root.pub.pem"), "--signing", str(root / "key.pub.pem"), "--not-after", "never"]
    assert main(["trust", "init", str(root / "trust.json"), *words]) == 0
    assert main(["trust", "sign", str(root / "trust.json"), "--key", str(root / "root.pem")]) == 0
    return root, cache


def ask(program, scene, descriptors, *, floor: Path, flight: str = "F-1"):
    words = [scene[1], scene[0] / "trust.json", flight, "AC-7", floor]
    return subprocess.run([program, *words], input=descriptors.tobytes(), capture_output=True, check=False, timeout=60)


def test_cpp_finds_the_ids_that_python_finds(program, scene, tmp_path):
    (tmp_path / "floor").write_text("1\n")
    with verify(scene[1], trust_anything_by(load_public_key(scene[0] / "key.pub.pem"))) as verdict:
        locator = Locator.from_verdict(verdict)
    pixels = [building.tile_image(row * 100 + column) for row in range(3) for column in range(3)]
    images = [np.asarray(building.Image.open(building.io.BytesIO(each))) for each in pixels]
    descriptors = np.concatenate([locator.describe(each, (0.0,)) for each in images]).astype(np.float32)
    done = ask(program, scene, descriptors, floor=tmp_path / "floor")
    assert done.returncode == 0, done.stderr
    scores, ids = search(locator.index, descriptors, 3)
    rows = [[pair.split() for pair in line.split("\t")] for line in done.stdout.decode().splitlines()]
    assert [[int(each) for each, _ in row] for row in rows] == ids.tolist()
    assert np.allclose([[float(score) for _, score in row] for row in rows], scores, atol=1e-5)
    assert unpack_id(int(ids[0][0]))[:3] == (ZOOM, WEST, NORTH)


@pytest.mark.parametrize(("change", "reason"), [({"flight": "F-2"}, b"flight"), ({"floor": "9\n"}, b"counter")])
def test_cpp_answers_nothing_from_a_cache_that_is_refused(program, scene, tmp_path, change, reason):
    (tmp_path / "floor").write_text(change.get("floor", "1\n"))
    done = ask(program, scene, np.zeros(512, np.float32), floor=tmp_path / "floor", flight=change.get("flight", "F-1"))
    assert (done.returncode, done.stdout, reason in done.stderr) == (22, b"", True)
