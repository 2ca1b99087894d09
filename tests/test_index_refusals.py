"""An index that cannot be made or believed, and the facts of a build that cannot be read any more."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest

from provisioning.base.errors import EmptyCorpusError, IndexingError
from provisioning.config.schema import Index
from provisioning.index import choose_kind, eigen, host
from provisioning.index.codec import check_rows
from provisioning.index.corpus import build_corpus_index
from provisioning.index.info import read_info
from provisioning.index.layout import read_list_sizes
from provisioning.index.parallel import in_order
from provisioning.report.tilemap import Run, tile_map
from tests.test_index import ids_of, make, vectors


@pytest.mark.parametrize(
    "rows",
    [np.zeros((3, 4)), np.zeros(3, np.float32), np.zeros((2, 4), np.float32)],
    ids=["float64", "one dimension", "fewer than ids"],
)
def test_rows_that_are_no_descriptors_are_refused(rows):
    with pytest.raises(IndexingError, match="descriptors are float32"):
        check_rows(rows, ids_of(3))


def test_every_heading_needs_its_store():
    flight = SimpleNamespace(index=Index(rotations=4))
    with pytest.raises(IndexingError, match=r"1 descriptor stores for index\.rotations = 4"):
        build_corpus_index(flight, None, None, [None], None, descriptor_keys=["key"])


@pytest.mark.parametrize("data", [b"", b"sprs" + (2).to_bytes(8, "little") + bytes([9, *bytes(7)]) + bytes(8),
                                  b"sprs" + (1).to_bytes(8, "little") + bytes(8), b"none" + bytes(8)])  # fmt: skip
def test_a_table_of_lists_that_is_none_is_none(data):
    assert read_list_sizes(data, 4) is None


def test_an_index_in_pieces_of_many_lists_grows_like_a_new_one_when_the_last_was_damaged(tmp_path):
    """What is left of an index that was cut or written over is not believed: the next one is made anew."""
    from provisioning.index.memo import History

    rows = vectors(900)
    content = np.frombuffer(np.arange(900, dtype="<u4").repeat(8).tobytes(), np.uint8).reshape(900, 32)
    history = History(tmp_path, "keys", content, "corpus", None)
    _, fresh = make(tmp_path / "fresh.index", rows, kind="ivf-sq8")
    for damage in (b"", b"x" * 5000):
        make(tmp_path / "i", rows, kind="ivf-sq8", history=history)
        kept = next(path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == fresh)
        kept.write_bytes(damage + fresh[len(damage) :] if damage else fresh[:-8])
        _, again = make(tmp_path / "again.index", rows, kind="ivf-sq8", history=history)
        assert again == fresh


def test_what_was_built_is_read_or_named(tmp_path):
    target = SimpleNamespace(path=tmp_path / "index.json")
    for content in (None, "{", '{"colour": 1}'):
        if content is not None:
            target.path.write_text(content)
        with pytest.raises(IndexingError, match="not recorded") as caught:
            read_info(target)
        assert "doit" in caught.value.next_step


def test_the_refusal_of_every_kind_says_what_stands_against_each():
    with pytest.raises(IndexingError, match="no kind of index keeps") as caught:
        choose_kind(Index(memory_mb=1, recall=Decimal("0.999")), vectors=50_000, dimension=512)
    assert set(caught.value.facts) >= {"flat", "ivf-sq8", "vectors", "dimension", "budget bytes"}


def test_a_consumer_that_stops_leaves_no_work_behind():
    done = []
    results = in_order(lambda item: done.append(item) or item, range(1000))
    assert next(results) == 0
    results.close()
    assert len(done) < 10


def test_eigenvalues_are_given_even_if_the_sweeps_end_before_the_tolerance(monkeypatch):
    matrix = np.cov(vectors(50, 6).T.astype(np.float64))
    expected = np.sort(np.linalg.eigvalsh(matrix))
    monkeypatch.setattr(eigen, "TOLERANCE", -1.0)
    values, _ = eigen.jacobi(matrix)
    np.testing.assert_allclose(np.sort(values), expected, atol=1e-12)


def test_a_host_without_cpuinfo_is_its_architecture(monkeypatch):
    def refuse(_self, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(host.Path, "read_text", refuse)
    assert host.instruction_set() == host.platform.machine()


def test_a_map_of_nothing_has_no_cell_and_one_over_the_seam_has_them_all():
    assert tile_map(10, [], []).cells == ()
    around = tile_map(3, [Run(0, 0, 7)], [], west_column=6)
    assert [cell.x for cell in around.cells] == list(range(6, 14))


def test_a_request_before_the_scan_has_no_tiles(tmp_path):
    from provisioning.build.request import Request

    request = Request(**{field.name: None for field in dataclasses.fields(Request)})
    with pytest.raises(EmptyCorpusError, match="not been scanned"):
        _ = request.tiles


@pytest.mark.parametrize("before", ["flat", "sq8", "hrq"])
def test_an_index_of_another_kind_gives_nothing_to_the_next(tmp_path, before):
    from provisioning.index.memo import History

    rows = vectors(900)
    content = np.frombuffer(np.arange(900, dtype="<u4").repeat(8).tobytes(), np.uint8).reshape(900, 32)
    history = History(tmp_path, "keys", content, "corpus", None)
    _, fresh = make(tmp_path / "fresh.index", rows, kind="ivf-sq8")
    make(tmp_path / "i", rows, kind=before, history=history)
    _, again = make(tmp_path / "again.index", rows, kind="ivf-sq8", history=history)
    assert again == fresh
