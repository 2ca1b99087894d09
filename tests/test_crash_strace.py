"""The real `doit` killed by the kernel at its system calls, those of SQLite and the compile included, where strace is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import crashing, faults

ROOT = Path(__file__).parents[1]
CALLS = {
    "rename": 1, "link": 1, "symlink": 1, "unlink": 1, "mkdir": 1, "fsync": 1, "fdatasync": 1, "ftruncate": 1, "chmod": 1,
    "pwrite64": 5,
}  # fmt: skip
"""System calls at which the build is killed, and how many of them make one step."""


def python() -> str:
    """The interpreter itself: a shim of a version manager would be traced in its place."""
    return os.path.realpath(sys.executable) if sys.prefix == sys.base_prefix else sys.executable


def run_doit(cache: Path, *before: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*before, python(), "-m", "doit"],
        cwd=cache,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def killed_at(call: str, number: int) -> tuple[str, ...]:
    """The words before a command that is killed as it makes `call` for the `number`-th time.

    Without --seccomp-bpf, which drops the injection of signals without a word (measured).
    """
    return ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace=/^{call}", "-e",
            f"inject=/^{call}(at|at2)?$:signal=KILL:when={number}")  # fmt: skip


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    words = killed_at("rename", 1)
    return subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not strace_works(), reason="strace is not installed or may not trace")
@pytest.mark.parametrize("scene", ["first", "next"])
def test_killed_by_the_kernel_at_each_system_call(tmp_path, capsys, scene):
    cache = crashing.new_world(tmp_path / "world")
    if scene == "next":
        assert run_doit(cache)[0] == 0
        crashing.put_tile(tmp_path / "world" / "tiles", 1, 1, seed=999)
    before = cache.rename(cache.with_name("before"))
    faults.copy_cache(before, cache)
    assert run_doit(cache)[0] == 0
    expected, points = crashing.published(cache), Counter[str]()
    for call, step in CALLS.items():
        for number in range(1, 10_000, step):
            shutil.rmtree(cache)
            faults.copy_cache(before, cache)
            code, said = run_doit(cache, *killed_at(call, number))
            if code == 0:
                break
            what = f"{call} {number}: {said}"
            points[call] += 1
            assert scene == "first" or os.path.lexists(cache / "current"), what
            assert crashing.whole(cache) == [], what
            engines = crashing.finished_engines(cache)
            is_named = not os.path.lexists(cache / "current") and any((cache / "generations").glob("0*"))
            code, said = run_doit(cache)
            assert code == 0, (what, said)
            report = json.loads((cache / ".build" / "build-report.json").read_text())
            assert not (engines and report["engines_built"]), what
            found = crashing.published(cache)
            if is_named:  # its counter is not given twice
                assert _without_manifest(found) == _without_manifest(expected), what
            else:
                assert found == expected, what
            assert crashing.leftovers(cache) == [], what
    with capsys.disabled():
        print(f"\nstrace, {scene}: {dict(points)}", end=" ")
    assert points["rename"] >= 10
    assert points["fsync"] + points["fdatasync"] >= 30


def _without_manifest(files):
    return {name: data for name, data in files.items() if not name.startswith("Manifest")}
