"""Promises of corpus.index: the bytes FAISS would write, the same for every way of making them, refused when wrong."""

import hashlib
import logging
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import faiss
import numpy as np
import pytest

from provisioning.base.errors import IndexingError
from provisioning.base.events import LOGGER
from provisioning.base.geometry import geo
from provisioning.config.schema import Index
from provisioning.index import choose
from provisioning.index.ids import Rows, check_ids, rows_of
from provisioning.index.read import load_index, search
from provisioning.index.transform.space import into_space
from provisioning.index.write.build import build
from provisioning.index.write.whole import FAST_SCAN_COMPONENTS

STREAMED = ("flat", "sqfp16", "sq8", "sq4")
KINDS = (*STREAMED, "hrq")
TRANSFORMS = ("none", "center", "pca(16)", "pca-whiten(24)")
DIMENSION = 48


def vectors(count, dimension=DIMENSION, seed=0):
    """Unit vectors in a cone, with unequal variances, as descriptors are; exact in decimal so that no BLAS matters."""
    values = np.random.Generator(np.random.PCG64(seed)).integers(-2048, 2048, (count, dimension)).astype(np.float64)
    values = values * (np.arange(dimension) + 1.0) / dimension + 700
    return (values / np.sqrt((values * values).sum(axis=1, keepdims=True))).astype(np.float32)


def ids_of(count):
    return np.arange(count, dtype=np.int64) * 64 * 256 + (1 << 50)


def make(path, rows, ids=None, **index):
    """Build an index of `rows` and return what was built and its bytes."""
    info = build(Index(**{"kind": "flat", **index}), ids_of(len(rows)) if ids is None else ids, rows.__getitem__, path)
    return info, path.read_bytes()


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_what_faiss_itself_would_write(tmp_path, kind, transform):
    _, data = make(tmp_path / "i", vectors(700), kind=kind, transform=transform)
    assert faiss.serialize_index(load_index(data)).tobytes() == data


FACTORY = {"flat": "Flat", "sqfp16": "SQfp16", "sq8": "SQ8", "sq4": "SQ4"}


@pytest.mark.parametrize("dimension", [DIMENSION, 7])
@pytest.mark.parametrize("kind", STREAMED)
def test_streamed_codes_are_those_of_faiss(tmp_path, kind, dimension):
    rows = vectors(5000, dimension)
    _, data = make(tmp_path / "i", rows, kind=kind)
    outer = load_index(data)
    ours = faiss.downcast_index(outer.index)
    theirs = faiss.index_factory(dimension, FACTORY[kind], ours.metric_type)
    if kind in ("sq8", "sq4"):
        faiss.copy_array_to_vector(faiss.vector_to_array(ours.sq.trained), theirs.sq.trained)
        theirs.is_trained = True
    held = faiss.IndexIDMap2(theirs)
    held.add_with_ids(rows, ids_of(5000))
    assert faiss.serialize_index(held).tobytes() == data


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_finds_itself(tmp_path, kind):
    rows = vectors(600)
    info, data = make(tmp_path / "i", rows, kind=kind)
    _, found = search(load_index(data), rows[:100], 3)
    assert (found[:, 0] == ids_of(600)[:100]).mean() >= 0.99
    assert (info.vectors, info.dimension, info.bytes) == (600, DIMENSION, len(data))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_query_goes_through_the_transform_that_the_index_carries(tmp_path, transform):
    rows = vectors(900)
    _, data = make(tmp_path / "i", rows, transform=transform)
    index = load_index(data)
    assert index.d == DIMENSION
    scores, found = search(index, rows[:50], 1)
    assert (found[:, 0] == ids_of(900)[:50]).all()
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-4)


def test_principal_components_are_those_of_the_covariance(tmp_path):
    rows = vectors(900)
    _, data = make(tmp_path / "i", rows, transform="pca(16)")
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    basis = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :16]
    expected = centred @ basis
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = into_space(load_index(data), rows)
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=2e-4)


