"""`flightcache bench-engine`: figures of real calls, as JSON."""

import json

import pytest

from provisioning.cli import main
from provisioning.engines.halving import MemoryShortError
from provisioning.engines.ort.onnx_network import OnnxNetwork
from tests import networks

FIELDS = {"batch", "at_a_time", "calls", "median_ms", "p99_ms", "tiles_per_s"}


@pytest.fixture
def engine(tmp_path):
    return networks.save(networks.network(), tmp_path / "net_x86_64_linux_ort1_fp32.engine")


def measured(capsys, *words):
    assert main(["bench-engine", *map(str, words)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_figures_of_batch_one_and_of_the_configured_batch(engine, capsys):
    (found,) = measured(capsys, engine, "--seconds", "0.05", "--batch", "4")
    assert [figures["batch"] for figures in found["batches"]] == [1, 4]
    for figures in found["batches"]:
        assert figures.keys() == FIELDS
        assert 0 < figures["median_ms"] <= figures["p99_ms"]
        assert figures["calls"] >= 1
        assert figures["tiles_per_s"] > 0


def test_figures_name_engine_and_host(engine, capsys):
    (found,) = measured(capsys, engine, "--seconds", "0.01")
    assert found["engine"] == engine.name
    assert found["host"]["backend"] == "onnxruntime"
    assert found["input"] == [networks.SIDE, networks.SIDE, 3]
    assert len(found["sha256"]) == 64


def test_every_engine_of_the_current_generation_is_measured(tmp_path, capsys):
    (tmp_path / "generations/000001").mkdir(parents=True)
    (tmp_path / "current").symlink_to("generations/000001")
    for name in ("a", "b"):
        networks.save(networks.network(), tmp_path / f"current/{name}_x86_64_linux_ort1_fp32.engine")
    assert len(measured(capsys, tmp_path, "--seconds", "0.01")) == 2


def test_directory_without_engines_says_what_to_do(tmp_path, capsys):
    assert main(["bench-engine", str(tmp_path)]) == 16
    assert "doit engine" in capsys.readouterr().err


def test_file_that_is_no_engine_is_refused(tmp_path, capsys):
    (tmp_path / "x.engine").write_bytes(b"nothing")
    assert main(["bench-engine", str(tmp_path / "x.engine")]) == 16
    assert "no ONNX model" in capsys.readouterr().err


def test_plan_for_another_gpu_is_refused(tmp_path, capsys):
    (tmp_path / "x.engine").write_bytes(b"ftrt" + bytes(20) + bytes([10, 3, 0, 30]))
    assert main(["bench-engine", str(tmp_path / "x.engine")]) == 16
    assert "tensorrt" in capsys.readouterr().err


def test_the_largest_batch_that_fits_is_said(engine, capsys, monkeypatch):
    """Memory that suffices for two tiles and not for three."""
    run = OnnxNetwork._run

    def short(network, images):
        if len(images) > 2:
            raise MemoryShortError("memory does not suffice to run the network")
        return run(network, images)

    monkeypatch.setattr(OnnxNetwork, "_run", short)
    (found,) = measured(capsys, engine, "--seconds", "0.01", "--batch", "8")
    assert [figures["at_a_time"] for figures in found["batches"]] == [1, 2]
