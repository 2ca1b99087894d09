"""The commit: one rename of `current`, with everything that it refers to on the disk before, and pruning after."""

from __future__ import annotations

import os
from pathlib import Path

from provisioning.base import events
from provisioning.base.errors import FilesystemError
from provisioning.base.files import discard, fsync_dir, make_dirs, temporary_beside, wrap_os_errors
from provisioning.flight.publish.generations import CURRENT, GENERATIONS, dir_name, remember
from provisioning.flight.publish.recovery import make_read_only, prune


def commit(cache: Path, staged: Path, *, keep: int) -> Path:
    """Publish `staged`, which the caller has verified, and return its generation; at most `keep` remain.

    Raises FilesystemError; `current` then still names what it named. What goes wrong after the switch only warns.
    """
    number = int(staged.name)
    generation = cache / GENERATIONS / staged.name
    with wrap_os_errors("publish a generation", generation):
        make_dirs(generation.parent)
        os.rename(staged, generation)
        make_read_only(generation)
        fsync_dir(generation.parent)
        _switch(cache, number)
    events.event("published", generation=str(generation), counter=number)
    _tidy(cache, number, keep)
    return generation


def _tidy(cache: Path, number: int, keep: int) -> None:
    """Write down the counter and remove old generations; the cache is published already, so a failure only warns."""
    try:
        with wrap_os_errors("tidy up after publishing", cache):
            remember(cache, number)
            prune(cache, keep)
    except FilesystemError as error:
        events.warn("tidy.failed", reason=str(error))


def _switch(cache: Path, number: int) -> None:
    temporary = temporary_beside(cache / CURRENT)
    try:
        os.symlink(f"{GENERATIONS}/{dir_name(number)}", temporary)
        os.rename(temporary, cache / CURRENT)
    except BaseException:
        discard(temporary)
        raise
    fsync_dir(cache)