def test_whitened_components_vary_alike(tmp_path):
    rows = vectors(2000)
    _, data = make(tmp_path / "i", rows, transform="pca-whiten(24)")
    submit = into_space(load_index(data), rows).std(axis=0)
    assert submit.max() / submit.min() < 1.1


PROBE = """
import hashlib, sys, tempfile, pathlib, faiss
sys.path[:0] = [{here!r}]
from test_index import make, vectors
if {level!r}:
    faiss.SIMDConfig.set_level(getattr(faiss, "SIMDLevel_" + {level!r}))
folder = pathlib.Path(tempfile.mkdtemp())
digest = hashlib.sha256()
for kind, transform in {made}:
    digest.update(make(folder / "i", vectors({count}, 112), kind=kind, transform=transform)[1])
print(digest.hexdigest())
"""

HOSTS = [("1", "", ""), ("4", "Prescott", "NONE")]
"""Threads, kernel of the BLAS and vector width: two that differ in all three."""
ONCE = [("flat", transform) for transform in TRANSFORMS] + [(kind, "center") for kind in KINDS[1:]]
"""A flat index shows every bit of a transform's rows; each other kind codes rows that were computed."""


@pytest.mark.parametrize(
    ("count", "made", "hosts"),
    [
        (500, ONCE, HOSTS),
        pytest.param(1500, [*product(KINDS, TRANSFORMS)], [*HOSTS, ("2", "Haswell", "NONE")], marks=pytest.mark.slow),
    ],
)
def test_bytes_do_not_depend_on_threads_blas_kernel_or_vector_width(count, made, hosts):
    found = set()
    for threads, core, simd in hosts:
        variables = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core}
        script = PROBE.format(
            here=str(Path(__file__).parent),
            level=simd if hasattr(faiss, "SIMDLevel_NONE") else "",
            count=count,
            made=made,
        )
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, **variables, "PYTHONPATH": path},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.add(done.stdout.strip())
    assert len(found) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_not_finite_is_refused_with_its_id(tmp_path, kind, bad):
    rows = vectors(200)
    rows[123, 5] = bad
    with pytest.raises(IndexingError, match="not finite") as refusal:
        make(tmp_path / "i", rows, kind=kind)
    assert refusal.value.facts["id"] == ids_of(200)[123]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_row_of_norm_zero_is_refused(tmp_path, transform):
    rows = vectors(200)
    rows[3] = 0
    with pytest.raises(IndexingError, match="zero"):
        make(tmp_path / "i", rows, transform=transform)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 2], "twice"),
        ([1, 3, 2], "ascending"),
        ([-1, 2, 3], "negative"),
        ([], "without vectors"),
    ],
)
def test_ids_that_faiss_would_take_silently_are_refused(ids, words):
    with pytest.raises(IndexingError, match=words):
        check_ids(np.array(ids, np.int64))


def test_ids_beyond_63_bits_are_refused():
    with pytest.raises(IndexingError, match="int64"):
        check_ids(np.array([1 << 63], np.uint64))


def test_ids_decode_to_the_tile_and_its_heading():
    base = np.array([geo.pack_id(3, 1, 2, 5, 0), geo.pack_id(4, 7, 7, 0, 0)], np.int64)
    rows = rows_of(base, np.arange(64, dtype=np.uint8).reshape(2, 32), rotations=4)
    assert [geo.unpack_id(int(i), 4) for i in rows.ids[:4]] == [(3, 1, 2, 5, heading, 0) for heading in range(4)]
    assert (rows.shas[4:] == np.arange(32, 64)).all()


def test_each_heading_is_gathered_from_its_own_store():
    rows = rows_of(np.array([0, 1 << 14], np.int64), np.eye(2, 32, dtype=np.uint8), rotations=2)

    def store(heading):
        return lambda keys: np.array([[heading, key[1]] for key in keys], np.float32)

    got = rows.gather([store(0), store(1)])(slice(0, 4))
    assert got.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert isinstance(rows, Rows)


