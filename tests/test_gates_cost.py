"""Gates ask no more tiles than decide, and decide the same; the views of a flight stay what they are."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from provisioning.quality.gates import measure as measuring
from provisioning.quality.gates.perturb import NOISE_LEVELS, _noise
from provisioning.quality.gates.recognition import CONFIDENT, is_decided, likely
from provisioning.quality.gates.retrieval import FIRST_ASKED, retrieve_views
from tests.test_gates import Thumbnail, landscape, make_subject, measured, views_that_find


@pytest.mark.parametrize("count", [1, 16, 32, 64])
def test_at_the_ends_of_an_interval_the_share_is_just_not_surprising(count):
    for hits in range(count + 1):
        low, high = likely(hits / count, count)
        assert low - 1e-9 <= hits / count <= high + 1e-9
        for end in (each for each in (low, high) if 1e-9 < each < 1 - 1e-9):
            assert abs(hits / count - end) == pytest.approx(CONFIDENT * (end * (1 - end) / count) ** 0.5, abs=1e-9)


@pytest.mark.parametrize(("known", "free", "decided"), [(1, 1, True), (1, 0, True), (0.55, 0, False), (1, 0.6, False)])
def test_it_is_decided_where_no_share_lies_near_a_limit(tmp_path, known, free, decided):
    subject = make_subject(tmp_path, landscape(12))
    views = views_that_find(subject, known, free)
    first = replace(views, queries=views.queries[:, ::2], found=views.found[:, ::2], truth=views.truth[::2])
    assert is_decided(subject, first) is decided


def test_the_limit_of_flight_toml_counts_like_that_of_the_words(tmp_path):
    subject = make_subject(tmp_path, landscape(12))
    views = views_that_find(subject, 1, 1)
    assert is_decided(subject, views)
    strict = subject.asked._replace(gates=replace(subject.asked.gates, recognition=Decimal("0.99")))
    assert not is_decided(replace(subject, asked=strict), views)


@pytest.mark.parametrize("decided", [True, False])
def test_the_other_tiles_are_seen_only_where_the_first_leave_it_open(tmp_path, decided):
    network = Thumbnail()
    subject = make_subject(tmp_path, landscape(9), network)
    views = retrieve_views(subject, lambda _: decided)
    assert views.truth.tolist() == subject.rows.ids[subject.sample[: FIRST_ASKED if decided else None]].tolist()
    assert network.seen == 2 * len(views.truth)


def test_views_in_two_goes_are_those_of_one(tmp_path, monkeypatch):
    subject = make_subject(tmp_path, landscape(7))
    two = retrieve_views(subject, lambda _: False)
    monkeypatch.setattr("provisioning.quality.gates.retrieval.FIRST_ASKED", 1000)
    one = retrieve_views(subject, lambda _: False)
    for part in ("queries", "found", "truth"):
        assert np.array_equal(getattr(one, part), getattr(two, part))


def compared(subject, reference, monkeypatch):
    """Return how many tiles an engine was compared on with its reference."""
    counts = []
    real = measuring.measure_fidelity
    monkeypatch.setattr(measuring, "measure_fidelity", lambda r, e, i, **_: counts.append(len(i)) or real(r, e, i))
    result = measured(subject, reference)
    return counts, result.entries["fidelity.cosine"]


def test_an_engine_that_computes_the_same_is_compared_on_a_few_tiles(tmp_path, monkeypatch):
    counts, entry = compared(make_subject(tmp_path, landscape(8)), Thumbnail(), monkeypatch)
    assert counts == [measuring.FIRST_COMPARED]
    assert "16 tiles" in entry.detail


def test_an_engine_that_differs_is_compared_on_all(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rough = Thumbnail(lambda v: v + rng.normal(0, 3e-4, v.shape).astype(np.float32))
    counts, entry = compared(make_subject(tmp_path, landscape(8)), rough, monkeypatch)
    assert counts == [measuring.FIRST_COMPARED, 64]
    assert "64 tiles" in entry.detail


def test_the_noise_of_a_camera_is_normal_and_of_the_spread_that_is_said():
    noise = _noise(np.random.default_rng(1), (3, 128, 128), NOISE_LEVELS).ravel()
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(NOISE_LEVELS, rel=0.01)
    assert abs(((noise / NOISE_LEVELS) ** 4).mean() - 3) < 0.4  # of a sum of four uniform numbers 2.7
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.02
