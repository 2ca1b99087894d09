"""Promises of the gates: measured on what flies, decided in one place, nothing passes by being forgotten."""

import dataclasses
import datetime as dt
import hashlib
import io
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from PIL import Image

from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import GateError
from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import BBox
from provisioning.base.hashing import Sha256, digest_of
from provisioning.build.request import requirements_of
from provisioning.catalogue import Corpus, ZoomCount, corpus_table, decode, iter_tiles, scan
from provisioning.config.schema import (
    Area,
    Backbone,
    Flight,
    FlightIdentity,
    Gates,
    Index,
    Sector,
    Tiles,
    TileSource,
    Waiver,
)
from provisioning.console.listener import fields_of, kind_of
from provisioning.descriptors import decoded_tiles
from provisioning.engines.accuracy.fidelity import reference_network
from provisioning.index.ids import Rows, rows_of
from provisioning.index.read import load_index
from provisioning.index.write.build import build
from provisioning.network.backbone import onnx_source
from provisioning.quality.gates import Figure, GateResult, Limit, Requirements, enforce, entries, gate_facts, read
from provisioning.quality.gates.corpus import corpus_figures
from provisioning.quality.gates.degenerate import FLAT_LEVELS
from provisioning.quality.gates.limits import corpus_limits, network_limits
from provisioning.quality.gates.measure import FIRST_COMPARED, measure
from provisioning.quality.gates.perturb import ANY_HEADING, KNOWN_HEADING, VIEWS, colours_of, view
from provisioning.quality.gates.recognition import LEAST_REACH, across_sources, around, recognition
from provisioning.quality.gates.retrieval import FIRST_ASKED, Views
from provisioning.quality.gates.subject import Subject
from provisioning.sources.pixels.image import inspect_tile as judge_image

TODAY = dt.date(2026, 6, 1)
NO_KEYS = np.empty((0, 32), np.uint8)
SIDE, ZOOM, X, Y = 64, 12, 2000, 1400


def limit(threshold="0.9", *, at_least=True, action="fail"):
    return Limit(None if threshold is None else Decimal(threshold), at_least, "do this", action)


@pytest.mark.parametrize(
    ("measured", "held_to", "verdict"),
    [
        ("0.9", limit(), "pass"),
        ("0.95", limit(), "pass"),
        ("0.2", limit("0.2", at_least=False), "pass"),
        ("0.8", limit(action="warn"), "warn"),
        (None, limit(), "warn"),
        (None, limit(None), "pass"),
        ("7", limit(None), "pass"),
    ],
)
def test_a_figure_is_held_to_its_limit(measured, held_to, verdict):
    assert enforce({"g": Figure(measured, "")}, {"g": held_to})["g"].verdict == verdict


def test_every_failed_gate_is_named_with_figure_threshold_and_next_step():
    figures = {"a": Figure("0.899", "x"), "b": Figure("0.3", "y"), "c": Figure("1", "z")}
    limits = {"a": limit(), "b": limit("0.2", at_least=False), "c": limit()}
    with pytest.raises(GateError) as refusal:
        enforce(figures, limits)
    assert set(refusal.value.facts) == {"a", "b"}
    assert "0.899" in refusal.value.facts["a"]
    assert "at most 0.2" in refusal.value.facts["b"]
    assert "do this" in refusal.value.facts["b"]


def test_a_waiver_passes_its_gate_over_and_says_so():
    waiver = Waiver(gate="coverage", by="me", reason="sea")
    got = enforce({"coverage.z9": Figure("0.1", "")}, {"coverage.z9": limit()}, [waiver])
    assert got["coverage.z9"].verdict == "waived"


def test_a_waiver_of_another_gate_waives_nothing():
    with pytest.raises(GateError):
        enforce(
            {"fidelity": Figure("0.1", "")}, {"fidelity": limit()}, [Waiver(gate="coverage", by="me", reason="sea")]
        )


@pytest.mark.parametrize(("figures", "limits"), [({"a": Figure("1", "")}, {}), ({}, {"a": limit()})])
def test_nothing_passes_by_being_forgotten(figures, limits):
    with pytest.raises(ValueError, match="a"):
        enforce(figures, limits)