def test_an_index_of_several_headings_finds_the_heading(tmp_path):
    upright, turned = vectors(200, seed=1), vectors(200, seed=2)
    rows = rows_of(ids_of(200), np.zeros((200, 32), np.uint8), rotations=2)
    both = np.stack([upright, turned], axis=1).reshape(400, -1)
    _, data = make(tmp_path / "i", both, rows.ids)
    _, found = search(load_index(data), turned[:20], 1)
    assert (found[:, 0] == ids_of(200)[:20] + 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_bytes_are_no_index(tmp_path, kind):
    _, data = make(tmp_path / "i", vectors(300), kind=kind)
    for length in (0, 3, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(IndexingError):
            load_index(data[:length])


def test_bytes_behind_an_index_are_refused(tmp_path):
    _, data = make(tmp_path / "i", vectors(30))
    with pytest.raises(IndexingError, match="whole"):
        load_index(data + b"\0")


def test_a_vector_cannot_claim_more_bytes_than_the_file_has(tmp_path):
    _, data = make(tmp_path / "i", vectors(300))
    place = data.index((300 * DIMENSION).to_bytes(8, "little"))
    hostile = data[:place] + (1 << 36).to_bytes(8, "little") + data[place + 8 :]
    before = faiss.get_deserialization_vector_byte_limit()
    with pytest.raises(IndexingError):
        load_index(hostile)
    assert faiss.get_deserialization_vector_byte_limit() == before


def test_a_loaded_index_keeps_its_buffer_alive(tmp_path):
    rows = vectors(300)
    index = load_index(make(tmp_path / "i", rows)[1])
    junk = [os.urandom(1 << 16) for _ in range(64)]
    assert (search(index, rows[:9], 1)[1][:, 0] == ids_of(300)[:9]).all()
    assert len(junk) == 64


def test_a_query_of_another_length_or_not_finite_is_refused(tmp_path):
    index = load_index(make(tmp_path / "i", vectors(30))[1])
    with pytest.raises(IndexingError, match="components"):
        search(index, np.ones((1, DIMENSION + 1), np.float32), 1)
    with pytest.raises(IndexingError, match="finite"):
        search(index, np.full((1, DIMENSION), np.nan, np.float32), 1)


def test_an_index_of_another_metric_is_refused():
    other = faiss.IndexFlatL2(4)
    other.add(np.eye(4, dtype=np.float32))
    with pytest.raises(IndexingError, match="inner product"):
        load_index(faiss.serialize_index(other).tobytes())


MEMORY = """
import pathlib, resource, sys
sys.path[:0] = [{here!r}]
import numpy as np
from test_index import ids_of, vectors
from provisioning.base.events import LOGGER
from provisioning.config.schema import Index
from provisioning.index import choose
from provisioning.index.write.build import build
some = vectors(4096, 512)
count = {count}
def gather(which):
    rows = np.arange(which.start, which.stop) if isinstance(which, slice) else which
    return some[rows % 4096]
def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024
index = Index(kind={kind!r})
build(index, ids_of(256), gather, pathlib.Path({out!r}))
import threading, time
peak, before, stop = [0], anonymous(), []
def watch():
    while not stop:
        peak[0] = max(peak[0], anonymous()); time.sleep(0.002)
watcher = threading.Thread(target=watch); watcher.start()
build(index, ids_of(count), gather, pathlib.Path({out!r}))
stop.append(1); watcher.join()
print((peak[0] - before) >> 20)
"""


@pytest.mark.parametrize(("kind", "count"), [("flat", 60_000), pytest.param("sqfp16", 100_000, marks=pytest.mark.slow)])
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="anonymous memory is read from /proc")
def test_a_streamed_index_is_built_in_the_memory_of_a_few_blocks(tmp_path, kind, count):
    script = MEMORY.format(here=str(Path(__file__).parent), kind=kind, count=count, out=str(tmp_path / "i"))
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) <= 64


