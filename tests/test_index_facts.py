"""Promises of the facts of an index: known without FAISS, changed by what changes bytes and by nothing else."""

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from provisioning.base.angles import BBox
from provisioning.base.hashing import Sha256, digest_of
from provisioning.catalogue import Corpus
from provisioning.config.schema import Flight, Index
from provisioning.index import REFERENCE, choose, index_facts, settle
from provisioning.index import host as host_module
from provisioning.index.facts import made_by
from provisioning.index.host import measure_speed, recorded_speed
from provisioning.index.training import index_dir, keep_codebook, training_for

KEYS = ("d1",)


def corpus(count=1000, coverage="a"):
    return Corpus(
        coverage_sha256=Sha256(coverage * 64), count=count, bytes=0, per_zoom={}, sources=("s",),
        bbox=BBox(0, 0, 1, 1), zooms=(1,),
    )  # fmt: skip


def flight(root, **index):
    return Flight(root=root, index=Index(**index))


def key(flight, corpus, dimension=512, keys=KEYS):
    return digest_of(index_facts(flight, corpus, dimension, keys))


def test_index_and_gates_are_imported_without_numpy_or_faiss():
    script = (
        "import sys, provisioning.index, provisioning.quality.gates;"
        "assert not {'numpy', 'faiss', 'PIL', 'onnxruntime'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_facts_need_neither_a_scan_nor_a_known_dimension(tmp_path):
    assert key(flight(tmp_path), None, None) != key(flight(tmp_path), corpus(), None)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "sq8"},
        {"transform": "center"},
        {"rotations": 2},
        {"recall": Decimal(1)},
    ],
)
def test_what_changes_bytes_changes_the_facts(tmp_path, change):
    tiles = corpus(100_000)
    assert key(flight(tmp_path), tiles) != key(flight(tmp_path, **change), tiles)


def test_other_descriptors_or_sources_are_other_facts(tmp_path):
    asked = flight(tmp_path)
    assert key(asked, corpus()) != key(asked, corpus(), keys=("d2",))
    assert key(asked, corpus()) != key(asked, replace(corpus(), sources=("s", "t")))


def test_a_budget_that_leaves_the_kind_leaves_the_facts(tmp_path):
    assert key(flight(tmp_path), corpus()) == key(flight(tmp_path, memory_mb=8192, latency_ms=Decimal(80)), corpus())


def test_with_an_unknown_dimension_everything_that_decides_the_kind_counts(tmp_path):
    assert key(flight(tmp_path), corpus(), None) != key(flight(tmp_path, memory_mb=8192), corpus(), None)


def test_facts_exist_where_no_kind_fits_and_the_build_says_so(tmp_path):
    assert key(flight(tmp_path, memory_mb=1), corpus(1_000_000))


def test_the_instruction_set_is_a_fact_of_the_graph_kind_alone(tmp_path):
    assert index_facts(flight(tmp_path, kind="hnsw-sq8"), corpus(), 512, KEYS)["isa"]
    assert index_facts(flight(tmp_path, kind="flat"), corpus(), 512, KEYS)["isa"] is None


def trained(root, coverage="a", vectors=1000, keys=KEYS, **index):
    asked = flight(root, kind="ivf-sq8", **index)
    training = training_for(asked, corpus(vectors, coverage), made_by(asked, keys))
    keep_codebook(index_dir(asked.build_dir), training, b"codebook")
    return asked


def test_a_codebook_stays_while_tiles_come_and_go(tmp_path):
    asked = trained(tmp_path)
    facts = index_facts(asked, corpus(1010, "b"), 512, KEYS)
    assert facts["learned"] == "a" * 64
    assert facts["lists"] == index_facts(asked, corpus(1000, "a"), 512, KEYS)["lists"]


@pytest.mark.parametrize(
    ("later", "keys"), [(corpus(2001, "b"), KEYS), (corpus(499, "b"), KEYS), (corpus(1000, "b"), ("other",))]
)
def test_a_codebook_is_learned_anew_when_it_fits_no_more(tmp_path, later, keys):
    asked = trained(tmp_path)
    assert index_facts(asked, later, 512, keys)["learned"] == "b" * 64


def test_another_number_of_lists_is_learned_anew(tmp_path):
    trained(tmp_path, nlist=16)
    assert index_facts(flight(tmp_path, kind="ivf-sq8", nlist=32), corpus(1000, "b"), 512, KEYS)["lists"][0] == 32


def test_the_speed_of_this_host_is_measured_only_where_it_decides_and_then_kept(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(host_module, "measure_speed", lambda: measured.append(1) or REFERENCE.times(2))
    settle(flight(tmp_path), corpus(1000), 512)
    assert not measured
    for _ in range(2):
        settle(flight(tmp_path), corpus(1_000_000), 512)
    assert len(measured) == 1
    assert recorded_speed(tmp_path / ".build") == REFERENCE.times(2)


def test_a_slow_host_is_given_a_smaller_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(host_module, "measure_speed", lambda: REFERENCE.times(4))
    asked = flight(tmp_path, recall=Decimal("0.97"))
    before = choose(asked, corpus(1_000_000), 512).kind
    settle(asked, corpus(1_000_000), 512)
    assert (before, choose(asked, corpus(1_000_000), 512).kind) == ("sq8", "hrq")


def test_a_recorded_speed_decides_only_what_it_was_measured_for(tmp_path, monkeypatch):
    monkeypatch.setattr(host_module, "measure_speed", lambda: REFERENCE.times(1000))
    small, large = corpus(1000), corpus(1_000_000)
    before = key(flight(tmp_path), small)
    settle(flight(tmp_path), large, 512)
    assert key(flight(tmp_path), small) == before


def test_a_damaged_record_of_speed_is_as_none(tmp_path):
    index_dir(tmp_path).mkdir()
    (index_dir(tmp_path) / "speed.json").write_text('{"flat": "fast"}')
    assert recorded_speed(tmp_path) == REFERENCE


def test_the_speed_measured_here_orders_the_kinds_as_the_rule_assumes():
    speed = measure_speed()
    assert speed.hrq < speed.sq8
    assert speed.hrq < speed.flat
