"""Reading much foreign input fast: processes with limits and no secret, which write what they read into shared memory.

What goes to such a process is trusted (pickled). What comes back is not: short answers in frames of fixed form, and
bytes in memory that cannot be made smaller. It has no file but what it reads, no network (`landlock`), an environment
without passwords, and limits of time and memory for each item. An item at which a process ends, or goes over its time,
is tried once more in a new process; then it is refused. A lack of memory, a kill from outside, or a wait without end
is an error of this computer, and says nothing about the item.

`confined` is for one file that takes long; this is for many that take a millisecond each. All processes are forked by
one small server (`worker`), which imports NumPy and the like once: starting it costs as much as importing them.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import io
import json
import mmap
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.base import errors
from provisioning.base.process import worker
from provisioning.base.process.confined import OF_THE_SYSTEM, bare_environment
from provisioning.base.process.worker import (
    ANSWER,
    ANSWERS,
    FAILED,
    HEADER,
    MACHINE_FAILED,
    MOST_ANSWER_BYTES,
    PID,
    READ,
    REFUSED,
)

LOOK_S = 0.2
"""How often a process that takes long is looked at, and how soon a wait ends when it is to stop."""
MOST_LOST = 20
"""Items that may be refused because they end processes or take too long, before all is given up."""
RECEIVED_BYTES = 1 << 13
_F_ADD_SEALS, _NEITHER_SHRINK_NOR_GROW = 1033, 1 | 2 | 4
_TO_DIE_S = 2.0
_STEPS = {
    errno.ENOMEM: "close programs or raise the limit of memory (`ulimit -v`), then run again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), then run again",
    errno.ENFILE: "the system is out of file handles: close programs, then run again",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`), then run again",
    errno.ENOSYS: "use Linux 3.17 or newer: memory is shared with `memfd_create`",
}


class Limits(NamedTuple):
    """What one item may take: processor time, time by the clock, and bytes beyond those of the idle process."""

    cpu_s: float = 30.0
    clock_s: float = 300.0
    memory_bytes: int = 1 << 30


DEFAULT_LIMITS = Limits()
START_S = 120.0
START = Limits(cpu_s=START_S, clock_s=START_S)


class Items(NamedTuple):
    """What is read: `noun` is what one is called (`the tile`), `named` says which; `error` is the kind of its Error.

    `are_several` tells of an item whether it is several: at which of them a process ended is not known.
    """

    noun: str
    named: Callable[[Any], str]
    error: type[errors.Error] = errors.TileError
    are_several: Callable[[Any], bool] = lambda _: False


class SeveralError(errors.Error):
    """A process ended at an item that is several: they are to be read one by one."""


class StoppedError(Exception):
    """The wait for an answer ended because the work of all is to end."""


class _EndedError(Exception):
    """The process is gone, or was ended: the number of the item it was at, why, and whether the item can be blamed."""

    def __init__(self, at: int, why: str, *, of_the_item: bool) -> None:
        super().__init__(why)
        self.at, self.why, self.of_the_item = at, why, of_the_item


class Workers:
    """Processes of one kind; each is started by the first request to it. Close it to end them all.

    make            a function of a module of this package: called there with `arguments`, it returns the Handler
    items           what it reads, in the words of errors
    reads           the files and directories that it opens
    room_bytes      shared memory for one item; of `rooms` in each process
    needs_scratch   it may write below a directory of its own (TMPDIR there), which is gone in the end
    """

    def __init__(
        self,
        make: Callable[..., worker.Handler],
        *arguments: object,
        items: Items,
        reads: Iterable[Path] = (),
        room_bytes: int = 0,
        rooms: int = 1,
        limits: Limits = DEFAULT_LIMITS,
        needs_scratch: bool = False,
    ) -> None:
        self.target = f"{make.__module__}:{make.__name__}"
        self.items, self.limits = items, limits
        self.bytes = worker.PAGE + rooms * room_bytes
        self.stop = threading.Event()
        self._lost = 0
        self._all: list[Worker] = []
        self._scratch = tempfile.mkdtemp(prefix="flightcache-") if needs_scratch else ""
        places = tuple(os.path.realpath(path) for path in reads)
        self.setup = worker.Setup(arguments, places, self._scratch, room_bytes, limits.memory_bytes)

    def worker(self) -> Worker:
        """Return one more, which one thread uses at a time; FilesystemError if there is no memory to share."""
        self._all.append(Worker(self))
        return self._all[-1]

    def close(self) -> None:
        """End all processes; whoever still waits for one gets a StoppedError."""
        self.stop.set()
        while self._all:
            self._all.pop().close()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Workers:  # noqa: PYI034 - Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refused(self, body: bytes) -> errors.Error:
        """Return the error that a process answered with."""
        try:
            return errors.from_plain(json.loads(body), self.items.error)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return self.items.error(f"{self.items.noun} was refused without a reason")

    def lost(self, item: object, why: str) -> errors.Error:
        """Return the error of an item at which two processes ended; raise it where these are too many."""
        self._lost += 1
        facts = {"item": self.items.named(item)}
        if self._lost > MOST_LOST:
            raise self.items.error(
                f"{self._lost} times {self.items.noun} could not be read: {why}",
                facts=facts,
                next_step="look at where these files come from: they may be made to break what reads them",
            )
        return self.items.error(f"{self.items.noun} cannot be read: {why}, twice", facts=facts)


class Worker:
    """One process and its shared memory, which outlives it."""

    def __init__(self, owner: Workers) -> None:
        self._owner = owner
        self._process: _Process | None = None
        self._busy = threading.RLock()
        with _of_this_computer("no memory can be shared with another process"):
            self._memory_fd = _shared_memory(owner.bytes)
            self._memory = memoryview(mmap.mmap(self._memory_fd, owner.bytes))

    @property
    def rooms(self) -> memoryview:
        """What the process writes into: rooms after each other."""
        return self._memory[worker.PAGE :]

    def read(self, items: Sequence[object], *, first: int = 0) -> list[bytes | errors.Error]:
        """Have each item read into the room of its position, `first` being that of the first one.

        Return the answer for each, or why it was refused. FilesystemError: this computer lacks memory, processes, file
        handles. StoppedError: the processes were closed.
        """
        with self._busy:
            try:
                return self._read(items, first)
            except _EndedError as ended:
                at = ended.at
            alone = self._alone(items[at], first + at)
            before = self.read(items[:at], first=first) if at else []
            after = self.read(items[at + 1 :], first=first + at + 1) if at + 1 < len(items) else []
            return [*before, alone, *after]

    def _alone(self, item: object, room: int) -> bytes | errors.Error:
        """Read an item at which a process has ended in a new one."""
        if self._owner.items.are_several(item):
            return SeveralError("a process ended at one of several")
        try:
            return self._read([item], room)[0]
        except _EndedError as ended:
            if ended.of_the_item:
                return self._owner.lost(item, ended.why)
            raise self._failed(item, ended.why) from None

    def _read(self, items: Sequence[object], first: int) -> list[bytes | errors.Error]:
        try:
            answers = self._started().exchange(pickle.dumps((first, items)), len(items))
        except BaseException:
            self._end()
            raise
        for n, (status, body) in enumerate(answers):
            if status == FAILED:
                self._end()  # what it holds may be what there is too little of
                raise _EndedError(n, _text(body), of_the_item=False)
        return [self._owner.refused(body) if status == REFUSED else body for status, body in answers]

    def _failed(self, item: object, why: str) -> errors.FilesystemError:
        return _machine(f"{self._owner.items.noun} could not be read", why, item=self._owner.items.named(item))

    def _started(self) -> _Process:
        if self._owner.stop.is_set():
            raise StoppedError
        if self._process is None:
            self._process = _Process(self._owner, self._memory_fd, self._memory)
        return self._process

    def renew(self) -> None:
        """Have the next item read by a new process."""
        with self._busy:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def close(self) -> None:
        """End the process; its shared memory goes when nobody looks at it any more."""
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for its answer notices, and lets go of it
        with self._busy:
            self._end()
            if self._memory_fd >= 0:
                os.close(self._memory_fd)
                self._memory_fd = -1


class _Process:
    """A process that serves; its limits are watched while it is waited for."""

    def __init__(self, owner: Workers, memory_fd: int, memory: memoryview) -> None:
        self._memory, self._limits, self._stop = memory, owner.limits, owner.stop
        self._before = self._count = 0
        self._unread = b""
        HEADER.pack_into(memory, 0, 0)
        with _of_this_computer(f"a process that reads {owner.items.noun} did not start"):
            self._socket, theirs = socket.socketpair()
            try:
                self._server, self.pid = _forked(owner.target, [theirs.fileno(), memory_fd])
            except OSError:
                self._socket.close()
                raise
            finally:
                theirs.close()
        try:
            self._set_up(owner)
        except BaseException:
            self.end()
            raise

    def _set_up(self, owner: Workers) -> None:
        try:
            ((status, body),) = self.exchange(pickle.dumps(owner.setup), 1, START)
        except _EndedError as ended:
            raise _machine(f"a process that reads {owner.items.noun} did not start", ended.why) from None
        if status == REFUSED:
            raise owner.refused(body)
        if status != READ:
            raise _machine(f"a process that reads {owner.items.noun} did not start", _text(body))

    def exchange(self, request: bytes, count: int, limits: Limits | None = None) -> list[tuple[int, bytes]]:
        """Send a request and return the status and body of its `count` answers.

        _EndedError: it ended, broke the form, or took too long; it may still run.
        """
        self._before, self._count = self._before + self._count, 0 if limits else count
        watch = _Watch(self, limits or self._limits, self._stop)
        try:
            self._send(request, watch)
            if self._receive(ANSWERS.size, watch) != ANSWERS.pack(count):
                raise self._broken()
            heads: list[tuple[int, int]] = list(ANSWER.iter_unpack(self._receive(ANSWER.size * count, watch)))
            if any(length > MOST_ANSWER_BYTES for _, length in heads):
                raise self._broken()
            bodies = io.BytesIO(self._receive(sum(length for _, length in heads), watch))
            return [(status, bodies.read(length)) for status, length in heads]
        except ConnectionError:
            raise self._ended() from None
        except OSError as error:
            raise _EndedError(self.at, error.strerror or str(error), of_the_item=False) from None

    def _send(self, data: bytes, watch: _Watch) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:  # noqa: PERF203 - seldom: requests are short
                watch.wait(self._socket, select.POLLOUT)

    def _receive(self, size: int, watch: _Watch) -> bytes:
        """Return the next `size` bytes; answers come in one piece, as a rule, and are taken from there."""
        while len(self._unread) < size:
            watch.wait(self._socket, select.POLLIN)
            with contextlib.suppress(BlockingIOError):
                part = self._socket.recv(max(RECEIVED_BYTES, size), socket.MSG_DONTWAIT)
                if not part:
                    raise self._ended()
                self._unread += part
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    @property
    def at(self) -> int:
        """The position in the present request of the item that it says it reads."""
        said: int = HEADER.unpack_from(self._memory, 0)[0]
        return min(max(said - self._before - 1, 0), max(self._count - 1, 0))

    def cpu_s(self) -> float:
        """Return the processor time that it has taken; 0 where it is gone."""
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return 0.0

    @property
    def _clock(self) -> int:
        return (~self.pid << 3) | 2  # as clock_getcpuclockid(3) makes it

    def _broken(self) -> _EndedError:
        return _EndedError(self.at, "it broke the process that read it", of_the_item=True)

    def _ended(self) -> _EndedError:
        at, by_itself = self.at, self._died()
        status = self.end()
        if by_itself and os.WIFEXITED(status) and os.WEXITSTATUS(status) == MACHINE_FAILED:
            return _EndedError(at, "the process that read it lacks memory or files", of_the_item=False)
        if not by_itself or not os.WIFSIGNALED(status):
            return self._broken()
        name = signal.Signals(os.WTERMSIG(status))
        return _EndedError(at, f"{name.name} ended the process that read it", of_the_item=name not in OF_THE_SYSTEM)

    def _died(self) -> bool:
        """Return whether it has died, or does so soon."""
        until = time.monotonic() + _TO_DIE_S
        while not (dead := _state(self.pid) in ("Z", "X", "")) and time.monotonic() < until:
            time.sleep(0.01)
        return dead

    def end(self) -> int:
        """Kill it if it still runs, and return its wait status."""
        self._socket.close()
        if not self.pid:
            return 0
        self.kill()
        pid, self.pid = self.pid, 0
        return self._server.wait(pid)

    def kill(self) -> None:
        """End it at once; its PID stays until `end`."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class _Watch:
    """The limits of the item that a process is at, from the moment it began with it."""

    def __init__(self, process: _Process, limits: Limits, stop: threading.Event) -> None:
        self._process, self._limits, self._stop = process, limits, stop
        self._at, self._since, self._cpu = -1, 0.0, 0.0

    def wait(self, stream: socket.socket, event: int) -> None:
        """Wait until `stream` is ready, or for a while. StoppedError; _EndedError where the item is over a limit."""
        poll = select.poll()
        poll.register(stream, event)
        if self._stop.is_set():
            raise StoppedError
        if not poll.poll(1000 * LOOK_S):
            self._look()

    def _look(self) -> None:
        at, now, cpu = self._process.at, time.monotonic(), self._process.cpu_s()
        if at > self._at:
            self._at, self._since, self._cpu = at, now, cpu
        elif cpu - self._cpu > self._limits.cpu_s:
            raise _EndedError(at, f"it takes more than {self._limits.cpu_s:g} s of processor time", of_the_item=True)
        elif now - self._since > self._limits.clock_s:
            raise _EndedError(at, f"it was not read within {self._limits.clock_s:g} s", of_the_item=False)


