"""Processes end when they must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def start(code: str) -> subprocess.Popen[str]:
    """Run Python `code` and wait for its first line."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block_as_stopped_error_after_its_cleanup(number):
    with start("""
        import time
        from provisioning.errors import StoppedError
        from provisioning.process import stops_in_order
        try:
            with stops_in_order():
                try:
                    print("ready", flush=True); time.sleep(60)
                finally:
                    print("cleaned", flush=True)
        except StoppedError as error:
            print(error.what, flush=True)
    """) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.stdout.read() == f"cleaned\nstopped by {number.name}\n"
    assert child.returncode == 0


def test_a_library_that_looks_at_no_signal_is_ended_hard_in_time():
    with start("""
        import hashlib
        from provisioning.process import stops_in_order
        with stops_in_order(within_s=0.3):
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    """) as child:
        child.stdout.readline()
        asked = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == 128 + signal.SIGTERM
        assert time.monotonic() - asked < 3


def test_cleanup_that_hangs_is_ended_hard_in_time():
    with start("""
        import time
        from provisioning.process import stops_in_order
        with stops_in_order(within_s=0.3):
            try:
                print("ready", flush=True); time.sleep(60)
            finally:
                time.sleep(60)
    """) as child:
        child.stdout.readline()
        asked = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == 128 + signal.SIGTERM
        assert 0.2 < time.monotonic() - asked < 3
        assert "ended hard" in child.stderr.read()


def test_a_signal_to_a_forked_child_leaves_the_parent_alone():
    with start("""
        import os, signal, time
        from provisioning.process import stops_in_order
        with stops_in_order(within_s=0.2):
            child = os.fork()
            if child == 0:
                time.sleep(60)
            time.sleep(0.2)
            os.kill(child, signal.SIGTERM)
            status = os.waitpid(child, 0)[1]
            time.sleep(0.6)
            print("went on", os.waitstatus_to_exitcode(status), flush=True)
    """) as child:
        assert child.stdout.read() == "went on 143\n"
    assert child.returncode == 0


def test_forked_children_die_with_a_killed_parent():
    with start("""
        import os, time
        from provisioning.process import guard_forks
        guard_forks(); guard_forks()
        child = os.fork()
        if child:
            print(child, flush=True)
        time.sleep(60)
    """) as child:
        grandchild = int(child.stdout.readline())
        assert is_running(grandchild)
        child.kill()
        assert gone_within(grandchild, 2)


def test_without_the_guard_a_forked_child_lives_on():
    with start("""
        import os, time
        child = os.fork()
        if child:
            print(child, flush=True)
        time.sleep(60)
    """) as child:
        grandchild = int(child.stdout.readline())
        child.kill()
        assert not gone_within(grandchild, 0.3)
        os.kill(grandchild, signal.SIGKILL)


def test_handlers_are_given_back():
    from provisioning.process import stops_in_order

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with stops_in_order():
        assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before
