"""Giving up the file system: a process that reads foreign input, or talks to others, needs its own libraries only.

Linux's Landlock (https://docs.kernel.org/userspace-api/landlock.html), without privileges. From then on the process can
open nothing else, write no file, and look into no other process of its user.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import shutil
import stat
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_ALL = (1 << 13) - 1
"""Every right of the first version, which all kernels with Landlock know."""
_EXECUTE, _READ_FILE, _READ_DIR, _REFER = 1 << 0, 1 << 2, 1 << 3, 1 << 13
_OF_A_FILE = (1 << 0) | (1 << 1) | (1 << 2)
"""The rights that a rule about a file may give: execute, write, read."""
_TCP = (1 << 0) | (1 << 1)
"""The rights of the network: to bind and to connect."""
_GET_VERSION = 1
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/sys",
    "/dev/null", "/dev/urandom", "/dev/random",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf",
)  # fmt: skip
_NETWORK = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/ssl/certs",
    "/etc/dask",
)  # fmt: skip
"""What who talks to others reads."""


def libraries(*, offline: bool = False) -> Iterable[Path]:
    """Return where this interpreter and what it imports are; the working directory, which `-m` adds, is none of it."""
    imports = [place for place in sys.path if place and os.path.realpath(place) not in ("/", os.getcwd())]
    return [Path(place) for place in (*_SYSTEM, *(() if offline else _NETWORK), sys.prefix, sys.base_prefix, *imports)]


def confine(readable: Iterable[Path], writable: Iterable[Path] = (), *, offline: bool = False) -> bool:
    """Let this thread, and what it starts from now on, only read `readable`; False where the kernel has no Landlock.

    Below the directories `writable` it may do everything; `offline` takes TCP away, which Landlock knows from its
    fourth version on. Call it before other threads start: it does not reach those.
    """
    known, writable = version(), tuple(writable)
    if writable and known < 2:
        return False  # no file could be moved from one directory to another
    handled = _ALL | (_REFER if known >= 2 else 0)
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    rules = [*((path, reading) for path in readable), *((path, handled) for path in writable)]
    return _restrict(handled, rules, network=_TCP if offline and known >= 4 else 0)


def hide(file: Path, *, working: Iterable[Path] = ()) -> bool:
    """Keep this thread, and what it starts from now on, from opening `file` to read; False where that cannot be.

    Landlock knows no exceptions: what lies beside `file` and beside each directory above it is allowed, one by one. A
    file made later in one of those very directories cannot be read either. So nothing is hidden where one of the
    directories `working` is among them, or would be made in one; and TMPDIR, if it is one, becomes a new directory
    in it. The right to link across directories came with the second version of Landlock.
    """
    if version() < 2 or not file.exists():
        return False
    hidden = Path(os.path.realpath(file))
    if any(_nearest(directory) in hidden.parents for directory in working):
        return False
    import tempfile

    if Path(tempfile.gettempdir()).resolve() in hidden.parents:
        _move_temporary_files()
    beside = (entry.path for above, below in _steps(hidden) for entry in _entries(above) if entry.name != below.name)
    return _restrict(_READ_FILE | _REFER, ((path, _READ_FILE | _REFER) for path in beside))


def version() -> int:
    """Return the version of the kernel's Landlock, 0 if it has none."""
    return max(0, int(_syscall()(_CREATE, None, ctypes.c_size_t(0), _GET_VERSION)))


def _move_temporary_files() -> None:
    import tempfile

    made = tempfile.mkdtemp(prefix="flightcache-")
    atexit.register(_remove_own, made, os.getpid())
    os.environ["TMPDIR"] = tempfile.tempdir = made


def _remove_own(directory: str, owner: int) -> None:
    """Remove what this process made; a forked child leaves it."""
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)


def _nearest(directory: Path) -> Path:
    """Return `directory`, or what is there of the way to it."""
    real = Path(os.path.realpath(directory))
    return next(path for path in (real, *real.parents) if path.exists())


def _steps(file: Path) -> Iterable[tuple[Path, Path]]:
    """Return each directory above `file` with what in it leads to the file."""
    return zip(file.parents, (file, *file.parents), strict=False)


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if not entry.is_symlink()]  # it may lead to what is hidden
    except OSError:  # it may be passed through, not listed
        return []


def _syscall() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


def _restrict(handled: int, rules: Iterable[tuple[str | Path, int]], *, network: int = 0) -> bool:
    """Forbid this thread the rights `handled` but where a rule gives them; False where the kernel cannot."""
    call = _syscall()
    asked = ctypes.create_string_buffer(struct.pack("=QQ", handled, network), 16)
    ruleset = call(_CREATE, asked, ctypes.c_size_t(16 if network else 8), 0)
    if ruleset < 0:
        return False
    try:
        for path, rights in rules:
            with contextlib.suppress(OSError):
                _allow(call, ruleset, path, rights)
        no_new_rights = ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        return no_new_rights and int(call(_RESTRICT, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def _allow(call: Callable[..., int], ruleset: int, path: str | Path, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_A_FILE
        call(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
