"""An answer that says nothing says so: a photo of nothing, and a place that another is as like."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from PIL import Image

from bench.crops import read_mosaic
from provisioning.base.angles import Origin
from provisioning.base.geo import pack_id
from provisioning.config.schema import Backbone
from provisioning.engines.fidelity import reference_network
from provisioning.network.backbone import fit, onnx_source
from provisioning.quality.locate import Locator, Photo, Places, Question, answer
from provisioning.quality.locate.confidence import LEAST_MARGIN, doubt_of, least_likeness

HERE, FAR = Origin(473000000, 85000000), Origin(474000000, 85000000)


def doubt(standings, likeness=0.8, least=0.5, positions=(HERE, FAR)):
    return doubt_of(standings, positions, side_m=70.0, likeness=likeness, least=least)


def test_a_place_that_stands_out_is_relied_on():
    assert doubt((3.0, 2.0)) is None
    assert doubt((3.0,), positions=(HERE,)) is None
    assert doubt((3.0, 2.0), likeness=0.1, least=None) is None


def test_another_place_as_like_is_doubt_and_the_tile_beside_it_is_none():
    assert "another place" in doubt((3.0, 3.0 - LEAST_MARGIN / 2))
    assert doubt((3.0, 2.99), positions=(HERE, HERE._replace(lat_e7=HERE.lat_e7 + 5000))) is None


def test_a_photo_unlike_every_tile_is_doubt_however_far_it_stands_out():
    assert "no tile is like it" in doubt((9.0, 1.0), likeness=0.4)


def index_of(vectors, ids):
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids)
    return index


def test_what_tiles_of_different_places_reach_is_the_least_and_neighbours_count_for_none():
    ids = np.sort(np.array([pack_id(15, 17000 + x, 11000 + y, 0, 0) for x in range(8) for y in range(8)], np.int64))
    vectors = np.eye(64, dtype=np.float32) + 0.1  # every two are as like
    least = least_likeness(index_of(vectors, ids), Places(ids))
    assert least == pytest.approx(float(vectors[0] @ vectors[1]))
    few = ids[:4]
    assert least_likeness(index_of(vectors[:4], few), Places(few)) is None


@pytest.fixture(scope="module")
def banepa(shared_data):
    """Return the built-in network over 64 real tiles, and the tiles."""
    backbone = Backbone(name="n")
    network = reference_network(backbone, onnx_source(backbone, shared_data, None))
    tiles = {
        pack_id(19, x, y, 0, 0): pixels[..., :3]
        for (x, y), pixels in read_mosaic(shared_data / "tiles/oam_banepa", 19).items()
    }
    ids = sorted(tiles)
    images = [fit(np.ascontiguousarray(tiles[each]), network.size, "resize") for each in ids]
    return Locator(
        network, index_of(network(np.stack(images)), np.array(ids, np.int64)), sources=("s",), rotations=1
    ), tiles


def test_noise_is_not_relied_on_and_real_ground_is(banepa):
    locator, tiles = banepa
    rng = np.random.default_rng(3)
    fine = rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(fine[:12, :16]).resize((400, 300), Image.Resampling.BICUBIC))
    grey = np.clip(rng.normal(120, 30, (300, 400, 1)) + np.zeros(3), 0, 255).astype(np.uint8)
    for noise in (fine, smooth, grey):
        assert answer(locator, Photo(noise, None, None), Question()).doubt
    darker = [(pixels * 0.8 + 10).astype(np.uint8) for pixels in list(tiles.values())[5:50:9]]
    sure = [answer(locator, Photo(pixels, None, 0.0), Question()).doubt is None for pixels in darker]
    assert sum(sure) >= 4
