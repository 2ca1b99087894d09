"""The real `doit`, stopped, starved and disturbed from outside: a clear end, the old cache intact, the next run converges."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provisioning.build import steps
from tests import crashing, faults
from tests.processes import gone, needs_permissions, with_permissions

ROOT = Path(__file__).parents[1]


def doit(cache: Path, *words: str, **options) -> subprocess.Popen[str]:
    """Start `doit` in a cache directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "doit", *words],
        cwd=cache,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def finish(cache: Path, *words: str, **options) -> tuple[int, str]:
    """Run `doit` to its end; return its exit code and what it said."""
    with doit(cache, *words, **options) as child:
        said = child.communicate(timeout=300)[0]
    return child.returncode, said


def outcome(cache: Path) -> str:
    return json.loads((cache / ".build" / "build-report.json").read_text())["outcome"]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A world with one published generation; tests work on copies."""
    world = tmp_path_factory.mktemp("template") / "world"
    cache = crashing.new_world(world)
    done = crashing.build(cache)
    assert done.outcome == "SUCCESS", done.said
    return world


@pytest.fixture
def cache(template, tmp_path) -> Path:
    """A published cache with a new tile waiting."""
    faults.copy_cache(template, tmp_path / "world")
    file = tmp_path / "world" / "cache" / "flight.toml"
    file.write_text(file.read_text().replace(str(template), str(tmp_path / "world")))
    crashing.put_tile(tmp_path / "world" / "tiles", 1, 1, seed=999)
    return tmp_path / "world" / "cache"


def converges(cache: Path) -> None:
    """A build ends well, the cache verifies, nothing is left over, and the next build has nothing to do."""
    assert crashing.whole(cache) == []
    for expected in ("SUCCESS", "IDEMPOTENT_NO_OP"):
        done = crashing.build(cache)
        assert (done.outcome, done.failure) == (expected, None), done.said
    assert crashing.whole(cache) == []
    assert crashing.leftovers(cache) == []


def slow_compiler(cache: Path, tmp_path: Path) -> dict[str, str]:
    """Let an engine be needed whose compile never ends: Python starts with a hook that makes the worker sleep."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if any('engines.worker' in word for word in sys.orig_argv):\n"
        "    from provisioning.engines.ort import ort\n"
        "    ort.OnnxRuntime.build = lambda *args: time.sleep(600)\n"
    )
    files = list((cache / ".build" / "store").glob("*/*.engine"))
    assert files
    for path in files:
        shutil.rmtree(path.parent)
    return {**os.environ, "PYTHONPATH": f"{hook}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def compiling(parent: int) -> list[int]:
    """The compile processes started by process `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if "provisioning.engines.worker" in line and line[-2] == str(parent):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_running_compile_ends_with_the_build(cache, tmp_path, number):
    environment = slow_compiler(cache, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "doit"], cwd=cache, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        deadline = time.monotonic() + 120
        while not (workers := compiling(child.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert workers
        time.sleep(0.5)
        child.send_signal(number)
        said = child.communicate(timeout=120)[0].decode()
    assert all(map(gone, workers))
    if number != signal.SIGKILL:
        assert child.returncode == 128 + number, said
        assert f"stopped by {signal.Signals(number).name}" in said
        assert outcome(cache) == "FAILURE"
    converges(cache)


def test_parallel_tasks_are_refused_with_the_reason(cache):
    code, said = finish(cache, "-n", "4")
    assert code == 3
    assert "-n is refused" in said
    assert "cores" in said


def mounts() -> bool:
    """Whether this user may mount a small disk in a name space of its own."""
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not mounts(), reason="no right to mount a small disk")
@pytest.mark.parametrize("free_kib", [pytest.param(0, marks=pytest.mark.slow), 60])
def test_a_full_disk_is_reported_and_the_old_cache_stays(cache, free_kib):
    """A disk of 16 MiB with so much left; SQLite, the compile and the stores all meet its end."""
    code = f"from tests.test_interrupted import on_a_full_disk; on_a_full_disk({str(cache)!r}, {free_kib})"
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def on_a_full_disk(original: str, free_kib: int) -> None:
    """Build on a disk with `free_kib` left, then with room; runs in a mount name space of its own."""
    disk = Path(original).parent / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], check=True)
    cache = faults.copy_cache(Path(original), disk / "cache")
    shutil.copy(Path(original).parent / "key.pub.pem", disk)
    for engine in (cache / ".build" / "store").glob("*/*.engine"):
        shutil.rmtree(engine.parent)
    room = os.statvfs(disk)
    os.posix_fallocate(
        ballast := os.open(disk / "ballast", os.O_CREAT | os.O_WRONLY),
        0,
        room.f_bavail * room.f_frsize - free_kib * 1024,
    )
    os.close(ballast)
    code, said = finish(cache)
    assert code != 0, said
    assert "Traceback" not in said, said
    assert "space" in said, said
    assert "next step" in said, said
    os.unlink(disk / "ballast")
    converges(cache)


@pytest.mark.usefixtures("unmeasured")
def test_a_quota_is_reported_and_the_old_cache_stays(cache):
    """A limit on the size of files is as near as a test can come to one."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    code, said = finish(cache, preexec_fn=limited)
    assert code != 0
    assert "Traceback" not in said, said
    converges(cache)


@needs_permissions
@pytest.mark.parametrize("place", [".build/store", "."])
def test_a_directory_without_permission_is_reported_and_the_old_cache_stays(cache, place):
    """Root passes every permission, so its build runs without that capability."""
    command = with_permissions(sys.executable, "-m", "doit")
    os.chmod(cache / place, 0o555)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True, check=False)
    os.chmod(cache / place, 0o755)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Traceback" not in said, said
    assert "Permission denied" in said
    assert "next step" in said
    converges(cache)


