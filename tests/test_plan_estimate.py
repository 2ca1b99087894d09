"""Promises of the time that a plan names: tried where nothing is remembered, remembered where it is, never made up."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from provisioning.base.errors import EngineError
from provisioning.build import estimate as estimating
from provisioning.build.plan import make_plan
from provisioning.build.request import read_request
from provisioning.cli import main
from provisioning.cli.look.plan import summary
from provisioning.config.parse import read_flight
from provisioning.network import apart
from provisioning.network.rehearsal import MOST_IMAGES, WITHIN_S, Rehearsal, _each
from provisioning.network.shape import Shape
from tests import building
from tests.tilesets import scanned


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A cache that was never built."""
    return building.new_cache(tmp_path_factory.mktemp("first"), network=building.GIST)


def test_a_first_plan_tries_the_network_and_says_what_that_leaves_out(first, capsys):
    before = sorted(first.rglob("*"))
    assert main(["plan", str(first), "--json"]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert 0 < plan["seconds"] < 120
    assert plan["bytes_to_write"] > 16 * 544 * 4
    assert plan["seconds_tried"] is True
    assert plan["not_timed"] == ["corpus", "report", "manifest"]
    assert main(["plan", str(first)]) == 1
    assert "(the network was tried here; without corpus, report, manifest)" in capsys.readouterr().out
    assert sorted(first.rglob("*")) == before


def test_the_trial_is_shared_among_threads_and_the_gates_look_at_a_sample(tmp_path):
    cache = building.new_cache(tmp_path, samples=None, network=building.GIST)
    scanned(read_flight(cache))
    request = read_request(cache)
    tried = Rehearsal(Shape(128, 128, 544), 0.1, 0.1, 1.0)
    seen = estimating._Seen(decode_s=0.5, views_s=0.25)
    seconds = estimating._seconds(request, tried, seen)
    threads = request.flight.descriptors.threads or len(os.sched_getaffinity(0))
    assert seconds["descriptors"] == pytest.approx(1.5 / threads)  # one heading: each descriptor decodes its tile
    assert seconds["gates"] == pytest.approx(16 * (9 * 0.5 + 0.25 + 8) / threads)


@pytest.mark.parametrize(
    "error",
    [EngineError("the model had not finished after 20 s"), MemoryError(), OSError(28, "No space left on device")],
)
def test_what_cannot_be_tried_is_unknown_says_why_and_is_tried_again(first, monkeypatch, error):
    asked = []

    def fails(*_):
        asked.append(error)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(apart, "rehearsed", fails)
        for _ in range(2):
            plan = make_plan(first)
            assert plan.seconds is None
            assert plan.bytes_to_write > 0  # the shape is learned all the same
            assert "time unknown: gist-color could not be tried: " in summary(plan)
    assert len(asked) == 2
    assert make_plan(first).seconds is not None


def test_an_engine_that_is_compiled_for_a_gpu_is_not_tried_on_the_cpu(first, monkeypatch):
    monkeypatch.setattr(apart, "rehearsed", lambda *_: pytest.fail("tried"))
    request = read_request(first)
    network = request.descriptor_network
    network = replace(network, host=network.host._replace(backend="tensorrt"))
    monkeypatch.setattr(type(request), "descriptor_network", network)
    found = estimating.estimate(request, request.build_dir)
    assert (found.seconds, found.why_not) == ({}, "tensorrt has to compile gist-color first")
    assert found.shape is not None


def test_a_plan_after_a_build_tries_nothing(built_cache, monkeypatch):
    cache = built_cache
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"  # a copy is scanned anew
    monkeypatch.setattr(apart, "rehearsed", lambda *_: pytest.fail("tried"))
    assert make_plan(cache).seconds == 0
    program = "import sys; from provisioning.cli import main; main(['plan', sys.argv[1]]); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program, cache], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "provisioning.build.estimate" in loaded
    assert not {"numpy", "PIL", "onnx", "onnxruntime", "faiss"} & set(loaded)
    building.put_tile(cache.parent / "tiles", building.WEST + 1, building.NORTH + 1, seed=77)
    plan = make_plan(cache)
    assert (plan.seconds_tried, plan.not_timed, plan.why_not_timed) == (False, (), "")
    assert summary(plan).endswith("(as last time)")


@pytest.mark.parametrize(("each_s", "runs"), [(WITHIN_S * 3, 1), (WITHIN_S / 4, 4), (1e-4, MOST_IMAGES)])
def test_a_trial_ends_after_its_time_or_its_images_and_runs_once_at_least(each_s, runs):
    ran: list[float] = []

    def run() -> None:
        ran.append(each_s)

    assert _each(run, lambda: sum(ran)) == pytest.approx(each_s)
    assert len(ran) == runs