def make_flight(root, **parts):
    return Flight(root=root, **{"backbone": (Backbone(name="n"),), **parts})


def make_corpus(**parts):
    facts = {
        "coverage_sha256": Sha256("0" * 64), "count": 4, "bytes": 0, "per_zoom": {ZOOM: ZoomCount(4, 4, 0)},
        "sources": ("s",), "bbox": BBox(0, 0, 1, 1), "zooms": (ZOOM,), "oldest_capture": "2026-01-01",
    }  # fmt: skip
    return Corpus(**{**facts, **parts})


def entries_of(flight, corpus):
    asked = requirements_of(flight)
    return enforce(corpus_figures(corpus, asked.policy, today=TODAY), corpus_limits(asked, corpus), asked.waivers)


def test_one_missing_tile_of_a_million_is_not_full_coverage(tmp_path):
    corpus = make_corpus(per_zoom={9: ZoomCount(999_999, 1_000_000, 0)})
    with pytest.raises(GateError) as refusal:
        entries_of(make_flight(tmp_path), corpus)
    assert "0.9999," in refusal.value.facts["coverage.z9"]


def test_only_the_finest_zoom_must_be_complete_unless_asked(tmp_path):
    corpus = make_corpus(per_zoom={8: ZoomCount(1, 4, 0), 9: ZoomCount(4, 4, 0)})
    assert entries_of(make_flight(tmp_path), corpus)["coverage.z8"].verdict == "pass"
    with pytest.raises(GateError):
        entries_of(make_flight(tmp_path, area=Area(min_coverage={8: Decimal("0.5")})), corpus)


def policy(**parts):
    return {"flight": FlightIdentity(sector_class="city"), "sector": {"city": Sector(**parts)}}


def test_old_imagery_fails_warns_or_is_waived_as_its_sector_says(tmp_path):
    strict, lenient = policy(max_age_days=90), policy(max_age_days=90, action="warn")
    with pytest.raises(GateError, match="1 of 2"):
        entries_of(make_flight(tmp_path, **strict), make_corpus())
    assert entries_of(make_flight(tmp_path, **lenient), make_corpus())["freshness"].verdict == "warn"
    waived = make_flight(tmp_path, **strict, waiver=(Waiver(gate="freshness", by="me", reason="desert"),))
    entry = entries_of(waived, make_corpus())["freshness"]
    assert (entry.verdict, entry.measured, entry.threshold) == ("waived", "151", "90")


def test_imagery_without_a_date_is_too_old_for_a_sector_that_limits_age(tmp_path):
    with pytest.raises(GateError):
        entries_of(make_flight(tmp_path, **policy(max_age_days=9000)), make_corpus(undated=1))
    assert entries_of(make_flight(tmp_path), make_corpus(undated=1))["freshness"].verdict == "pass"


def test_imagery_from_the_future_is_not_fresh(tmp_path):
    tomorrow, later = ((TODAY + dt.timedelta(days)).isoformat() for days in (1, 2))
    held_to = make_flight(tmp_path, **policy(max_age_days=9000))
    assert entries_of(held_to, make_corpus(oldest_capture=tomorrow))["freshness"].verdict == "pass"
    with pytest.raises(GateError) as refusal:
        entries_of(held_to, make_corpus(oldest_capture=later))
    assert "clock" in refusal.value.facts["freshness"]
    assert entries_of(make_flight(tmp_path), make_corpus(oldest_capture=later))["freshness"].verdict == "pass"


def test_a_day_that_passes_is_no_new_fact_until_the_imagery_is_too_old(tmp_path):
    asked = requirements_of(make_flight(tmp_path, **policy(max_age_days=90)))
    keys = [digest_of(gate_facts(asked, make_corpus(), today=dt.date(2026, m, d))) for m, d in
            ((1, 2), (4, 1), (4, 2), (6, 1))]  # fmt: skip
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_another_threshold_or_waiver_is_measured_again():
    key = digest_of(gate_facts(Requirements(), make_corpus(), today=TODAY))
    for change in ({"gates": Gates(samples=9)}, {"waivers": (Waiver(gate="coverage", by="a", reason="b"),)}):
        assert digest_of(gate_facts(Requirements(**change), make_corpus(), today=TODAY)) != key


