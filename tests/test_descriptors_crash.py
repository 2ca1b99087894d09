"""Every file-system call of the descriptor store, killed and failed: what was durable stays, the next writer goes on."""

import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from provisioning.base.errors import Error
from tests import faults
from tests.descriptor_rows import fill, opened, shas, vectors

OLD, NEW = range(6), range(6, 12)


def write(path):
    """Append twice, flush between, and compact at the end: every path through the store's files."""
    with opened(path) as kept:
        kept.append(shas(*NEW[:3], 0), vectors(*NEW[:3], 0))
        kept.flush()
        kept.append(shas(*NEW[3:]), vectors(*NEW[3:]))
        kept.flush()
        kept.compact()


def check(path, fault):
    """Old rows are there; new ones are there or missing, never wrong; and everything can be written."""
    with opened(path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*OLD)), vectors(*OLD), err_msg=str(fault))
        absent = kept.missing(shas(*NEW))
        held = [n for n in NEW if shas(n)[0] not in absent]
        if held:
            np.testing.assert_array_equal(kept.gather(shas(*held)), vectors(*held), err_msg=str(fault))
        kept.append(shas(*NEW), vectors(*NEW))
        np.testing.assert_array_equal(kept.gather(shas(*OLD, *NEW)), vectors(*OLD, *NEW), err_msg=str(fault))


@pytest.fixture(params=["first", "later"])
def scene(request, tmp_path):
    """A store with and without rows of before, and the calls of an undisturbed run."""
    before, scratch = tmp_path / "before", tmp_path / "scratch"
    fill(before, *OLD)
    if request.param == "later":
        write(before)
        fill(before, *OLD)
    shutil.copytree(before, scratch)
    calls = faults.run(lambda: write(scratch), scratch).calls
    assert calls

    def run(fault):
        shutil.rmtree(scratch)
        shutil.copytree(before, scratch)
        return scratch, faults.run(lambda: write(scratch), scratch, fault)

    return calls, run


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_call_loses_nothing_durable(scene, every):
    calls, run = scene
    for fault in faults.kills(calls)[::every]:
        path, ended = run(fault)
        assert ended.killed, fault
        check(path, fault)


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scene", ["first"], indirect=True)
def test_a_failure_of_any_call_is_a_typed_error_and_loses_nothing_durable(scene, every):
    calls, run = scene
    ends = Counter()
    for fault in faults.failures(calls)[::every]:
        path, ended = run(fault)
        assert ended.error is None or isinstance(ended.error, Error), (fault, calls[fault.at], ended.shown)
        ends[type(ended.error).__name__] += 1
        check(path, fault)
    assert ends["FilesystemError"] * every > len(calls)


ENDLESS = """
import os, sys
sys.path.insert(0, os.getcwd())
from pathlib import Path
from tests.descriptor_rows import opened, shas, vectors
kept = opened(Path(sys.argv[1]))
print("open", flush=True)
n = int(sys.argv[2])
while True:
    kept.append(shas(n, n + 1, n + 2), vectors(n, n + 1, n + 2))
    kept.flush()
    n += 3
    print(n, flush=True)
"""


def killed_writer(path, first, after_s, *, flushes=0):
    """Run a writer that flushes after each append, kill it `after_s` seconds after so many, and return the number behind the last row it flushed."""
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path), str(first)], stdout=subprocess.PIPE, text=True)
    lines = []
    try:
        assert writer.stdout.readline() == "open\n"
        lines += [writer.stdout.readline() for _ in range(flushes)]
        time.sleep(after_s)
    finally:
        writer.kill()
        lines += writer.communicate()[0].split("\n")[:-1]
    return max([first, *map(int, lines)])


@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_writers_killed_at_random_lose_nothing_they_had_flushed(tmp_path, rounds):
    rng, first = np.random.default_rng(rounds), 0
    for left in reversed(range(rounds)):
        end = killed_writer(tmp_path, first, rng.uniform(0, 0.1), flushes=not left)
        with opened(tmp_path) as kept:
            held = [*range(end), *(n for n in range(end, end + 6) if not kept.missing(shas(n)))]
            if held:
                np.testing.assert_array_equal(kept.gather(shas(*held)), vectors(*held))
        first = end
    assert first > 0
