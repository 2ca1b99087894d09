"""One rule: which function makes which targets from which facts, as a doit task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from doit.exceptions import TaskFailed

from provisioning.base import artifacts
from provisioning.base.artifacts import Target
from provisioning.base.errors import Error
from provisioning.base.files import wrap_os_errors

Task = dict[str, Any]
Reasons = Callable[[], tuple[object, ...]]
"""Says why a task must run; nothing to say means that it is up to date."""


def rule(
    action: Callable[..., Mapping[str, object] | None],
    *,
    given: Mapping[str, object],
    makes: Iterable[Target] = (),
    after: Iterable[str] = (),
    why: Reasons | None = None,
    **doit_keys: object,
) -> Task:
    """Declare that `action(**given)` makes the targets `makes` once the tasks `after` are done.

    The task is up to date when `why()` has nothing to say; without `why` it always runs. A `given` that does not fit
    the signature of `action` raises TypeError here, when the rules load. Addresses and records of birth carry the
    truth, so there is no file_dep: doit's database may vanish.
    """
    inspect.signature(action).bind(**given)
    targets = tuple(makes)
    return {
        "actions": [(_run, [action], {"given": dict(given)})],
        "targets": [str(target.path) for target in targets],
        "task_dep": list(after),
        "uptodate": [(_up_to_date, [why])],
        "clean": [(_remove, [targets])],
        "io": {"capture": False},
        **doit_keys,
    }


def _up_to_date(why: Reasons | None) -> bool:
    """Never raise: an exception here would end doit with a traceback. What cannot be checked is done again."""
    try:
        return why is not None and not why()
    except Exception:  # noqa: BLE001 - see above; the action meets the same cause and reports it
        return False


def _run(action: Callable[..., Mapping[str, object] | None], given: Mapping[str, object]) -> object:
    """Run an action; a known error, or a refusal of the system, fails the task with a message, not with a traceback."""
    try:
        with wrap_os_errors("finish this step"):
            return dict(action(**given) or {})
    except Error as error:
        return Failed(error)


class Failed(TaskFailed):  # type: ignore[misc]  # doit has no types
    """A task failure that keeps its typed error for whoever called the build."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


def _remove(targets: tuple[Target, ...], dryrun: bool) -> None:  # noqa: FBT001 - doit's calling convention
    for target in targets:
        if target.path.exists():
            print(f"removing {target.path}")
        if not dryrun:
            artifacts.remove(target)
