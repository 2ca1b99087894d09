"""The commit: one rename of `current`, with everything that it refers to on the disk before, and pruning after."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from provisioning.base import events
from provisioning.base.disk import directories
from provisioning.base.disk.files import temporary_beside, wrap_os_errors
from provisioning.base.errors import FilesystemError
from provisioning.flight.publish.generations import (
    CURRENT,
    GENERATIONS,
    STAGE,
    current_number,
    dir_name,
    numbers_in,
    remember,
)
from provisioning.flight.publish.recovery import make_read_only, prune, remove_generation


def commit(cache: Path, staged: Path, *, keep: int) -> Path:
    """Publish `staged`, which the caller has verified, and return its generation; at most `keep` remain.

    Raises FilesystemError; `current` then still names what it named. What goes wrong after the switch only warns.
    """
    number = int(staged.name)
    generation = cache / GENERATIONS / staged.name
    with wrap_os_errors("publish a generation", generation):
        relative = f"{GENERATIONS}/{staged.name}"
        directories.make(cache, GENERATIONS)
        if number in numbers_in(cache, GENERATIONS) and number != current_number(cache):
            remove_generation(cache, number)  # put there by a commit that was cut off before its switch
        directories.rename(cache, f"{STAGE}/{staged.name}", relative)
        make_read_only(cache, relative)
        directories.sync(cache, GENERATIONS)
        _switch(cache, number)
    events.event("published", generation=str(generation), counter=number)
    _tidy(cache, number, keep)
    return generation


def return_to(cache: Path, number: int) -> Path:
    """Make a generation that is kept the current one, durably, and return it; FilesystemError if it is not there.

    The caller has verified it. Nothing is removed and no counter changes: see `flightcache fallback`.
    """
    with wrap_os_errors("return to the generation before", cache / GENERATIONS / dir_name(number)):
        with directories.opened(cache, f"{GENERATIONS}/{dir_name(number)}"):
            pass
        _switch(cache, number)
    return cache / GENERATIONS / dir_name(number)


def _tidy(cache: Path, number: int, keep: int) -> None:
    """Write down the counter and remove old generations; the cache is published already, so a failure only warns."""
    try:
        with wrap_os_errors("tidy up after publishing", cache):
            remember(cache, number)
            prune(cache, keep)
    except FilesystemError as error:
        events.warn("tidy.failed", reason=str(error))


def _switch(cache: Path, number: int) -> None:
    temporary = temporary_beside(Path(CURRENT)).name
    with directories.opened(cache) as root:
        try:
            os.symlink(f"{GENERATIONS}/{dir_name(number)}", temporary, dir_fd=root)
            os.rename(temporary, CURRENT, src_dir_fd=root, dst_dir_fd=root)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=root)
            raise
        os.fsync(root)
