"""Promises of the choice of an index kind: decided from numbers, explained, refused with values that would do."""

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from provisioning.base.errors import ConfigError, IndexingError
from provisioning.base.geometry.geo import MOST_ROTATIONS_WITH_CUTS
from provisioning.config.parse import parse
from provisioning.config.schema import Index
from provisioning.index import choose
from provisioning.index.choice import (
    EXACT_UP_TO_BYTES,
    MEASURED,
    Choice,
    _changes,
    _first,
    code_bytes,
    costs,
    most_vectors,
    overlap_of,
    rotated,
)
from provisioning.index.transform.spec import TransformSpec

SIZES = [10**power for power in range(3, 8)]
DIMENSIONS = [128, 256, 512, 1024, 2048, 4096, 8192, 8448]


def chosen(vectors, dimension=512, **index):
    return choose(Index(**index), vectors=vectors, dimension=dimension).kind


@pytest.mark.parametrize("memory_mb", [64, 1024, 4096, 131_072])
@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("vectors", SIZES)
def test_auto_takes_a_kind_exactly_where_one_fits_into_memory(vectors, dimension, memory_mb):
    index = Index(memory_mb=memory_mb)
    every = costs(index, vectors=vectors, dimension=dimension).values()
    if any(max(cost.bytes, cost.build_bytes) <= memory_mb << 20 for cost in every):
        choice = choose(index, vectors=vectors, dimension=dimension)
        assert max(choice.bytes, choice.build_bytes) <= memory_mb << 20
        assert f"recall@10 {MEASURED[choice.kind].recall}" in choice.reason
        return
    with pytest.raises(IndexingError) as refusal:
        choose(index, vectors=vectors, dimension=dimension)
    assert refusal.value.key == "index.memory_mb"


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_million_tiles_build_with_default_settings(dimension):
    assert chosen(1_000_000, dimension) in MEASURED


@pytest.mark.parametrize(
    ("vectors", "index", "kind"),
    [
        (1, {}, "flat"),
        (30_000, {}, "flat"),
        (100_000, {}, "sqfp16"),
        (100_000, {"recall": Decimal(1)}, "flat"),
        (1_000_000, {}, "sqfp16"),
        (1_000_000, {"memory_mb": 900}, "sq8"),
        (1_000_000, {"latency_ms": Decimal(20)}, "hrq"),
        (1_000_000, {"recall": Decimal("0.999")}, "sqfp16"),
        (6_000_000, {}, "hrq"),
    ],
)
def test_auto_takes_the_first_kind_that_keeps_recall_memory_and_latency(vectors, index, kind):
    assert chosen(vectors, **index) == kind


def test_a_latency_that_nobody_asked_for_refuses_nothing():
    choice = choose(Index(memory_mb=65_536), vectors=10_000_000, dimension=2048)
    assert choice.latency_us > 50_000
    assert choice.kind == min(MEASURED, key=lambda kind: MEASURED[kind].scan_ps)


def test_exact_search_is_kept_while_it_is_small():
    most = EXACT_UP_TO_BYTES // (4 * 512 + 8 + 1)
    assert chosen(most) == "flat"
    assert chosen(most + 1000) != "flat"


@pytest.mark.parametrize("kind", MEASURED)
def test_a_kind_asked_for_is_taken_whatever_its_latency(kind):
    assert chosen(200_000, kind=kind, latency_ms=Decimal(0)) == kind


@pytest.mark.parametrize(
    ("index", "key", "nearest"),
    [
        ({"memory_mb": 200}, "index.memory_mb", "sq4"),
        ({"kind": "flat", "memory_mb": 1024}, "index.memory_mb", "flat"),
        ({"recall": Decimal("0.9999"), "memory_mb": 1024}, "index.recall", "sqfp16"),
        ({"recall": Decimal(1), "latency_ms": Decimal(20)}, "index.latency_ms", "flat"),
        ({"latency_ms": Decimal(1)}, "index.latency_ms", "hrq"),
        ({"kind": "hrq", "recall": Decimal("0.999")}, "index.recall", "hrq"),
    ],
)
def test_a_refusal_names_the_key_and_the_nearest_kind(index, key, nearest):
    with pytest.raises(IndexingError) as refusal:
        choose(Index(**index), vectors=1_000_000, dimension=512)
    assert refusal.value.key == key
    assert nearest in refusal.value.facts
    if key != "index.memory_mb":
        assert nearest in refusal.value.next_step


@pytest.mark.parametrize("asked", [{}, {"recall": Decimal("0.99")}, {"latency_ms": Decimal(20)}, {"kind": "sq8"},
                                   {"recall": Decimal(1), "latency_ms": Decimal(5)}, {"transform": "center"},
                                   {"kind": "hrq", "recall": Decimal("0.9999")}])  # fmt: skip
