"""Reading foreign input in a process of its own: limits of time and memory, no secret, no file but the input.

`call` runs a function of this package there: it sends the arguments, which that process may trust (pickled), and
takes back plain data, because nothing that comes from there is trusted (JSON and numbers of a declared type). One
process serves many calls. A call that goes over a limit, or a parser that breaks, ends that process and is one Error
about the input; nothing is remembered of it.

That process is `python -m provisioning.base.process.confined`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import pickle
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from provisioning.base import errors, events
from provisioning.base.disk import directories
from provisioning.base.disk.files import machine_failure, make_dirs
from provisioning.base.named import NamedTuple
from provisioning.base.printable import printable
from provisioning.base.process import landlock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = Callable[[int], Iterable[NDArray[np.uint8]]]

MEMORY_BYTES = 4 << 30
"""Address space for interpreter and libraries; what the input needs comes on top."""
TIME_S = 600.0
PASSED_ON = (
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "OPENBLAS_NUM_THREADS",
    "ORT_DISABLE_TELEMETRY",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
)
"""Of the environment; whatever else is in it, a password among it, is nothing to foreign input."""
MOST_ARRAY_BYTES = 1 << 31
_MOST_TEXT_BYTES = 1 << 20
_MOST_IMAGES = 1 << 16
_MOST_EVENTS = 1000
_OURS = str(Path(__file__).resolve().parents[3])
_PR_SET_PDEATHSIG = 1
_SCRATCH = "apart-"
_LAST_WORDS = 4096
_TO_DIE_S = 2.0
OF_THE_SYSTEM = (signal.SIGKILL, signal.SIGTERM, signal.SIGBUS)
"""Signals that say nothing of what was read. SIGBUS: a page of a library or of shared memory that is not to be had."""
ERRORS_OF_THE_SYSTEM = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT,
)  # fmt: skip
"""What a call may fail with whatever is read; another may come of a name in the input."""
_VALUE, _ERROR, _EVENT, _IMAGES, _ARRAY = b"v", b"x", b"e", b"i", b"a"


class Limits(NamedTuple):
    """What one call may take: seconds by the clock, and bytes of address space."""

    time_s: float = TIME_S
    memory_bytes: int = MEMORY_BYTES


DEFAULT_LIMITS = Limits()


class Subject(NamedTuple):
    """What is read: `name` in the words of the error, the file, and the kind of the error."""

    name: str
    file: Path | str
    error: type[errors.Error]


def bare_environment() -> dict[str, str]:
    """Return the environment for a process that reads foreign input: how to find the program, and no secret."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # An empty entry is the directory that a process starts in: for the child another one than for us.
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {**kept, "PYTHONPATH": os.pathsep.join([_OURS, *map(os.path.abspath, paths)])}


class _Scope:
    """The process of the present `apart` block, which starts with the first call."""

    def __init__(self, beside: Path | None) -> None:
        self._beside = beside
        self._scratch: Path | None = None
        self.reads: frozenset[Path] = frozenset()
        self.process: subprocess.Popen[bytes] | None = None
        self.at_work = False

    @property
    def scratch(self) -> Path:
        """The directory of the process; one that a killed command left is removed."""
        if self._scratch is None:
            if self._beside is not None:
                make_dirs(self._beside)
                for name in directories.names_in(self._beside, ""):
                    if name.startswith(_SCRATCH):
                        directories.remove(self._beside, name)
            self._scratch = Path(tempfile.mkdtemp(dir=self._beside, prefix=_SCRATCH)).absolute()
        return self._scratch

    def started(self, reads: frozenset[Path]) -> subprocess.Popen[bytes]:
        """Return a process that may read at least `reads`."""
        if self.process is not None and not reads <= self.reads:
            self.end()
        if self.process is None:
            self.reads |= reads
            self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self.process = _start(self.reads, self.scratch, self.log)
        return self.process

    def end(self) -> str:
        """Kill the process and all that it started; return the last line that it wrote on standard error."""
        if self.process is None:
            return ""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its session is its own
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self.process.wait()
        self.process = None
        with self.log as log:
            log.seek(max(0, log.tell() - _LAST_WORDS))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the process and remove its directory."""
        self.end()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


_scope: _Scope | None = None
_threads = threading.local()
"""Its `scope`: that of a thread in a block of `processes`."""


def _current() -> _Scope | None:
    return getattr(_threads, "scope", _scope)


def _change_to(scope: _Scope | None) -> None:
    global _scope  # noqa: PLW0603  one process for all the code of a command, wherever it reads something
    if hasattr(_threads, "scope"):
        _threads.scope = scope
    else:
        _scope = scope


@contextlib.contextmanager
def apart(beside: Path | None = None) -> Iterator[None]:
    """Let every `call` of the block run in another process; elsewhere it is a plain call.

    That process may write below a new directory in `beside` (TMPDIR if None), which is gone when the block ends.
    """
    before, scope = _current(), _Scope(beside)
    _change_to(scope)
    try:
        yield
    finally:
        scope.close()
        _change_to(before)


@contextlib.contextmanager
def processes(count: int) -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Give processes for `count` threads, as a process does one thing at a time; outside of `apart` there are none.

    What is yielded opens a block in which the calls of this thread run in one of those that is free.
    """
    scopes = [] if _current() is None else [_Scope(None) for _ in range(count)]
    free: queue.SimpleQueue[_Scope] = queue.SimpleQueue()
    for scope in scopes:
        free.put(scope)

    @contextlib.contextmanager
    def one() -> Iterator[None]:
        _threads.scope = scope = free.get()
        try:
            yield
        finally:
            del _threads.scope
            free.put(scope)

    try:
        yield one if scopes else contextlib.nullcontext
    finally:
        for scope in scopes:
            scope.close()


