"""index.transform = "auto": what finds more than chance explains is taken, else nothing; the choice goes on record."""

import json
import math
import shutil

import numpy as np
import pytest

from provisioning.config.schema import Gates, Index
from provisioning.flight.manifest import parse
from provisioning.index.choice import choose
from provisioning.quality.gates import transforms
from provisioning.quality.gates.perturb import VIEWS
from provisioning.quality.gates.transforms import candidates, choose_transform, decided
from tests import building
from tests.test_gates import Thumbnail, landscape, make_subject

SPECS = ("none", "center", "pca-whiten(64)")


def flags(*rows):
    """Return which queries each transform finds: (none, center, whitened), as often as the last number says."""
    return np.array([row[:3] for row in rows for _ in range(row[3])], bool)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        (flags((1, 1, 1, 100)), "none"),
        (flags((1, 1, 1, 100), (0, 1, 0, 4)), "none"),  # four of four: within two deviations
        (flags((1, 1, 1, 100), (0, 1, 0, 5)), "center"),
        (flags((1, 0, 1, 30), (0, 1, 0, 42)), "none"),  # twelve more, but 72 differ
        (flags((1, 0, 1, 10), (0, 1, 0, 42)), "center"),
        (flags((0, 1, 1, 20), (0, 0, 1, 1)), "pca-whiten(64)"),
        (flags((0, 1, 1, 20)), "center"),  # alike: the simpler one
        (flags((1, 0, 0, 50)), "none"),
    ],
)
def test_none_is_left_only_for_more_than_chance_explains(found, chosen):
    assert decided(SPECS, found).transform == chosen


@pytest.mark.parametrize(("won", "lost"), [(5, 0), (20, 8), (30, 18), (9, 3), (50, 34)])
def test_the_rule_is_a_sign_test_of_two_deviations(won, lost):
    """Against the exact binomial: what is taken would come by chance in fewer than one of twenty."""
    taken = decided(SPECS[:2], flags((1, 0, 0, lost), (0, 1, 0, won))[:, :2]).transform == "center"
    n = won + lost
    by_chance = sum(math.comb(n, k) for k in range(won, n + 1)) / 2**n
    assert taken == (won - lost > 2 * n**0.5)
    assert by_chance < 0.05 or not taken


def test_nothing_asked_chooses_nothing():
    assert decided(SPECS, np.zeros((0, 3), bool))[:2] == ("none", "0")


@pytest.mark.parametrize(
    ("vectors", "dimension", "specs"),
    [
        (1, 512, ["none"]),
        (2, 512, ["none", "center"]),
        (63, 512, ["none", "center"]),
        (64, 512, ["none", "center", "pca-whiten(16)"]),
        (100_000, 512, ["none", "center", "pca-whiten(128)"]),
        (100_000, 100, ["none", "center", "pca-whiten(64)"]),
        (100_000, 8, ["none", "center"]),
    ],
)
def test_whitening_is_tried_where_there_are_tiles_to_learn_it_from(vectors, dimension, specs):
    assert list(candidates(vectors, dimension)) == specs


def in_a_cone(vectors, own):
    """Return unit vectors around one axis; `own` is how far each leans to its own side."""
    cone = vectors * own + np.eye(vectors.shape[1], dtype=np.float32)[0] * 2
    return (cone / np.linalg.norm(cone, axis=1, keepdims=True)).astype(np.float32)


def test_tiles_that_are_like_everything_are_named_less_once_the_mean_is_taken_off(tmp_path, monkeypatch):
    """Hazy photos lie close to the axis of the cone, and so do some tiles: those are their answer, whatever they show."""
    tiles = landscape(8)
    plain = make_subject(tmp_path, tiles, gates=Gates(samples=64))
    seen = np.stack([in_a_cone(plain.gather(plain.sample), 0.1)] * len(VIEWS))
    third = np.where(np.arange(len(tiles)) % 3 == 0, 0.08, 0.6)[:, None]
    subject = make_subject(tmp_path, tiles, spoil=lambda each: in_a_cone(each, third), gates=Gates(samples=64))
    monkeypatch.setattr(transforms, "described_views", lambda *_: seen)
    chosen = choose_transform(subject)
    assert chosen.transform == "center", chosen
    assert float(chosen.found) > 0.9
    assert "more than chance explains" in chosen.reason


def test_descriptors_that_need_nothing_get_nothing(tmp_path):
    subject = make_subject(tmp_path, landscape(6), Thumbnail(), gates=Gates(samples=16))
    first, again = choose_transform(subject), choose_transform(subject)
    assert first == again
    assert first.transform == "none"
    assert "none" in first.reason
    assert "of 32 queries" in first.reason


def test_a_known_heading_asks_only_for_what_flights_see(tmp_path):
    subject = make_subject(tmp_path, landscape(6), gates=Gates(heading="known", samples=16))
    assert "of 16 queries" in choose_transform(subject).reason


def test_until_it_is_chosen_it_costs_what_no_transform_costs():
    auto, none = (choose(Index(transform=each), vectors=5000, dimension=512) for each in ("auto", "none"))
    assert auto == none


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = tmp_path_factory.mktemp("site") / "site"
    site.mkdir()
    cache = building.new_cache(site, samples=None)
    building.edit(cache, '# transform = "none"', 'transform = "auto"')
    assert building.build(cache).outcome == "SUCCESS"
    return site


def manifest_of(cache):
    return parse((cache / "current/Manifest.json").read_bytes())


def test_the_manifest_names_the_transform_taken_and_the_figures(site):
    manifest = manifest_of(site / "cache")
    entry = manifest.gates["transform"]
    assert manifest.descriptor_index.transform == "none"
    assert (entry.verdict, entry.threshold) == ("pass", None)
    assert 0 <= float(entry.measured) <= 1
    assert "none: of 32 queries" in entry.detail


def test_the_choice_stays_until_tiles_change(site, tmp_path):
    cache = building.copy_site(site, tmp_path / "site")
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"
    before = manifest_of(cache)
    building.edit(cache, '"F-1"', '"F-2"')
    assert "corpus" not in building.build(cache).ran
    building.put_tile(cache.parent / "tiles", building.WEST, building.NORTH, seed=4711)
    assert "corpus" in building.build(cache).ran
    assert manifest_of(cache).descriptor_index.sha256 != before.descriptor_index.sha256


@pytest.mark.slow
def test_a_build_from_nothing_makes_the_same_bytes(site, tmp_path):
    cache = building.copy_site(site, tmp_path / "site")
    before = manifest_of(cache)
    shutil.rmtree(cache / ".build")
    building.build(cache)
    again = manifest_of(cache)
    assert again.descriptor_index == before.descriptor_index
    assert again.gates["transform"] == before.gates["transform"]


def test_the_plan_says_that_it_is_still_to_be_chosen(tmp_path, capsys):
    from provisioning.cli import main

    cache = building.new_cache(tmp_path)
    building.edit(cache, '# transform = "none"', 'transform = "auto"')
    assert main(["plan", "--json", str(cache)]) == 1
    assert "transform auto" in json.loads(capsys.readouterr().out)["index"]
