"""The build as doit rules: `declare` for a dodo.py, `build` for a program. The only package that imports doit."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provisioning.base.outcome import BuildReport
    from provisioning.config import Flight
    from provisioning.sources.store import TileStore
    from rules.commands import Run

__all__ = ["build", "declare"]


def declare(dodo: str | os.PathLike[str]) -> dict[str, object]:
    """Return what the dodo.py at the path `dodo` must contain: the tasks of its directory and doit's settings."""
    from provisioning.base.process.blas import begin_with_one_thread

    begin_with_one_thread()
    from provisioning.console.streams import write_any_character
    from rules.tasks import Tasks, namespace

    write_any_character()
    return namespace(Tasks(Path(dodo).absolute().parent))


def build(
    cache: str | os.PathLike[str],
    *,
    clock: Callable[[], float] = time.monotonic,
    logger: logging.Logger | None = None,
    tiles: TileStore | Mapping[str, TileStore] | None = None,
) -> BuildReport:
    """Build the cache directory `cache` as `doit` there would, and return the report.

    `clock` gives seconds, for the times in the report; `logger` gets every event of the build, beside those who listen
    to the logger `c10.provision`. Raises the typed error of whatever stopped it (BuildLockHeldError,
    ManifestCoverageError, ConfigError, …), with the FAILURE report in its attribute `report`. Signals are the caller's
    affair.
    """
    from provisioning.base import events

    with events.forwarded(logger):
        command, report = run(Path(cache), clock=clock, tiles=tiles)
    if command.collector.failure is not None:
        error = command.collector.failure
        error.report = report
        raise error
    return report


def run(
    cache: Path,
    selected: Sequence[str] = (),
    *,
    clock: Callable[[], float] = time.monotonic,
    tiles: TileStore | Mapping[str, TileStore] | None = None,
) -> tuple[Run, BuildReport]:
    """Run the tasks `selected` (all if none) of `cache`; return the command, with what it saw, and the report."""
    from doit.cmd_base import ModuleTaskLoader

    from provisioning.build.request import read_request
    from provisioning.config.parse import read_flight
    from provisioning.sources.stores import with_stores
    from rules.commands import Run
    from rules.tasks import Tasks, namespace

    def read(path: Path) -> Flight:
        flight = read_flight(path)
        return flight if tiles is None else replace(flight, tiles=with_stores(flight.tiles, tiles))

    root = cache.absolute()
    loader = ModuleTaskLoader(namespace(Tasks(root, lambda path: read_request(path, read))))
    loader.root = root
    command = Run(task_loader=loader, config={}, bin_name="doit", cmds={})
    command.read_flight = read
    params, args = command.cmdparser.parse(list(selected))
    _, report = command.build(root, params, args, clock=clock)
    return command, report
