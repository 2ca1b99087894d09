"""A program on a kernel that lacks what newer ones have: `python -m tests.old_kernel PROGRAM [WORD …]`.

A seccomp filter (https://docs.kernel.org/userspace-api/seccomp_filter.html), for which no right is needed, has the calls
below end as on a kernel that never heard of them (ENOSYS), and an open with O_TMPFILE as on a file system without it
(EOPNOTSUPP). It holds for the program and all that it starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator

NUMBERS = {
    "x86_64": {"openat": 257, "statx": 332, "copy_file_range": 326},
    "aarch64": {"openat": 56, "statx": 291, "copy_file_range": 285},
}
"""Numbers of system calls that differ between processors."""
NEWER = {
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "faccessat2": 439,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
}  # fmt: skip
"""Numbers that are the same everywhere, as all are that came since Linux 5.0."""
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUALS, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_NUMBER, _ARCH, _FLAGS = 0, 4, 32
"""Where they stand in `struct seccomp_data`; the flags of openat are the low half of its third argument."""
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


def lacking() -> dict[str, int]:
    """Return the system calls that this processor's filter has end with ENOSYS, by name."""
    own = NUMBERS[platform.machine()]
    return {**{name: number for name, number in own.items() if name != "openat"}, **NEWER}


def _filter() -> Iterator[tuple[int, int, int, int]]:
    """Yield the instructions (code, jump if true, jump if false, value) of the filter."""
    machine = platform.machine()
    yield _LOAD, 0, 0, _ARCH
    yield _EQUALS, 1, 0, AUDIT_ARCH[machine]
    yield _RETURN, 0, 0, _ALLOW  # 32-bit programs have numbers of their own
    yield _LOAD, 0, 0, _NUMBER
    for number in lacking().values():
        yield _EQUALS, 0, 1, number
        yield _RETURN, 0, 0, _ERRNO | errno.ENOSYS
    yield _EQUALS, 0, 4, NUMBERS[machine]["openat"]
    yield _LOAD, 0, 0, _FLAGS
    yield _AND, 0, 0, os.O_TMPFILE
    yield _EQUALS, 0, 1, os.O_TMPFILE
    yield _RETURN, 0, 0, _ERRNO | errno.EOPNOTSUPP
    yield _RETURN, 0, 0, _ALLOW


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def grow_old() -> None:
    """Take the newer calls from this process and its children, for good. OSError where the kernel has no seccomp."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _filter())
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter")


if __name__ == "__main__":
    grow_old()
    os.execvp(sys.argv[1], sys.argv[1:])
