"""Processes that read foreign input: right answers, limits, no secret, and nothing of them that can harm the build."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provisioning.base.errors import ConfigError, FilesystemError, TileError
from provisioning.base.process import landlock, worker, workers
from provisioning.base.process.workers import Items, Limits, SeveralError, StoppedError, Workers
from tests import working
from tests.processes import gone

ITEMS = Items("the tile", lambda item: str(item[0]), TileError)
SHORT = Limits(cpu_s=0.1, clock_s=20.0, memory_bytes=256 << 20)
needs_landlock = pytest.mark.skipif(landlock.version() < 4, reason="this kernel's Landlock is absent or too old")


@pytest.fixture(scope="module")
def shared():
    """One process for the tests that leave it alive, with four rooms of eight bytes and short limits."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FLIGHTCACHE_KEY_PASSWORD", "hush")
        with Workers(working.make, items=ITEMS, room_bytes=8, rooms=4, limits=SHORT, needs_scratch=True) as owner:
            yield owner.worker()


def one(worker, *item):
    """Return the answer for one item."""
    return worker.read([item])[0]


def test_each_item_is_read_into_its_own_room(shared):
    assert shared.read([("fill", 1), ("fill", 2)], first=1) == [b"filled", b"filled"]
    shared.read([("fill", 7)], first=3)
    assert bytes(shared.rooms[8:]) == b"\1" * 8 + b"\2" * 8 + b"\7" * 8


def test_it_is_another_process_and_the_same_one_for_all_requests(shared):
    assert one(shared, "pid") == one(shared, "pid") != str(os.getpid()).encode()


def test_an_error_of_an_item_comes_back_whole_and_costs_no_other_item(shared):
    before, error, after = shared.read([("pid",), ("refuse", "no image"), ("pid",)])
    assert before == after
    assert isinstance(error, TileError)
    assert (error.what, error.file, error.key, error.next_step) == ("no image", "a.png", "k", "step")
    assert error.facts == {"fact": "1"}
    assert isinstance(one(shared, "refuse_otherwise"), ConfigError)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (("loop",), "more than 0.1 s of processor time"),
        (("crash",), "SIGSEGV"),
        (("leave",), "broke"),
    ],
)
def test_an_item_that_ends_two_processes_is_refused_by_name_and_the_others_are_read(shared, how, said):
    first, refused, last = shared.read([("fill", 3), how, ("fill", 4)])
    assert (first, last) == (b"filled", b"filled")
    assert bytes(shared.rooms[:8]) == b"\3" * 8
    assert bytes(shared.rooms[16:24]) == b"\4" * 8
    assert isinstance(refused, TileError)
    assert said in refused.what
    assert refused.facts == {"item": how[0]}


def test_a_wait_without_end_is_over_its_time_by_the_clock_and_says_nothing_of_the_item():
    with Workers(working.make, items=ITEMS, limits=Limits(clock_s=0.2)) as owner:
        worker = owner.worker()
        with pytest.raises(FilesystemError, match=r"not read within 0\.2 s"):
            one(worker, "sleep", 60)


@pytest.mark.parametrize("how", ["loop", "crash", "leave"])
def test_an_item_at_which_only_one_process_ends_is_read(shared, tmp_path, how):
    marker = str(Path(shared._owner.setup.scratch) / f"{tmp_path.name}")
    assert shared.read([("pid",), ("once", marker, how)])[1] == b"second time"


def test_a_process_that_is_killed_from_outside_says_nothing_of_the_item(shared):
    with pytest.raises(FilesystemError, match=r"this computer failed.*SIGKILL") as caught:
        one(shared, "die", signal.SIGKILL)
    assert caught.value.facts == {"item": "die"}
    assert one(shared, "fill", 1) == b"filled"


def test_an_item_that_wants_more_memory_than_it_may_is_no_fact_about_it(shared):
    with pytest.raises(FilesystemError, match="out of memory"):
        one(shared, "eat", 512 << 20)
    assert one(shared, "eat", 64 << 20) == b"eaten"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOSPC])
def test_what_the_system_refuses_says_nothing_of_the_item(shared, number):
    with pytest.raises(FilesystemError, match=os.strerror(number)):
        one(shared, "fail", number)


def test_an_exception_that_nobody_foresaw_says_nothing_of_the_item(shared):
    with pytest.raises(FilesystemError, match=r"this computer failed.*ZeroDivisionError"):
        one(shared, "bug")
    assert one(shared, "fill", 1) == b"filled"


