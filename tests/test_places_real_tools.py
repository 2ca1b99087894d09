"""Tiles cut by rio-mbtiles, mb-util and MapProxy themselves lie where their raster does, or are refused with both readings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from provisioning.cli import main

WEST, SOUTH, EAST, NORTH = 12.40, 54.10, 12.42, 54.112
CONFIG = """
services: {demo: {}}
layers: [{name: o, title: o, sources: [oc]}]
caches:
  oc: {grids: [mbt], sources: [], cache: {type: mbtiles, filename: o.mbtiles, directory: FOLDER}}
grids:
  mbt: {base: GLOBAL_MERCATOR}
"""
TOOLS = ("rio", "mb-util", "mapproxy-util")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, TOOLS)),
        reason="pip install rio-mbtiles mbutil mapproxy (on PATH, an environment of their own)",
    ),
]


def run(*words: str, cwd: Path) -> None:
    subprocess.run(words, cwd=cwd, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rasterio = pytest.importorskip("rasterio")
    folder = tmp_path_factory.mktemp("real")
    pixels = np.random.default_rng(0).integers(30, 220, (3, 64, 64)).astype("uint8").repeat(16, 1).repeat(16, 2)
    where = rasterio.transform.from_bounds(WEST, SOUTH, EAST, NORTH, 1024, 1024)
    shape = {"width": 1024, "height": 1024, "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "o.tif", "w", driver="GTiff", crs="EPSG:4326", transform=where, **shape) as file:
        file.write(pixels)
    run("rio", "mbtiles", "o.tif", "-o", "o.mbtiles", "--zoom-levels", "15..16", cwd=folder)
    (folder / "mp.yaml").write_text(CONFIG.replace("FOLDER", str(folder)))
    return folder


def place_of(source: Path, cache: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    code = main(["init", str(cache), "--tiles", str(source), "--key", str(cache.parent / "k.pem"), *more])
    said = capsys.readouterr()
    return said.out if code == 0 else said.err


@pytest.fixture(autouse=True)
def key(tmp_path: Path) -> None:
    assert main(["keygen", str(tmp_path / "k.pem")]) == 0


def test_rio_mbtiles(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "54.1 N 12.4 E" in place_of(made / "o.mbtiles", tmp_path / "c", capsys)


@pytest.mark.parametrize("scheme", ["xyz", "tms"])
def test_mb_util(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scheme: str) -> None:
    run("mb-util", f"--scheme={scheme}", "--image_format=png", str(made / "o.mbtiles"), str(tmp_path / "d"), cwd=made)
    assert "54.1 N 12.4 E" in place_of(tmp_path / "d", tmp_path / "c", capsys)


@pytest.mark.parametrize("layout", ["tms", "arcgis", "tc"])
def test_mapproxy(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str) -> None:
    box = f"{WEST},{SOUTH},{EAST},{NORTH}"
    export = ["export", "-f", "mp.yaml", "--grid", "GLOBAL_WEBMERCATOR", "--source", "oc", "--levels", "15..16"]
    run(
        "mapproxy-util",
        *export,
        "--coverage",
        box,
        "--srs",
        "EPSG:4326",
        "--type",
        layout,
        "--dest",
        str(tmp_path / "d"),
        cwd=made,
    )
    said = place_of(tmp_path / "d", tmp_path / "c", capsys)
    if layout == "tc":  # its rows may be counted from either side: refused, and the answer is taken
        assert "north or the south" in said
        said = place_of(tmp_path / "d", tmp_path / "c", capsys, "--source-scheme", "xyz")
    assert "54.1 N 12.4 E" in said
