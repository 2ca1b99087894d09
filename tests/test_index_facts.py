"""Promises of the facts of an index: known without FAISS, changed by what changes bytes and by nothing else."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from provisioning.base.hashing import digest_of
from provisioning.config.schema import Index
from provisioning.index import index_facts


def key(vectors=1000, dimension=512, sources=("s",), **index):
    return digest_of(index_facts(Index(**index), vectors=vectors, dimension=dimension, sources=sources))


def test_index_and_gates_are_imported_without_numpy_or_faiss():
    script = (
        "import sys, provisioning.index, provisioning.quality.gates;"
        "assert not {'numpy', 'faiss', 'PIL', 'onnxruntime'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_facts_need_neither_a_scan_nor_a_known_dimension():
    assert len({key(None, None), key(dimension=None), key(None)}) == 1
    assert key(None, None) != key()


@pytest.mark.parametrize(
    "change", [{"kind": "sq8"}, {"transform": "center"}, {"rotations": 2}, {"recall": Decimal(1)}, {"memory_mb": 80}]
)
def test_what_changes_bytes_changes_the_facts(change):
    assert key(100_000) != key(100_000, **change)


def test_other_sources_are_other_facts():
    assert key() != key(sources=("s", "t"))


@pytest.mark.parametrize("change", [{"memory_mb": 8192}, {"latency_ms": Decimal(80)}, {"recall": Decimal("0.9")}])
def test_a_limit_that_leaves_the_kind_leaves_the_facts(change):
    assert key() == key(**change)
    assert key(kind="sq8") == key(kind="sq8", **change)


def test_with_an_unknown_dimension_everything_that_decides_the_kind_counts():
    assert key(dimension=None) != key(dimension=None, memory_mb=8192)


def test_facts_exist_where_no_kind_fits_and_the_build_says_so():
    assert key(1_000_000, memory_mb=1)


def test_a_kind_whose_bytes_have_changed_has_a_format_of_its_own():
    """Indexes of the former form have 3 in their key: those of kind hrq are made again, the others are not."""
    kinds = ("flat", "sqfp16", "sq8", "sq4", "hrq")
    formats = [index_facts(Index(kind=k), vectors=9, dimension=64, sources=())["format"] for k in kinds]
    assert formats == [3, 3, 3, 3, 4]
    auto = index_facts(Index(latency_ms=Decimal(20)), vectors=1_000_000, dimension=512, sources=())
    assert (auto["kind"], auto["format"]) == ("hrq", 4)
