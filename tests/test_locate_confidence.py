"""An answer that says nothing says so: a photo of nothing, and a place that another is as like."""

from __future__ import annotations

import io

import faiss
import numpy as np
import pytest
from PIL import Image

from bench.crops import read_mosaic
from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import pack_id
from provisioning.config.schema import Backbone
from provisioning.engines.accuracy.fidelity import reference_network
from provisioning.network.backbone import onnx_source
from provisioning.quality.locate import Locator, Photo, Question, answer
from provisioning.quality.locate.confidence import LEAST_MARGIN, LEAST_STRUCTURE, doubt_of, structure
from provisioning.sources.pixels.fitting import fit

HERE, FAR = Origin(473000000, 85000000), Origin(474000000, 85000000)


def doubt(standings, likeness=0.8, least=0.5, positions=(HERE, FAR)):
    return doubt_of(standings, positions, side_m=70.0, likeness=likeness, least=least)


def test_a_place_that_stands_out_is_relied_on():
    assert doubt((3.0, 2.0)) is None
    assert doubt((3.0,), positions=(HERE,)) is None


def test_another_place_as_like_is_doubt_and_the_tile_beside_it_is_none():
    assert "another place" in doubt((3.0, 3.0 - LEAST_MARGIN / 2))
    assert doubt((3.0, 2.99), positions=(HERE, HERE._replace(lat_e7=HERE.lat_e7 + 5000))) is None


def test_a_photo_unlike_every_tile_is_doubt_however_far_it_stands_out():
    assert "no tile is like it" in doubt((9.0, 1.0), likeness=0.4)


def index_of(vectors, ids):
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids)
    return index


class Counting:
    """A network that says of every image the same, and counts whom it was asked by."""

    size, dimension = (40, 60), 4

    def __init__(self, asked=None):
        self.asked = [] if asked is None else asked

    def __call__(self, images):
        self.asked.append((id(self), images.shape))
        return np.tile(np.array([[0.6, 0.8, 0, 0]], np.float32), (len(images), 1))

    def clone(self):
        return Counting(self.asked)


def test_what_noise_reaches_is_the_least_and_a_network_in_flight_is_not_asked_itself():
    """A running mean of the photos must not take noise for photos: a clone is asked, once for all questions."""
    index, network = (
        index_of(np.eye(4)[:2], np.array([pack_id(15, 17000 + x, 11000, 0, 0) for x in (0, 1)])),
        Counting(),
    )
    locator = Locator(network, index, sources=("s",), rotations=1)
    assert locator.least_likeness == pytest.approx(1.1 * 0.8)
    assert locator.clone().least_likeness == locator.least_likeness
    assert [shape for _, shape in network.asked] == [(16, 40, 60, 3)]
    assert network.asked[0][0] != id(network)


NOISE = ["white", "grey", "faint", "one colour", "slope", "noisy slope", "salt", "huge", "tiny"]


def noise_image(name):
    rng, at = np.random.default_rng(5), np.mgrid[0:300, 0:400]
    slope = (at[1] * 0.3 - at[0] * 0.2 + 100)[..., None]
    made = {
        "white": lambda: rng.integers(0, 256, (300, 400, 3)),
        "grey": lambda: rng.normal(120, 30, (300, 400, 1)) + np.zeros(3),
        "faint": lambda: rng.normal(200, 2, (300, 400, 3)),
        "one colour": lambda: np.full((300, 400, 3), 90),
        "slope": lambda: slope + np.zeros(3),
        "noisy slope": lambda: slope + rng.normal(0, 5, (300, 400, 3)),
        "salt": lambda: (rng.random((300, 400, 1)) < 0.05) * 255 + np.zeros(3),
        "huge": lambda: rng.integers(0, 256, (1500, 2000, 3)),
        "tiny": lambda: rng.integers(0, 256, (20, 24, 3)),
    }
    return made[name]()


@pytest.mark.parametrize("name", NOISE)
def test_noise_has_no_structure_in_any_size_and_over_any_slope(name):
    as_taken = np.clip(noise_image(name), 0, 255).astype(np.uint8)
    assert structure(as_taken) < LEAST_STRUCTURE
    out = io.BytesIO()
    Image.fromarray(as_taken).save(out, "JPEG", quality=60)
    assert structure(np.asarray(Image.open(out))) < LEAST_STRUCTURE


def test_structure_is_the_correlation_of_neighbours():
    """Against numpy's own coefficient, of a field without a slope and far larger than its edges."""
    rng = np.random.default_rng(6)
    field = np.repeat(np.repeat(rng.integers(0, 256, (64, 64, 1)), 4, axis=0), 4, axis=1)
    smooth = (field + np.roll(field, 4, axis=1) + np.roll(field, 4, axis=0) + np.roll(field, (4, 4), axis=(0, 1))) / 4
    blocks = smooth[::4, ::4, 0]
    theirs = np.corrcoef(blocks[:, 1:].ravel(), blocks[:, :-1].ravel())[0, 1]
    assert structure(np.repeat(smooth, 3, axis=2).astype(np.uint8)) == pytest.approx(theirs, abs=0.05)
    assert theirs == pytest.approx(0.5, abs=0.05)


def test_real_ground_has_structure(shared_data):
    for path in sorted((shared_data / "tiles/oam_banepa").rglob("*.jpg"))[::4]:
        assert structure(np.asarray(Image.open(path).convert("RGB"))) > 2 * LEAST_STRUCTURE


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
    for noise in (smooth, *(np.clip(each, 0, 255).astype(np.uint8) for each in map(noise_image, NOISE))):
        assert answer(locator, Photo(noise, None, None), Question()).doubt
    darker = [(pixels * 0.8 + 10).astype(np.uint8) for pixels in list(tiles.values())[5:50:9]]
    sure = [answer(locator, Photo(pixels, None, 0.0), Question()).doubt is None for pixels in darker]
    assert sum(sure) >= 4
