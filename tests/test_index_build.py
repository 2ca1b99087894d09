"""Promises of the index in a build: refused before hours of work, equal whether grown or clean, nothing old left."""

import shutil

import pytest

from provisioning.base.errors import IndexingError
from provisioning.build.plan import make_plan
from tests.building import NORTH, WEST, build, edit, new_cache, put_tile


def test_a_corpus_that_fits_in_no_kind_is_refused_before_a_tile_is_described(tmp_path):
    cache = new_cache(tmp_path, side=2)
    edit(cache, "[index]", "[index]\nmemory_mb = 1")
    done = build(cache)
    assert isinstance(done.failure, IndexingError)
    assert done.failure.key == "index.memory_mb"
    assert done.report.descriptors_generated == 0
    with pytest.raises(IndexingError, match=r"index\.memory_mb = 1"):
        make_plan(cache)


@pytest.mark.parametrize("kind", ["hrq", pytest.param("sq4", marks=pytest.mark.slow)])
def test_a_grown_cache_has_the_index_of_a_clean_one(tmp_path, kind):
    grown = new_cache(tmp_path, side=2)
    edit(grown, "[index]", f'[index]\nkind = "{kind}"')
    clean = shutil.copytree(grown, tmp_path / "clean")
    assert build(grown).failure is None
    put_tile(tmp_path / "tiles", WEST, NORTH, seed=77)
    (grown / ".build" / "index").mkdir()
    for cache in (grown, clean):
        assert build(cache).failure is None
    one, other = (cache / "current" / "corpus.index" for cache in (grown, clean))
    assert one.read_bytes() == other.read_bytes()
    assert not (grown / ".build" / "index").exists()
