"""One builder at a time: the lock excludes, tells who holds it, and outlives nobody."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from provisioning.base.disk import lock
from provisioning.base.disk.lock import FILE, build_lock
from provisioning.base.errors import BuildLockHeldError, FilesystemError

ROOT = Path(__file__).parents[1]


def python(code: str, cache: Path, **options) -> subprocess.Popen[str]:
    """Run `code` in another process with `cache` defined."""
    head = f"from pathlib import Path; cache = Path({str(cache)!r})\nfrom provisioning.base.disk.lock import build_lock, descriptors\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its standard input closes."""
    code = """
        import sys
        with build_lock(cache):
            print("held", flush=True)
            sys.stdin.read()
    """
    with python(code, tmp_path, stdin=subprocess.PIPE) as child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.stdin.close()


def test_a_held_lock_is_refused_with_its_holder(tmp_path, holder):
    with pytest.raises(BuildLockHeldError) as caught, build_lock(tmp_path):
        pass
    error = caught.value
    assert error.pid == holder.pid
    assert error.file == str(tmp_path / FILE)
    assert f"pid {holder.pid} on {os.uname().nodename}" in error.facts["holder"]
    assert error.facts["since"].startswith("20")
    assert "build_lock(cache)" in error.facts["command"]


def test_a_refused_builder_writes_nothing(tmp_path, holder):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BuildLockHeldError), build_lock(tmp_path):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_waiting_builder_gets_the_lock_when_it_is_free(tmp_path, holder):
    started = time.monotonic()
    threading.Timer(0.3, holder.stdin.close).start()
    with build_lock(tmp_path, timeout_s=120):
        assert time.monotonic() - started >= 0.3


def test_waiting_ends_when_its_time_is_up(tmp_path, holder):
    started = time.monotonic()
    with pytest.raises(BuildLockHeldError, match=r"waited 0\.3 s"), build_lock(tmp_path, timeout_s=0.3):
        pass
    assert time.monotonic() - started >= 0.3