def test_an_exception_that_one_process_meets_and_the_next_does_not_is_none(shared, tmp_path):
    marker = str(Path(shared._owner.setup.scratch) / f"{tmp_path.name}")
    assert shared.read([("pid",), ("once", marker, "bug")])[1] == b"second time"


def test_what_reads_is_imported_and_used_before_any_process_is_forked(shared):
    assert one(shared, "prepared") == b"in the server"


def test_one_of_several_that_ends_a_process_has_all_of_them_read_one_by_one(shared):
    several = ITEMS._replace(are_several=lambda item: item[0] == "crash")
    with Workers(working.make, items=several) as owner:
        first, ended = owner.worker().read([("pid",), ("crash",)])
        assert isinstance(ended, SeveralError)
        assert first == owner._all[0].read([("pid",)])[0]  # a new process, and no more than one


def test_items_without_end_that_break_processes_end_the_work():
    with Workers(working.make, items=ITEMS, limits=SHORT) as owner:
        worker = owner.worker()
        with pytest.raises(TileError, match="21 times") as caught:
            worker.read([("crash",)] * 30)
    assert "made to break" in caught.value.next_step


@needs_landlock
def test_it_reads_what_it_was_given_and_nothing_else(tmp_path):
    given, other = tmp_path / "given", tmp_path / "other"
    given.write_bytes(b"tile")
    other.write_bytes(b"PRIVATE KEY")
    with Workers(working.make, items=ITEMS, reads=[given]) as owner:
        worker = owner.worker()
        assert one(worker, "opens", str(given)) == b"tile"
        assert one(worker, "opens", str(other)) == b"PermissionError"
        assert one(worker, "writes", str(given)) == b"PermissionError"
        assert one(worker, "writes", str(tmp_path / "new")) == b"PermissionError"


def test_it_writes_into_its_own_directory_which_is_gone_in_the_end():
    with Workers(working.make, items=ITEMS, needs_scratch=True) as owner:
        scratch = Path(owner.setup.scratch)
        assert one(owner.worker(), "writes", str(scratch / "x")) == b"written"
    assert not scratch.exists()


@needs_landlock
def test_it_has_no_network(shared):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert one(shared, "connects", server.getsockname()[1]) == b"PermissionError"


def test_it_has_no_secret_and_looks_into_no_other_process(shared):
    assert one(shared, "sees", "FLIGHTCACHE_KEY_PASSWORD") == b"nothing"
    assert one(shared, "sees", "PATH") == os.environ["PATH"].encode()
    server = workers._server._process.pid
    for environment in (Path(f"/proc/{server}/environ"), Path(f"/proc/{int(one(shared, 'pid'))}/environ")):
        if os.access(environment, os.R_OK):
            assert b"hush" not in environment.read_bytes()
    assert one(shared, "peeks", os.getpid()) == b"Operation not permitted"
    assert one(shared, "peeks", server) == b"Operation not permitted"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may look into the memory of a process that may not be dumped")
def test_its_memory_does_not_hold_what_the_build_holds():
    secret = os.urandom(16)
    with Workers(working.make, items=ITEMS) as owner:
        worker = owner.worker()
        assert one(worker, "has_in_memory", secret[::-1]) == b"False"
        assert one(worker, "has_in_memory", b"SENTINEL of working.py"[::-1]) == b"True"
    assert secret


def test_memory_that_is_shared_cannot_be_made_smaller(shared):
    said = one(shared, "shrink")
    assert set(said.split()) == {b"refused"}
    assert bytes(shared.rooms)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 64,
        struct.pack("<I", 2) + bytes(10),
        struct.pack("<I", 1) + struct.pack("<BI", 0, 1 << 30),
        b"\x80\x04N.",
    ],
)
def test_an_answer_that_is_none_is_a_broken_process(answer):
    with Workers(working.make, items=ITEMS) as owner:
        refused = one(owner.worker(), "forge", answer)
    assert isinstance(refused, TileError)
    assert "broke the process that read it, twice" in refused.what


def test_an_answer_that_is_too_long_is_none(shared):
    assert len(one(shared, "large", 1 << 16)) == 1 << 16
    assert isinstance(one(shared, "large", (1 << 16) + 1), TileError)


def test_a_process_that_cannot_begin_says_why(tmp_path):
    with Workers(working.make_confined, "the raster is damaged", items=ITEMS) as owner:
        worker = owner.worker()
        with pytest.raises(TileError, match="the raster is damaged"):
            one(worker, "pid")


