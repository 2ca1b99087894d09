"""One row of the table of tasks as a doit task."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from doit.dependency import UptodateCalculator
from doit.exceptions import TaskFailed

from provisioning.base.disk import artifacts, lock
from provisioning.base.disk.artifacts import Target
from provisioning.base.disk.files import wrap_machine_errors
from provisioning.base.errors import BuildLockHeldError, Error
from provisioning.base.hashing import plain
from provisioning.base.printable import printable
from provisioning.base.process.signals import stop_goes_first
from provisioning.base.words import typed
from provisioning.build.tasks import TaskRow

Task = dict[str, Any]


def rule(row: TaskRow, root: Path) -> Task:
    """Return `row` as a task of the cache directory `root`.

    A `given` that does not fit the signature of the step raises TypeError here, when the rules load. doit shows
    `file_dep`, `targets` and `meta`; addresses and artifact records decide, so doit's database may vanish: what is
    found up to date is entered there again.
    """
    inspect.signature(row.step).bind(**row.given)
    _, _, model = row.name.partition(":")
    return {
        "basename": row.group,
        **({"name": model} if model else {}),
        "doc": row.summary,
        "actions": [(_run, [root, row.step], {"given": dict(row.given)})],
        "file_dep": [str(path) for path in row.needs],
        "targets": [*(str(target.path) for target in row.makes), *map(str, row.publishes)],
        "task_dep": list(row.after),
        "uptodate": [UpToDate(row.due)],
        "meta": {"decided by": plain(row.facts)},
        "clean": [(_remove, [root, row.makes])],
        "io": {"capture": False},
    }


class UpToDate(UptodateCalculator):  # type: ignore[misc]  # doit has no types
    """Asks why a task is due, and enters in doit's database what is up to date; as text it is the reasons."""

    def __init__(self, due: Callable[[], tuple[str, ...]] | None) -> None:
        super().__init__()
        self._due = due

    def setup(self, dep_manager: Any, tasks_dict: Any) -> None:
        """Keep doit's database at hand."""
        super().setup(dep_manager, tasks_dict)
        self.dep_manager = dep_manager

    def __call__(self, task: Any, values: Any) -> bool:  # noqa: ARG002 - doit gives both by these names
        """Return whether nothing makes the task due; `task` is a doit task."""
        _drop_former(self.dep_manager, task)
        if self.reasons():
            return False
        _enter(self.dep_manager, task)
        return True

    def reasons(self) -> tuple[str, ...]:
        """Return why the task is due. Never raises: an exception here would end doit with a traceback.

        What cannot be checked is due: its step meets the same cause and reports it.
        """
        try:
            with stop_goes_first():
                return ("it runs every time",) if self._due is None else self._due()
        except Exception as error:  # noqa: BLE001 - see above
            return (f"it cannot be checked: {error}",)

    def __repr__(self) -> str:
        return "; ".join(self.reasons())


def _drop_former(database: Any, task: Any) -> None:
    """Leave out of doit's entry for `task` the files it was once made from: with each new address it would grow."""
    database._get(task.name, "deps:")  # noqa: SLF001 - doit has no public call for this (0.37); it reads the entry
    entry = getattr(database.backend, "_cache", {}).get(task.name, {})
    for path in [name for name in entry if os.path.isabs(name) and name not in task.file_dep]:
        del entry[path]


def _enter(database: Any, task: Any) -> None:
    """Write the present state of the file_deps of an up-to-date task into doit's database, which may have lost them."""
    known = database._get(task.name, "deps:")  # noqa: SLF001 - doit has no public call for this (0.37)
    checker = type(database.checker).__name__
    for path in task.file_dep:
        before = database._get(task.name, path)  # noqa: SLF001
        state = database.checker.get_state(path, before)
        if state is not None and state != before:
            database._set(task.name, path, state)  # noqa: SLF001
    if known is None or set(known) != set(task.file_dep):
        database._set(task.name, "deps:", tuple(task.file_dep))  # noqa: SLF001
    if database._get(task.name, "checker:") != checker:  # noqa: SLF001
        database._set(task.name, "checker:", checker)  # noqa: SLF001


def _run(root: Path, step: Callable[..., Mapping[str, object] | None], given: Mapping[str, object]) -> object:
    """Run a step; a known error, or a refusal of the machine, fails the task with a message, not with a traceback."""
    try:
        _require_lock(root)
        with stop_goes_first(), wrap_machine_errors("finish this step"):
            return dict(step(**given) or {})
    except Error as error:
        return Failed(error)


def _require_lock(root: Path) -> None:
    """Refuse to write for a command of doit that is not one of `rules.commands`: nothing else takes the lock."""
    if not lock.is_held_for(root / lock.FILE):
        raise BuildLockHeldError(
            "this command of doit does not hold the build lock, so nothing is built",
            file=root / lock.FILE,
            next_step=f"run `doit` or `{typed('doit', '-f', root / 'dodo.py')}`, or call rules.build",
        )


class Failed(TaskFailed):  # type: ignore[misc]  # doit has no types
    """A task failure that keeps its typed error for whoever called the build."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


def _remove(root: Path, targets: Iterable[Target], dryrun: bool) -> None:  # noqa: FBT001 - doit's calling convention
    for target in targets:
        if target.path.exists():
            print(f"removing {printable(target.path)}")
        if not dryrun:
            _require_lock(root)
            artifacts.remove(target)