def output(beside: Path) -> Path:
    """Return where a function that is called may write a file: in the other process's directory, else at `beside`."""
    scope = _current()
    return beside if scope is None else scope.scratch / beside.name


def call(
    function: Callable[..., Any],
    *arguments: object,
    subject: Subject,
    reads: Iterable[Path] = (),
    limits: Limits = DEFAULT_LIMITS,
    images: Images | None = None,
) -> Any:
    """Return what `function` gives: plain data that JSON can hold (tuples as lists), or `(data, uint8 array)`.

    `function` is one of a module of this package; `reads` are the files and directories it opens; `images`, if given,
    is passed on as a keyword, and asked here. The subject's kind of Error: over a limit, crashed; Errors of the
    function pass through.
    """
    given = {} if images is None else {"images": images}
    scope = _current()
    if scope is None:
        return function(*arguments, **given)
    if scope.at_work:  # its process waits for images, and what gives them asks for something itself
        with apart(scope.scratch):
            return call(function, *arguments, subject=subject, reads=reads, limits=limits, images=images)
    process, scope.at_work = scope.started(frozenset(reads)), True
    over = threading.Timer(limits.time_s, process.kill)
    over.start()
    try:
        resource.prlimit(process.pid, resource.RLIMIT_AS, _soft(process.pid, limits.memory_bytes))
        return _exchange(process, (f"{function.__module__}:{function.__name__}", arguments, bool(given)), images)
    except _EndedError:
        timed_out = not over.is_alive()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TO_DIE_S)
        by_itself = process.returncode is not None
        last = scope.end()
        if by_itself and not timed_out and -process.returncode in OF_THE_SYSTEM:
            raise _killed(subject, signal.Signals(-process.returncode)) from None
        raise _ended(subject, limits, process.returncode, timed_out=timed_out, last=last) from None
    except BaseException as error:
        if not isinstance(error, _SaidError):
            scope.end()
            raise
        raise error.as_error(subject, limits) from None
    finally:
        over.cancel()
        scope.at_work = False


def _soft(pid: int, memory_bytes: int) -> tuple[int, int]:
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    return (memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)), hard


class _EndedError(Exception):
    """The other process is gone, or says what it may not say."""


class _SaidError(Exception):
    """The function raised an Error, or ran out of memory."""

    def as_error(self, subject: Subject, limits: Limits) -> errors.Error:
        """Return it as it was raised there."""
        said = self.args[0]
        if said.get("memory"):
            return subject.error(
                f"{subject.name} takes more memory than it may",
                file=subject.file,
                facts={"limit": f"{limits.memory_bytes / 1e9:.1f} GB"},
                next_step="close programs if this computer has less, else look at where the file comes from",
            )
        return errors.from_plain(said, subject.error)


def _killed(subject: Subject, number: signal.Signals) -> errors.FilesystemError:
    return errors.FilesystemError(
        f"this computer failed: {number.name} ended the process that read {subject.name}",
        file=subject.file,
        next_step="close programs, look at `dmesg` for a lack of memory, then run this again",
    )


def _ended(subject: Subject, limits: Limits, returncode: int, *, timed_out: bool, last: str) -> errors.Error:
    if timed_out:
        what, fact = f"{subject.name} had not been read in time", {"limit": f"{limits.time_s:g} s"}
        step = "look at where the file comes from: it may be made to take for ever"
    else:
        how = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
        what, fact = f"{subject.name} broke the process that read it", {"it ended with": how, "last words": last}
        step = "see `dmesg` for a lack of memory; else look at where the file comes from"
    return subject.error(what, file=subject.file, facts=fact, next_step=step)


def _exchange(process: subprocess.Popen[bytes], request: object, images: Images | None) -> Any:
    """Send the request and serve the process until it answers."""
    import numpy as np

    assert process.stdin is not None
    assert process.stdout is not None
    array, left = None, _MOST_EVENTS
    try:
        _put(process.stdin, request)
        while True:
            kind, body = _frame(process.stdout)
            if kind == _VALUE:
                value = json.loads(body)
                return value if array is None else (value, array)
            if kind == _ERROR:
                raise _SaidError(dict(json.loads(body)))
            if kind == _ARRAY:
                shape = [int(side) for side in json.loads(body)]
                array = np.frombuffer(_frame(process.stdout, MOST_ARRAY_BYTES)[1], np.uint8).reshape(shape)
            elif kind == _IMAGES and images is not None:
                _put_images(process.stdin, images(min(int(body), _MOST_IMAGES)))
            elif kind == _EVENT and left:
                left -= 1
                _forward(json.loads(body))
            else:
                raise _EndedError
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _EndedError from error


