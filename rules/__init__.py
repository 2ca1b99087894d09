"""The build as doit rules: `declare` for a dodo.py, `build` for a program. The only package that imports doit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from doit.cmd_base import ModuleTaskLoader

from provisioning.base.blas import begin_with_one_thread
from provisioning.base.outcome import BuildReport
from provisioning.console.streams import write_any_character
from rules.commands import Run
from rules.tasks import Tasks, namespace

__all__ = ["build", "declare"]


def declare(dodo: str | os.PathLike[str]) -> dict[str, object]:
    """Return what the dodo.py at the path `dodo` must contain: the tasks of its directory and doit's settings."""
    begin_with_one_thread()
    write_any_character()
    return namespace(Tasks(Path(dodo).absolute().parent))


def build(cache: str | os.PathLike[str]) -> BuildReport:
    """Build the cache directory `cache` as `doit` there would, and return the report.

    Raises the typed error of whatever stopped it (BuildLockHeldError, ManifestCoverageError, ConfigError, …), with the
    FAILURE report in its attribute `report`. No state is shared between calls; signals are the caller's affair.
    """
    command, report = run(Path(cache))
    if command.collector.failure is not None:
        error = command.collector.failure
        error.report = report
        raise error
    return report


def run(cache: Path, selected: Sequence[str] = ()) -> tuple[Run, BuildReport]:
    """Run the tasks `selected` (all if none) of `cache`; return the command, with what it saw, and the report."""
    root = cache.absolute()
    loader = ModuleTaskLoader(namespace(Tasks(root)))
    loader.root = root
    command = Run(task_loader=loader, config={}, bin_name="doit", cmds={})
    params, args = command.cmdparser.parse(list(selected))
    _, report = command.build(params, args)
    return command, report
