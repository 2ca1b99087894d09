"""Recovery: what a killed build left goes, what `current` needs and what is finished stays. Idempotent.

Everything here works on handles from the cache's root down: see `provisioning.base.disk.directories`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from provisioning.base.disk import directories
from provisioning.base.disk.files import temporary_beside, temporary_writer, wrap_os_errors
from provisioning.base.errors import FilesystemError
from provisioning.flight.publish.generations import (
    BUILD,
    COUNTER,
    CURRENT,
    GENERATIONS,
    MORE_SIGNATURES,
    STAGE,
    current_number,
    dir_name,
    numbers_in,
    remember,
    remembered,
)


def recover(cache: Path, *, keep: int) -> None:
    """Remove what a killed build left: temporary files, unfinished stages, generations not switched to or too many.

    Idempotent; to be called under the lock. Never touches what `current` needs, nor finished work in `.build`;
    where `current` names nothing, no generation at all.
    FilesystemError, before anything is changed, if a link or another file system stands in place of a directory, or a
    directory in place of the link.
    """
    with wrap_os_errors("clean up after an interrupted build", cache):
        refuse_links(cache)
        refuse_directory(cache)
        _recall_counter(cache)
        clear(cache, STAGE)  # a stage belongs to the request of one build: it is published by that or by none
        _remove_temporaries(cache)
        published, current = remembered(cache), current_number(cache)
        if current is None or current not in numbers_in(cache, GENERATIONS):
            return  # `current` is lost: each generation may be the last good one, and the next commit prunes
        for number in numbers_in(cache, GENERATIONS):
            if number > published:
                remove_generation(cache, number)
        make_read_only(cache, f"{GENERATIONS}/{dir_name(current)}")
        prune(cache, keep)


def refuse_links(cache: Path) -> None:
    """Raise FilesystemError if a link stands where the cache has a directory or file of its own, below its root.

    Looked at: `generations` and each generation, `.build` and each name in it, and what waits in `.build/stage`.
    """
    for relative in (GENERATIONS, BUILD, STAGE):
        with (
            contextlib.suppress(FileNotFoundError),
            directories.opened(cache, relative) as fd,
            os.scandir(fd) as entries,
        ):
            for entry in entries:
                if entry.is_symlink() and temporary_writer(entry.name) is None:
                    directories.refuse_link(fd, entry.name, shown=cache / relative / entry.name)


def refuse_directory(cache: Path) -> None:
    """Raise FilesystemError if `current` is a directory, as a copy that follows links makes it: nothing replaces that.

    What it holds is somebody's: it is not removed.
    """
    with directories.opened(cache) as root, contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(CURRENT, dir_fd=root, follow_symlinks=False).st_mode):
            raise FilesystemError(
                "`current` is a directory, not a link to a generation: was it copied with `cp -rL`?",
                file=cache / CURRENT,
                next_step="move it away (`mv current current.copy`), then run this again; `cp -a` keeps links",
            )


def _recall_counter(cache: Path) -> None:
    """Write down the highest published counter where a kill, or somebody who removed `.build`, left a lower one.

    Only the newest generation can be one that `current` was never switched to: any other was published.
    """
    published = [current_number(cache) or 0, *numbers_in(cache, GENERATIONS)[:-1]]
    remember(cache, max(published))


def prune(cache: Path, keep: int) -> None:
    """Remove published generations until `keep` are left, the oldest first, never the current one."""
    current = current_number(cache)
    others = [number for number in numbers_in(cache, GENERATIONS) if number != current]
    for number in others[: max(0, len(others) - (keep - 1))]:
        remove_generation(cache, number)


def forget_above(cache: Path, number: int) -> None:
    """Remove the generations above `number`, and remember no higher counter: they did not prove good here."""
    with wrap_os_errors("remove generations that are not to be flown", cache):
        for above in numbers_in(cache, GENERATIONS):
            if above > number:
                remove_generation(cache, above)
        if remembered(cache) > number:
            directories.write_durably(cache, COUNTER, f"{number}\n".encode())


def remove_generation(cache: Path, number: int) -> None:
    """Take a generation out of sight in one step, then remove it."""
    generation = f"{GENERATIONS}/{dir_name(number)}"
    directories.make(cache, STAGE, durable=False)
    doomed = f"{STAGE}/{temporary_beside(Path(dir_name(number))).name}"
    with directories.opened(cache, generation) as fd:
        os.fchmod(fd, 0o700)
    directories.rename(cache, generation, doomed)
    directories.remove(cache, doomed)


def make_read_only(cache: Path, relative: str) -> None:
    """Take the write permission from everything in a generation."""
    for directory in directories_below(cache, relative):
        with directories.opened(cache, directory) as fd:
            for name in os.listdir(fd):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_mode & 0o222:
                    _drop_write(fd, name)
            if (mode := stat.S_IMODE(os.fstat(fd).st_mode)) & 0o222:
                os.fchmod(fd, mode & ~0o222)


def add_signatures(cache: Path, relative: str, signatures: bytes) -> None:
    """Replace the signatures of further keys in a published generation, in one step; the directory stays read-only."""
    with directories.opened(cache, relative) as fd:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.fchmod(fd, mode | 0o200)
        try:
            directories.write_durably(cache, f"{relative}/{MORE_SIGNATURES}", signatures)
            _drop_write(fd, MORE_SIGNATURES)
        finally:
            os.fchmod(fd, mode)


def _drop_write(directory: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & ~0o222)
    finally:
        os.close(fd)


def directories_below(cache: Path, relative: str) -> Iterator[str]:
    """Yield every directory below `relative`, then itself: the deepest first."""
    with directories.opened(cache, relative) as fd:
        names = sorted(os.listdir(fd))
        below = [name for name in names if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)]
    for name in below:
        yield from directories_below(cache, f"{relative}/{name}")
    yield relative


def clear(cache: Path, relative: str) -> None:
    """Remove everything in a directory, which may not be there."""
    for name in directories.names_in(cache, relative):
        directories.remove(cache, f"{relative}/{name}")


def _remove_temporaries(cache: Path) -> None:
    """Remove what unfinished writers left beside `current` and in `.build`."""
    for name in directories.names_in(cache, ""):
        if temporary_writer(name) is not None:
            directories.remove(cache, name)
    with contextlib.suppress(FileNotFoundError), directories.opened(cache, BUILD) as build:
        _remove_in(build, cache / BUILD)


def _remove_in(directory: int, shown: Path, *, shared: bool = False) -> None:
    """Remove temporary names in and below a handle; in a store that another cache may use, only of dead writers."""
    with os.scandir(directory) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_directory in found:
        if temporary_writer(name) is not None:
            if not (shared and _writer_lives(name)):
                directories.remove_at(directory, name, shown=shown / name)
        elif is_directory:
            _enter_and_remove(directory, name, shown / name, shared=shared or name == "descriptors")


def _enter_and_remove(parent: int, name: str, shown: Path, *, shared: bool) -> None:
    fd = directories.enter(parent, name, shown=shown)
    try:
        _remove_in(fd, shown, shared=shared)
    finally:
        os.close(fd)


def _writer_lives(temporary: str) -> bool:
    """Return whether the process that made this temporary name is another one that still runs."""
    writer = temporary_writer(temporary)
    return writer not in (None, os.getpid()) and os.path.exists(f"/proc/{writer}")
