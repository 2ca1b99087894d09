"""`doit info TASK` in a cache directory: one screen that says whether and why a task is due, and what decides it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from doit.cmd_info import Info as DoitInfo
from doit.cmd_list import List as DoitList
from doit.exceptions import InvalidCommand

from provisioning.build.history import differences, short
from rules.database import for_reading
from rules.plugin import cache_of

__all__ = ["Info", "List"]

WIDTH = 12


class Shows:
    """A doit command that only shows, whatever doit's database is like."""

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the command and return doit's exit code."""
        cache = cache_of(self, params)
        if cache is not None:
            params["dep_file"] = for_reading(cache)
        return int(super().execute(params, args) or 0)  # type: ignore[misc]


class List(Shows, DoitList):  # type: ignore[misc]  # doit has no types
    """`doit list`."""


class Info(Shows, DoitInfo):  # type: ignore[misc]
    """doit's `info`; tasks of a flight cache are shown in the words of `flightcache why`."""

    def _execute(self, pos_args: list[str], hide_status: bool = False) -> int:  # noqa: FBT001, FBT002 - doit's convention
        """Print one task; 1 if it is due, 0 if it is up to date. Raises InvalidCommand for an unknown one."""
        tasks = {task.name: task for task in self.task_list}
        named = {_near(target): task.name for task in self.task_list for target in task.targets}
        wanted = named.get(pos_args[0], pos_args[0]) if len(pos_args) == 1 else None
        if wanted is not None and wanted not in tasks:
            raise InvalidCommand(f"there is no task {wanted!r}; there are {', '.join(tasks)}")
        if wanted is None or not (tasks[wanted].meta or tasks[wanted].has_subtask):
            return int(super()._execute(pos_args, hide_status) or 0)
        task = tasks[wanted]
        reasons = () if hide_status or task.has_subtask else task.uptodate[0][0].reasons()
        rows = [*_status(reasons, shown=not hide_status and not task.has_subtask), *_rows(task)]
        lines = [f"{label:<{WIDTH}}{text}".rstrip() for label, text in rows]
        self.outstream.write("\n".join([task.name, f"  {task.doc}", "", *lines]) + "\n")
        return 1 if reasons else 0


def _status(reasons: tuple[str, ...], *, shown: bool) -> Iterator[tuple[str, str]]:
    if shown:
        yield from _block("due because" if reasons else "status", reasons or ("up to date",))


def _rows(task: Any) -> Iterator[tuple[str, str]]:
    yield from _block("made from", sorted(map(_near, task.file_dep), key=os.path.basename))
    yield from _block("makes", map(_near, task.targets))
    yield from _block("after", task.task_dep)
    yield from _block("decided by", [f"{name}: {short(value)}" for name, value in _facts(task.meta or {})])


def _facts(meta: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, _, value in differences({}, meta.get("decided by", {})):
        yield name, value


def _near(path: str) -> str:
    """Return `path` relative to the cache directory, which doit has made the working directory, if it is below."""
    near = os.path.relpath(path)
    return path if near.startswith("..") else near


def _block(label: str, values: Any) -> Iterator[tuple[str, str]]:
    for n, value in enumerate(values):
        yield ("" if n else label), str(value)