def test_a_target_that_cannot_be_imported_is_an_error_of_this_computer(monkeypatch):
    with Workers(working.make, items=ITEMS) as owner:
        monkeypatch.setattr(owner, "target", "tests.nothing_of_the_kind:make")
        with pytest.raises(FilesystemError, match="nothing_of_the_kind"):
            one(owner.worker(), "pid")
        monkeypatch.undo()
        assert one(owner.worker(), "fill", 1) == b"filled"


def test_a_server_that_was_killed_is_started_again():
    with Workers(working.make, items=ITEMS) as owner:
        worker = owner.worker()
        first, server = int(one(worker, "pid")), workers._server._process.pid
        os.kill(server, signal.SIGKILL)
        assert gone(first)  # with its parent
        assert int(one(worker, "pid")) != first
        assert workers._server._process.pid != server


def test_closing_ends_a_wait_and_the_process_within_a_moment():
    owner = Workers(working.make, items=ITEMS)
    worker, raised = owner.worker(), []
    pid = int(one(worker, "pid"))

    def wait():
        try:
            one(worker, "sleep", 60)
        except StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    owner.close()
    thread.join()
    assert time.monotonic() - started < 50
    assert raised
    assert gone(pid)


def test_processes_of_two_threads_work_at_the_same_time():
    with Workers(working.make, items=ITEMS) as owner:
        pair = [owner.worker(), owner.worker()]
        for each in pair:
            one(each, "pid")
        with ThreadPoolExecutor(2) as pool:
            slept = pool.map(lambda each: [float(at) for at in one(each, "sleep", 2.0).split()], pair)
        (began, ended), (other_began, other_ended) = slept
        assert max(began, other_began) < min(ended, other_ended)


def test_no_file_handle_left_is_an_error_of_this_computer_and_passes():
    with Workers(working.make, items=ITEMS) as owner:
        one(owner.worker(), "pid")
        worker = owner.worker()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(lowest_free := os.dup(0))  # a limit counts numbers, not files: below it there may be gaps
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            with pytest.raises(FilesystemError, match="Too many open files") as caught:
                one(worker, "pid")
            with pytest.raises(FilesystemError, match="Too many open files"):
                owner.worker()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "ulimit -n" in caught.value.next_step
        assert one(worker, "fill", 1) == b"filled"


def test_no_memory_to_share_is_an_error_of_this_computer(monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refused)
    with Workers(working.make, items=ITEMS) as owner, pytest.raises(FilesystemError, match="no memory can be shared"):
        owner.worker()


def test_shared_memory_needs_no_dev_shm():
    with Workers(working.make, items=ITEMS, room_bytes=8 << 20) as owner:
        assert one(owner.worker(), "fill", 1) == b"filled"
        assert "/memfd:flightcache" in Path("/proc/self/maps").read_text()


def test_a_handle_is_left_open_by_nothing():
    def use():
        with Workers(working.make, items=ITEMS, room_bytes=8) as owner:
            one(owner.worker(), "pid")
        return len(os.listdir("/proc/self/fd"))

    assert use() == use() == use()


def test_a_server_whose_command_was_killed_says_nothing():
    """What it writes to standard error would stand in the terminal after the command is gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with open(os.devnull, "rb") as null:
        socket.send_fds(ours, [b"no_such_module:thing"], [null.fileno()])
    ours.close()
    with theirs:
        server = subprocess.run(
            [sys.executable, "-m", worker.__name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], capture_output=True, check=False, timeout=300,
        )  # fmt: skip
    assert (server.returncode, server.stderr) == (0, b"")


def test_a_server_that_cannot_be_loaded_is_an_error_with_its_last_words(tmp_path, monkeypatch, capfd):
    """A disk or memory that fails for a moment: what the server says of it is no second message."""
    (tmp_path / "resource.py").write_text('raise ImportError("no such part")\n')
    found = os.pathsep.join([str(tmp_path), str(Path(workers.__file__).parents[3])])
    monkeypatch.setattr(workers, "bare_environment", lambda: {"PYTHONPATH": found})
    monkeypatch.setattr(workers, "_server", None)
    with (
        pytest.raises(FilesystemError, match="did not start: ImportError: no such part") as caught,
        Workers(working.make, items=ITEMS, room_bytes=8, rooms=1, limits=SHORT) as owner,
    ):
        one(owner.worker(), "pid")
    workers._server.close()
    assert caught.value.next_step
    assert capfd.readouterr().err == ""
