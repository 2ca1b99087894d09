"""The counter floor: the least counter accepted, in a file outside the cache.

Beside it stand, each as a counter and the SHA-256 of a Manifest.json:

    <floor>.manifest   the set that raised it: of two sets with one counter only the first is flown
    <floor>.previous   the set that was accepted before that one
    <floor>.fallback   the one set below the floor that passes, while the floor is the number written before it
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from provisioning.base.named import NamedTuple
from provisioning.flight.verify.expect import ANY, Anything, CounterFloor
from provisioning.flight.verify.reasons import Code, Refusal

BESIDE = ".manifest"
PREVIOUS = ".previous"
FALLBACK = ".fallback"
_FLOOR = rb"(0|[1-9][0-9]{0,15})\n?"
_PASSED = rb"([1-9][0-9]{0,15}) ([0-9a-f]{64})\n?"
_PERMITTED = rb"([1-9][0-9]{0,15}) ([1-9][0-9]{0,15}) ([0-9a-f]{64})\n?"


class Accepted(NamedTuple):
    """A set that passed: its counter and the SHA-256 of its Manifest.json."""

    counter: int
    sha256: str


class Floor(NamedTuple):
    """The least counter; the digest of the Manifest that passed with it, if known; the one set below that may pass."""

    counter: int
    sha256: str | None = None
    fallback: Accepted | None = None


def read_floor(floor: int | CounterFloor | Anything, cache: str | os.PathLike[str]) -> Floor:
    """Return what `floor` says, 0 for ANY; Refusal if its file is inside the cache, missing or not a number."""
    if floor is ANY:
        return Floor(0)
    if not isinstance(floor, CounterFloor):
        return Floor(int(floor))
    _refuse_inside(floor.path, cache)
    return _read(floor.path)


def _read(path: Path) -> Floor:
    try:
        found = re.fullmatch(_FLOOR, _content(path))
    except OSError as error:
        raise Refusal(Code.FLOOR, "", f"{path}: {error.strerror}; to begin, write 0 into it on the ground") from error
    if not found:
        raise Refusal(Code.FLOOR, "", f"{path}: does not hold one decimal number")
    counter = int(found[1])
    passed = _beside(path, BESIDE, _PASSED)
    permitted = _beside(path, FALLBACK, _PERMITTED)
    return Floor(
        counter,
        passed[2].decode() if passed and int(passed[1]) == counter else None,
        Accepted(int(permitted[2]), permitted[3].decode()) if permitted and int(permitted[1]) == counter else None,
    )


def is_new(floor: CounterFloor) -> bool:
    """Return whether nothing was ever accepted by this floor: it is 0, and no set has raised it."""
    try:
        return _read(floor.path).counter == 0 and not os.path.lexists(os.path.realpath(floor.path) + BESIDE)
    except Refusal:
        return False


def accepted_by(floor: CounterFloor) -> Accepted | None:
    """Return the set that raised the floor, None if that is not known or cannot be read."""
    try:
        now = _read(floor.path)
    except Refusal:
        return None
    return Accepted(now.counter, now.sha256) if now.sha256 else None


def read_previous(floor: CounterFloor) -> Accepted | None:
    """Return the set that was accepted before the one that raised the floor; Refusal if it cannot be read."""
    found = _beside(floor.path, PREVIOUS, _PASSED)
    return Accepted(int(found[1]), found[2].decode()) if found else None


def _beside(floor: Path, suffix: str, form: bytes) -> re.Match[bytes] | None:
    """Return what a file beside the floor says, None if it is not there; Refusal for anything else."""
    path = Path(os.path.realpath(floor) + suffix)
    try:
        found = re.fullmatch(form, _content(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refusal(Code.FLOOR, "", f"{path}: {error.strerror}") from error
    if not found:
        raise Refusal(Code.FLOOR, "", f"{path}: does not hold a counter and a SHA-256; remove it on the ground")
    return found


def _content(path: Path) -> bytes:
    """Return the first bytes of a regular file, nothing of another: a FIFO is not waited for, a device not read."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        return file.read(128) or b"" if stat.S_ISREG(os.fstat(fd).st_mode) else b""