@pytest.mark.parametrize("memory_mb", [1, 100, 1000])
@pytest.mark.parametrize("dimension", [128, 512, 8448])
@pytest.mark.parametrize("vectors", [1000, 10**6, 10**7])
def test_each_step_that_a_refusal_proposes_works(vectors, dimension, memory_mb, asked):
    index = Index(memory_mb=memory_mb, **asked)
    try:
        choose(index, vectors=vectors, dimension=dimension)
    except IndexingError as refusal:
        for step in refusal.next_step.split(", or "):
            values = re.findall(r'index\.(\w+) = "?([a-z0-9.()]+)', step)
            assert values
            changed = replace(index, **{key: type_of(key)(value) for key, value in values})
            choose(changed, vectors=vectors, dimension=dimension)


def type_of(key):
    return {"memory_mb": int, "recall": Decimal, "latency_ms": Decimal, "transform": str}[key]


def test_hrq_takes_vectors_of_every_length():
    assert {chosen(1_000_000, dimension, kind="hrq", memory_mb=16_384) for dimension in DIMENSIONS} == {"hrq"}


def test_the_transform_decides_the_dimension_that_is_paid_for():
    index = Index(kind="flat", transform="pca(64)")
    choice = choose(index, vectors=10_000, dimension=512)
    assert choice.bytes < 10_000 * (4 * 64 + 8) + 4 * 512 * 64 + 4096


def test_rotated_codes_pay_for_the_next_power_of_two():
    assert code_bytes("hrq", 513) == 513 + 1024 // 8 + 8


@pytest.mark.parametrize(("dimension", "length"), [(1, 1), (2, 2), (3, 4), (512, 512), (513, 1024)])
def test_rotation_pads_to_a_power_of_two(dimension, length):
    assert rotated(dimension) == length


STREAMED = 16 << 20


@pytest.mark.parametrize(
    ("kind", "transform", "vectors", "dimension", "expected"),
    [
        ("flat", "none", 1000, 512, (1000 * 2056 + 2048 + 4096 + 1024, STREAMED, 76)),
        ("hrq", "none", 1000, 512, (1000 * 592 + 2048 + 4096 + 1024, STREAMED + 599_168, 15)),
        ("flat", "none", 1000, 8448, (1000 * 33_800 + 33_792 + 8 * 16_384 + 1024, STREAMED, 1267)),
        ("flat", "center", 1000, 500, (1000 * 2008 + 2000 + 4096 + 1024, STREAMED, 75)),
        ("flat", "pca(64)", 20_000, 500, (20_000 * 264 + 128_000 + 512 + 1024, 2000 * (16_384 + 3000), 192)),
        ("hrq", "pca(64)", 1000, 500, (1000 * 88 + 128_000 + 512 + 1024, STREAMED + 217_536, 1)),
        ("sq4", "none", 1_000_000, 100, (1_000_000 * 58 + 400 + 1024 + 1024, STREAMED, 10_000)),
    ],
)
def test_costs_are_codes_ids_transform_and_header(kind, transform, vectors, dimension, expected):
    cost = costs(Index(transform=transform), vectors=vectors, dimension=dimension)[kind]
    assert (cost.bytes, cost.build_bytes, cost.latency_us) == expected


@pytest.mark.parametrize(
    ("index", "tiles", "dimension", "expected"),
    [
        ({"overlap": 1}, 10, 8, 1),
        ({"overlap": 2}, None, None, 2),
        ({"overlap": 0}, None, None, 1),
        ({"overlap": 0}, 50_000, None, 2),
        ({"overlap": 0}, 50_001, None, 1),
        ({"overlap": 0, "rotations": 4}, 12_500, 512, 2),
        ({"overlap": 0, "rotations": 4}, 12_501, 512, 1),
        ({"overlap": 0, "rotations": MOST_ROTATIONS_WITH_CUTS}, 10, 512, 2),
        ({"overlap": 0, "rotations": MOST_ROTATIONS_WITH_CUTS + 1}, 10, 512, 1),
        ({"overlap": 0, "memory_mb": 1}, 1000, 512, 1),
        ({"overlap": 0, "memory_mb": 1}, 1000, None, 2),
    ],
)
def test_cuts_are_described_where_ids_time_and_an_index_allow_it(index, tiles, dimension, expected):
    assert overlap_of(Index(**index), tiles=tiles, dimension=dimension) == expected


def test_cuts_make_four_times_the_vectors_and_each_heading_as_many_again():
    assert most_vectors(Index(rotations=3), tiles=10, overlap=1) == 30
    assert most_vectors(Index(rotations=3), tiles=10, overlap=2) == 120


