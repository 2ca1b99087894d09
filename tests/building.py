"""A small real cache for tests: a few dozen tiles with something to see on them, a tiny network, a key."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import doit.plugin
import numpy as np
import pytest
from doit.doit_cmd import DoitMain
from PIL import Image

from provisioning.base.errors import Error
from provisioning.base.outcome import BuildReport
from provisioning.cli.begin.init import create_cache
from provisioning.flight.signing import generate_key
from provisioning.network.builtin.known import GIST_COLOR
from rules import run
from tests import networks

ZOOM = 14
WEST, NORTH = 8580, 5736
"""First column and row of the tiles."""
GIST = Path(GIST_COLOR)
doit.plugin.entry_points_impl = cache(lambda: cache(entry_points))
"""Each build would ask every distribution for plugins of doit twice, which is a tenth of a small one."""


class Built(NamedTuple):
    """What one `doit` did: tasks that ran (without `coverage`, which always does), the report, the error if any."""

    ran: tuple[str, ...]
    report: BuildReport
    failure: Error | None

    @property
    def outcome(self) -> str:
        return self.report.outcome


@cache
def tile_image(seed: int, side: int = 256) -> bytes:
    """Return a JPEG tile of smooth random fields with a few edges, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).copy()
    for _ in range(6):
        x, y, w, h = rng.integers(0, side - 40, 2).tolist() + rng.integers(10, 80, 2).tolist()
        pixels[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def put_tile(folder: Path, x: int, y: int, seed: int, *, z: int = ZOOM) -> Path:
    """Write the tile image of `seed` at z/x/y."""
    path = folder / str(z) / str(x) / f"{y}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tile_image(seed))
    return path


def put_tiles(folder: Path, *, side: int = 4) -> None:
    """Write a square of `side` x `side` tiles."""
    for row in range(side):
        for column in range(side):
            put_tile(folder, WEST + column, NORTH + row, seed=row * 100 + column)


def new_cache(
    parent: Path, *, side: int = 4, overlap: int = 1, samples: int | None = 4, network: Path | None = None
) -> Path:
    """Make tiles, a key, a calibration file and a cache directory below `parent`; nothing is built yet.

    Without cuts, unless `overlap` says otherwise: a test counts tiles, and has a quarter of the work. The gates look
    at `samples` tiles (None: as many as by default), for a look at all sixteen is half of the build. The `network` is
    a tiny one (GIST: the built-in one, which costs a quarter more), of which no gate asks that it recognises photos.
    """
    put_tiles(parent / "tiles", side=side)
    generate_key(parent / "key.pem", password=None)
    (parent / "camera.yaml").write_text("focal_px: 812.5\n")
    cache = parent / "cache"
    create_cache(
        cache,
        tiles=parent / "tiles",
        backbone=network or networks.save(networks.cells_model(), parent / "net.onnx"),
        key=parent / "key.pem",
        calibration=[parent / "camera.yaml"],
        flight_id="F-1",
        index_overlap=overlap,
    )
    if samples is not None:
        edit(cache, "# samples = 64", f"samples = {samples}")
    if network is None:
        edit(cache, "# recognition = 0.5", "recognition = 0")
    return cache


def copy_site(site: Path, to: Path) -> Path:
    """Copy a site, as `cp -a` does, and let flight.toml name what lies in the copy; return its cache directory."""
    subprocess.run(["cp", "-a", site, to], check=True)
    file = to / "cache" / "flight.toml"
    file.write_text(file.read_text().replace(str(site), str(to)))
    return to / "cache"


def build(cache: Path, *selected: str) -> Built:
    """Run the tasks as `doit` does, in this process."""
    command, report = run(cache, selected)
    collector = command.collector
    if collector.failure is not None:
        print(collector.failure, file=sys.stderr)  # pytest shows it where the outcome is not the expected one
    return Built(tuple(name for name in collector.ran if name != "coverage"), report, collector.failure)


def doit_here(
    cache: Path, *words: str, at: str = ".", capsys: pytest.CaptureFixture[str]
) -> subprocess.CompletedProcess[str]:
    """Run `doit` in this process, with the words after the program, from a folder of the cache."""
    arguments = [
        word.format(cache=cache)
        for word in words
        if word not in (str(Path(sys.executable).with_name("doit")), sys.executable, "-m", "doit")
    ]
    sys.modules.pop("dodo", None)  # doit imports it by name
    before = os.getcwd()
    os.chdir(cache / at)
    try:
        code = DoitMain().run(arguments)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())


def edit(cache: Path, old: str, new: str) -> None:
    """Replace `old`, which must be there, in flight.toml."""
    file = cache / "flight.toml"
    text = file.read_text()
    assert old in text, f"{old!r} is not in flight.toml"
    file.write_text(text.replace(old, new, 1))
