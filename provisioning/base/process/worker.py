"""The side of `workers` that reads foreign input: a small server that imports, and the processes that it forks.

`python -m provisioning.base.process.worker FD` serves one control socket. It imports what it is asked for, forks, and
says how a process that it forked ended; it reads no foreign input itself. Each process gives up files, network and the
right to grow before it serves its first request.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from io import IOBase
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.base import errors
from provisioning.base.process import landlock

HEADER = struct.Struct("<Q")
"""At the start of shared memory: the number of the item that is being read, from 1, counted over all requests."""
PAGE = mmap.PAGESIZE
ANSWERS = struct.Struct("<I")
ANSWER = struct.Struct("<BI")
"""Status, and bytes of what follows."""
READ, REFUSED, FAILED = range(3)
MOST_ANSWER_BYTES = 1 << 16
MOST_CONTROL_BYTES = 4096
PID = struct.Struct("<i")
MACHINE_FAILED = 75
"""Exit status of a process that could not serve: EX_TEMPFAIL of sysexits.h."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4

Handler = Callable[[Any, memoryview], bytes]
"""Reads one item, which may be trusted, writes into the room that is its own, and returns a short answer."""
_prepared: set[str] = set()


class Setup(NamedTuple):
    """What a process is given once, by whom it may trust."""

    arguments: tuple[object, ...]
    reads: tuple[str, ...]
    scratch: str
    room_bytes: int
    memory_bytes: int


def serve(control: socket.socket) -> None:
    """Fork a process for each pair of descriptors that comes, and wait for one on request, until the other end is gone.

    A request with descriptors names `module:function`, which makes the Handler; the reply is the PID, or why not. One
    without is a PID; the reply is its wait status.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # no process that reads foreign input looks into this one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        said, fds, _, _ = socket.recv_fds(control, MOST_CONTROL_BYTES, 2)
        if not said:
            return
        if not fds:
            control.send(PID.pack(os.waitpid(int(PID.unpack(said)[0]), 0)[1]))
            continue
        try:
            make = _named(said.decode())
            pid = os.fork()
        except Exception as error:  # noqa: BLE001 - an import may raise anything; the caller gets it
            control.send(f"{type(error).__name__}: {error}".encode()[:MOST_CONTROL_BYTES])
        else:
            if pid == 0:
                control.close()
                _be_worker(make, *fds)
            control.send(PID.pack(pid))
        for fd in fds:
            os.close(fd)


def _named(name: str) -> Callable[..., Handler]:
    """Return what makes a Handler, everything that it needs being imported.

    What its `prepare` imports is there in each process from the start: an import can fail at any later moment.
    """
    module, _, function = name.partition(":")
    found: Callable[..., Handler] = getattr(importlib.import_module(module), function)
    if name not in _prepared:
        getattr(found, "prepare", bool)()
        _prepared.add(name)
    return found


def _be_worker(make: Callable[..., Handler], stream_fd: int, memory_fd: int) -> None:
    """Serve until the other end is gone; never return."""
    status = 1
    with contextlib.suppress(BaseException):
        try:
            _serve_items(make, stream_fd, memory_fd)
            status = 0
        except (MemoryError, OSError):  # not of an item: those are answers
            status = MACHINE_FAILED
    os._exit(status)


def _serve_items(make: Callable[..., Handler], stream_fd: int, memory_fd: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with open(os.devnull, "r+b", buffering=0) as null:
        for fd in range(3):
            os.dup2(null.fileno(), fd)
    stream = socket.socket(fileno=stream_fd).makefile("rwb")
    setup: Setup = pickle.load(stream)  # noqa: S301 - from the build, which it may trust
    memory = memoryview(mmap.mmap(memory_fd, 0))
    reads = [*landlock.libraries(offline=True), *map(Path, setup.reads)]
    landlock.confine(reads, [Path(setup.scratch)] if setup.scratch else [], offline=True)
    os.environ["TMPDIR"] = tempfile.tempdir = setup.scratch or "/"
    made: list[Handler] = []

    def begin() -> bytes:
        made.append(make(*setup.arguments))
        return b""

    said = _guarded(begin)
    _limit_memory(setup.memory_bytes)
    _answer(stream, [said])
    count, size = 0, setup.room_bytes
    with contextlib.suppress(EOFError):
        while made:
            first, items = pickle.load(stream)  # noqa: S301 - the same
            answers = []
            for n, item in enumerate(items, first):
                count += 1
                HEADER.pack_into(memory, 0, count)
                room = memory[PAGE + n * size : PAGE + (n + 1) * size]
                answers.append(_guarded(partial(made[0], item, room)))
            _answer(stream, answers)


def _guarded(work: Callable[[], bytes]) -> tuple[int, bytes]:
    """Return the answer that `work` gives, or that says why there is none.

    Only an Error of ours says something of the item.
    """
    try:
        return READ, work()
    except errors.Error as error:
        return REFUSED, json.dumps(errors.as_plain(error)).encode()
    except MemoryError:
        return FAILED, b"out of memory"
    except OSError as error:
        return FAILED, (error.strerror or str(error)).encode()[:MOST_ANSWER_BYTES]
    except Exception as error:  # noqa: BLE001 - a library that was loaded half-way raises anything
        return FAILED, f"{type(error).__name__}: {error}".encode(errors="replace")[:MOST_ANSWER_BYTES]


def _limit_memory(more_bytes: int) -> None:
    """Let the address space of this process grow by so much and no more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * PAGE + more_bytes
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _answer(stream: IOBase, answers: Sequence[tuple[int, bytes]]) -> None:
    heads = b"".join(ANSWER.pack(status, len(body)) for status, body in answers)
    stream.write(b"".join([ANSWERS.pack(len(answers)), heads, *(body for _, body in answers)]))
    stream.flush()


def main() -> None:
    """Serve the control socket whose descriptor is the argument."""
    with contextlib.suppress(ConnectionError):  # whoever asked was killed: nobody is there to hear it
        serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
