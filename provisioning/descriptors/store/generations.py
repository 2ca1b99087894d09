"""Generations of one descriptor key's shards and map: compaction writes the next one and renames it into being."""

from __future__ import annotations

import os
from pathlib import Path

from provisioning.base.disk import directories
from provisioning.base.disk.files import fsync_dir, make_dirs

UNFINISHED = "tmp-"


def newest(home: Path) -> Path:
    """Return the directory of the newest generation, the first one made if there is none."""
    numbers = _numbers(home)
    directory = home / _name(max(numbers, default=1))
    make_dirs(directory)
    return directory


def existing(home: Path) -> Path | None:
    """Return the directory of the newest generation without making anything; None if there is none."""
    numbers = _numbers(home) if home.is_dir() else []
    return home / _name(max(numbers)) if numbers else None


def begin(home: Path) -> Path:
    """Return an empty directory for the next generation; what an unfinished compaction left is removed."""
    directory = home / (UNFINISHED + _name(max(_numbers(home), default=0) + 1))
    if directory.is_dir():
        directories.remove(home, directory.name)
    make_dirs(directory)
    return directory


def finish(home: Path, directory: Path) -> None:
    """Make the directory from `begin` the newest generation."""
    fsync_dir(directory)
    os.rename(directory, home / directory.name.removeprefix(UNFINISHED))
    fsync_dir(home)


def prune(home: Path) -> None:
    """Remove all generations but the newest."""
    for number in sorted(_numbers(home))[:-1]:
        directories.remove(home, _name(number))


def _name(number: int) -> str:
    return f"g{number:06d}"


def _numbers(home: Path) -> list[int]:
    return [int(name[1:]) for name in os.listdir(home) if name[0] == "g" and name[1:].isdigit()]
