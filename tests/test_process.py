"""A build asked to stop ends in time."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """
import hashlib, os, signal, threading, time
from provisioning.base.process.stopping import exit_soon_after
def stop(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
"""


def start(code: str) -> subprocess.Popen[str]:
    """Run Python `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_library_that_looks_at_no_signal_is_ended_hard_in_time():
    with start("""
        with exit_soon_after(signal.SIGTERM, within_s=0.3):
            threading.Timer(0.2, print, ["ready"], {"flush": True}).start()  # printed when the library is at work
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    """) as child:
        child.stdout.readline()
        asked = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(120) == 128 + signal.SIGTERM
        assert time.monotonic() - asked > 0.2
        assert "killed" in child.stderr.read()


def test_cleanup_that_hangs_is_ended_hard_in_time():
    with start("""
        with exit_soon_after(signal.SIGTERM, within_s=0.3):
            try:
                print("ready", flush=True); time.sleep(60)
            finally:
                time.sleep(60)
    """) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        assert child.wait(120) == 128 + signal.SIGTERM


def test_a_block_that_stops_in_order_is_left_in_peace():
    with start("""
        try:
            with exit_soon_after(signal.SIGTERM, within_s=3):
                try:
                    print("ready", flush=True); time.sleep(60)
                finally:
                    print("cleaned", flush=True)
        except KeyboardInterrupt:
            time.sleep(3.3)
            print("in order", flush=True)
    """) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        assert child.stdout.read() == "cleaned\nin order\n"
    assert child.returncode == 0


def test_a_signal_to_a_forked_child_leaves_the_parent_alone():
    with start("""
        with exit_soon_after(signal.SIGTERM, within_s=0.2):
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGTERM, lambda *a: os._exit(7))
                time.sleep(60)
            time.sleep(0.2)
            os.kill(child, signal.SIGTERM)
            status = os.waitpid(child, 0)[1]
            time.sleep(0.6)
            print("went on", os.waitstatus_to_exitcode(status), flush=True)
    """) as child:
        assert child.stdout.read() == "went on 7\n"
    assert child.returncode == 0
