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
def test_a_calibration_file_of_any_name_is_published(tmp_path, name):
    cache = new_cache(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / "camera.yaml").read_bytes())
    edit(cache, "camera.yaml", name)
    assert build(cache).outcome == "SUCCESS"
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"


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


def test_a_waiver_of_two_lines_is_published_as_one(tmp_path):
    cache = new_cache(tmp_path)
    file = cache / "flight.toml"
    file.write_text(file.read_text() + '\n[[waiver]]\ngate = "freshness"\nby = "me"\nreason = """old\nimagery"""\n')
    done = rules.build(cache)
    assert done.outcome == "SUCCESS"
    published = json.loads((cache / "current" / "Manifest.json").read_bytes())
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


def test_plan_refuses_what_the_build_refuses(tmp_path):
    cache = new_cache(tmp_path)
    edit(cache, "# kind = ", "# was: kind = ")
    edit(cache, "# recall = ", "# was: recall = ")
    assert rules.build(cache).outcome == "SUCCESS"  # the length of a descriptor is known from here on
    edit(cache, "[index]", '[index]\nkind = "sq8"\nrecall = 0.9999')
    with pytest.raises(IndexingError, match="recall"):
        make_plan(cache)
    with pytest.raises(IndexingError, match="recall"):
        rules.build(cache)


def test_two_sources_of_one_place_are_published_and_counted(tmp_path):
    cache = new_cache(tmp_path)
    for n in range(16):
        put_tile(tmp_path / "other", WEST + n % 4, NORTH + n // 4, seed=500 + n)
    file = cache / "flight.toml"
    file.write_text(file.read_text() + f'\n[[tiles.source]]\nname = "other"\npath = "{tmp_path}/other"\n')
    assert rules.build(cache).outcome == "SUCCESS"
    tiles = json.loads((cache / "current" / "Manifest.json").read_bytes())["tiles"]
    assert (tiles["count"], sum(zoom["present"] for zoom in tiles["per_zoom"].values())) == (32, 16)
    assert rules.build(cache).outcome == "IDEMPOTENT_NO_OP"
