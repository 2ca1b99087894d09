"""What a scan reads of tiles and containers it reads in processes with limits; what these cannot tell is not kept."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from provisioning import catalogue
from provisioning.base.errors import FilesystemError, TileError
from provisioning.base.process.workers import Limits
from provisioning.sources.processes import inspection, listing
from tests import hostile_decoding, hostile_looking
from tests.tilesets import Z, bbox_of, block, flight, image, scanned, write_mbtiles, write_reference_pmtiles, write_xyz

TILES = block(4, 4)
BAD = (Z, 17_001, 11_002)
WRITERS = {
    "xyz": lambda path, tiles: write_xyz(path / "sat", tiles),
    "mbtiles": lambda path, tiles: write_mbtiles(path / "sat.mbtiles", tiles),
    "pmtiles": lambda path, tiles: write_reference_pmtiles(path / "sat.pmtiles", tiles),
}


def skipping(path, tiles, **more):
    return flight(path.parent / "cache", path, bbox=bbox_of(TILES), on_error="skip", **more)


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.setattr(inspection, "InspectTiles", hostile_looking.HostileLooking)
    monkeypatch.setattr(inspection, "Limits", lambda **more: Limits(cpu_s=0.3, **more))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("ending", "said"),
    [
        pytest.param("LOOPS", "processor time", marks=pytest.mark.slow),
        ("CRASHES", "SIGSEGV"),
        ("LEAVES", "broke the process"),
    ],
)
def test_a_tile_at_which_processes_end_is_refused_by_name_and_the_others_are_kept(
    tmp_path, hostile, kind, ending, said
):
    path = WRITERS[kind](tmp_path, {**TILES, BAD: image(77) + getattr(hostile_decoding, ending)})
    corpus = scanned(skipping(path, TILES))
    (bad,) = corpus.skipped
    assert (corpus.count, (bad.z, bad.x, bad.y)) == (15, BAD)
    assert said in bad.reason
    with pytest.raises(TileError, match="1 tile cannot be used"):
        scanned(replace_policy(skipping(path, TILES)))


def replace_policy(asked):
    return replace(asked, tiles=replace(asked.tiles, on_error="fail"))


@pytest.mark.parametrize("ending", ["KILLED", "EATS"])
def test_a_kill_from_outside_or_a_lack_of_memory_is_this_computers_failure(tmp_path, hostile, ending, monkeypatch):
    path = WRITERS["xyz"](tmp_path, {**TILES, BAD: image(77) + getattr(hostile_decoding, ending)})
    asked = skipping(path, TILES)
    with pytest.raises(FilesystemError, match="this computer failed") as caught:
        catalogue.scan(asked.selection, asked.build_dir)
    assert caught.value.facts == {"item": "{}/{}/{}".format(*BAD)}
    monkeypatch.undo()
    assert catalogue.scan(asked.selection, asked.build_dir).count == 16


def test_what_one_process_calls_damaged_and_a_new_one_does_not_is_an_image(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "InspectTiles", hostile_looking.Doubting)
    few = dict(list(TILES.items())[:1])
    path = write_xyz(tmp_path / "sat", few)
    corpus = scanned(flight(tmp_path / "cache", path, bbox=bbox_of(few), on_error="skip"))
    assert (corpus.count, corpus.skipped) == (1, ())


def test_of_a_tile_on_which_processes_do_not_agree_nothing_is_remembered(tmp_path, monkeypatch):
    asked = skipping(write_xyz(tmp_path / "sat", TILES), TILES)
    with monkeypatch.context() as patched:
        patched.setattr(inspection, "InspectTiles", hostile_looking.Undecided)
        with pytest.raises(FilesystemError, match="two looks at a tile differ"):
            catalogue.scan(asked.selection, asked.build_dir)
    assert catalogue.scan(asked.selection, asked.build_dir).skipped == ()


@pytest.mark.parametrize("kind", ["mbtiles", "pmtiles"])
def test_the_order_batches_and_restarts_of_a_listing_change_nothing(tmp_path, kind, monkeypatch):
    path = WRITERS[kind](tmp_path, TILES)
    expected = scanned(skipping(path, TILES)).coverage_sha256
    monkeypatch.setattr(listing, "Listing", hostile_looking.ForgetfulListing)
    again = flight(tmp_path / "other", path, bbox=bbox_of(TILES))
    assert catalogue.scan(again.selection, again.build_dir).coverage_sha256 == expected


def test_a_container_at_which_processes_end_is_refused_by_its_name(tmp_path, monkeypatch):
    path = WRITERS["mbtiles"](tmp_path, TILES)
    monkeypatch.setattr(listing, "Listing", hostile_looking.CrashingListing)
    with pytest.raises(TileError, match=r"the container cannot be read: SIGSEGV.*twice") as caught:
        scanned(skipping(path, TILES))
    assert caught.value.facts == {"item": str(path)}


def test_a_tile_behind_a_link_to_elsewhere_is_inspected_from_bytes(tmp_path):
    path = write_xyz(tmp_path / "sat", TILES)
    file = next(path.rglob("*.png"))
    (tmp_path / "elsewhere").mkdir()
    file.rename(tmp_path / "elsewhere" / "tile")
    file.symlink_to(tmp_path / "elsewhere" / "tile")
    assert scanned(skipping(path, TILES)).count == 16


def test_rows_that_hold_no_bytes_and_empty_ones_are_named(tmp_path):
    path = WRITERS["mbtiles"](tmp_path, {**TILES, BAD: b""})
    other = (Z, 17_002, 11_000)
    with sqlite3.connect(path) as db:
        where = (other[1], (1 << Z) - 1 - other[2])
        db.execute("UPDATE tiles SET tile_data = 'text' WHERE (tile_column, tile_row) = (?, ?)", where)
    db.close()
    found = {(bad.z, bad.x, bad.y): bad.reason for bad in scanned(skipping(path, TILES)).skipped}
    assert found == {BAD: "the tile is empty (0 bytes)", other: "the row holds no image"}


NOTHING_LOADED = """
import pickle, sys
from provisioning import catalogue
flight = pickle.load(open(sys.argv[1], "rb"))
catalogue.scan(flight.selection, flight.build_dir)
print(*({"PIL", "simplejpeg", "rasterio"} & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_the_build_itself_loads_no_decoder(tmp_path, kind):
    asked = skipping(WRITERS[kind](tmp_path, TILES), TILES)
    (tmp_path / "flight").write_bytes(pickle.dumps(asked))
    done = subprocess.run(
        [sys.executable, "-c", NOTHING_LOADED, tmp_path / "flight"],
        capture_output=True, check=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.strip() == ""
