"""The running mean of a flight's photos takes the place of the tiles' mean in a centred index."""

import numpy as np
import pytest

from provisioning.base.errors import Error, IndexingError
from provisioning.cli.measure.variants import parse_variant
from provisioning.config.schema import Index
from provisioning.index.read import load_index, search
from provisioning.index.write.build import build
from provisioning.quality.locate.running import TILES_WEIGH, RunningMean, tiles_mean

DIMENSION, COUNT = 48, 300


class Given:
    """A network that gives the vectors it is called with."""

    size = (1, 1)
    dimension = DIMENSION

    def __call__(self, images):
        return images.astype(np.float32)

    def clone(self):
        return Given()


@pytest.fixture(scope="module")
def tiles():
    vectors = np.random.default_rng(1).normal(0.7, 1, (COUNT, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def index_of(tiles, tmp_path, transform):
    ids = np.arange(COUNT, dtype=np.int64)
    build(Index(kind="flat", transform=transform), ids, lambda which: tiles[which], tmp_path / "index")
    return load_index((tmp_path / "index").read_bytes())


def test_the_mean_is_the_one_that_faiss_takes_off(tiles, tmp_path):
    np.testing.assert_allclose(tiles_mean(index_of(tiles, tmp_path, "center")), tiles.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("transform", ["none", "pca(8)", "pca-whiten(8)"])
def test_an_index_that_is_not_centred_is_refused_with_what_to_set(tiles, tmp_path, transform):
    with pytest.raises(IndexingError, match="running mean") as refused:
        tiles_mean(index_of(tiles, tmp_path, transform))
    assert "center" in refused.value.next_step


def test_what_a_flight_does_to_all_its_photos_is_taken_off(tiles, tmp_path):
    index = index_of(tiles, tmp_path, "center")
    rng = np.random.default_rng(2)
    cast = rng.normal(0, 0.3, DIMENSION).astype(np.float32)
    photos = tiles + cast + rng.normal(0, 0.07, tiles.shape).astype(np.float32)
    adapted = RunningMean(Given(), tiles_mean(index))
    moved = np.concatenate([adapted(photo[None]) for photo in photos])
    late = np.arange(COUNT) >= 50
    as_they_are = search(index, photos, 1)[1][:, 0] == np.arange(COUNT)
    without_cast = search(index, moved, 1)[1][:, 0] == np.arange(COUNT)
    assert without_cast[late].mean() >= as_they_are[late].mean() + 0.1


def test_one_photo_moves_the_mean_by_its_share_and_clones_begin_anew(tiles):
    mean = tiles.mean(axis=0)
    adapted = RunningMean(Given(), mean)
    photo = tiles[:3] + 1
    expected = photo - (mean * TILES_WEIGH + photo.mean(axis=0)) / (TILES_WEIGH + 1) + mean
    np.testing.assert_allclose(adapted(photo), expected, atol=1e-6)
    np.testing.assert_allclose(adapted.clone()(photo), expected, atol=1e-6)
    assert not np.allclose(adapted(photo), expected, atol=1e-3)


def test_only_a_running_mean_can_be_tried():
    assert parse_variant("transform=center,mean=running").mean == "running"
    with pytest.raises(Error, match="mean"):
        parse_variant("mean=mine")
