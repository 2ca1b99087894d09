"""The coverage walk: every file of a generation is listed, every listed file is there, and nothing else is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from provisioning.base.named import NamedTuple
from provisioning.flight.manifest import Manifest
from provisioning.flight.verify.opening import (
    MANIFEST,
    MORE_SIGNATURES,
    SIDECAR,
    SIGNATURE,
    is_here,
    open_directory,
    open_generation,
    refuse_special,
)
from provisioning.flight.verify.reasons import Code, Reason, Refusal

MAX_REPORTED = 100
"""Unlisted files named one by one; a directory with millions of them must not cost minutes or memory."""


def expected_paths(manifest: Manifest) -> frozenset[str]:
    """Return every path that a generation with this Manifest must hold, and the only ones that it may."""
    listed = [entry.path for entry in manifest.files]
    return frozenset([MANIFEST, MANIFEST + SIDECAR, SIGNATURE, *listed, *(path + SIDECAR for path in listed)])


class Entry(NamedTuple):
    """What the walk finds: path in the generation, lstat, and whether it is on the mount of the generation."""

    path: str
    status: os.stat_result
    here: bool


def walk(generation: Path, manifest: Manifest) -> tuple[Reason, ...]:
    """Compare the directory with the Manifest by names and kinds, reading no file; empty if they agree."""
    try:
        root = open_generation(generation)
    except Refusal as refusal:
        return (refusal.reason,)
    try:
        return walk_handle(root, manifest)
    finally:
        os.close(root)


def walk_handle(root: int, manifest: Manifest) -> tuple[Reason, ...]:
    """`walk` for an open directory."""
    expected = expected_paths(manifest)
    directories = _directories(expected)
    try:
        return compare(expected, directories, _entries(root, directories))
    except OSError as error:
        return (Reason(Code.UNREADABLE, "", f"the walk failed: {error.strerror}"),)


def _directories(paths: Iterable[str]) -> frozenset[str]:
    return frozenset("/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1))


def _entries(root: int, directories: frozenset[str]) -> Iterator[Entry]:
    """Yield everything in the generation; only directories of listed files are entered."""
    for directory in ("", *sorted(directories)):
        try:
            fd = open_directory(root, directory)
        except OSError:
            continue  # compare() gives the reason: its files are missing, or it is not a directory
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{directory}/{entry.name}" if directory else entry.name
                    status = entry.stat(follow_symlinks=False)
                    if path not in directories or not stat.S_ISDIR(status.st_mode):
                        yield Entry(path, status, is_here(root, fd, entry.name, status))
        finally:
            os.close(fd)


def compare(
    expected: frozenset[str],
    directories: frozenset[str],
    found: Iterable[Entry],
) -> tuple[Reason, ...]:
    """Return what is missing, unlisted, not a regular file or on another mount.

    `found` holds everything but real directories that are expected; beyond a cap it is not read to its end.
    """
    reasons: list[Reason] = []
    seen: set[str] = set()
    unlisted = 0
    for path, status, here in found:
        if path in expected or path == MORE_SIGNATURES:
            seen.add(path)
            reasons.extend(_special(path, status, here=here))
        elif path in directories and stat.S_ISLNK(status.st_mode):
            reasons.append(Reason(Code.SYMLINK, path, "a symbolic link in place of a directory"))
        elif unlisted < MAX_REPORTED:
            unlisted += 1
            reasons.append(Reason(Code.UNLISTED, printable(path), "not listed in the Manifest"))
        else:
            reasons.append(Reason(Code.UNLISTED, "", f"more than {MAX_REPORTED} unlisted files; the walk stopped"))
            return tuple(reasons)
    missing = sorted(expected - seen)
    reasons.extend(Reason(Code.MISSING, path, "there is no such file") for path in missing)
    return tuple(reasons)


def _special(path: str, status: os.stat_result, *, here: bool) -> Iterator[Reason]:
    try:
        refuse_special(status, path, here=here)
    except Refusal as refusal:
        yield refusal.reason


def printable(path: str) -> str:
    """Return a file name found on disk in a form that cannot steer a terminal or break a log line."""
    return path if path.isprintable() else ascii(path)[1:-1]
