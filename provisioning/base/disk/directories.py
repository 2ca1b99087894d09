"""A cache directory by handles: a name is looked up below its root, never through a link or on another file system.

Whoever can write into a cache directory, or hands over a drive, can put a link where a directory should be. So every
removal, renaming and change of mode goes component by component from a handle on the root (openat, O_NOFOLLOW).
`relative` is a POSIX path below `root`; the root itself is named by the user and may be a link. Calls that the system
refuses raise OSError; a link or a mount on the way raises FilesystemError.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from provisioning.base.disk.files import temporary_beside, write_all
from provisioning.base.errors import FilesystemError
from provisioning.base.words import typed

MAX_DEPTH = 64
"""Deepest tree that is removed; a cache has fewer than ten levels."""

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY = _ROOT | os.O_NOFOLLOW


@contextlib.contextmanager
def opened(root: Path, relative: str = "") -> Iterator[int]:
    """Yield a handle on the directory at `relative` below `root`."""
    fd = os.open(root, _ROOT)
    try:
        for depth, name in enumerate(parts := _parts(relative), 1):
            below = enter(fd, name, shown=root.joinpath(*parts[:depth]))
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def enter(parent: int, name: str, *, shown: Path) -> int:
    """Return a handle on directory `name` of the handle `parent`; FilesystemError, with path `shown`, for a link."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        refuse_link(parent, name, shown=shown)
        raise
    if os.fstat(fd).st_dev == os.fstat(parent).st_dev:
        return fd
    os.close(fd)
    raise FilesystemError(
        "another file system is mounted inside the cache directory",
        file=shown,
        next_step="unmount it, or use a cache directory that is whole on one file system",
    )


def refuse_link(parent: int, name: str, *, shown: Path) -> None:
    """Raise FilesystemError if `name` in the handle `parent` is a symbolic link."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise FilesystemError(
            "a symbolic link stands where the cache has its own files",
            file=shown,
            facts={"it names": os.readlink(name, dir_fd=parent)},
            next_step=f"find out who put it there, remove the link ({typed('rm', shown)}), then run this again",
        )


def names_in(root: Path, relative: str) -> list[str]:
    """Return the names in a directory, sorted; none if it is not there."""
    try:
        with opened(root, relative) as fd:
            return sorted(os.listdir(fd))
    except FileNotFoundError:
        return []


def make(root: Path, relative: str, *, durable: bool = True) -> None:
    """Create a directory and its parents below `root`; each new name is durable before the next is made in it.

    durable: False for a directory that nobody looks for after a power cut, such as the stage of a build.
    """
    parts = _parts(relative)
    for depth, name in enumerate(parts):
        with opened(root, "/".join(parts[:depth])) as fd, contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=fd)
            if durable:
                os.fsync(fd)
    with opened(root, relative):
        pass  # every component is a directory of this file system


def rename(root: Path, source: str, dest: str) -> None:
    """Rename below `root` in one step; durable only after `sync` of the directory."""
    (from_dir, old), (to_dir, new) = _split(source), _split(dest)
    with opened(root, from_dir) as from_fd, opened(root, to_dir) as to_fd:
        os.rename(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)


def sync(root: Path, relative: str) -> None:
    """Make the names in a directory durable."""
    with opened(root, relative) as fd:
        os.fsync(fd)


def remove(root: Path, relative: str) -> None:
    """Remove a file, a link (never what it names) or a tree below `root`; FileNotFoundError if it is not there."""
    parent, name = _split(relative)
    with opened(root, parent) as fd:
        remove_at(fd, name, shown=root / relative)


def remove_at(parent: int, name: str, *, shown: Path, depth: int = 0) -> None:
    """Remove what `name` is in the handle `parent`, read-only directories too."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    if depth == MAX_DEPTH:
        raise FilesystemError(
            f"directories are nested more than {MAX_DEPTH} deep",
            file=shown,
            next_step="flightcache never made these: find out who did, then remove them with rm -r",
        )
    fd = enter(parent, name, shown=shown)
    try:
        os.fchmod(fd, 0o700)
        for below in os.listdir(fd):
            remove_at(fd, below, shown=shown / below, depth=depth + 1)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def write_durably(root: Path, relative: str, data: bytes) -> None:
    """Replace a small file below `root` in one step: temporary file, fsync, rename, fsync of the directory."""
    parent, name = _split(relative)
    with opened(root, parent) as fd:
        temporary = temporary_beside(Path(name)).name
        try:
            _write_new(fd, temporary, data)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=fd)
            raise
        os.fsync(fd)


def _write_new(directory: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o644, dir_fd=directory)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def _parts(relative: str) -> list[str]:
    return [part for part in relative.split("/") if part]


def _split(relative: str) -> tuple[str, str]:
    parent, _, name = relative.rpartition("/")
    return parent, name
