"""Promises of what a person sees of long work: never silence for long, never a line too wide, never mixed with results."""

import io
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from provisioning import console
from provisioning.base import events
from provisioning.base.hashing import on_hashed
from provisioning.cli import main
from provisioning.console import awaiting, human
from provisioning.console.awaiting import progress_shown
from provisioning.console.bar import progress_line
from provisioning.console.human import CLEAR_LINE, HumanListener
from provisioning.console.progress import ProgressListener
from provisioning.flight.verify.digests import OpenFile, sha256_all
from tests.caches import KEY, manifest_of, publish

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def listener(clock):
    listener = HumanListener(io.StringIO(), clock=clock)
    listener.open()
    yield listener
    listener.close()


def test_without_a_terminal_a_line_comes_every_half_minute(listener, clock):
    console.task_started("descriptors")
    for second in range(0, 100, 5):
        clock.now = float(second)
        events.progress("descriptors", second, 200, unit="tiles")
        listener.beat()
    lines = listener.stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "descriptors" in lines[0]
    assert "30 of 200  170 s left" in lines[0].replace("2:50 min", "170 s")
    assert lines[0].endswith("(still running)")


def test_a_task_that_says_nothing_is_still_named(listener, clock):
    console.task_started("gates")
    clock.now = 45.0
    listener.beat()
    assert listener.stream.getvalue() == "gates                    45 s  (still running)\n"


def test_no_beat_before_work_or_after_it(listener, clock):
    clock.now = 100.0
    listener.beat()
    console.task_started("gates")
    console.task_ended("gates")
    clock.now = 200.0
    listener.beat()
    assert "still running" not in listener.stream.getvalue()


def test_the_heartbeat_is_a_thread_that_ends_with_the_listener(monkeypatch):
    monkeypatch.setattr(human, "BEAT_S", 0.03)
    listener = console.listen("human", io.StringIO())
    assert listener._beating is None
    console.task_started("corpus")
    listener._beating.join(0.2)
    listener.close()
    listener._beating.join(2)
    assert not listener._beating.is_alive()
    assert "(still running)" in listener.stream.getvalue()


@given(
    st.text("abcdefgh:-", min_size=1, max_size=60),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from(["tiles", "bytes", "s", "vectors", ""]),
    st.just(0.0) | st.floats(1e-5, 1e7),
    st.booleans(),
    st.sampled_from([59, 79, 119]),
)
def test_no_line_is_wider_than_asked(task, done, total, unit, rate, fancy, width):
    line = progress_line(task, done=done, total=total, unit=unit, rate=rate, fancy=fancy, width=width)
    assert len(line) <= width


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (59, "descriptors              12345 of 123456  15:26 min left"),
        (79, "descriptors              12345 of 123456  15:26 min left  120 tiles/s"),
        (119, "descriptors              [#...............]  12345 of 123456  15:26 min left  120 tiles/s"),
    ],
)
def test_the_remaining_time_fits_every_width(width, line):
    said = progress_line("descriptors", done=12345, total=123456, unit="tiles", rate=120, fancy=False, width=width)
    assert said == line


def test_bytes_have_prefixes():
    line = progress_line("verify", done=1_500_000_000, total=6_000_000_000, unit="bytes", rate=250e6, fancy=False)
    assert line.endswith("1.5 GB of 6.0 GB  18 s left  250 MB/s")


