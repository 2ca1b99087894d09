"""An XYZ directory that is written while it is scanned, as rsync does: said, and the next run converges."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import nullcontext

import pytest

from provisioning.base.errors import TileError
from provisioning.config.parse import read_flight
from tests import building, looked
from tests.tilesets import scanned

OLD_S = time.time() - 3600


def aged(folder):
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (OLD_S, OLD_S))


@pytest.fixture
def cache(tmp_path):
    cache = building.new_cache(tmp_path, side=2)
    aged(tmp_path / "tiles")
    return cache


def during(monkeypatch, change):
    """Let `change` happen once, while the first tile is looked at."""
    looked.before_inspection(monkeypatch, looked.once(change))


def warned(caplog):
    return [record.kv for record in caplog.records if getattr(record, "kind", "").endswith("tiles.moving")]


def as_rsync(tiles, x, y, seed):
    """Write a tile under a hidden name and rename it."""
    path = tiles / str(building.ZOOM) / str(x) / f"{y}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.Xy12")
    hidden.write_bytes(building.tile_image(seed))
    hidden.rename(path)


CHANGES = {
    "a tile is replaced": lambda tiles: as_rsync(tiles, building.WEST, building.NORTH, 900),
    "a tile is added to a folder that was listed": lambda tiles: as_rsync(
        tiles, building.WEST, building.NORTH + 2, 901
    ),
    "a folder is added": lambda tiles: as_rsync(tiles, building.WEST + 2, building.NORTH, 902),
    "a folder goes": lambda tiles: shutil.rmtree(tiles / str(building.ZOOM) / str(building.WEST + 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_directory_that_moves_is_said_and_the_next_scan_is_that_of_a_clean_cache(cache, monkeypatch, caplog, name):
    tiles = cache.parent / "tiles"
    during(monkeypatch, lambda: CHANGES[name](tiles))
    goes = name == "a folder goes"
    with pytest.raises(TileError) if goes else nullcontext():
        scanned(read_flight(cache))
    said = warned(caplog)
    assert bool(said) != goes
    assert all("run doit again" in each["note"] for each in said)
    monkeypatch.undo()
    after = scanned(read_flight(cache))
    shutil.rmtree(cache / ".build")
    assert after.coverage_sha256 == scanned(read_flight(cache)).coverage_sha256


def test_a_directory_at_rest_is_not_said_to_move(cache, caplog):
    scanned(read_flight(cache))
    scanned(read_flight(cache))
    assert not warned(caplog)
