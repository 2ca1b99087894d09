"""Promises of the choice of an index kind: decided from numbers, explained, refused with bytes."""

from decimal import Decimal

import pytest

from provisioning.base.errors import IndexingError
from provisioning.config.schema import Index
from provisioning.index import REFERENCE, choose_kind, speed_matters
from provisioning.index.choice import EXACT_UP_TO_BYTES, Speed, code_bytes, lists_for
from provisioning.index.host import on_grid
from provisioning.index.transform_spec import TransformSpec


def chosen(vectors, dimension=512, speed=REFERENCE, **index):
    return choose_kind(Index(**index), vectors=vectors, dimension=dimension, speed=speed).kind


@pytest.mark.parametrize(
    ("vectors", "index", "kind"),
    [
        (1, {}, "flat"),
        (30_000, {}, "flat"),
        (100_000, {}, "sqfp16"),
        (100_000, {"recall": Decimal("0.97")}, "sq8"),
        (1_000_000, {}, "sqfp16"),
        (1_000_000, {"memory_mb": 1024}, "sq8"),
        (1_000_000, {"recall": Decimal("0.97"), "latency_ms": Decimal(10)}, "hrq"),
        (8_000_000, {"recall": Decimal("0.95"), "memory_mb": 16384, "latency_ms": Decimal(75)}, "hrq"),
        (8_000_000, {"recall": Decimal("0.95"), "memory_mb": 16384, "latency_ms": Decimal(73)}, "ivf-sq8"),
        (100_000, {"recall": Decimal(1)}, "flat"),
    ],
)
def test_auto_takes_the_first_kind_that_keeps_recall_memory_and_latency(vectors, index, kind):
    assert chosen(vectors, **index) == kind


def test_exact_search_is_kept_while_it_is_small():
    most = EXACT_UP_TO_BYTES // (4 * 512 + 8 + 1)
    assert chosen(most) == "flat"
    assert chosen(most + 1000) != "flat"


def test_a_recall_of_one_means_exact_or_nothing():
    with pytest.raises(IndexingError) as refusal:
        chosen(2_000_000, recall=Decimal(1))
    assert "ms a query" in refusal.value.facts["flat"]


@pytest.mark.parametrize("kind", ["flat", "sqfp16", "sq8", "hrq", "ivf-sq8", "hnsw-sq8"])
def test_a_kind_asked_for_is_taken_whatever_its_latency(kind):
    assert chosen(200_000, kind=kind, latency_ms=Decimal(1)) == kind


def test_a_kind_asked_for_is_refused_over_budget_with_its_bytes():
    with pytest.raises(IndexingError) as refusal:
        chosen(1_000_000, kind="flat", memory_mb=1024)
    assert refusal.value.facts["index bytes"] >= 1_000_000 * (4 * 512 + 8)
    assert refusal.value.facts["budget bytes"] == 1 << 30
    assert refusal.value.key == "index.memory_mb"


def test_when_nothing_fits_every_kind_is_named_with_what_stands_against_it():
    with pytest.raises(IndexingError) as refusal:
        chosen(5_000_000, memory_mb=512)
    assert "bytes on board" in refusal.value.facts["sq8"]
    assert "recall at most" in refusal.value.facts["hrq"]
    assert "pca" in str(refusal.value)


def test_hrq_is_not_for_vectors_in_which_its_scan_finds_nothing():
    fast = {"recall": Decimal("0.97"), "latency_ms": Decimal(20)}
    assert chosen(1_000_000, 1024, latency_ms=Decimal(20), recall=Decimal("0.97")) == "hrq"
    with pytest.raises(IndexingError) as refused:
        chosen(1_000_000, 2049, **fast, memory_mb=16384)
    assert "2048" in refused.value.facts["hrq"]
    with pytest.raises(IndexingError, match="2049 components") as refused:
        chosen(1000, 2049, kind="hrq")
    assert "pca" in refused.value.next_step
    assert chosen(1000, 4096, kind="hrq", transform="pca(512)") == "hrq"


def test_the_reason_and_the_bytes_are_part_of_the_choice():
    choice = choose_kind(Index(), vectors=100_000, dimension=512)
    assert "0.99" in choice.reason
    assert choice.bytes >= 100_000 * (2 * 512 + 8)


def test_the_transform_decides_the_dimension_that_is_paid_for():
    index = Index(kind="flat", transform="pca(64)")
    assert choose_kind(index, vectors=10_000, dimension=512).bytes < 10_000 * (4 * 64 + 8) + 10_000


def test_rotated_codes_pay_for_the_next_power_of_two():
    assert code_bytes("hrq", 513) == 513 + 1024 // 8 + 8


def test_a_slow_host_gets_another_kind_only_near_a_limit():
    assert not speed_matters(Index(), vectors=1000, dimension=512)
    assert speed_matters(Index(), vectors=1_000_000, dimension=512)
    assert chosen(1_000_000, speed=REFERENCE.times(4), recall=Decimal("0.97")) == "hrq"


def test_two_timings_on_one_host_give_one_speed():
    assert on_grid(60.0) == on_grid(66.0)
    assert on_grid(0.1) == 1


def test_lists_grow_with_the_square_root_and_are_powers_of_two():
    assert [lists_for(n) for n in (1, 10_000, 1_000_000)] == [4, 512, 4096]
    assert choose_kind(Index(kind="ivf-sq8"), vectors=3, dimension=8).nlist == 3


def test_speed_scales_and_never_reaches_zero():
    assert Speed(1, 1, 1, 1).times(0.25) == Speed(1, 1, 1, 1)


@pytest.mark.parametrize("text", ["pca", "pca()", "pca(0)", "center(3)", "whiten", "", "pca(3)x"])
def test_a_transform_that_is_no_transform_is_refused(text):
    with pytest.raises(IndexingError) as refusal:
        TransformSpec.parse(text)
    assert refusal.value.key == "index.transform"


def test_a_transform_cannot_add_components():
    with pytest.raises(IndexingError):
        TransformSpec.parse("pca(65)").output(64)
    assert TransformSpec.parse("pca-whiten( 64 )").output(64) == 64
