"""The table of tasks as doit wants it: `doit list` prints the summaries of `provisioning.build.tasks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from doit.exceptions import InvalidDodoFile

from provisioning.base.errors import Error
from provisioning.build.request import Request, read_request
from provisioning.build.tasks import TaskRow, task_rows
from rules.database import database
from rules.rule import Task, UpToDate, rule


class Tasks:
    """The tasks of the cache directory `root`; what it asks for is read when doit wants the tasks."""

    def __init__(self, root: Path, read: Callable[[Path], Request] = read_request) -> None:
        self.root = root
        self._read = read

    def task_build(self) -> Iterator[Task]:
        """Yield every task, and for those with one task a model the group that holds them."""
        try:
            rows = task_rows(self._read(self.root))
        except Error as error:
            raise InvalidDodoFile(str(error)) from error
        groups: set[str] = set()
        for row in rows:
            if row.group not in {row.name, *groups}:
                groups.add(row.group)
                yield _group(row.group, [member for member in rows if member.group == row.group])
            yield rule(row, self.root)


def _group(name: str, members: Sequence[TaskRow]) -> Task:
    """Return the group of tasks with one for each model; it is due when one of them is."""
    due = [row.due for row in members if row.due]
    reasons = UpToDate(lambda: tuple(reason for why in due for reason in why()))
    return {"basename": name, "name": None, "doc": members[0].summary, "uptodate": [reasons]}


def namespace(tasks: Tasks) -> dict[str, object]:
    """Return what a dodo.py must contain: doit's settings and the creator of `tasks`."""
    return {
        "DOIT_CONFIG": {
            "backend": "sqlite3",  # the only backend that survives a kill while it writes (measured)
            "check_file_uptodate": "timestamp",  # what a file holds is decided by its address, not by doit's MD5
            "dep_file": database(tasks.root),
            "verbosity": 2,
        },
        "task_build": tasks.task_build,
    }
