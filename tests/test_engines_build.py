"""Engines in a whole build: precision, another computer's engines, compiles that fail, and what is kept."""

import importlib.util
import json
import logging
import subprocess

import pytest

from provisioning.base.errors import EngineError
from provisioning.base.hashing import sha256_bytes, sha256_file
from provisioning.cli.look.host import describe
from provisioning.config.parse import read_flight
from provisioning.flight.publish import current_generation
from tests import models, networks
from tests.building import build, edit, new_cache, tile_image


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A cache with a small network, built once for this computer."""
    parent = tmp_path_factory.mktemp("template") / "site"
    parent.mkdir()
    cache = new_cache(parent, network=networks.save(models.linear(size=64), parent / "net.onnx"))
    edit(cache, "# recognition = 0.5", "recognition = 0")
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    return parent


@pytest.fixture(scope="module")
def in_int8(template, tmp_path_factory):
    """A copy built in int8, calibrated on 8 of its 16 tiles."""
    cache = copied(template, tmp_path_factory.mktemp("int8"))
    precision(cache, "int8")
    edit(cache, "# calibration_tiles = 256", "calibration_tiles = 8")
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    return cache.parent


@pytest.fixture
def cache(template, tmp_path):
    """A copy of the template, elsewhere."""
    return copied(template, tmp_path)


def copied(site, parent):
    copy = parent / "site"
    subprocess.run(["cp", "-a", site, copy], check=True)
    file = copy / "cache" / "flight.toml"
    file.write_text(file.read_text().replace(str(site), str(copy)))
    return copy / "cache"


def precision(cache, name):
    """Ask for a precision; whether so few tiles calibrate int8 well enough for the default is not the point here."""
    edit(cache, '# precision = "fp32"', f'precision = "{name}"')
    edit(cache, "# fidelity_cosine = {}", "fidelity_cosine = {int8 = 0.9}")


def manifest(cache):
    return json.loads((current_generation(cache) / "Manifest.json").read_bytes())


def for_rtx(cache, sm):
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed: pip install 'flightcache[rtx]'")
    edit(cache, '# backend = "auto"', 'backend = "tensorrt_rtx"')
    edit(cache, "# host = {}", f'host = {{sm = "{sm}"}}')


def test_fp16_is_built_gated_and_recorded(cache):
    precision(cache, "fp16")
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    assert_recorded(cache, "fp16")


def test_int8_is_built_gated_and_recorded(in_int8):
    assert_recorded(in_int8 / "cache", "int8")


def assert_recorded(cache, name):
    document = manifest(cache)
    assert document["host"]["precision"] == document["artifacts"]["engines"][0]["precision"] == name
    assert document["artifacts"]["engines"][0]["path"].endswith(f"_{name}.engine")
    assert document["gates"]["fidelity.cosine"]["verdict"] == "pass"


def test_tiles_that_calibrate_int8_are_on_record(in_int8):
    detail = manifest(in_int8 / "cache")["gates"]["fidelity.cosine"]["detail"]
    assert "calibrated on the tiles with digest" in detail


def test_tile_that_does_not_calibrate_leaves_the_int8_engine(in_int8, tmp_path):
    """Those calibrate whose bytes have the smallest digests."""
    cache = copied(in_int8, tmp_path)
    before = manifest(cache)["artifacts"]["engines"]
    (kept,) = json.loads((cache / ".build/calibration-tiles.json").read_bytes()).values()
    calibrating = kept["value"]
    tiles = sorted((cache.parent / "tiles").rglob("*.jpg"))
    idle = next(path for path in tiles if sha256_file(path) not in calibrating)
    other = next(data for data in map(tile_image, range(1000, 2000)) if sha256_bytes(data) > calibrating[-1])
    idle.write_bytes(other)
    done = build(cache)
    assert done.report.descriptors_generated == 1
    assert manifest(cache)["artifacts"]["engines"] == before


def test_engine_for_another_computer_is_built_gated_by_its_onnx_and_signed(cache):
    for_rtx(cache, "86")
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    document = manifest(cache)
    assert (document["host"]["backend"], document["host"]["arch"]) == ("tensorrt_rtx", "sm86")
    assert "the engine cannot run here" in document["gates"]["fidelity.cosine"]["detail"]
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"


def test_engines_of_other_computers_are_kept_listed_and_not_published(cache):
    for_rtx(cache, "89")
    build(cache)
    published = {path.name for path in current_generation(cache).glob("*.engine")}
    listed = describe(read_flight(cache).engine, cache)["engines"]
    mine = [engine["name"] for engine in listed if engine["for_this_host"]]
    others = [engine["name"] for engine in listed if not engine["for_this_host"]]
    assert published == set(mine)
    assert len(others) == 1
    edit(cache, 'backend = "tensorrt_rtx"', 'backend = "onnxruntime"')
    edit(cache, 'host = {sm = "89"}', "host = {}")
    assert "engine:net" not in build(cache).ran


def test_refused_compile_leaves_the_published_generation(cache):
    before = current_generation(cache)
    for_rtx(cache, "87")
    done = build(cache)
    assert done.outcome == "FAILURE"
    assert isinstance(done.failure, EngineError)
    assert "does not compile for SM87" in done.report.failure_reason
    assert current_generation(cache) == before


def test_failed_compile_is_an_event_with_its_reason(cache, caplog):
    for_rtx(cache, "87")
    with caplog.at_level(logging.INFO, "c10.provision"):
        build(cache)
    (failed,) = (r for r in caplog.records if r.kind == "c10.provision.engine.failure")
    assert failed.kv["model"] == "net"
    assert "SM87" in failed.kv["reason"]


def test_tensorrt_without_a_gpu_is_refused_before_anything_is_done(cache):
    edit(cache, '# backend = "auto"', 'backend = "tensorrt"')
    done = build(cache)
    assert done.outcome == "FAILURE"
    assert isinstance(done.failure, EngineError)
    assert "tensorrt" in done.report.failure_reason
    assert done.ran == ()


def test_engine_that_is_not_faithful_is_not_published(cache):
    before = current_generation(cache)
    precision(cache, "int8")
    edit(cache, "{int8 = 0.9}", "{int8 = 0.9999}")
    done = build(cache)
    assert "fidelity.cosine" in str(done.failure)
    assert current_generation(cache) == before


def test_engine_alone_can_be_compiled(cache):
    precision(cache, "fp16")
    before = current_generation(cache)
    done = build(cache, "engine")
    assert done.ran == ("onnx:net", "engine:net")
    assert current_generation(cache) == before
