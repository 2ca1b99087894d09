"""The counter floor: the least counter accepted, one number in a file outside the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from provisioning.flight.verify.expect import ANY, Anything, CounterFloor
from provisioning.flight.verify.reasons import Code, Refusal

_FLOOR = re.compile(rb"(0|[1-9][0-9]{0,15})\n?")


def read_floor(floor: int | CounterFloor | Anything, cache: str | os.PathLike[str]) -> int:
    """Return the number of `floor`, 0 for ANY; Refusal if its file is inside the cache, missing or not a number."""
    if floor is ANY:
        return 0
    if not isinstance(floor, CounterFloor):
        return int(floor)
    _refuse_inside(floor.path, cache)
    return _read(floor.path)


def _read(path: Path) -> int:
    try:
        # Not to wait for a writer if it is a FIFO; what a FIFO or device gives is no number.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            text = file.read(32)
    except OSError as error:
        raise Refusal(Code.FLOOR, "", f"{path}: {error.strerror}; to begin, write 0 into it on the ground") from error
    if not _FLOOR.fullmatch(text):
        raise Refusal(Code.FLOOR, "", f"{path}: does not hold one decimal number")
    return int(text)


def _refuse_inside(path: Path, cache: str | os.PathLike[str]) -> None:
    """A floor that travels with the cache would be rolled back with it."""
    root = os.path.realpath(cache)
    if os.path.basename(os.path.dirname(root)) == "generations":
        root = os.path.dirname(os.path.dirname(root))
    if os.path.commonpath([root, os.path.realpath(path)]) == root:
        raise Refusal(Code.FLOOR, "", f"{path}: inside the cache directory; keep it elsewhere")


def raise_floor(floor: CounterFloor, counter: int) -> None:
    """Raise the number in the file to `counter`, durably and never down; Refusal if that cannot be done."""
    import fcntl

    parent, name = os.path.split(os.path.realpath(floor.path))  # a link stays one, what it names is replaced
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if _read(floor.path) < counter:
                _replace(directory, name, b"%d\n" % counter)
        finally:
            os.close(directory)
    except OSError as error:
        raise Refusal(Code.FLOOR, "", f"{floor.path}: cannot be raised: {error.strerror}") from error


def _replace(directory: int, name: str, data: bytes) -> None:
    temporary = f".{name}.tmp"
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory
    )
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