@pytest.mark.parametrize("dimension", [FAST_SCAN_COMPONENTS, FAST_SCAN_COMPONENTS + 1, 8448])
def test_hrq_finds_vectors_of_every_length(tmp_path, dimension):
    rows = vectors(200, dimension)
    _, data = make(tmp_path / "i", rows, kind="hrq")
    _, found = search(load_index(data), rows, 1)
    assert (found[:, 0] == ids_of(200)).mean() > 0.95


@pytest.mark.parametrize(
    ("kind", "transform"),
    [
        *((kind, "none") for kind in KINDS),
        ("hrq", "pca-whiten(24)"),
        *(pytest.param(kind, "pca-whiten(24)", marks=pytest.mark.slow) for kind in STREAMED),
    ],
)
def test_an_index_written_over_another_is_that_of_a_clean_build(tmp_path, kind, transform):
    """Nothing of an earlier index reaches the next: neither rows, nor ranges, nor a learned transform."""
    rows = vectors(900)
    grown = tmp_path / "grown"
    for step, count in enumerate((700, 705, 690, 900)):
        which = np.sort(np.random.Generator(np.random.PCG64(step)).permutation(900)[:count])
        _, data = make(grown, rows[which], ids_of(900)[which], kind=kind, transform=transform)
    assert sha(data) == sha(make(tmp_path / "clean", rows, kind=kind, transform=transform)[1])


@pytest.mark.parametrize("kind", ["sq8", "hrq"])
@pytest.mark.parametrize("left_out", [range(50, 9000, 100), range(4000, 4090)], ids=["everywhere", "at one place"])
def test_rows_keep_their_eight_bits_when_one_per_cent_of_others_comes(tmp_path, kind, left_out):
    """What a delta of the index lives on: an 8-bit code of an old row changes only where its component's range does."""
    rows, before = vectors(9000, 128), np.delete(np.arange(9000), left_out)
    old, new = (
        eight_bit_range(make(tmp_path / "i", rows[which], ids_of(9000)[which], kind=kind)[1])
        for which in (before, np.arange(9000))
    )
    assert (old != new).any(axis=0).sum() <= 8  # of 128; evenly spaced rows change 20 to 40


def eight_bit_range(data):
    index = load_index(data)
    inner = faiss.downcast_index(index.index)
    codes = faiss.downcast_index(inner.refine_index) if hasattr(inner, "refine_index") else inner
    return faiss.vector_to_array(codes.sq.trained).reshape(2, -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("transform", "dimension"), [("none", 48), ("none", 130), ("pca(16)", 130), ("center", 48)])
def test_an_index_has_the_bytes_that_the_choice_announced(tmp_path, kind, transform, dimension):
    asked = Index(kind=kind, transform=transform)
    info = build(asked, ids_of(3000), vectors(3000, dimension).__getitem__, tmp_path / "i")
    announced = choose(asked, vectors=3000, dimension=dimension).bytes
    assert 0.97 * announced - 2048 < info.bytes <= announced


def test_the_log_says_what_was_chosen_and_what_is_expected_of_it(tmp_path, caplog):
    caplog.set_level(logging.INFO, LOGGER.name)
    make(tmp_path / "i", vectors(30), kind="auto")
    (said,) = (record.kv for record in caplog.records if record.kind.endswith("index.choice"))
    assert said["kind"] == "flat"
    assert {"recall", "latency_us", "bytes", "build_bytes", "reason"} <= said.keys()


@pytest.mark.parametrize("factory", ["IVF4,SQ8", "HNSW8,SQ8"])
def test_an_index_of_a_kind_that_is_no_longer_built_still_loads(factory):
    rows = vectors(300)
    inner = faiss.index_factory(DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
    inner.train(rows)
    index = faiss.IndexIDMap2(inner)
    index.add_with_ids(rows, ids_of(300))
    _, found = search(load_index(faiss.serialize_index(index).tobytes()), rows[:20], 1)
    assert (found[:, 0] == ids_of(300)[:20]).mean() > 0.8