def test_a_clock_set_back_does_not_lengthen_the_wait(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(BuildLockHeldError), build_lock(tmp_path, timeout_s=0.2):
        pass  # by that clock it would wait for ever


def test_the_lock_of_a_killed_holder_is_free_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    with build_lock(tmp_path):
        pass


def test_the_file_stays_and_keeps_its_inode(tmp_path):
    with build_lock(tmp_path):
        inode = (tmp_path / FILE).stat().st_ino
    for _ in range(3):
        with build_lock(tmp_path):
            pass
    assert (tmp_path / FILE).stat().st_ino == inode


def test_a_shorter_holder_line_leaves_no_tail_of_a_longer_one(tmp_path):
    (tmp_path / FILE).write_text("x" * 5000)
    with build_lock(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


def test_two_threads_of_one_process_exclude_each_other(tmp_path):
    outcomes = []

    def other():
        try:
            with build_lock(tmp_path):
                outcomes.append("entered")
        except BuildLockHeldError as error:
            outcomes.append(error.pid)

    with build_lock(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert outcomes == [os.getpid()]


def test_plain_flock_users_are_excluded_too(tmp_path):
    with build_lock(tmp_path), open(tmp_path / FILE) as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_filelock_users_are_excluded_too(tmp_path):
    filelock = pytest.importorskip("filelock")
    with build_lock(tmp_path), pytest.raises(filelock.Timeout), filelock.FileLock(tmp_path / FILE, timeout=0):
        pass
    with filelock.FileLock(tmp_path / FILE), pytest.raises(BuildLockHeldError), build_lock(tmp_path):
        pass


def test_a_lock_file_removed_by_hand_does_not_let_two_in(tmp_path):
    """Whoever waits on the removed file must not take it for the lock."""
    with build_lock(tmp_path):
        os.unlink(tmp_path / FILE)
        waiting = os.open(tmp_path / FILE, os.O_RDWR | os.O_CREAT)
        os.unlink(tmp_path / FILE)
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not lock._still_named(waiting, tmp_path / FILE)
        os.close(waiting)


def test_a_symbolic_link_for_the_lock_file_is_refused(tmp_path):
    (tmp_path / "elsewhere").touch()
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FilesystemError, match="lock the cache directory") as caught, build_lock(tmp_path):
        pass
    assert "symbolic link" in caught.value.next_step


def test_a_forked_child_keeps_the_lock_of_its_dead_parent(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "ORPHAN_S", 0.2)
    code = """
        import os, signal, sys, time
        with build_lock(cache):
            if os.fork() == 0:
                time.sleep(60)
            print(os.getpid(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with python(code, tmp_path) as parent:
        child = _children_of(int(parent.stdout.readline()), parent)
        parent.wait()
        try:
            with pytest.raises(BuildLockHeldError) as caught, build_lock(tmp_path):
                pass
            assert "a child of it still runs" in caught.value.facts["holder"]
        finally:
            for pid in child:
                os.kill(pid, signal.SIGKILL)
    with build_lock(tmp_path, timeout_s=5):
        pass


def test_children_of_a_dead_parent_are_waited_for(tmp_path):
    """A build that was killed leaves a compile that ends a moment later; the next build need not be asked for twice."""
    code = """
        import os, signal, sys, time
        with build_lock(cache):
            if os.fork() == 0:
                sys.stdin.read()
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with python(code, tmp_path, stdin=subprocess.PIPE) as parent:
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        waiting = threading.Timer(0.3, parent.stdin.close)
        waiting.start()
        with build_lock(tmp_path):
            assert parent.stdin.closed


def _children_of(pid: int, parent: subprocess.Popen[str]) -> list[int]:
    """Processes whose command line is that of `parent`, besides itself: its forks, also after its death."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != pid:
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if line[2:3] == [parent.args[2].encode()]:
                found.append(int(entry.name))
    return found


def test_a_child_given_the_descriptors_holds_the_lock_until_it_is_gone(tmp_path):
    with build_lock(tmp_path):
        child = subprocess.Popen(["sleep", "60"], pass_fds=lock.descriptors())
    with pytest.raises(BuildLockHeldError), build_lock(tmp_path):
        pass
    child.kill()
    child.wait()
    with build_lock(tmp_path, timeout_s=5):
        pass


def test_what_is_held_is_known_below_the_cache_directory_only(tmp_path):
    cache, other = tmp_path / "cache", tmp_path / "cache2"
    cache.mkdir()
    with build_lock(cache):
        assert lock.is_held_for(cache / ".build" / "store" / "x")
        assert not lock.is_held_for(other)
    assert not lock.is_held_for(cache)


def test_taking_the_lock_is_an_event(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="c10.provision"), build_lock(tmp_path):
        pass
    assert [(r.kind, r.kv["pid"]) for r in caplog.records] == [("c10.provision.lock.acquired", os.getpid())]


WORK = """
import os, random, sys, time
from provisioning.base.errors import BuildLockHeldError
random.seed(os.getpid())
end = time.monotonic() + float(sys.argv[1])
rounds = 0
while time.monotonic() < end:
    try:
        with build_lock(cache):
            inside = cache / "inside"
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                other = int(inside.read_text() or 0)
                if other and os.path.exists(f"/proc/{other}/exe"):  # a zombie has none
                    print("OVERLAP", other, flush=True)
            inside.write_text(str(os.getpid()))
            time.sleep(random.random() / 500)
            inside.unlink()
            rounds += 1
    except BuildLockHeldError:
        time.sleep(random.random() / 200)
print(rounds, flush=True)
"""


def overlaps(cache: Path, *, processes: int, seconds: float) -> Counter[str]:
    """Let many processes take the lock again and again while some are killed; count rounds, kills and overlaps."""
    head = (
        f"from pathlib import Path; cache = Path({str(cache)!r})\nfrom provisioning.base.disk.lock import build_lock\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", head + WORK, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    time.sleep(seconds / 2)
    for child in children[: processes // 4]:
        child.kill()
        time.sleep(seconds / processes)
    seen: Counter[str] = Counter()
    for child in children:
        said = child.communicate()[0].split()
        seen["overlaps"] += said.count("OVERLAP")
        seen["killed" if child.returncode else "ended"] += 1
        seen["rounds"] += int(said[-1]) if said and said[-1].isdigit() and not child.returncode else 0
    return seen


def test_many_processes_are_never_inside_together(tmp_path):
    rounds = 0
    for _ in range(10):  # on a busy machine a second sees few
        seen = overlaps(tmp_path, processes=8, seconds=1)
        assert seen["overlaps"] == 0
        assert seen["killed"] == 2
        rounds += seen["rounds"]
        if rounds > 50:
            return
    raise AssertionError(f"only {rounds} rounds")


@pytest.mark.slow
def test_thirty_two_processes_are_never_inside_together(tmp_path, capsys):
    seen = overlaps(tmp_path, processes=32, seconds=20)
    with capsys.disabled():
        print(f"\nlock: {dict(seen)}", end=" ")
    assert seen["overlaps"] == 0
    assert seen["rounds"] > 1000
