"""Giving up the file system: a process that reads foreign input, or talks to others, needs its own libraries only.

Linux's Landlock (https://docs.kernel.org/userspace-api/landlock.html), without privileges. From then on the process can
open nothing else, write no file, and look into no other process of its user.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_ALL = (1 << 13) - 1
"""Every right of the first version, which all kernels with Landlock know."""
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/sys",
    "/dev/null", "/dev/urandom", "/dev/random",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf",
    "/etc/gai.conf", "/etc/ssl/openssl.cnf", "/etc/ssl/certs", "/etc/dask",
)  # fmt: skip


def libraries() -> Iterable[Path]:
    """Return where this interpreter and what it imports are; the working directory, which `-m` adds, is none of it."""
    imports = [place for place in sys.path if place and os.path.realpath(place) not in ("/", os.getcwd())]
    return [Path(place) for place in (*_SYSTEM, sys.prefix, sys.base_prefix, *imports)]


def confine(readable: Iterable[Path]) -> bool:
    """Let this thread, and what it starts from now on, only read `readable`; False where the kernel has no Landlock.

    Call it before other threads start: it does not reach those.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    ruleset = call(_CREATE, ctypes.byref(ctypes.c_uint64(_ALL)), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            with contextlib.suppress(OSError):
                _allow(call, ruleset, path)
        no_new_rights = ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        done = no_new_rights and int(call(_RESTRICT, ruleset, 0)) == 0
    finally:
        os.close(ruleset)
    return done


def _allow(call: object, ruleset: int, path: Path) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | _EXECUTE | (_READ_DIR if os.path.isdir(path) else 0)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd))
        call(_ADD_RULE, ruleset, 1, rule, 0)  # type: ignore[operator]
    finally:
        os.close(fd)