def test_hashing_shows_how_far_it_is_and_ends_at_the_whole(tmp_path):
    files, heard = [], []
    for number in range(3):
        path = tmp_path / str(number)
        path.write_bytes(bytes(3_000_000))
        files.append(OpenFile(path.name, os.open(path, os.O_RDONLY), 3_000_000))
    token = on_hashed.set(lambda done, total: heard.append((done, total)))
    sha256_all(files)
    on_hashed.reset(token)
    assert heard[-1] == (9_000_000, 9_000_000)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_work_that_ends_at_once_does_not_flicker(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_shown(True):
        events.progress("tiles", 5, 10, unit="tiles")
        events.progress("tiles", 10, 10, unit="tiles")
    assert screen.getvalue() == ""


def test_results_are_not_mixed_with_the_live_line(monkeypatch):
    monkeypatch.setattr(awaiting, "UNSEEN_S", 0)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_shown(True):
        events.progress("tiles", 5, 10, unit="tiles")
        print("result")
    shown = screen.getvalue().split(CLEAR_LINE)
    assert shown[-1] == "result\n"
    assert "5 of 10" in shown[-2]


@pytest.mark.parametrize("shown", [True, False])
def test_quiet_shows_none(shown, monkeypatch):
    monkeypatch.setattr(awaiting, "UNSEEN_S", 0)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_shown(shown):
        events.progress("tiles", 5, 10, unit="tiles")
    assert ("5 of 10" in screen.getvalue()) == shown


def test_a_command_shows_progress_and_nothing_else_of_the_log():
    stream = io.StringIO()
    listener = ProgressListener(stream)
    listener.open()
    events.event("published", generation="x")
    events.warn("task.ignored", task="x")
    listener.close()
    assert stream.getvalue() == ""
    assert on_hashed.get() is None


@pytest.mark.slow
def test_a_bundle_of_megabytes_on_a_real_terminal(tmp_path):

    cache = publish(tmp_path / "cache")
    pid, master = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "provisioning.cli", "status", str(cache.root)])
    said = b""
    try:
        while piece := os.read(master, 65536):
            said += piece
    except OSError:
        pass
    os.waitpid(pid, 0)
    assert b"NOT VERIFIED" in said


def test_a_pipe_gets_no_escape(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "provisioning.cli", "init", "new", "--tiles", str(tmp_path), "--key", "k.pem"],
        capture_output=True, cwd=tmp_path, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert b"\x1b" not in done.stderr + done.stdout


@pytest.fixture
def heard():
    """The progress that is reported, by task: the last of each."""
    last: dict[str, tuple[object, ...]] = {}

    class Hearing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.__dict__["kind"].endswith(".progress"):
                fields = record.__dict__["kv"]
                last[fields["task"]] = (fields["done"], fields["total"], fields["unit"])

    handler, level = Hearing(), events.LOGGER.level
    events.LOGGER.addHandler(handler)
    events.LOGGER.setLevel(logging.DEBUG)
    yield last
    events.LOGGER.setLevel(level)
    events.LOGGER.removeHandler(handler)


def test_commands_that_move_a_cache_say_how_far_they_are(heard, tmp_path, monkeypatch, capsys):
    cache = publish(tmp_path / "cache")
    pem = tmp_path / "key.pem"
    pem.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    size = sum(entry.bytes for entry in manifest_of().files)
    key = ["--public-key", str(pem)]
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", str(cache.root), "-o", "x.tar", *key]) == 0, capsys.readouterr()
    assert heard["bundle"] == (size, size, "bytes")
    assert heard["verify"] == (size, size, "bytes")
    (tmp_path / "drive").mkdir()
    assert main(["sync", "drive/cache", str(cache.root), *key]) == 0, capsys.readouterr()
    assert heard["copy"] == (size, size, "bytes")
    assert main(["install", "x.tar", "there", *key]) == 0, capsys.readouterr()
    assert heard["read the bundle"] == (size, size, "bytes")


def test_a_verification_that_is_soon_over_imports_no_logging_and_a_long_one_is_still_shown(tmp_path):
    """What shows progress takes a tenth of the time of a short `flightcache verify` to import."""
    cache = publish(tmp_path / "cache")
    pem = tmp_path / "key.pem"
    pem.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    words = ["verify", str(cache.root), "--public-key", str(pem), "--ground"]
    program = (
        "import sys; from provisioning.console import awaiting; awaiting.UNSEEN_S = float(sys.argv[1])\n"
        "from provisioning.cli import main; code = main(sys.argv[2:]); print(code, 'logging' in sys.modules)"
    )
    for unseen_s, ends in (("60", "0 False"), ("0", "0 True")):
        done = subprocess.run(
            [sys.executable, "-c", program, unseen_s, *words], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.stdout.splitlines()[-1] == ends, done.stdout + done.stderr
