"""What a scan already decides is said before hours of work, and whatever flight.toml accepts can be published."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rules
from provisioning.base.errors import ConfigError, GateError, IndexingError
from provisioning.build.generation.contents import _calibration_names
from provisioning.build.plan import make_plan
from provisioning.config import Calibration
from provisioning.flight.manifest.checks import path as manifest_path
from tests.building import NORTH, WEST, ZOOM, build, edit, new_cache, put_tile

SAFE_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


def test_a_hole_is_reported_before_any_engine_and_drawn_where_the_message_says(tmp_path):
    cache = new_cache(tmp_path)
    (tmp_path / "tiles" / str(ZOOM) / str(WEST) / f"{NORTH}.jpg").unlink()
    with pytest.raises(GateError) as planned:
        make_plan(cache)
    with pytest.raises(GateError, match="gates failed") as failed:
        rules.build(cache)
    assert next(iter(planned.value.facts)) in failed.value.facts
    drawn = json.loads(failed.value.facts["shown in"].read_bytes())
    assert [f["properties"] for f in drawn["features"] if f["properties"]["role"] == "gaps"]
    assert not list((cache / ".build").glob("store/*/*.engine"))


@pytest.mark.parametrize("name", ["camera(1).json", "Kamera Süd.yaml", "front camera.json", ".hidden", "x.sha256"])
def test_a_calibration_file_of_any_name_is_published(built_cache, name):
    (built_cache.parent / name).write_bytes((built_cache.parent / "camera.yaml").read_bytes())
    edit(built_cache, "camera.yaml", name)
    assert build(built_cache).outcome == "SUCCESS"
    assert build(built_cache).outcome == "IDEMPOTENT_NO_OP"


@settings(max_examples=200)
@given(names=st.lists(SAFE_NAMES, min_size=1, max_size=5, unique=True))
def test_every_name_becomes_one_of_its_own_that_a_manifest_can_hold(tmp_path_factory, names):
    place = tmp_path_factory.getbasetemp()
    inside = _calibration_names([(Calibration(path=place / f"{n}" / name), "0" * 64) for n, name in enumerate(names)])
    issues: list[str] = []
    for name in inside:
        manifest_path(name, "path", issues)
    assert issues == []
    assert len({name.lower() for name in inside}) == len(names)


def test_a_waiver_of_two_lines_is_published_as_one(built_cache):
    file = built_cache / "flight.toml"
    file.write_text(file.read_text() + '\n[[waiver]]\ngate = "freshness"\nby = "me"\nreason = """old\nimagery"""\n')
    done = rules.build(built_cache)
    assert done.outcome == "SUCCESS"
    published = json.loads((built_cache / "current" / "Manifest.json").read_bytes())
    assert published["waivers"] == [{"by": "me", "gate": "freshness", "reason": "old imagery"}]


def test_a_sector_class_without_a_policy_is_an_error_that_names_the_nearest(tmp_path):
    cache = new_cache(tmp_path)
    file = cache / "flight.toml"
    file.write_text(file.read_text() + "\n[sector.urban]\nmax_age_days = 365\n")
    edit(cache, "# sector_class = ", "# was: sector_class = ")
    edit(cache, "[flight]", '[flight]\nsector_class = "urbann"')
    with pytest.raises(ConfigError) as wrong:
        rules.build(cache)
    assert "did you mean 'urban'?" in str(wrong.value)


def test_plan_refuses_what_the_build_refuses(built_cache):
    """The length of a descriptor is known."""
    edit(built_cache, "# kind = ", "# was: kind = ")
    edit(built_cache, "# recall = ", "# was: recall = ")
    edit(built_cache, "[index]", '[index]\nkind = "sq8"\nrecall = 0.9999')
    with pytest.raises(IndexingError, match="recall"):
        make_plan(built_cache)
    with pytest.raises(IndexingError, match="recall"):
        rules.build(built_cache)


def test_two_sources_of_one_place_are_published_and_counted(built_cache):
    other = built_cache.parent / "other"
    for n in range(4):
        put_tile(other, WEST + n % 2, NORTH + n // 2, seed=500 + n)
    file = built_cache / "flight.toml"
    file.write_text(file.read_text() + f'\n[[tiles.source]]\nname = "other"\npath = "{other}"\n')
    assert rules.build(built_cache).outcome == "SUCCESS"
    tiles = json.loads((built_cache / "current" / "Manifest.json").read_bytes())["tiles"]
    assert (tiles["count"], sum(zoom["present"] for zoom in tiles["per_zoom"].values())) == (8, 4)
    assert rules.build(built_cache).outcome == "IDEMPOTENT_NO_OP"
