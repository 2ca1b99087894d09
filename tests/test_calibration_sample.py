"""The tiles that calibrate int8: chosen by what they show, so that a grown corpus rarely means another network."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from provisioning import catalogue
from provisioning.base.disk.lock import build_lock
from provisioning.base.geometry.angles import BBox
from provisioning.config import Backbone, Flight, Tiles, TileSource
from provisioning.config.schema import Area
from provisioning.descriptors.pipeline.sampling import calibration_digest, chosen_tiles
from provisioning.network.typing.int8 import to_int8
from tests import networks

ZOOM = 16


def sample_digest(flight):
    corpus = catalogue.last_corpus(flight.selection, flight.build_dir)
    return calibration_digest(flight.build_dir, corpus.coverage_sha256, 8)


def tile_bytes(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(networks.tiles(1, side=64, seed=seed)[0]).save(path)


@pytest.fixture
def cache(tmp_path):
    """Return a function that scans 30 tiles, after what the test does to them, and gives the flight."""
    for number in range(30):
        tile_bytes(tmp_path / f"tiles/{ZOOM}/{32768 + number % 6}/{32760 + number // 6}.png", number)
    area = Area(bbox=BBox(0, 0, 1_000_000, 1_000_000), zooms=(ZOOM,))
    source = TileSource(path=tmp_path / "tiles", name="t")
    flight = Flight(root=tmp_path, area=area, tiles=Tiles(source=(source,)), backbone=(Backbone(name="n"),))

    def scanned():
        os.makedirs(flight.build_dir, exist_ok=True)
        with build_lock(tmp_path):
            catalogue.scan(flight.selection, flight.build_dir)
            sample_digest(flight)
        return flight

    return scanned


def test_sample_is_the_smallest_digests(cache):
    flight = cache()
    everything = sorted(tile.sha256 for tile in catalogue.iter_tiles(flight.build_dir))
    assert [tile.sha256 for tile in chosen_tiles(flight.build_dir, 8)] == everything[:8]


def test_sample_of_a_small_corpus_is_all_of_it(cache):
    assert len(chosen_tiles(cache().build_dir, 1000)) == 30


def test_same_picture_in_many_places_is_taken_once(cache, tmp_path):
    flight = cache()
    first = chosen_tiles(flight.build_dir, 1)[0]
    with catalogue.open_reader(flight.tiles.source, flight.build_dir) as reader:
        data = reader.read(first)
    for y in (32758, 32759):
        (tmp_path / f"tiles/{ZOOM}/32768/{y}.png").write_bytes(data)
    before = [tile.sha256 for tile in chosen_tiles(flight.build_dir, 8)]
    assert [tile.sha256 for tile in chosen_tiles(cache().build_dir, 8)] == before


def test_tile_outside_the_sample_leaves_the_digest(cache, tmp_path):
    flight = cache()
    digest, largest = sample_digest(flight), chosen_tiles(flight.build_dir, 8)[-1].sha256
    seed = next(s for s in range(100, 200) if _sha_of(tmp_path / "probe.png", s) > largest)
    tile_bytes(tmp_path / f"tiles/{ZOOM}/32768/32759.png", seed)
    assert sample_digest(cache()) == digest


def test_tile_inside_the_sample_changes_the_digest(cache, tmp_path):
    flight = cache()
    digest, largest = sample_digest(flight), chosen_tiles(flight.build_dir, 8)[-1].sha256
    seed = next(s for s in range(100, 300) if _sha_of(tmp_path / "probe.png", s) < largest)
    tile_bytes(tmp_path / f"tiles/{ZOOM}/32768/32759.png", seed)
    assert sample_digest(cache()) != digest


def _sha_of(path, seed):
    from provisioning.base.hashing import sha256_file

    tile_bytes(path, seed)
    return sha256_file(path)


def test_remembered_sample_is_not_chosen_again(cache, monkeypatch):
    flight = cache()
    digest = sample_digest(flight)
    monkeypatch.setattr(
        "provisioning.descriptors.pipeline.sampling.iter_tiles", lambda _flight: pytest.fail("read again")
    )
    assert sample_digest(flight) == digest


def test_lost_or_spoilt_memory_costs_nothing_but_time(cache):
    flight = cache()
    digest = sample_digest(flight)
    for content in (b"", b"{}", b'{"coverage": 1}'):
        (flight.build_dir / "calibration-tiles.json").write_bytes(content)
        assert sample_digest(flight) == digest


def test_looking_without_the_lock_writes_nothing(cache):
    flight = cache()
    (flight.build_dir / "calibration-tiles.json").unlink()
    sample_digest(flight)
    assert not (flight.build_dir / "calibration-tiles.json").exists()


def test_quantising_leaves_logging_as_it_was(tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    source = networks.save(networks.network(), tmp_path / "m.onnx")
    to_int8(source, tmp_path / "int8.onnx", np.asarray(networks.tiles(3)))
    assert root.handlers == []
    assert root.filters == []