def _put(stream: IO[bytes], message: object) -> None:
    pickle.dump(message, stream)
    stream.flush()


def _put_images(stream: IO[bytes], images: Iterable[NDArray[np.uint8]]) -> None:
    for image in images:
        _put(stream, image)
    _put(stream, None)


def _frame(stream: IO[bytes], most: int = _MOST_TEXT_BYTES) -> tuple[bytes, bytes]:
    head = stream.read(9)
    length = int.from_bytes(head[1:], "big")
    body = stream.read(length) if len(head) == 9 and length <= most else None
    if body is None or len(body) != length:
        raise _EndedError
    return head[:1], body


def _forward(said: dict[str, Any]) -> None:
    """Log an event of the other process as if it were one of this."""
    fields = {printable(str(name)): value for name, value in said["fields"].items()}
    events.event(printable(str(said["kind"])), level=int(said["level"]), **fields)


def _start(reads: Iterable[Path], scratch: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**bare_environment(), "TMPDIR": str(scratch)},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # then the answer is missing, which is seen
        _put(process.stdin, (os.getpid(), [os.path.abspath(path) for path in reads], str(scratch)))
    return process


# the other process


def main() -> None:
    """Be the other process: serve calls until standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints does not answer
    sys.stdout = sys.stderr  # nor does it have the last word, as what stands in a buffer until the end would
    parent, reads, scratch = pickle.load(requests)  # noqa: S301 - from the build, which it may trust
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    landlock.confine([*landlock.libraries(offline=True), *map(Path, reads)], [Path(scratch)], offline=True)
    _log_to(answers)
    with contextlib.suppress(EOFError):
        while True:
            name, arguments, sees = pickle.load(requests)  # noqa: S301 - the same
            asked: list[Iterator[object]] = []
            _answer(answers, name, arguments, {"images": _asker(requests, answers, asked)} if sees else {}, asked)


def _answer(
    answers: IO[bytes],
    name: str,
    arguments: Sequence[object],
    given: dict[str, object],
    asked: list[Iterator[object]],
) -> None:
    module, _, function = name.partition(":")
    try:
        try:
            value = getattr(importlib.import_module(module), function)(*arguments, **given)
        finally:
            deque(chain.from_iterable(asked), maxlen=0)  # the images that nobody took are still on their way
    except errors.Error as error:
        _send(answers, _ERROR, json.dumps(errors.as_plain(error)).encode())
    except MemoryError:
        _send(answers, _ERROR, b'{"memory": true}')
    except Exception as error:
        refusal = machine_failure(error)
        if refusal is None or (isinstance(error, OSError) and error.errno not in ERRORS_OF_THE_SYSTEM):
            raise
        said = errors.FilesystemError(f"this computer failed: {refusal[0]}", next_step=refusal[1])
        _send(answers, _ERROR, json.dumps(errors.as_plain(said)).encode())
    else:
        if isinstance(value, tuple) and len(value) == 2 and hasattr(value[1], "tobytes"):
            value, array = value
            _send(answers, _ARRAY, json.dumps(array.shape).encode())
            _send(answers, _ARRAY, array.tobytes())
        _send(answers, _VALUE, json.dumps(value).encode())


def _send(answers: IO[bytes], kind: bytes, body: bytes) -> None:
    answers.write(kind + len(body).to_bytes(8, "big"))
    answers.write(body)
    answers.flush()


def _asker(requests: IO[bytes], answers: IO[bytes], asked: list[Iterator[object]]) -> Callable[[int], Iterator[object]]:
    def images(count: int) -> Iterator[object]:
        deque(chain.from_iterable(asked), maxlen=0)
        _send(answers, _IMAGES, str(count).encode())
        asked.append(_until_none(requests))
        return asked[-1]

    return images


def _until_none(requests: IO[bytes]) -> Iterator[object]:
    while (image := pickle.load(requests)) is not None:  # noqa: S301 - the same
        yield image


def _log_to(answers: IO[bytes]) -> None:
    def emit(record: Any) -> None:
        kind = record.kind.removeprefix(events.PREFIX)
        said = {"kind": kind, "level": record.levelno, "fields": record.kv}
        _send(answers, _EVENT, json.dumps(said, default=str).encode())

    import logging

    handler = logging.Handler(logging.INFO)
    handler.emit = emit  # type: ignore[method-assign]
    events.LOGGER.addHandler(handler)
    events.LOGGER.setLevel(logging.INFO)
    events.LOGGER.propagate = False


if __name__ == "__main__":
    main()
