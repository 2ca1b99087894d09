"""An index that cannot be made or believed, and the facts of a build that cannot be read any more."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from provisioning.base.errors import EmptyCorpusError, IndexingError
from provisioning.index.info import read_info
from provisioning.index.transform import eigen
from provisioning.index.write.codec import check_rows
from provisioning.index.write.parallel import in_order
from provisioning.report.map.tilemap import Run, tile_map
from tests.test_index import ids_of, vectors


@pytest.mark.parametrize(
    "rows",
    [np.zeros((3, 4)), np.zeros(3, np.float32), np.zeros((2, 4), np.float32)],
    ids=["float64", "one dimension", "fewer than ids"],
)
def test_rows_that_are_no_descriptors_are_refused(rows):
    with pytest.raises(IndexingError, match="descriptors are float32"):
        check_rows(rows, ids_of(3))


def test_what_was_built_is_read_or_named(tmp_path):
    target = SimpleNamespace(path=tmp_path / "index.json")
    for content in (None, "{", '{"colour": 1}'):
        if content is not None:
            target.path.write_text(content)
        with pytest.raises(IndexingError, match=r"has not been made yet|is not recorded") as caught:
            read_info(target)
        assert "doit" in caught.value.next_step


def test_a_consumer_that_stops_leaves_no_work_behind():
    done = []
    results = in_order(lambda item: done.append(item) or item, range(1000), threads=2)
    assert next(results) == 0
    results.close()
    assert len(done) < 10


def test_eigenvalues_are_given_even_if_the_sweeps_end_before_the_tolerance(monkeypatch):
    matrix = np.cov(vectors(50, 6).T.astype(np.float64))
    expected = np.sort(np.linalg.eigvalsh(matrix))
    monkeypatch.setattr(eigen, "TOLERANCE", -1.0)
    values, _ = eigen.jacobi(matrix)
    np.testing.assert_allclose(np.sort(values), expected, atol=1e-12)


def test_a_map_of_nothing_has_no_cell_and_one_over_the_seam_has_them_all():
    assert tile_map(10, [], []).cells == ()
    around = tile_map(3, [Run(0, 0, 7)], [], west_column=6)
    assert [cell.x for cell in around.cells] == list(range(6, 14))


def test_a_request_before_the_scan_has_no_tiles(tmp_path):
    from provisioning.build.request import Request

    request = Request(**{field.name: None for field in dataclasses.fields(Request)})
    with pytest.raises(EmptyCorpusError, match="not been scanned"):
        _ = request.tiles