def _state(pid: int) -> str:
    """Return the state of a process as proc(5) has it; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _shared_memory(size: int) -> int:
    """Return a descriptor of new memory, not in /dev/shm, that nobody can make smaller: reading it never faults."""
    fd = os.memfd_create("flightcache", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, _F_ADD_SEALS, _NEITHER_SHRINK_NOR_GROW)
    return fd


@contextlib.contextmanager
def _of_this_computer(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _machine(what, error.strerror or str(error), error.errno) from error


def _machine(what: str, why: str, number: int | None = None, **facts: object) -> errors.FilesystemError:
    step = _STEPS.get(number or 0, "close programs, look at `dmesg` and the disk, then run again")
    return errors.FilesystemError(f"this computer failed: {what}: {why}", facts=facts, next_step=step)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


class _Server:
    """The process that forks the others. It serves one request at a time."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_S)
        self._said = open(os.memfd_create("said", os.MFD_CLOEXEC), "w+b", buffering=0)  # noqa: SIM115 - closed with it
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", worker.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env={**bare_environment(), "OPENBLAS_NUM_THREADS": "1"},
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def fork(self, target: str, fds: Sequence[int]) -> int:
        """Return the PID of a new process; OSError if the server is gone, or has no process left."""
        try:
            socket.send_fds(self._control, [target.encode()], fds)
            said = self._control.recv(worker.MOST_CONTROL_BYTES)
        except ConnectionError:
            said = b""
        if len(said) != PID.size:
            raise OSError(errno.EPIPE if not said else 0, _text(said) or self._last_words())
        return int(PID.unpack(said)[0])

    def _last_words(self) -> str:
        """Return the last line that the server wrote before it ended; it could not be loaded, say."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - worker.MOST_CONTROL_BYTES))
        lines = _text(self._said.read()).split("\n")
        return next((line for line in reversed(lines) if line), "the server of processes is gone")

    def wait(self, pid: int) -> int:
        """Return the wait status of a process that was killed or has died; 9 where the server is gone, too."""
        with _mutex, contextlib.suppress(OSError):
            self._control.send(PID.pack(pid))
            if len(said := self._control.recv(worker.MOST_CONTROL_BYTES)) == PID.size:
                return int(PID.unpack(said)[0])
        return signal.SIGKILL

    def close(self) -> None:
        """End it, and with it all that it forked."""
        self._control.close()
        self._said.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()


_mutex = threading.Lock()
_server: _Server | None = None


def _forked(target: str, fds: Sequence[int]) -> tuple[_Server, int]:
    """Fork a process from the server of this process, which starts with the first and once more if it was killed."""
    with _mutex:
        try:
            if _server is not None and _server.owner == os.getpid():
                return _server, _server.fork(target, fds)
        except (BrokenPipeError, ConnectionError):
            pass
        server = _start_server()
        return server, server.fork(target, fds)


def _start_server() -> _Server:
    global _server  # noqa: PLW0603  one for all that a command reads: starting it costs its imports
    if _server is None:
        atexit.register(_close_server)
    else:
        _server.close()
    _server = _Server()
    return _server


def _close_server() -> None:
    """End the server as this process ends: another Ctrl-C has nothing left to stop, and would only be a traceback."""
    if _server is not None:
        with contextlib.suppress(ValueError):  # not in the main thread, which is the one that a signal interrupts
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _server.close()
