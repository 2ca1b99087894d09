"""Rows of an index are found and written as a delta compares them; one of kind hrq or sq8 costs what is new in it."""

from __future__ import annotations

import io

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import DeliveryError
from provisioning.config.schema import Index
from provisioning.delivery.bundle import delta, rows
from provisioning.delivery.bundle.indexes import Found, rows_in
from provisioning.delivery.bundle.rows import (
    MOST_COLUMNS,
    ROWS,
    Blocks,
    Columns,
    Where,
    by_rows,
    parse,
    streamed,
    to_bytes,
)
from provisioning.index.ids import steadily
from provisioning.index.read import load_index
from provisioning.index.write.build import build
from provisioning.index.write.whole import CENTRE_ROWS, centre
from tests.test_delta import applied, delta_of, named, open_bytes

COMPONENTS = 128


def vectors(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, COMPONENTS), np.float32) + np.float32(0.5)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def ids_of(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64) << 14


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Return the index of rows of `vectors`, as bytes."""
    path = tmp_path_factory.mktemp("rows") / "i"

    def make(which: np.ndarray, *, rows: np.ndarray | None = None, **settings: str) -> bytes:
        held = vectors(int(which[-1]) + 1) if rows is None else rows
        asked = Index(**{"kind": "hrq", **settings})
        build(asked, ids_of(len(held))[which], lambda part: held[which[part]], path)
        return path.read_bytes()

    return make


def found(data: bytes) -> Found | None:
    return rows_in(lambda at, size: data[at : at + size], len(data))


def blocks_in(data: bytes) -> Blocks:
    where = found(data)
    assert where is not None
    return Blocks(*where.where[:4])


def few_removed(count: int, removed: int) -> np.ndarray:
    """Return the row numbers below `count` without so many of them, none of those that the bits are taken around."""
    left = np.setdiff1d(np.arange(count), steadily(ids_of(count), CENTRE_ROWS))
    return np.setdiff1d(np.arange(count), np.random.default_rng(1).permutation(left)[:removed])


# the permutation

BLOCKS = st.builds(
    Blocks,
    offset=st.integers(0, 3000),
    blocks=st.integers(0, 12),
    fours=st.sampled_from([2, 16, 64, 512]),
    more=st.integers(15, 20),
)
COLUMNS = st.integers(32, 300).flatmap(
    lambda row_bytes: st.builds(
        Columns.of_rows,
        offset=st.integers(0, 3000),
        rows=st.integers(0, 3 * 4000 // row_bytes),
        row_bytes=st.just(row_bytes),
        columns=st.sets(st.integers(0, row_bytes - 1), min_size=1, max_size=row_bytes // 16).map(sorted).map(tuple),
    )
)


@pytest.fixture(scope="module", autouse=True)
def _small_blocks_of_columns():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_COLUMNS_BYTES", 4000)
        yield


@given(st.one_of(BLOCKS, COLUMNS), st.randoms(use_true_random=False), st.integers(1, 5000))
def test_any_stretch_comes_back_whole_and_in_pieces(form, rng, piece):
    size = form.offset + form.blocks * form.size + rng.randrange(500)
    assert form.fit(size)
    start = rng.randrange(size + 1)
    end = rng.randrange(start, size + 1)
    data = rng.randbytes(end - start)
    changed = form.by_rows(data, start)
    assert len(changed) == len(data)
    assert form.by_blocks(changed, start) == data
    pieces = (changed[at : at + piece] for at in range(0, len(changed), piece))
    assert b"".join(form.streamed(pieces, start, end)) == data


@given(BLOCKS, COLUMNS, st.binary(min_size=100, max_size=9000))
def test_two_forms_come_back_even_where_they_overlap(blocks, columns, data):
    forms = (blocks, columns)
    assert b"".join(streamed(forms, iter([by_rows(forms, data, 7)]), 7, 7 + len(data))) == data


def test_columns_come_last_each_in_one_piece():
    form = Columns.of_rows(offset=4, rows=125, row_bytes=32, columns=(2, 31))
    data = bytes(4) + bytes(range(32)) * 125 + b"end"
    others = bytes(each for each in range(32) if each not in (2, 31))
    assert form.by_rows(data, 0) == bytes(4) + others * 125 + b"\x02" * 125 + b"\x1f" * 125 + b"end"


def test_pieces_are_given_as_soon_as_a_block_is_whole():
    blocks = Blocks(offset=100, blocks=10, fours=16, more=8)
    end, arrived, given_bytes = 100 + 10 * blocks.size + 50, 0, 0
    pieces = [bytes(77)] * (end // 77) + [bytes(end % 77)]

    def arriving():
        nonlocal arrived
        for piece in pieces:
            arrived += len(piece)
            yield piece
            assert arrived - given_bytes < blocks.size

    for part in blocks.streamed(arriving(), 0, end):
        given_bytes += len(part)
    assert given_bytes == end


@pytest.mark.parametrize("count", [12, 32, 33, 40, 700])
def test_each_row_of_faiss_is_in_one_piece_whatever_rows_are_before_it(index, count):
    fewer = few_removed(count, 7)
    every, kept = rows_of(index(np.arange(count))), rows_of(index(fewer, rows=vectors(count)))
    assert len({*every[:count]}) == count
    assert [every[row] for row in fewer] == kept[: len(fewer)]
    assert not any(map(any, kept[len(fewer) :]))


def rows_of(data: bytes) -> list[bytes]:
    blocks = blocks_in(data)
    end = blocks.offset + blocks.blocks * blocks.size
    changed, size = blocks.by_rows(data[blocks.offset : end], blocks.offset), blocks.size // ROWS
    return [changed[at : at + size] for at in range(0, len(changed), size)]


# where they are


def faiss_field(data: bytes, name: str, kind: type) -> np.ndarray:
    """Return a field of the part of an index that is a `kind`, as FAISS reads it."""
    index = whole = load_index(data)  # which must outlive what is taken out of it
    while not isinstance(index, kind):
        if isinstance(index, faiss.IndexRefine):
            index = index.refine_index if kind is faiss.IndexScalarQuantizer else index.base_index
        else:
            index = index.index
        index = faiss.downcast_index(index)
    assert whole.ntotal == index.ntotal
    return faiss.vector_to_array(getattr(index, name))


@pytest.mark.parametrize("transform", ["none", "center", "pca(64)"])
def test_the_blocks_of_an_index_are_where_faiss_has_them(index, transform):
    data = index(np.arange(300), transform=transform)
    codes = faiss_field(data, "codes", faiss.IndexRaBitQFastScan).tobytes()
    blocks = blocks_in(data)
    assert data[blocks.offset : blocks.offset + blocks.blocks * blocks.size] == codes


@pytest.mark.parametrize(
    ("kind", "transform"),
    [
        ("hrq", "none"),
        ("sq8", "none"),
        *(pytest.param(kind, "pca(64)", marks=pytest.mark.slow) for kind in ("hrq", "sq8")),
    ],
)  # blocks behind such a matrix are found above
def test_the_codes_of_an_index_are_where_faiss_has_them(index, kind, transform):
    data = index(np.arange(300), kind=kind, transform=transform)
    where = found(data)
    assert where is not None
    (_, *_, codes, count, row_bytes), ranges = where
    assert faiss_field(data, "codes", faiss.IndexScalarQuantizer).tobytes() == data[codes : codes + count * row_bytes]
    assert (count, len(ranges)) == (300, row_bytes)


@pytest.mark.parametrize("kind", ["flat", "sqfp16", "sq4"])
def test_other_kinds_have_none(index, kind):
    assert found(index(np.arange(300), kind=kind)) is None


@pytest.fixture(scope="module")
def small(index):
    return index(np.arange(40))


def test_they_are_found_behind_megabytes_of_a_transform(small):
    here = found(small)
    assert here is not None
    pad = (1 << 20) - small.index(b"Irfn") - 6
    there = found(b"IxPT" + bytes(pad) + small)
    assert there is not None
    assert (there.where.offset, there.where.codes) == (here.where.offset + pad + 4, here.where.codes + pad + 4)


@given(st.data())
def test_what_is_no_index_has_none_or_such_as_fit(small, data):
    changed = bytearray(small[: data.draw(st.integers(0, len(small)))])
    for at in data.draw(st.lists(st.integers(0, 800), max_size=8)):
        if at < len(changed):
            changed[at] = data.draw(st.sampled_from([0, 1, 127, 255]))
    where = found(bytes(changed))
    assert where is None or where.where.forms((), len(changed)) is not None


# the delta


@pytest.mark.parametrize(("one_in", "share"), [(100, 0.015), (10, 0.11)])
def test_new_rows_cost_what_they_are(index, one_in, share):
    count = 4000
    new, old = index(np.arange(count)), index(few_removed(count, count // one_in), rows=vectors(count))
    changes = delta_of(new, old)
    assert applied(changes, old, new) == new
    assert len(changes) < share * len(new) + 4096
    assert delta.BY_ROWS.to_bytes(4, "little") == changes[8:12]


def test_a_file_or_base_without_blocks_is_sent_as_ever(index):
    new, other = index(np.arange(700)), index(np.arange(700), kind="sqfp16")
    for file, base in ((new, other), (other, new), (new, b"")):
        changes = delta_of(file, base)
        assert delta.BY_ROWS.to_bytes(4, "little") != changes[8:12]
        assert applied(changes, base, file) == file


@pytest.mark.parametrize("segment", [1 << 13, 50_001])
@pytest.mark.parametrize("count", [33, 700])
def test_a_delta_begins_at_any_byte_and_goes_on_over_segments(index, monkeypatch, segment, count):
    monkeypatch.setattr(delta, "SEGMENT_BYTES", segment)
    monkeypatch.setattr(delta, "MARGIN_BYTES", segment // 4)
    monkeypatch.setattr(delta, "WINDOW_BYTES", segment + segment // 2)
    old, new = far_out(index, count)
    blocks = blocks_in(new)
    if count > 100:
        assert int.from_bytes(delta_of(new, old)[12:16], "little") > len(to_bytes(Where(), Where(), ()))
    for offset in (0, 1, blocks.offset, blocks.offset + blocks.size + 77, len(new) - 1, len(new)):
        changes = delta_of(new, old, offset=offset)
        assert applied(changes, old, new, offset=offset) == new[offset:]


@pytest.mark.parametrize("kind", ["hrq", "sq8"])
def test_columns_whose_range_has_moved_cost_a_byte_of_each_row(index, monkeypatch, kind):
    """Where they stood, each would break every row in pieces."""
    monkeypatch.setattr(rows, "_COLUMNS_BYTES", 1 << 17)
    old, new = far_out(index, 4000, kind=kind)
    changes = delta_of(new, old)
    assert applied(changes, old, new) == new
    said = parse(changes[16 : 16 + int.from_bytes(changes[12:16], "little")])
    assert said is not None
    assert said[2] == (0, 1, 2)
    assert len(changes) < 1.1 * 3 * 4000 + 4096
    monkeypatch.setattr(delta, "forms_of", lambda *_: None)
    assert len(delta_of(new, old)) > 1.5 * len(changes)


def far_out(index, count: int, **settings: str) -> tuple[bytes, bytes]:
    """Return an index without and with a row that is far out in three components, so that their ranges move."""
    out = np.setdiff1d(steadily(ids_of(count), CENTRE_ROWS + 1), steadily(ids_of(count), CENTRE_ROWS))
    which = np.setdiff1d(np.arange(count), out)
    held = vectors(count)
    held[out, :3] = 5
    return index(which, rows=held, **settings), index(np.arange(count), rows=held, **settings)


def test_what_was_rebuilt_before_a_cut_is_given(index):
    new, old = index(np.arange(3000)), index(few_removed(3000, 1500), rows=vectors(3000))
    changes = delta_of(new, old)
    arrived = []
    with open_bytes(old) as base, pytest.raises(DeliveryError, match="cut"):
        arrived.extend(delta.rebuilt(io.BytesIO(changes[: len(changes) // 2]), base, named(new)))
    data = b"".join(arrived)
    assert len(data) > len(new) // 10
    assert new.startswith(data)
    rest = delta_of(new, old, offset=len(data))
    assert data + applied(rest, old, new, offset=len(data)) == new


@given(
    st.builds(Where, *[st.integers(0, (1 << 32) - 1)] * 7),
    st.lists(st.integers(0, (1 << 32) - 1), max_size=MOST_COLUMNS).map(tuple),
)
def test_what_a_delta_says_of_both_files_comes_back(where, columns):
    said = to_bytes(where, Where(), columns)
    assert parse(said) == (where, Where(), columns)
    assert parse(said[:-1]) is None
    assert parse(said + bytes(4 * (MOST_COLUMNS + 1 - len(columns)))) is None


# the centre


def test_the_centre_is_that_of_the_rows_and_near_zero_where_they_have_none():
    rows = vectors(4) + np.float32(0.2)
    mean = rows.mean(axis=0)
    np.testing.assert_allclose(centre(rows), mean * (centre(rows) @ mean) / (mean @ mean), atol=1e-6)
    assert 0.9 < np.linalg.norm(centre(rows)) / np.linalg.norm(mean) < 1
    around_zero = np.random.default_rng(1).standard_normal((4, 4096), np.float32)
    assert np.linalg.norm(centre(around_zero)) < 0.2 * np.linalg.norm(around_zero.mean(axis=0))
    assert (centre(rows[:1]) == rows[0]).all()
    np.testing.assert_allclose(centre(np.repeat(rows[:1], 3, axis=0)), rows[0], atol=1e-6)
    assert not centre(np.stack([rows[0], -rows[0]])).any()


def test_other_rows_leave_the_centre(index):
    assert centre_of(index(np.arange(700))) == centre_of(index(few_removed(700, 100), rows=vectors(700)))


def centre_of(data: bytes) -> bytes:
    return faiss_field(data, "center", faiss.IndexRaBitQFastScan).tobytes()