@pytest.mark.parametrize("how", ["vanishes", "changes"])
def test_a_tile_that_is_another_between_scan_and_use_is_named(cache, monkeypatch, how):
    """Gone or replaced as soon as the scan is over."""
    tile, real = cache.parent / "tiles" / "14" / "8581" / "5737.jpg", steps.describe

    def describe(*args, **kwargs):
        tile.unlink() if how == "vanishes" else crashing.put_tile(cache.parent / "tiles", 1, 1, seed=555)
        return real(*args, **kwargs)

    with monkeypatch.context() as during:
        during.setattr(steps, "describe", describe)
        done = crashing.build(cache)
    assert "5737" in str(done.failure)
    crashing.put_tile(cache.parent / "tiles", 1, 1, seed=999)
    converges(cache)


STATE = ("doit.sqlite", "catalogue.sqlite", "counter", "history.json", "onnx-digests.json")


@pytest.mark.parametrize("damages", [[STATE], pytest.param([[name] for name in STATE], marks=pytest.mark.slow)])
def test_a_damaged_file_of_the_build_directory_costs_no_work(cache, damages):
    """All of them at once, or one after another."""
    converges(cache)
    for names in damages:
        for name in names:
            (cache / ".build" / name).write_bytes(b"neither a database nor JSON" * 100)
        done = crashing.build(cache)
        assert done.outcome == "IDEMPOTENT_NO_OP", (names, done)


def test_a_clock_that_goes_back_changes_nothing(cache):
    converges(cache)
    for path in cache.parent.rglob("*"):
        if path.is_file() and "generations" not in path.parts and ".build" not in path.parts:
            os.utime(path, ns=(10**17, 10**17))
    done = crashing.build(cache)
    assert done.outcome == "IDEMPOTENT_NO_OP", done
    crashing.put_tile(cache.parent / "tiles", 0, 1, seed=4242)
    tile = next((cache.parent / "tiles").rglob("5737.jpg"))
    os.utime(tile, ns=(1, 1))
    converges(cache)


def test_two_caches_that_share_a_descriptor_store_build_at_once(cache, tmp_path):
    """Both describe the same new tile, one of them is killed: each ends with a cache that verifies."""
    other = cache.with_name("other")
    other.mkdir()
    for name in ("dodo.py", "doit.cfg"):
        shutil.copy(cache / name, other)
    text = (cache / "flight.toml").read_text()
    (other / "flight.toml").write_text(
        text.replace('# store = ".build/descriptors"', 'store = "../cache/.build/descriptors"')
    )
    assert "../cache/.build" in (other / "flight.toml").read_text()
    first, second = doit(cache), doit(other)
    time.sleep(0.4)
    first.kill()
    first.communicate()
    assert second.wait(60) == 0, second.stdout.read()
    second.stdout.close()
    converges(cache)
    assert crashing.build(other).failure is None
    assert crashing.whole(other) == []
