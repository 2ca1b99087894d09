"""The pages for each kind of user: the README leads to them, and what they say can be typed is typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from provisioning.cli.begin.init import create_cache
from provisioning.flight.signing import generate_key, load_public_key
from provisioning.network.builtin.known import GIST_COLOR
from tests import building
from tests.building import NORTH, WEST, ZOOM
from tests.delivery import trust_anything_by

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(page.stem for page in (ROOT / "docs" / "for").glob("*.md"))
BLOCK = re.compile(r"<!-- run(?P<how> [^>]*)? -->\n```(?:sh|python)\n(?P<text>.*?)```", re.DOTALL)


def test_there_is_a_page_for_each_kind_of_user_and_the_readme_leads_there():
    readme, contents = (ROOT / "README.md").read_text(), (ROOT / "docs" / "README.md").read_text()
    assert PAGES == ["fleet-ci", "gis", "integrator", "pilot", "security"]
    for page in PAGES:
        assert f"](docs/for/{page}.md)" in readme
        assert f"](for/{page}.md)" in contents


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """What the pages start from: a built cache `valley` for F-118 and AC-7, its tiles and key, a photo."""
    root = tmp_path_factory.mktemp("pages")
    building.put_tiles(root / "tiles")
    generate_key(root / "operator.pem", password=None)
    words = {"tiles": root / "tiles", "backbone": Path(GIST_COLOR), "key": root / "operator.pem", "flight_id": "F-118"}
    create_cache(root / "valley", **words)
    building.edit(root / "valley", "# aircraft = …", 'aircraft = "AC-7"')
    building.edit(root / "valley", '# transform = "none"', 'transform = "center"')  # which the running mean is for
    assert building.build(root / "valley").outcome == "SUCCESS"
    Image.open(root / f"tiles/{ZOOM}/{WEST}/{NORTH}.jpg").save(root / "photo.jpg")
    shutil.copytree(ROOT / "examples", root / "examples", ignore=shutil.ignore_patterns("reader", "__pycache__"))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_can_be_typed(scene, page, tmp_path):
    folder = tmp_path / "desk"
    shutil.copytree(scene, folder, symlinks=True)
    text = (ROOT / "docs" / "for" / f"{page}.md").read_text()
    blocks = list(BLOCK.finditer(text))
    assert blocks, "nothing is marked as run"
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }
    (tmp_path / "home").mkdir()
    for block in blocks:
        needed = (block["how"] or "").partition("if ")[2].strip()
        if needed and shutil.which(needed) is None:
            continue
        start = ["bash", "-euo", "pipefail", "-c"] if "```sh" in block[0] else [sys.executable, "-c"]
        done = subprocess.run(
            [*start, block["text"]], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, block["text"] + done.stdout[-2000:] + done.stderr[-3000:]
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_python_on_other_pages_runs(scene, tmp_path, monkeypatch):
    shutil.copytree(scene / "valley", tmp_path / "valley", symlinks=True)
    monkeypatch.chdir(tmp_path)
    pixels = np.asarray(Image.open(scene / "photo.jpg"))
    names = {"expectations": trust_anything_by(load_public_key(scene / "operator.pub.pem"))}
    for page in ("README.md", "docs/evaluation.md", "docs/camera.md", "docs/index.md"):
        names["pixels"] = np.zeros((3000, 4000, 3), np.uint8) if page == "docs/camera.md" else pixels
        for text in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            exec(compile(text.replace("/var/lib/flightcache", "valley"), page, "exec"), names)
    assert names["report"].outcome == "IDEMPOTENT_NO_OP"
    assert (names["matches"][0].x, names["matches"][0].y) == (WEST, NORTH)
    assert names["patch"].pixels.shape == (224, 224, 3)
    vectors = names["locator"].describe(pixels, (0.0,))
    assert names["look_up"](Path("valley/current/corpus.index").read_bytes(), vectors)[0][0][:3] == (ZOOM, WEST, NORTH)
