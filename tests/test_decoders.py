"""Tiles are decoded in processes of their own: the same pixels, from every kind of store, whatever a tile does there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from provisioning.base.errors import DescriptorError, FilesystemError, TileError
from provisioning.base.hashing import sha256_bytes
from provisioning.base.process.workers import Limits
from provisioning.catalogue import iter_tiles, open_reader
from provisioning.config import TileSource
from provisioning.descriptors import decoded_tiles
from provisioning.descriptors.pipeline import decoders as module
from provisioning.descriptors.pipeline.decoders import Decoders
from provisioning.descriptors.pipeline.loader import TileLoader, Unit
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.sources.processes.decoding import View
from tests.describing import describe, scanned_flight
from tests.hostile_decoding import CRASHES, EATS, KILLED, LOOPS, HostileDecoding
from tests.processes import gone
from tests.test_descriptors import AREA, Fake, by_colour

ZOOM, COLUMN, ROW = 14, 8580, 5736
KEYS = (sha256_bytes(b"key"),)
VIEW = View((Fraction(0),), (16, 16), "resize", 1 << 20)
HEADINGS = tuple(Fraction(n, 8) for n in range(8))


def picture(seed, side=32, mode="RGB"):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, len(mode)), np.uint8)
    coarse[..., 3:] = 100 + coarse[..., 3:] * 0.6  # transparent here and there
    return Image.fromarray(coarse, mode).resize((side, side), Image.Resampling.BICUBIC)


def write_tile(root, n, suffix, *, end=b""):
    path = root / "tiles" / str(ZOOM) / str(COLUMN + n % 4) / f"{ROW + n // 4}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(n, mode="RGBA" if suffix == "png" else "RGB").save(path)
    path.write_bytes(path.read_bytes() + end)
    return path


def flight_of(root, *sources, **tiles):
    return scanned_flight(root, sources or (TileSource(path=root / "tiles", name="test"),), AREA, (ZOOM,), **tiles)


@pytest.fixture
def flight(tmp_path):
    """Twelve tiles of three formats."""
    for n in range(12):
        write_tile(tmp_path, n, ("jpg", "png", "webp")[n % 3])
    return flight_of(tmp_path)


@contextmanager
def decoders_of(flight, view=VIEW):
    with open_reader(flight.tiles.source, flight.build_dir) as reader:
        decoders = Decoders(reader, view, batch=4, slots=2)
        try:
            yield decoders
        finally:
            decoders.close()


def same_as_here(flight, view=VIEW):
    """Compare every image with that of the same code in this process."""
    units = [Unit(tile, heading) for tile in iter_tiles(flight.build_dir) for heading in range(len(view.headings))]
    with decoders_of(flight, view) as decoders, open_reader(flight.tiles.source, flight.build_dir) as reader:
        here = TileLoader(reader.read, view.headings, view.size, view.how, view.max_pixels)
        decoder = decoders.decoder()
        for n, at in enumerate(range(0, len(units), 4)):
            some = units[at : at + 4]
            seen, faults, images = decoder.load_batch(some, n % 2)
            assert (seen, faults) == (some, [])
            np.testing.assert_array_equal(images, np.stack([here.image(unit) for unit in some]))
    return len(units)


@pytest.mark.parametrize("how", ["resize", "crop", "pad", "resize-bicubic", "resize-bilinear"])
def test_images_are_bit_for_bit_those_of_the_same_process(flight, how):
    assert same_as_here(flight, View(HEADINGS if how == "resize" else HEADINGS[:1], (20, 16), how, 1 << 20)) >= 12


def test_whole_tiles_are_bit_for_bit_those_of_the_same_process(flight):
    with (
        decoded_tiles(flight.tiles, flight.build_dir) as decoded,
        open_reader(flight.tiles.source, flight.build_dir) as reader,
    ):
        here = TileLoader(reader.read, (Fraction(0),), (32, 32), "resize", 1 << 20)
        for tile in iter_tiles(flight.build_dir):
            np.testing.assert_array_equal(decoded(tile), here.image(Unit(tile, 0)))


def test_tiles_of_a_database_an_archive_and_a_raster_are_read_there(tmp_path):
    made = {"m": mbtiles, "p": pmtiles, "r": raster}
    sources = [TileSource(path=make(tmp_path), name=name) for name, make in made.items()]
    assert same_as_here(flight_of(tmp_path, *sources)) == 12


def mbtiles(root):
    path = root / "t.mbtiles"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        db.execute("CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB)")
        db.executemany("INSERT INTO metadata VALUES (?, ?)", [("name", "t"), ("format", "jpg")])
        for n in range(4):
            data = write_tile(root / "m", n, "jpg").read_bytes()
            row = (1 << ZOOM) - 1 - ROW
            db.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (ZOOM, COLUMN + n, row, data))
    db.close()
    return path


def pmtiles(root):
    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    path = root / "t.pmtiles"
    with path.open("wb") as file:
        writer = Writer(file)
        for each in sorted(zxy_to_tileid(ZOOM, COLUMN + n, ROW + 9) for n in range(4)):
            writer.write_tile(each, write_tile(root / "p", each % 50, "jpg").read_bytes())
        e7 = {"min_lon_e7": 85_000_000, "min_lat_e7": 470_000_000, "max_lon_e7": 87_000_000, "max_lat_e7": 474_000_000}
        header = {"tile_type": TileType.JPEG, "tile_compression": Compression.NONE, "min_zoom": ZOOM, "max_zoom": ZOOM}
        writer.finalize({**header, **e7, "center_zoom": ZOOM, "center_lon_e7": 0, "center_lat_e7": 0}, {})
    return path


def raster(root):
    """Four tiles of the zoom level, in a folder of sheets, by a link."""
    import rasterio
    from rasterio.transform import from_origin

    span, side = 40_075_016.685578488 / (1 << ZOOM), 512
    west, north = COLUMN * span - 20_037_508.342789244, 20_037_508.342789244 - (ROW + 20) * span
    sheet, folder = root / "sheet.tif", root / "sheets"
    form = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    with rasterio.open(
        sheet, "w", **form, transform=from_origin(west, north, 2 * span / side, 2 * span / side)
    ) as file:
        file.write(np.moveaxis(np.asarray(picture(7, side)), 2, 0))
    folder.mkdir()
    (folder / "linked.tif").symlink_to(sheet)
    return folder


def test_tiles_behind_links_that_lead_out_of_the_source_are_decoded(tmp_path):
    """The process may not look there; the build reads the bytes and hands them over."""
    for n in range(4):
        path = write_tile(tmp_path, n, "jpg")
        elsewhere = tmp_path / "elsewhere" / path.parent.name
        elsewhere.parent.mkdir(exist_ok=True)
        path.parent.rename(elsewhere)
        path.parent.symlink_to(elsewhere)
    assert same_as_here(flight_of(tmp_path)) == 4


def test_a_tile_that_is_gone_or_changed_or_no_image_is_a_fault_and_costs_no_other(flight):
    tiles = list(iter_tiles(flight.build_dir))
    paths = sorted((flight.root / "tiles").rglob("*.*"))
    paths[0].unlink()
    paths[1].write_bytes(paths[2].read_bytes())
    with decoders_of(flight) as decoders:
        decoder, faults, seen = decoders.decoder(), [], 0
        for at in range(0, 12, 4):
            loaded = decoder.load_batch([Unit(tile, 0) for tile in tiles[at : at + 4]])
            faults += [fault.reason for fault in loaded.faults]
            seen += len(loaded.images)
    assert seen == 10
    assert sorted(each.split(" since")[0].split("of test ")[1] for each in faults) == ["has changed", "is gone"]


def run(flight, name="onnxruntime"):
    return describe(flight, engine=b"", backend=Fake(by_colour, name), keys=KEYS)


@pytest.fixture
def hostile(monkeypatch):
    """Decoders whose target has bugs, and little time."""
    monkeypatch.setattr(module, "Decoding", HostileDecoding)
    real = module.Limits
    monkeypatch.setattr(module, "Limits", lambda **given: real(cpu_s=0.1, **given))


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize(("end", "said"), [(LOOPS, "0.1 s of processor time, twice"), (CRASHES, "SIGSEGV")])
def test_a_tile_that_hangs_or_crashes_its_decoder_is_named_and_the_others_are_described(
    tmp_path, hostile, end, said, name
):
    for n in range(8):
        write_tile(tmp_path, n, "jpg", end=end if n == 5 else b"")
    flight = flight_of(tmp_path)
    with pytest.raises(DescriptorError, match="1 tile has no descriptor") as caught:
        run(flight, name)
    ((tile, reason),) = caught.value.facts.items()
    assert tile == f"test {ZOOM}/{COLUMN + 1}/{ROW + 1}"
    assert said in reason
    with DescriptorStore(flight.descriptor_store, KEYS[0], flight.descriptors.dtype) as kept:
        assert len(list(kept.missing([bytes.fromhex(each.sha256) for each in iter_tiles(flight.build_dir)]))) == 1


@pytest.mark.parametrize("end", [KILLED, EATS])
def test_memory_or_a_kill_is_this_computers_failure_and_nothing_is_remembered_of_the_tile(
    tmp_path, hostile, monkeypatch, end
):
    for n in range(8):
        write_tile(tmp_path, n, "jpg", end=end if n == 5 else b"")
    flight = flight_of(tmp_path)
    with pytest.raises(FilesystemError, match="this computer failed") as caught:
        run(flight)
    assert caught.value.facts == {"item": f"{ZOOM}/{COLUMN + 1}/{ROW + 1} of test"}
    monkeypatch.undo()
    assert run(flight).total == 8


def test_a_decompression_bomb_takes_no_more_than_the_limit(tmp_path, monkeypatch):
    """A PNG of one colour: 12 MB of pixels from 12 kB, where a process may take 8 MB."""
    path = write_tile(tmp_path, 0, "png")
    Image.fromarray(np.zeros((2000, 2000, 3), np.uint8) + np.uint8(99)).save(path)
    flight = flight_of(tmp_path, max_pixels=1 << 22, blank=False)
    monkeypatch.setattr(module, "Limits", lambda **_: Limits(memory_bytes=8 << 20))
    with pytest.raises(FilesystemError, match="out of memory"):
        run(flight)


STOPPED = """
import sys
from pathlib import Path
from tests import hostile_decoding, test_decoders
from provisioning.descriptors.pipeline import decoders
decoders.Decoding = hostile_decoding.HostileDecoding
flight = test_decoders.flight_of(Path(sys.argv[1]))
print("begun", flush=True)
test_decoders.run(flight, sys.argv[2])
"""


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("tensorrt", marks=pytest.mark.slow)])
def test_an_interrupt_ends_a_build_that_waits_for_a_hanging_decoder(tmp_path, name):
    write_tile(tmp_path, 0, "jpg", end=LOOPS)
    command = [sys.executable, "-c", STOPPED, str(tmp_path), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert process.stdout.readline() == b"begun\n"
    children = waited(lambda: descendants(process.pid), least=2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert b"KeyboardInterrupt" in said
    assert all(map(gone, children))


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_no_process(tmp_path):
    write_tile(tmp_path, 0, "jpg", end=LOOPS)
    command = [sys.executable, "-c", STOPPED, str(tmp_path), "onnxruntime"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert process.stdout.readline() == b"begun\n"
    children = waited(lambda: descendants(process.pid), least=2)
    process.kill()
    process.communicate()
    assert all(map(gone, children))


def waited(found, *, least, within_s=120):
    until = time.monotonic() + within_s
    while len(several := found()) < least:
        assert time.monotonic() < until
        time.sleep(0.05)
    return several


def descendants(pid):
    parents = {}
    for each in os.listdir("/proc"):
        if each.isdigit():
            try:
                parents[int(each)] = int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {pid}
    for _ in range(4):
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def test_nothing_to_describe_starts_no_process(flight, monkeypatch):
    run(flight)
    monkeypatch.setattr("provisioning.base.process.workers._Process", None)
    assert run(flight).computed == 0


def test_a_store_of_ones_own_is_read_in_the_build_and_decoded_elsewhere(tmp_path):
    """A plugin's code may need a network or a password, and is trusted; its bytes are not."""
    data = [write_tile(tmp_path, n, "jpg").read_bytes() for n in range(4)]
    flight = flight_of(tmp_path, TileSource(name="own", store=Held(data)))
    assert same_as_here(flight) == 4
    with decoders_of(flight) as decoders:
        unit = Unit(next(iter_tiles(flight.build_dir)), 0)
        flight.tiles.source[0].store.data = [b""] * 4
        with pytest.raises(TileError, match="has changed since"):
            decoders.image(unit)


class Held:
    identity = "held/1"

    def __init__(self, data):
        self.data = data

    def stamp(self):
        return ""

    def query(self, query):
        from provisioning.sources.store import StoredTile

        return [StoredTile(ZOOM, COLUMN + n, ROW) for n in range(4)]

    def read(self, z, x, y):
        return self.data[x - COLUMN]

    def close(self):
        pass