def cost(kind, *, size=1, latency_us=1):
    return Choice(kind, size, 1, latency_us, MEASURED[kind].recall)


@pytest.mark.parametrize(
    ("flat", "other", "expected"),
    [
        ({"size": EXACT_UP_TO_BYTES}, {}, "flat"),
        ({"size": EXACT_UP_TO_BYTES + 1}, {}, "sqfp16"),
        ({"latency_us": 50_000}, {}, "flat"),
        ({"latency_us": 50_001}, {}, "sqfp16"),
        ({"latency_us": 50_002}, {"latency_us": 50_001}, "sqfp16"),
    ],
)
def test_preference_changes_just_above_each_limit(flat, other, expected):
    assert _first(Index(), [cost("flat", **flat), cost("sqfp16", **other)]).kind == expected


def test_a_latency_just_above_the_limit_counts():
    index = Index(latency_ms=Decimal(20))
    assert _changes(index, cost("flat", latency_us=20_000)) == {}
    assert _changes(index, cost("flat", latency_us=20_001)) == {"latency_ms": 21}


def refusal(*, vectors=1_000_000, dimension=512, **index):
    with pytest.raises(IndexingError) as found:
        choose(Index(**index), vectors=vectors, dimension=dimension)
    return found.value


def test_a_refusal_is_a_sentence_with_figures_and_ways_out():
    found = refusal(memory_mb=200)
    assert found.what == "no kind of index keeps index.memory_mb = 200"
    assert found.file == "flight.toml"
    assert list(found.facts) == ["vectors", "components", *MEASURED]
    assert (found.facts["vectors"], found.facts["components"]) == (1_000_000, 512)
    assert found.facts["sq4"] == (
        "expected recall@10 0.95, 51.2 ms a query on the reference core, 264.0 MB; needs index.memory_mb = 252"
    )
    assert found.next_step == 'set index.memory_mb = 252 (sq4), or set index.transform = "pca(256)"'
    assert refusal(memory_mb=200, transform="center").next_step == "set index.memory_mb = 252 (sq4)"
    named = refusal(kind="flat", memory_mb=200, overlap=2, transform="center")
    assert named.what == "an index of kind flat does not keep index.memory_mb = 200"
    assert named.next_step == "set index.memory_mb = 1961 (flat), or set index.overlap = 1 (a quarter of the vectors)"


def test_a_step_that_costs_recall_comes_before_one_that_costs_time():
    steps = refusal(recall=Decimal("0.99"), latency_ms=Decimal(20)).next_step.split(", or ")
    assert steps[:2] == ["set index.recall = 0.97 (hrq)", "set index.latency_ms = 34 (sqfp16)"]


REMOVED = [
    ('kind = "ivf-sq8"', "index.kind", '"hrq"'),
    ('kind = "hnsw-sq8"', "index.kind", '"hrq"'),
    ("nlist = 64", "index.nlist", "delete this line"),
]


@pytest.mark.parametrize(("line", "key", "replacement"), REMOVED)
def test_what_was_removed_is_refused_with_what_to_write_instead(tmp_path, line, key, replacement):
    with pytest.raises(ConfigError) as refusal:
        parse(f"[index]\n{line}\n", root=tmp_path)
    assert "removed" in refusal.value.facts[key]
    assert replacement in refusal.value.facts[key]


@pytest.mark.parametrize("text", ["pca", "pca()", "pca(0)", "center(3)", "whiten", "", "pca(3)x"])
def test_a_transform_that_is_no_transform_is_refused(text):
    with pytest.raises(IndexingError) as refusal:
        TransformSpec.parse(text)
    assert refusal.value.key == "index.transform"


def test_a_transform_cannot_add_components():
    with pytest.raises(IndexingError):
        TransformSpec.parse("pca(65)").output(64)
    assert TransformSpec.parse("pca-whiten( 64 )").output(64) == 64


def test_the_page_shows_what_auto_chooses_with_default_settings():
    lines = (Path(__file__).parents[1] / "docs" / "index.md").read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("| vectors | d = 128"))
    dimensions = [int(cell.replace(",", "")) for cell in re.findall(r"d = ([\d,]+)", lines[at])]
    for line in lines[at + 2 : at + 7]:
        vectors, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        shown = [said(int(vectors.replace(",", "")), dimension) for dimension in dimensions]
        assert cells == shown


def said(vectors, dimension):
    """Return a cell of the page's table: the kind and milliseconds, or the memory that is needed."""
    try:
        choice = choose(Index(), vectors=vectors, dimension=dimension)
    except IndexingError as refusal:
        needed = int(re.search(r"memory_mb = (\d+)", refusal.next_step)[1])
        return f"needs {needed:,} MiB"
    return f"{choice.kind}, {choice.latency_us / 1000:.1f}"