def test_each_precision_has_its_own_default_and_flight_toml_goes_before_it():
    gates = Gates(fidelity_cosine={"fp16": Decimal("0.5")})
    for precision, least in (("fp16", "0.5"), ("int8", "0.97")):
        limits = network_limits(gates, Backbone(name="n", precision=precision))
        assert limits["fidelity.cosine"].threshold == Decimal(least)


def scene(seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC))


def test_the_unperturbed_view_is_the_tile_itself():
    wide = scene()
    assert (view(wide) == wide[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]).all()


def test_a_shifted_view_is_the_scene_elsewhere():
    wide = scene()
    moved = view(wide, shift=(0.25, -0.125))
    assert (moved == wide[SIDE // 2 - 8 : -SIDE // 2 - 8, SIDE // 2 + 16 : -SIDE // 2 + 16]).all()


def test_a_quarter_turn_and_a_magnification_are_about_the_middle():
    wide = scene()
    assert np.abs(view(wide, degrees=90).astype(int) - np.rot90(view(wide))).max() <= 1
    near = np.asarray(Image.fromarray(view(wide)).resize((SIDE, SIDE), box=(16, 16, 48, 48))).astype(int)
    assert np.abs(view(wide, scale=2).astype(int) - near).mean() < 2


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_changes_the_tile_the_same_way_each_time(name):
    first, again = (VIEWS[name](scene(), 2, None) for _ in range(2))
    assert (first == again).all()
    assert first.shape == (SIDE, SIDE, 3)
    assert (first != view(scene())).any()
    assert (first != VIEWS[name](scene(), 3, None)).any()


def test_a_view_takes_the_colours_of_another_source():
    """Over many views its mean lies where the other source's does, less haze and light."""
    night = colours_of(np.random.default_rng(0).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8))
    own, other = (
        np.mean([VIEWS[KNOWN_HEADING](scene(), number, colours).mean() for number in range(24)])
        for colours in (None, night)
    )
    assert abs(own - scene().mean()) < 25
    assert other < own - 40


class Thumbnail:
    """A network that sees a tile as a small grey picture without its mean."""

    size = (SIDE, SIDE)
    dimension = 256

    def __init__(self, change=lambda vectors: vectors):
        self.change = change
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        grey = images.astype(np.float32).mean(axis=3).reshape(-1, 16, SIDE // 16, 16, SIDE // 16).mean(axis=(2, 4))
        flat = grey.reshape(len(images), -1)
        flat = flat - flat.mean(axis=1, keepdims=True) + 1e-3
        return self.change((flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32))

    def clone(self):
        return self


def image_of(pixels):
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "PNG")
    return data.getvalue()


@cache
def texture(data):
    return judge_image(data, max_pixels=1 << 20, nodata=()).texture_centi / 100


@cache
def landscape(side):
    """One picture cut into `side` x `side` tiles, by (x, y); do not change it."""
    coarse = np.random.default_rng(5).integers(0, 256, (side * 5, side * 5, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(coarse).resize((side * SIDE, side * SIDE), Image.Resampling.BICUBIC))
    return {
        (X + x, Y + y): image_of(whole[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE])
        for x in range(side)
        for y in range(side)
    }


def make_subject(
    root, tiles, network=None, *, kind="flat", key=None, gates=None, spoil=lambda vectors: vectors, **parts
):
    """An index over `tiles`, described by a Thumbnail and then spoilt, to be measured with `network`."""
    by_id = sorted((geo.pack_id(ZOOM, x, y, 0, 0), data) for (x, y), data in tiles.items())
    digests = np.frombuffer(b"".join(hashlib.sha256(data).digest() for _, data in by_id), np.uint8).reshape(-1, 32)
    rows = rows_of(np.array([each for each, _ in by_id], np.int64), digests)
    pixels = np.stack([decode(data, max_pixels=1 << 20) for _, data in by_id])
    vectors = spoil(Thumbnail()(pixels))
    build(Index(kind=kind), rows.ids, lambda w: vectors[w], root / "index")
    return Subject(
        asked=Requirements(gates or Gates(), **parts), corpus=make_corpus(count=len(by_id)), rows=rows,
        gather=lambda which: vectors[which], index=load_index((root / "index").read_bytes()),
        network=network or Thumbnail(), decode=lambda tile: decode(tiles[tile.x, tile.y], max_pixels=1 << 20), fit="resize", key=key,
        kept=root / ".build/gates",
        flat=np.array([each for each, data in by_id if texture(data) < FLAT_LEVELS], np.int64),
    )  # fmt: skip


BACKBONE = Backbone(name="n")


def measured(subject, reference=None, backbone=BACKBONE):
    return measure(subject, lambda: reference or Thumbnail(), backbone=backbone, today=TODAY)


def test_a_good_cache_passes_every_gate_with_figures(tmp_path):
    result = measured(make_subject(tmp_path, landscape(8)))
    low = ("recognition", "recognition.any_heading")  # the network of these tests recognises little
    assert {entry.verdict for name, entry in result.entries.items() if name not in low} == {"pass"}
    assert set(result.tables["recognition"]) == {KNOWN_HEADING, ANY_HEADING, "chance"}
    assert result.entries["index_recall"].measured == "1.000"


def test_both_long_parts_of_the_measuring_show_how_far_they_are(tmp_path, caplog):
    caplog.set_level("DEBUG", "c10.provision")
    subject = make_subject(tmp_path, landscape(8))
    measured(subject)
    progress = [fields_of(record) for record in caplog.records if kind_of(record) == "progress"]
    steps = {unit: [(f["done"], f["total"]) for f in progress if f["unit"] == unit] for unit in ("tiles", "runs")}
    assert (steps["tiles"][-1], steps["runs"][-1]) == (
        (FIRST_ASKED, FIRST_ASKED),
        (4 * FIRST_COMPARED, 4 * FIRST_COMPARED),
    )
    assert all(each == sorted(each) and len(each) > 8 for each in steps.values())


def test_what_was_measured_is_read_back_and_has_the_same_bytes_twice(tmp_path):
    first, again = (measured(make_subject(tmp_path, landscape(5))).to_json() for _ in range(2))
    assert first == again
    (tmp_path / "gates.json").write_text(first)
    assert read(tmp_path / "gates.json").to_json() == first
    assert entries(read(tmp_path / "gates.json"))["coverage.z12"].verdict == "pass"


@pytest.mark.parametrize("text", ["", "{}", '{"entries": {"a": 1}, "tables": {}, "lists": {}}'])
def test_a_result_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "gates.json").write_text(text)
    with pytest.raises(GateError):
        read(tmp_path / "gates.json")


def failed(subject, reference=None):
    with pytest.raises(GateError) as refusal:
        measured(subject, reference)
    return set(refusal.value.facts)


@pytest.mark.parametrize(
    ("known", "free", "word"),
    [(0.9, 0.8, "recognises"), (0.9, 0.3, "needs a known heading"), (0.3, 0.2, "will not localise")],
)
def test_the_word_follows_the_recall_above_chance(tmp_path, known, free, word):
    subject = make_subject(tmp_path, landscape(8))
    figures, table, _ = recognition(subject, views_that_find(subject, known, free))
    assert figures["recognition"].detail.startswith(word)
    assert abs(float(table[KNOWN_HEADING]) - known) < 0.12
    assert abs(float(table[ANY_HEADING]) - free) < 0.12


def views_that_find(subject, known, free):
    """Return views of which a share are like their tile and the others like one far away."""
    rows = subject.sample
    tiles = [geo.unpack_id(int(each)) for each in subject.rows.ids[rows]]
    far = np.searchsorted(subject.rows.ids, [geo.pack_id(ZOOM, X + (7 if t.x < X + 4 else 0), Y + (7 if t.y < Y + 4 else 0),
                                                         0, 0) for t in tiles])  # fmt: skip
    seen = [np.where(np.arange(len(rows)) < share * len(rows), rows, far) for share in (known, free)]
    queries = np.stack([subject.gather(each) for each in seen])
    return Views(tuple(VIEWS), queries, np.stack(seen)[:, :, None], subject.rows.ids[rows])


def reasons(missed):
    """What is said of each tile, by its place."""
    return {"/".join(map(str, mistaken.tile[:3])): mistaken.why for mistaken in missed}


def test_tiles_that_flights_would_not_find_are_listed_with_the_reason(tmp_path):
    subject = make_subject(tmp_path, landscape(8))
    order = ["/".join(map(str, subject.tile(int(row))[:3])) for row in subject.sample]
    half, most = len(order) // 2, len(order) * 3 // 4
    missed = reasons(recognition(subject, views_that_find(subject, 0.75, 0.5)).missed)
    turned, lost = "found only with the heading known", "not found, even with the heading known"
    # the tile that stands for "far away" may lie beside the right one, so a few are found all the same
    assert set(missed) <= set(order[half:])
    assert {missed[place] for place in order[half:most] if place in missed} == {turned}
    assert {missed[place] for place in order[most:] if place in missed} == {lost}
    assert len(missed) >= len(order) // 3


def test_a_tile_that_was_not_found_names_what_it_was_taken_for(tmp_path):
    subject = make_subject(tmp_path, landscape(8))
    missed = recognition(subject, views_that_find(subject, 0, 0)).missed
    assert missed == tuple(sorted(missed, key=lambda each: geo.pack_id(*each.tile[:3], 0, 0)))
    for tile, taken_for, _ in missed:
        far = (X + (7 if tile.x < X + 4 else 0), Y + (7 if tile.y < Y + 4 else 0))  # as `views_that_find` looks
        near_enough = (far[0] - tile.x) ** 2 + (far[1] - tile.y) ** 2 <= LEAST_REACH**2
        assert not near_enough or taken_for[1:3] == far
        assert max(abs(taken_for.x - tile.x), abs(taken_for.y - tile.y)) > 1
    assert sum(taken_for[1:3] != tile[1:3] for tile, taken_for, _ in missed) == len(missed) > 20
    kept = GateResult({}, mistaken=missed)
    (tmp_path / "gates.json").write_text(kept.to_json())
    assert read(tmp_path / "gates.json") == kept


def test_a_flight_that_knows_its_heading_lists_only_what_it_would_not_find(tmp_path):
    subject = make_subject(tmp_path, landscape(8), gates=Gates(heading="known"))
    missed = reasons(recognition(subject, views_that_find(subject, 0.75, 0.25)).missed)
    assert set(missed.values()) == {"not found, even with the heading known"}
    assert recognition(subject, views_that_find(subject, 1, 0.25)).missed == ()


def test_what_chance_finds_is_no_recognition(tmp_path):
    """In three by three tiles a guess lies beside the right one as often as not."""
    subject = make_subject(tmp_path, landscape(3))
    blind = np.random.default_rng(0).standard_normal((2, 9, 256)).astype(np.float32)
    figures, table, _ = recognition(
        subject, Views(tuple(VIEWS), blind, np.zeros((2, 9, 1)), subject.rows.ids[subject.sample])
    )
    assert float(table["chance"]) > 0.5
    assert float(figures["recognition"].measured) < 0.3
    assert figures["recognition"].detail.startswith("will not localise")


def test_one_tile_tells_nothing_of_recognition(tmp_path):
    result = measured(make_subject(tmp_path, landscape(1)))
    assert result.entries["recognition"].measured is None
    assert result.entries["recognition"].verdict == "warn"


def test_a_network_of_the_user_s_that_will_not_localise_fails_and_the_built_in_one_warns(tmp_path):
    own = Backbone(name="own", onnx="own.onnx")
    with pytest.raises(GateError) as refused:
        measured(make_subject(tmp_path, landscape(5)), backbone=own)
    assert "will not localise" in refused.value.facts["recognition"]
    waived = (Waiver(gate="recognition", by="A. Pilot", reason="known strip"),)
    entries = measured(make_subject(tmp_path, landscape(5), waivers=waived), backbone=own).entries
    assert entries["recognition"].verdict == "waived"
    assert measured(make_subject(tmp_path, landscape(5))).entries["recognition"].verdict == "warn"


def test_a_heading_that_is_known_asks_for_no_other(tmp_path):
    limits = [network_limits(Gates(heading=heading), Backbone(name="n")) for heading in ("any", "known")]
    assert [each["recognition.any_heading"].threshold for each in limits] == [Decimal("0.5"), None]


def test_the_tiles_around_one_are_those_within_the_prior(tmp_path):
    """At the edge of the world too, where the first column lies beside the last."""
    side = 1 << 3
    everywhere = np.sort(np.array([geo.pack_id(3, x, y, 0, h) for x in range(side) for y in range(side) for h in range(2)],
                                  np.int64))  # fmt: skip
    rows, beside = around(Rows(everywhere, NO_KEYS, 2), 3, 0, 3)
    assert (np.diff(rows) > 0).all()
    places = {geo.unpack_id(int(each))[1:3] for each in everywhere[rows[beside]]}
    assert places == {(x, y) for x in (7, 0, 1) for y in (2, 3, 4)}
    deep = np.sort(
        np.array([geo.pack_id(14, 9000 + x, 9000 + y, 0, 0) for x in range(40) for y in range(40)], np.int64)
    )
    rows, _ = around(Rows(deep, NO_KEYS), 14, 9020, 9020)
    found = [geo.unpack_id(int(each)) for each in deep[rows]]
    assert {(t.x - 9020) ** 2 + (t.y - 9020) ** 2 <= 64 for t in found} == {True}
    assert len(found) == sum(x * x + y * y <= 64 for x in range(-8, 9) for y in range(-8, 9))


def test_one_source_is_asked_for_by_another(tmp_path):
    subject = make_subject(tmp_path, landscape(6))
    ids = subject.rows.ids
    both = np.sort(np.concatenate([ids, ids | 1 << 6]))
    vectors = np.repeat(subject.gather(slice(0, 36)), 2, axis=0)
    build(Index(kind="flat"), both, lambda which: vectors[which], tmp_path / "two")
    two = dataclasses.replace(
        subject, rows=dataclasses.replace(subject.rows, ids=both), gather=lambda which: vectors[which],
        index=load_index((tmp_path / "two").read_bytes()),
    )  # fmt: skip
    assert across_sources(two) == (1.0, len(two.sample))
    moved = vectors.copy()
    moved[1::2] = np.roll(moved[1::2], 5, axis=0)  # the second source shows another place everywhere
    build(Index(kind="flat"), both, lambda which: moved[which], tmp_path / "two")
    wrong = dataclasses.replace(
        two, gather=lambda which: moved[which], index=load_index((tmp_path / "two").read_bytes())
    )
    assert across_sources(wrong)[0] < 0.1


def test_an_index_that_mixes_places_up_fails_recall(tmp_path):
    subject = make_subject(tmp_path, landscape(8))
    swapped = dataclasses.replace(subject, gather=lambda which: subject.gather(np.arange(64)[::-1])[which])
    assert "index_recall" in failed(swapped)
    wrong = dataclasses.replace(subject, index=load_index(shuffled(tmp_path, subject)))
    assert "index_recall" in failed(wrong)


def shuffled(root, subject):
    vectors = subject.gather(slice(0, 64))[np.random.default_rng(0).permutation(64)]
    build(Index(kind="flat"), subject.rows.ids, lambda which: vectors[which], root / "wrong")
    return (root / "wrong").read_bytes()


def test_an_engine_that_computes_something_else_fails_fidelity(tmp_path):
    turned = Thumbnail(lambda vectors: np.roll(vectors, 7, axis=1))
    assert "fidelity.cosine" in failed(make_subject(tmp_path, landscape(5), turned))


def test_an_engine_that_gives_nan_fails(tmp_path):
    broken = Thumbnail(lambda vectors: vectors * np.float32("nan"))
    with pytest.raises(GateError, match="finite"):
        measured(make_subject(tmp_path, landscape(4), broken))


def test_a_network_that_looks_at_its_neighbours_fails_batch_invariance(tmp_path):
    among = Thumbnail(lambda vectors: vectors - 0.1 * vectors.mean(axis=0))
    assert "batch_invariance" in failed(make_subject(tmp_path, landscape(5), among), among)


def test_a_network_that_answers_the_same_for_every_tile_fails(tmp_path):
    alike = make_subject(tmp_path, landscape(5), spoil=lambda vectors: vectors * 0 + vectors[0])
    assert {"distinct", "degenerate"} <= failed(alike)


def test_tiles_without_texture_and_tiles_with_a_twin_are_listed(tmp_path):
    tiles = {**landscape(6)}
    tiles[X, Y] = image_of(np.full((SIDE, SIDE, 3), 90, np.uint8))
    tiles[X + 5, Y + 5] = tiles[X + 1, Y + 1]
    tiles[X + 3, Y + 4] = image_of(decode(tiles[X + 3, Y + 3], max_pixels=1 << 20) ^ np.uint8(1))
    listed = measured(make_subject(tmp_path, tiles)).lists["degenerate"]
    assert set(listed) == {
        f"{ZOOM}/{X + 1}/{Y + 1} same bytes elsewhere",
        f"{ZOOM}/{X + 5}/{Y + 5} same bytes elsewhere",
        f"{ZOOM}/{X + 3}/{Y + 3} has a twin",
        f"{ZOOM}/{X + 3}/{Y + 4} has a twin",
        f"{ZOOM}/{X}/{Y} no texture",
    }


def test_a_tile_more_changes_at_most_one_member_of_the_sample(tmp_path):
    tiles, gates = landscape(9), Gates(samples=20)
    fewer = {place: data for place, data in tiles.items() if place != (X + 4, Y + 4)}
    samples = []
    for each in (tiles, fewer):
        subject = make_subject(tmp_path, each, gates=gates)
        samples.append({int(subject.rows.ids[row]) for row in subject.sample})
    assert len(samples[0]) == 20
    assert len(samples[0] - samples[1]) <= 1


def test_measuring_again_costs_no_inference_and_a_new_tile_only_the_views_that_show_it(tmp_path):
    tiles, key = landscape(9), Sha256("ab" * 32)
    fewer = {place: data for place, data in tiles.items() if place != (X + 4, Y + 4)}
    with build_lock(tmp_path):  # only a build keeps what it measured
        first = Thumbnail()
        result = measured(make_subject(tmp_path, fewer, first, key=key), first)
        again = Thumbnail()
        assert measured(make_subject(tmp_path, fewer, again, key=key), again).to_json() == result.to_json()
        assert again.seen == 0
        more = Thumbnail()
        grown = measured(make_subject(tmp_path, tiles, more, key=key), more)
        assert 0 < more.seen <= 10 * len(VIEWS)
        assert grown.to_json() == measured(make_subject(tmp_path, tiles)).to_json()


def test_a_corpus_of_one_tile_is_measured_and_not_refused_for_being_small(tmp_path):
    result = measured(make_subject(tmp_path, landscape(1)))
    assert result.entries["distinct"].verdict == "warn"


def test_recall_is_measured_in_the_space_that_the_index_compares_in(tmp_path):
    subject = make_subject(tmp_path, landscape(8), kind="sq8")
    recall = Decimal(measured(subject).entries["index_recall"].measured)
    assert Decimal("0.95") < recall <= 1


@pytest.mark.parametrize("samples", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_places_on_real_imagery_are_found_again(tmp_path, shared_data, samples):
    source = TileSource(path=shared_data / "tiles" / "oam_banepa", name="a")
    area = Area(bbox=BBox(850000000, 270000000, 860000000, 280000000), zooms=(19,), min_coverage={19: Decimal(0)})
    flight = make_flight(tmp_path, area=area, tiles=Tiles(source=(source,)), gates=Gates(samples=samples))
    (tmp_path / ".build").mkdir()
    corpus = scan(flight.selection, flight.build_dir)
    backbone = flight.descriptor_backbone
    network = reference_network(backbone, onnx_source(backbone, tmp_path, None))
    with decoded_tiles(flight.tiles, flight.build_dir) as decoded:
        images = {bytes.fromhex(t.sha256): decoded(t) for t in iter_tiles(flight.build_dir)}
        rows = rows_of(*corpus_table(flight.build_dir))
        subject = Subject(
            asked=requirements_of(flight), corpus=corpus, rows=rows, gather=lambda which: vectors[which], index=None, network=network,
            decode=decoded, fit="resize",
        )  # fmt: skip
        vectors = network(np.stack([subject.seen(images[sha.tobytes()]) for sha in rows.shas]))
        build(Index(), rows.ids, subject.gather, tmp_path / "index")
        subject = dataclasses.replace(subject, index=load_index((tmp_path / "index").read_bytes()))
        result = measure(subject, lambda: network, backbone=backbone, today=TODAY)
    assert result.entries["recognition"].detail.startswith("will not localise")
