"""A whole build as a GPU host does it, on a machine without one: a driver and a TensorRT of our own are put in its way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provisioning.flight.publish import current_generation
from tests.building import edit, new_cache
from tests.processes import gone

VENDOR = Path(__file__).parent / "vendor"
DOIT = "import sys; from doit.__main__ import main; main()"
HOST = "import sys; from provisioning.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def orin(tmp_path_factory):
    """Return the environment of a computer with an Orin and TensorRT 10.3.0.30."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make a CUDA driver of")
    site = tmp_path_factory.mktemp("orin")
    subprocess.run(["gcc", "-shared", "-fPIC", VENDOR / "driver.c", "-o", site / "libcuda.so.1"], check=True)
    shutil.copy(VENDOR / "tensorrt.py", site)
    (site / "tensorrt-10.3.0.30.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.3.0.30\n"
    (site / "tensorrt-10.3.0.30.dist-info/METADATA").write_text(metadata)
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    return {**os.environ, "LD_LIBRARY_PATH": str(site), "PYTHONPATH": path}


def doit(cache, environment, *words, code=DOIT):
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cache, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def flown(orin, tmp_path_factory):
    """Return a cache built on that computer."""
    cache = new_cache(tmp_path_factory.mktemp("flown"), side=3)
    edit(cache, "# batch = 8", "batch = 4")
    doit(cache, orin)
    return cache


def manifest(cache):
    return json.loads((current_generation(cache) / "Manifest.json").read_bytes())


def test_gpu_and_tensorrt_are_taken_by_themselves(flown):
    host = manifest(flown)["host"]
    assert (host["backend"], host["runtime"], host["arch"], host["device"]) == ("tensorrt", "10.3.0.30", "sm87", "Orin")


def test_engine_has_the_name_and_header_of_its_host(flown):
    (engine,) = current_generation(flown).glob("*.engine")
    assert "_sm87_" in engine.name
    assert engine.name.endswith("_trt10.3.0.30_fp32.engine")
    assert engine.read_bytes()[:4] == b"ftrt"


def test_gates_are_measured_on_the_engine_itself(flown):
    gates = manifest(flown)["gates"]
    assert "the engine against fp32" in gates["fidelity.cosine"]["detail"]
    assert {gate["verdict"] for gate in gates.values()} <= {"pass", "warn"}


def test_every_tile_was_described(flown):
    assert manifest(flown)["artifacts"]["descriptor_index"]["vectors"] == 9


def test_layers_and_timing_cache_are_on_record(flown):
    (record,) = (flown / ".build/store").glob("*/*.compiled.json")
    facts = json.loads(record.read_bytes())["facts"]
    assert facts["layers"]["types"] == {"Everything": 1}
    assert len(facts["timing_cache_after"]) == 64
    assert "1 layer (1 Everything, 1 Float)" in (current_generation(flown) / "report.html").read_text()


def test_second_build_has_nothing_to_do(flown, orin):
    assert "IDEMPOTENT_NO_OP" in doit(flown, orin)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_build_asked_to_stop_ends_its_compile(flown, orin, tmp_path, order, code):
    """The compile takes ten minutes, more than any wait here.

    SIGTERM during a build is tests/test_contract.py's, a kill of what asked for a compile tests/test_engines_process.py's.
    """
    cache = tmp_path / "cache"
    subprocess.run(["cp", "-a", flown, cache], check=True)
    edit(cache, "# workspace_mb = 1024", "workspace_mb = 777")
    pid_file = tmp_path / "compiling"
    slow = {**orin, "TRT_TEST_COMPILES_SLOWLY": str(pid_file)}
    build = subprocess.Popen(
        [sys.executable, "-c", DOIT], cwd=cache, env=slow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        end = time.monotonic() + 120
        while not pid_file.exists() and time.monotonic() < end:
            time.sleep(0.02)
        compiling = int(pid_file.read_text())
        build.send_signal(order)
        build.communicate(timeout=120)
        assert gone(compiling)
        assert build.returncode == code
    finally:
        build.kill()
        build.wait()
    assert "SUCCESS" in doit(cache, orin)


def test_host_command_names_the_gpu(flown, orin):
    output = doit(flown, orin, "host", str(flown), code=HOST)
    assert "Orin, SM 87" in output
    assert "this host" in output


def test_engine_runs_in_bench_engine(flown, orin):
    document = json.loads(doit(flown, orin, "bench-engine", str(flown), "--seconds", "0.05", code=HOST))
    assert document["host"]["arch"] == "sm87"
    assert [figures["batch"] for figures in document["batches"]] == [1, 4]
