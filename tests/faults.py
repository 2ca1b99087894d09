"""Faults at every file-system call of a build: what is called through `os` and `open` is counted, failed or cut off.

A forked child runs the build with the calls tapped; at the chosen call it is killed (before it, after it, half-way
through a write) or the call fails once with an errno. SQLite and other C code is out of reach here: see the strace form.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import pathlib
import pickle
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

CHANGES = ("write", "pwrite", "writev", "fsync", "fdatasync", "rename", "replace", "link", "symlink", "unlink", "remove", "mkdir",
           "rmdir", "truncate", "ftruncate", "chmod", "fchmod", "utime", "copy_file_range", "sendfile", "posix_fallocate")  # fmt: skip
READS = (
    "read",
    "pread",
    "preadv",
    "readv",
    "stat",
    "lstat",
    "fstat",
    "listdir",
    "scandir",
    "readlink",
    "statvfs",
    "lseek",
)
LONGEST_S = 60
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Fault(NamedTuple):
    """At call number `at` (of those counted): "before", "after" or "half" kill; an errno name fails the call."""

    at: int
    how: str


class Call(NamedTuple):
    """One counted call."""

    name: str
    what: str
    changes: bool

    @property
    def is_write(self) -> bool:
        return self.name in ("write", "pwrite", "file.write")


class Ended(NamedTuple):
    """How a tapped child ended: killed by the fault, raised (error), or returned (value)."""

    killed: bool
    error: BaseException | None
    value: Any
    calls: list[Call]
    shown: str
    seen: list[str]
    """What `look` said before each call that changes something; "" before the others."""


class Tap:
    """Counts the calls below `root` (and on files opened there) and carries out one fault."""

    def __init__(self, root: Path, fault: Fault | None, look: Callable[[], str] | None = None) -> None:
        self.root, self.fault, self.calls = os.path.realpath(root), fault, []
        self.look, self.seen = look, list[str]()
        self.owner = os.getpid()
        self.fds: dict[int, str] = {}
        self.real = {name: getattr(os, name) for name in (*CHANGES, *READS, "open", "close") if hasattr(os, name)}
        self.busy = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put the tap between Python and the system."""
        real_open, real_io_open = builtins.open, io.open
        accessor = getattr(pathlib, "_NormalAccessor", None)  # 3.10 keeps its own references to os.*
        kept = {}
        for name in self.real:
            wrapped = self._wrapped(name)
            setattr(os, name, wrapped)
            if accessor is not None and hasattr(accessor, name):
                kept[name] = accessor.__dict__[name]
                setattr(accessor, name, staticmethod(self._open_file if name == "open" else wrapped))  # its is io.open
        builtins.open = io.open = self._open_file
        try:
            yield
        finally:
            builtins.open, io.open = real_open, real_io_open
            for name, call in self.real.items():
                setattr(os, name, call)
            for name, call in kept.items():
                setattr(accessor, name, call)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self.real[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.busy:
                return real(*args, **kwargs)
            what = self._subject(name, args, kwargs)
            if what is None or os.getpid() != self.owner:
                result = real(*args, **kwargs)
            else:
                changes = name in CHANGES or (name == "open" and bool(args[1] & _WRITING))
                half = (lambda: real(args[0], bytes(args[1])[: len(args[1]) // 2])) if name == "write" else None
                result = self._through(Call(name, what, changes), lambda: real(*args, **kwargs), half)
            if name == "open" and what is not None:
                self.fds[result] = what
            if name == "close":
                self.fds.pop(args[0], None)
            return result

        return call

    def _subject(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The path below the root that a call is about, relative to it; None for a call about something else."""
        if name == "close":
            return None
        first = args[1 if name == "symlink" else 0] if args else "."
        if isinstance(first, int):
            return self.fds.get(first)
        handle = kwargs.get("dir_fd", kwargs.get("src_dir_fd"))
        if handle is not None:
            above = self.fds.get(handle)
            return None if above is None else os.path.normpath(os.path.join(above, os.fsdecode(first)))
        path = os.path.abspath(os.fsdecode(first))
        return os.path.relpath(path, self.root) if path == self.root or path.startswith(self.root + os.sep) else None

    def _through(self, call: Call, go: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        number = len(self.calls)
        self.calls.append(call)
        if self.look is not None:
            self.busy = True
            self.seen.append(self.look() if call.changes else "")
            self.busy = False
        how = self.fault.how if self.fault is not None and self.fault.at == number else None
        if how == "before":
            die()
        if how == "half" and half is not None:
            half()
            die()
        if how is not None and how.startswith("E"):
            code = getattr(errno, how)
            raise OSError(code, os.strerror(code), call.what)
        try:
            return go()
        finally:
            if how == "after":
                die()

    def _open_file(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        """`open` as Python does it, on a raw file whose opening and writes are counted."""
        path = None if self.busy or isinstance(file, int) else self._subject("open", (file,), {})
        opener = kwargs.get("opener")
        if path is None or opener is not None or os.getpid() != self.owner:
            return _real_open(file, mode, buffering, *args, **kwargs)
        raw_mode = "".join(letter for letter in mode if letter in "rwxa+")
        changes = raw_mode != "r"
        raw = self._through(Call("open", path, changes), lambda: _Raw(self, path, os.fspath(file), raw_mode))
        if buffering == 0:
            return raw
        whole = (
            io.BufferedRandom(raw) if "+" in raw_mode else io.BufferedWriter(raw) if changes else io.BufferedReader(raw)
        )
        return whole if "b" in mode else io.TextIOWrapper(whole, *args, **kwargs)


_real_open = io.open


class _Raw(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, tap: Tap, what: str, path: str, mode: str) -> None:
        self.tap, self.what = tap, what
        super().__init__(path, mode)
        tap.fds[self.fileno()] = what

    def write(self, data: Any) -> int:
        halved = bytes(data)[: len(data) // 2]
        write = super().write
        return self.tap._through(
            Call("file.write", self.what, changes=True), lambda: write(data), lambda: write(halved)
        )

    def close(self) -> None:
        if not self.closed:
            self.tap.fds.pop(self.fileno(), None)
        super().close()


def die() -> None:
    """End this process as SIGKILL does: no handler, no cleanup."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def run(
    action: Callable[[], Any], root: Path, fault: Fault | None = None, *, look: Callable[[], str] | None = None
) -> Ended:
    """Run `action` in a forked child with the calls below `root` tapped and return how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(action, Tap(root, fault, look), writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        if not select.select([pipe], [], [], LONGEST_S)[0]:
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"a child with {fault} did nothing for {LONGEST_S} s")
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGKILL and not data:
        return Ended(True, None, None, [], "killed", [])
    assert (status, bool(data)) == (0, True), f"the child ended with {status} and data {len(data)} bytes"
    return Ended(False, *pickle.loads(data))


def _run_child(action: Callable[[], Any], tap: Tap, writer: int) -> None:
    error, value, shown = None, None, ""
    try:
        with tap.installed():
            value = action()
    except BaseException as raised:  # noqa: BLE001  the parent judges it
        error, shown = raised, traceback.format_exc()
    try:
        try:
            data = pickle.dumps((error, value, tap.calls, shown, tap.seen))
        except Exception:  # noqa: BLE001  an error of a library that cannot be pickled
            data = pickle.dumps((RuntimeError(repr(error)), None, tap.calls, shown, tap.seen))
        with _real_open(writer, "wb") as pipe:
            pipe.write(data)
        sys.stdout.flush()
    finally:
        os._exit(0)


def kills(calls: list[Call]) -> list[Fault]:
    """Every way to kill a build that made `calls`: before and after each change, half-way through each write."""
    found = []
    for number, call in enumerate(calls):
        if call.changes:
            found += [
                Fault(number, "before"),
                *([Fault(number, "half")] if call.is_write else []),
                Fault(number, "after"),
            ]
    return found


def failures(calls: list[Call]) -> list[Fault]:
    """An I/O error at each call; a full disk and a refused permission at each that changes or opens something."""
    found = []
    for number, call in enumerate(calls):
        found.append(Fault(number, "EIO"))
        if call.changes or call.name == "open":
            found.append(Fault(number, "EACCES"))
        if call.changes:
            found.append(Fault(number, "ENOSPC"))
    return found


def snapshot(directory: Path) -> dict[str, bytes | str]:
    """Every file (bytes) and symbolic link (target) below `directory` by its relative name."""
    found: dict[str, bytes | str] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def remove(tree: Path) -> None:
    """Remove a directory that may not be there; a published generation is read-only for its owner too, unless root."""
    for folder, _, _ in os.walk(tree):
        os.chmod(folder, 0o700)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(tree)


def copy_cache(source: Path, dest: Path) -> Path:
    """Copy a cache directory with its links, times, modes and hard links (as `cp -a` does)."""
    seen: dict[int, str] = {}

    def copy(src: str, dst: str) -> None:
        inode = os.stat(src, follow_symlinks=False).st_ino
        if inode in seen:
            os.link(seen[inode], dst)
        else:
            shutil.copy2(src, dst, follow_symlinks=False)
            seen[inode] = dst

    shutil.copytree(source, dest, symlinks=True, copy_function=copy)
    return dest
