"""Recovery: what a killed build left goes, what `current` needs and what is finished stays. Idempotent."""

from __future__ import annotations

import os
from pathlib import Path

from provisioning.base.files import TEMPORARY, remove_tree, temporary_beside, without_write_permission, wrap_os_errors
from provisioning.flight.publish.generations import (
    GENERATIONS,
    current_generation,
    current_number,
    dir_name,
    names_in,
    numbers_in,
    remember,
    remembered,
    stage_dir,
)


def recover(cache: Path, *, keep: int) -> None:
    """Remove what a killed build left: temporary files, unfinished stages, generations not switched to or too many.

    Idempotent; to be called under the lock. Never touches what `current` needs, nor finished work in `.build`.
    """
    with wrap_os_errors("clean up after an interrupted build", cache):
        _recall_counter(cache)
        clear(stage_dir(cache))  # a stage belongs to the request of one build: it is published by that or by none
        _remove_temporaries(cache)
        published = remembered(cache)
        for number in numbers_in(cache / GENERATIONS):
            if number > published:
                remove_generation(cache, number)
        if (newest := current_generation(cache)) is not None:
            make_read_only(newest)
        prune(cache, keep)


def _recall_counter(cache: Path) -> None:
    """Write down the highest published counter where a kill, or somebody who removed `.build`, left a lower one.

    Only the newest generation can be one that `current` was never switched to: any other was published.
    """
    published = [current_number(cache) or 0, *numbers_in(cache / GENERATIONS)[:-1]]
    remember(cache, max(published))


def prune(cache: Path, keep: int) -> None:
    """Remove published generations until `keep` are left, the oldest first, never the current one."""
    current = current_number(cache)
    others = [number for number in numbers_in(cache / GENERATIONS) if number != current]
    for number in others[: max(0, len(others) - (keep - 1))]:
        remove_generation(cache, number)


def remove_generation(cache: Path, number: int) -> None:
    """Take a generation out of sight in one step, then remove it."""
    generation = cache / GENERATIONS / dir_name(number)
    os.makedirs(stage_dir(cache), exist_ok=True)
    doomed = temporary_beside(stage_dir(cache) / generation.name)
    os.chmod(generation, 0o700)
    os.rename(generation, doomed)
    remove_tree(doomed)


def make_read_only(generation: Path) -> None:
    """Take the write permission from every directory of a generation; its files were born without."""
    for directory in directories_of(generation):
        without_write_permission(directory)


def directories_of(root: Path) -> list[Path]:
    """Return `root` and every directory below it, the deepest first."""
    below: list[Path] = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.extend(directories_of(Path(entry.path)))
    return [*below, root]


def clear(directory: Path) -> None:
    """Remove everything in `directory`, which may not be there."""
    for name in names_in(directory):
        remove(directory / name)


def _remove_temporaries(cache: Path) -> None:
    """Remove what unfinished writers left beside `current` and in `.build`."""
    for name in os.listdir(cache):
        if TEMPORARY.match(name):
            remove(cache / name)
    for name in names_in(cache / ".build"):
        _remove_below(cache / ".build" / name, shared=name == "descriptors")


def _remove_below(path: Path, *, shared: bool) -> None:
    """Remove temporary names at and below `path`; in a store that another cache may use, only those of dead writers."""
    if TEMPORARY.match(path.name):
        if not (shared and _writer_lives(path.name)):
            remove(path)
    elif os.path.isdir(path) and not os.path.islink(path):
        for name in names_in(path):
            _remove_below(path / name, shared=shared)


def _writer_lives(temporary: str) -> bool:
    """Tell whether the process that made this temporary name is another one that still runs."""
    found = TEMPORARY.match(temporary)
    return found is not None and int(found["pid"]) != os.getpid() and os.path.exists(f"/proc/{found['pid']}")


def remove(path: Path) -> None:
    """Remove whatever is at `path`; a symbolic link is not followed."""
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    else:
        os.unlink(path)
