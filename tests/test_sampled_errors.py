"""Sampled system calls of a build fail once, or from then on: a clear error or a right result, and the next run is right.

strace fails the calls, so those of SQLite, doit, Python's import system, the compile and the processes apart are met too.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import crashing, faults
from tests.test_crash_strace import ROOT, python, strace_works

POINTS, SHARDS, SEED = 400, 20, 21
READING = ("EIO", "ESTALE", "EACCES")
CHANGING = ("EIO", "ENOSPC", "EROFS", "EACCES", "ESTALE", "EDQUOT")
ERRORS = {
    **dict.fromkeys(["openat"], (*READING, "EMFILE", "EROFS", "ENOSPC")),
    **dict.fromkeys(["newfstatat", "fstat", "read", "pread64", "preadv2", "getdents64", "readlink", "statfs"], READING),
    **dict.fromkeys(["rename", "renameat", "link", "linkat", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
                     "ftruncate", "write", "pwrite64", "fallocate", "utimensat", "chmod", "fchmod", "fchmodat"], CHANGING),
    **dict.fromkeys(["fsync", "fdatasync"], ("EIO", "ENOSPC", "EDQUOT")),
    **dict.fromkeys(["clone", "clone3"], ("EAGAIN", "ENOMEM")),
    "mmap": ("ENOMEM",),
    **dict.fromkeys(["pipe2", "socketpair", "epoll_create1", "fcntl"], ("EMFILE",)),
}  # fmt: skip
"""System calls that are failed, and the errors that each may give."""
LASTING = ("ENOSPC", "EROFS", "EDQUOT", "EMFILE")
"""Errors that, one time in two, every later call of the kind gives too: a disk that is full stays so for a while."""


class Point(NamedTuple):
    """The `number`-th time that a thread makes `call` it fails with `error`; and each later time, if that lasts."""

    call: str
    number: int
    error: str
    lasts: bool

    def __str__(self) -> str:
        return f"{self.call} {self.number}{'+' if self.lasts else ''} {self.error}"

    def words(self, log: Path) -> list[str]:
        """The words before a command that meets this error; `log` gets the calls that did."""
        when = f"{self.number}{'+' if self.lasts else ''}"
        return [*tracing([self.call], log), "-y", "-e", f"inject={self.call}:error={self.error}:when={when}"]


def tracing(calls: list[str], log: Path) -> list[str]:
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", "trace=" + ",".join(calls)]


class Ended(NamedTuple):
    """How a command ended; a negative code is a signal."""

    code: int
    said: str


def doit(cache: Path, *before: str) -> Ended:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*before, python(), "-m", "doit"], cwd=cache, env=environment, capture_output=True, timeout=300, check=False
    )
    return Ended(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))


class Scene:
    """A cache before a build, what that build must publish, and the calls that it makes."""

    def __init__(self, home: Path, name: str) -> None:
        self.cache, self.before, self.log = home / "world" / "cache", home / "world" / "before", home / "log"
        crashing.new_world(home / "world")
        if name != "first":
            assert doit(self.cache).code == 0
        if name == "next":
            crashing.put_tile(home / "world" / "tiles", 1, 1, seed=999)
        shutil.move(self.cache, self.before)
        self.restore()
        ended = doit(self.cache, *tracing(list(ERRORS), self.log))
        assert ended.code == 0, ended.said
        self.calls, self.seen = self._numbered(), {crashing.state_of(self.before)}
        self.expected = crashing.published(self.cache)

    def restore(self) -> None:
        """Put the cache back as it was, under the name that it always has."""
        faults.remove(self.cache)
        faults.copy_cache(self.before, self.cache)

    def _numbered(self) -> dict[str, list[int]]:
        """For each call, of each time it was made, how often its thread had made it."""
        made, numbers = Counter[tuple[str, str]](), dict[str, list[int]]()
        for thread, call in re.findall(r"^(\d+) +(\w+)\(", self.log.read_text(errors="replace"), re.MULTILINE):
            made[thread, call] += 1
            numbers.setdefault(call, []).append(made[thread, call])
        return numbers

    def sample(self, count: int, seed: int) -> list[Point]:
        """Draw points; a call that is made ten times as often is drawn about three times as often."""
        rng, calls = random.Random(seed), sorted(self.calls)
        weights = [len(self.calls[call]) ** 0.5 for call in calls]
        drawn = dict.fromkeys(self._draw(rng, rng.choices(calls, weights)[0]) for _ in range(count * 4))
        return list(drawn)[:count]

    def _draw(self, rng: random.Random, call: str) -> Point:
        error = rng.choice(ERRORS[call])
        return Point(call, rng.choice(self.calls[call]), error, error in LASTING and rng.random() < 0.5)

    def what_is_wrong(self, point: Point) -> tuple[str, str]:
        """Build with the error, then without. Return how the first ended, and what is wrong ("" if nothing)."""
        self.restore()
        ended = doit(self.cache, *point.words(self.log))
        met = "".join(line for line in self.log.read_text(errors="replace").splitlines(True) if "INJECTED" in line)
        how, wrong = outcome_of(ended, met)
        wrong += "".join(self.wrong_now(finished=how == "done"))
        if (state := crashing.state_of(self.cache)) not in self.seen:
            self.seen.add(state)
            wrong += "".join(self.wrong_next())
        return how, wrong and f"\n=== {point}\n{wrong}--- met\n{met[:600]}--- said ({ended.code})\n{ended.said[-2500:]}"

    def wrong_next(self) -> Iterator[str]:
        engines = crashing.finished_engines(self.cache)
        again = doit(self.cache)
        if again.code != 0:
            yield f"the next run failed: {again.said}\n"
        elif engines and json.loads((self.cache / ".build" / "build-report.json").read_text())["engines_built"]:
            yield "an engine was compiled again\n"
        yield from self.wrong_now(finished=True)
        yield from (f"left over: {name}\n" for name in crashing.leftovers(self.cache))

    def wrong_now(self, *, finished: bool) -> Iterator[str]:
        reasons = crashing.whole(self.cache)
        if reasons:
            yield f"refused: {reasons}\n"
        if finished and not os.path.lexists(self.cache / "current"):
            yield "nothing is published\n"
        elif finished and not reasons:
            found, expected = (crashing.decided(files) for files in (crashing.published(self.cache), self.expected))
            differs = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            if differs:
                yield f"not as a clean build: {differs}\n"


OURS = re.compile(r'File "[^"]*/(rules|provisioning)/')
NOT_BEGUN = re.compile(
    "error while loading shared libraries|Fatal Python error|No module named doit|Could not find platform|"
    "Plugin COMMAND module|cannot open shared object|cannot allocate memory"
)
"""Said by the system's loader, by Python or by doit before a line of ours has run."""


