"""fs-verity: the kernel checks each page of a file against a digest, so that nobody can change it, and says the digest.

Where the file system has it (ext4 and f2fs with the feature, btrfs), an engine that a library opens by its path
is the verified one if the path measures the digest of the verified file (`Verdict.verity_digest`). See Linux,
Documentation/filesystems/fsverity.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from provisioning.base.words import counted

_ENABLE = 0x40806685  # _IOW('f', 133, struct fsverity_enable_arg)
_MEASURE = 0xC0046686  # _IOWR('f', 134, struct fsverity_digest)
_SHA256, _BLOCK_BYTES, _DIGEST_BYTES = 1, 4096, 64
_MISSING = {
    errno.EOPNOTSUPP: "the file system has not the feature `verity`",
    errno.ENOTTY: "the file system has no fs-verity",
    errno.EINVAL: "the file system or kernel has no fs-verity",
    errno.ENOSYS: "the kernel has no fs-verity",
    errno.EPERM: "this user may not",
    errno.EACCES: "this user may not",
    errno.EROFS: "the file system is read-only",
}


def enable(path: Path) -> None:
    """Enable fs-verity on a file that nobody has open for writing; nothing if it is enabled. OSError otherwise."""
    argument = struct.pack("=IIIIQIIQ88x", 1, _SHA256, _BLOCK_BYTES, 0, 0, 0, 0, 0)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _ENABLE, argument)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    finally:
        os.close(fd)


def measure(fd: int) -> str | None:
    """Return `sha256:` and the digest that the kernel enforces for an open file; None where there is none."""
    buffer = bytearray(struct.pack("=HH", _SHA256, _DIGEST_BYTES) + bytes(_DIGEST_BYTES))
    try:
        fcntl.ioctl(fd, _MEASURE, buffer)
    except OSError:
        return None
    algorithm, size = struct.unpack_from("=HH", buffer)
    return f"sha256:{buffer[4 : 4 + size].hex()}" if algorithm == _SHA256 else None


def enable_all(files: Iterable[Path]) -> str:
    """Enable fs-verity on every file and return what came of it, in words: an installation does not fail by it."""
    count = 0
    for path in files:
        try:
            enable(path)
        except OSError as error:
            return f"not enabled: {_MISSING.get(error.errno or 0, error.strerror)}"
        count += 1
    return f"enabled on {counted(count, 'file')}"