def _refuse_inside(path: Path, cache: str | os.PathLike[str]) -> None:
    """A floor that travels with the cache would be rolled back with it."""
    root = os.path.realpath(cache)
    if os.path.basename(os.path.dirname(root)) == "generations":
        root = os.path.dirname(os.path.dirname(root))
    if os.path.commonpath([root, os.path.realpath(path)]) == root:
        raise Refusal(Code.FLOOR, "", f"{path}: inside the cache directory; keep it elsewhere")


def raise_floor(floor: CounterFloor, counter: int, sha256: str) -> None:
    """Raise the number in the file to `counter`, durably and never down, and write the Manifest's digest beside it.

    Refusal if that cannot be done; with Code.COUNTER if another set with this counter passed in the meantime.
    """
    with _locked(floor) as (directory, name):
        now = _read(floor.path)
        if counter < now.counter:
            return  # a newer set passed meanwhile, or this one is the fallback
        refuse_below(now, counter, sha256)
        before = now.fallback or (Accepted(now.counter, now.sha256) if now.sha256 else None)
        if now.counter != counter and before:
            _replace(directory, name + PREVIOUS, b"%d %s\n" % (before.counter, before.sha256.encode()))
        if now.sha256 is None or now.counter != counter:
            _replace(directory, name + BESIDE, b"%d %s\n" % (counter, sha256.encode()))
        if now.counter != counter:
            _replace(directory, name, b"%d\n" % counter)


def permit_fallback(floor: CounterFloor, permitted: Accepted | None) -> None:
    """Let the set that was accepted before this floor pass below it, until the floor is raised; None takes it back.

    Refusal if `permitted` is not what `<floor>.previous` names, or cannot be written.
    """
    with _locked(floor) as (directory, name):
        if permitted is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name + FALLBACK, dir_fd=directory)
            os.fsync(directory)
            return
        if permitted != read_previous(floor):
            raise Refusal(Code.FLOOR, "", f"{floor.path}: counter {permitted.counter} is not the set accepted before")
        line = b"%d %d %s\n" % (_read(floor.path).counter, permitted.counter, permitted.sha256.encode())
        _replace(directory, name + FALLBACK, line)


def set_floor(floor: CounterFloor, counter: int) -> None:
    """Write the number, up or down: the first, or that of a signed recovery statement. Refusal if it fails."""
    with _locked(floor) as (directory, name):
        _replace(directory, name, b"%d\n" % counter)


@contextlib.contextmanager
def _locked(floor: CounterFloor) -> Iterator[tuple[int, str]]:
    """Hold the lock on the floor's directory; yield a handle on it and the floor's name in it."""
    import fcntl

    parent, name = os.path.split(os.path.realpath(floor.path))  # a link stays one, what it names is replaced
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield directory, name
        finally:
            os.close(directory)
    except OSError as error:
        raise Refusal(Code.FLOOR, "", f"{floor.path}: cannot be raised: {error.strerror}") from error


def refuse_below(floor: Floor, counter: int, sha256: str) -> None:
    """Raise Refusal for a counter below the floor, or for another set than the one that passed with this counter."""
    if counter < floor.counter:
        if floor.fallback == (counter, sha256):
            return
        raise Refusal(Code.COUNTER, "Manifest.json", f"counter {counter} is below the floor {floor.counter}")
    if counter == floor.counter and floor.sha256 not in (None, sha256):
        raise Refusal(
            Code.COUNTER,
            "Manifest.json",
            f"another set with counter {counter} has passed: its Manifest.json is {floor.sha256}",
        )


def _replace(directory: int, name: str, data: bytes) -> None:
    """Replace a file under the lock. A link under the temporary name is an error; what else waits there is removed.

    It is not opened: a FIFO would hang the verifier, and a second name of a file would empty that file.
    """
    temporary = f".{name}.tmp"
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISLNK(os.stat(temporary, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(temporary, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o644, dir_fd=directory)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