INTERPRETER = re.compile(r'^\d+ +(mmap\(|\w+\((AT_FDCWD|\d+), "[^"]*\.(py|pyc|so)["./]|\w+\(\d+, "", )', re.MULTILINE)
"""Calls of Python itself: an import that half fails, or a frame without memory, can raise anything anywhere."""


LOADER = re.compile(r"^\d+ +mmap\(NULL, 8192, .*MAP_ANONYMOUS, -1, 0\)")
"""The first call of glibc's loader for memory, after whose failure it ends by SIGSEGV without a word."""
KERNEL = re.compile(r"^\d+ +read\(\d+</sys/devices/system/cpu/", re.MULTILINE)
"""Reads of the kernel's table of CPUs: where one fails at its second piece, loading ONNX Runtime 1.32 is a SIGSEGV."""


def outcome_of(ended: Ended, met: str) -> tuple[str, str]:
    """Return how a build ended that met an error (the lines of strace), and what is wrong with that."""
    if ended.code == -signal.SIGSEGV and len(KERNEL.findall(met)) == len(met.splitlines()):
        return "library", ""
    if ended == (-signal.SIGSEGV, "") and LOADER.match(met):
        return "not begun", ""
    met = re.sub(r"(\d)<[^>\n]*>", r"\1", met)
    if ended.code == 0:
        said = re.search("SUCCESS|IDEMPOTENT_NO_OP", ended.said) or re.search(r"write\([12], ", met)
        return "done", ("" if said else "ended well without saying so\n") + traceback_of_ours(ended)
    if ended.code < 0 or ended.code >= 126:
        return "not begun" if ended.code == 127 else "signal", "" if ended.code == 127 else "ended by a signal\n"
    if "report the traceback above" in ended.said and INTERPRETER.search(met):
        return "unforeseen", ""
    if "next step" in ended.said:
        return "refused", traceback_of_ours(ended)
    if re.search(r"write\([12], |fcntl\([12], F_GETFD", met):  # by the latter Python finds out which streams it has
        return "silenced", traceback_of_ours(ended)
    if NOT_BEGUN.search(ended.said) or ("Traceback" in ended.said and not OURS.search(ended.said)):
        return "not begun", ""
    return "unclear", "no next step\n"


def traceback_of_ours(ended: Ended) -> str:
    return "a traceback of ours\n" if "Traceback" in ended.said and OURS.search(ended.said) else ""


WHERE = {
    "the names of doit's commands": ("/entry_points.txt", "openat", "EIO"),
    "the commands": ("rules/commands.py", "newfstatat", "EIO"),
    "doit's database": (".build/doit.sqlite", "pwrite64,fdatasync,pread64", "EIO"),
    "the catalogue": (".build/catalogue.sqlite", "pread64", "EROFS"),
    "what is published": ("current/Manifest.json", "openat", "ESTALE"),
}
"""For the bounded form: the end of a path, a call that is made with it, and its error."""


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.skipif(not strace_works(), reason="strace is not installed or may not trace")
def test_an_error_where_a_build_reads_or_writes(built_cache, tmp_path):
    log = tmp_path / "log"
    doit(built_cache, *tracing(["openat", "newfstatat"], log))
    seen = log.read_text(errors="replace")
    for what, (end, call, error) in WHERE.items():
        path = re.search(rf'"([^"]*{re.escape(end)}[^"]*)"', seen)
        assert path is not None, f"nothing is done with {what}"
        fault = ["-P", str(built_cache / path[1]), "-e", f"inject={call}:error={error}"]
        ended = doit(built_cache, *tracing(call.split(","), log), *fault)
        met = log.read_text(errors="replace")
        assert "INJECTED" in met, what
        assert outcome_of(ended, met) in (("refused", ""), ("done", ""), ("not begun", "")), (what, ended)
    again = doit(built_cache)
    assert again.code == 0, again.said


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    made: dict[str, Scene] = {}

    def scene(name: str) -> Scene:
        if name not in made:
            made[name] = Scene(tmp_path_factory.mktemp(name), name)
        return made[name]

    return scene


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.skipif(not strace_works(), reason="strace is not installed or may not trace")
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("name", ["first", "next"])
def test_sampled_errors(scenes, capsys, name, shard):
    scene = scenes(name)
    points = scene.sample(POINTS // 2, SEED)[shard::SHARDS]
    ends, wrong = Counter[str](), []
    for point in points:
        how, what = scene.what_is_wrong(point)
        ends[how] += 1
        wrong += [what] if what else []
    with capsys.disabled():
        print(f"\n{name}, shard {shard}: {dict(ends)}", end=" ")
    assert not wrong, "".join(wrong)
