"""What doit reports while tasks run, collected into the build report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from provisioning import console
from provisioning.base.errors import Error
from provisioning.base.outcome import BuildReport
from provisioning.build.generation import contents
from provisioning.build.tasks import CHECKS, WALK
from provisioning.flight import summary as summaries
from provisioning.flight.publish import MANIFEST
from rules.rule import Failed


class Collector:
    """A doit reporter: one calm line a task, and the counts of the build."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self.ran: list[str] = []
        self._reused: list[str] = []
        self._described = 0
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self.failure: Error | None = None
        self.ignored: list[str] = []
        self.facts: dict[str, Mapping[str, object]] = {}
        self.is_complete = False
        self.published: contents.Published | None = None
        self._reasons = 0

    def report(self, cache: Path | None) -> BuildReport:
        """Return the report of what was seen; `cache` is looked at for what is published now."""
        self.published = published = contents.published(cache) if cache and not self.failure else None
        return BuildReport(
            outcome="FAILURE" if self.failure else "SUCCESS" if self.ran else "IDEMPOTENT_NO_OP",
            engines_built=_count(self.ran, "engine:"),
            engines_reused=_count(self._reused, "engine:") if self.ran or self.failure else 0,
            descriptors_generated=self._described,
            manifest_hash=published.manifest_hash if published else None,
            manifest_path=str(published.path / MANIFEST) if published else None,
            failure_reason=str(self.failure) if self.failure else None,
            elapsed_s=round(self._clock() - self._started, 3),
        )

    def summary(self) -> Sequence[tuple[str, str]]:
        """Return what the cache that `report` found is worth; nothing where this build has not verified it."""
        if self.published is None or not self.is_complete:
            return ()
        state: summaries.State = "REFUSED" if self._reasons else "PASS"
        summary = summaries.summarise(
            self.published.manifest, state, reasons=self._reasons, today=summaries.utc_today()
        )
        return summary.parts()

    def seconds(self) -> dict[str, float]:
        """Return how long each task took that made something; for `descriptors`, one descriptor."""
        took = {task: round(self._took[task], 4) for task in self.ran}
        if (all_of_them := took.pop("descriptors", None)) is not None and self._described:
            took["descriptors"] = round(all_of_them / self._described, 6)
        return took

    def initialize(self, tasks: Mapping[str, Any], selected_tasks: object) -> None:  # noqa: ARG002 - doit's interface
        """Doit is about to start: keep what decides each task."""
        self.facts = {name: task.meta["decided by"] for name, task in tasks.items() if task.meta}

    def get_status(self, task: object) -> None:
        """Doit is about to ask whether a task is up to date."""

    def execute_task(self, task: Any) -> None:
        """A task starts; a group has no actions and is not shown."""
        if task.actions:
            self._began[task.name] = self._clock()
            console.task_started(task.name)

    def add_success(self, task: Any) -> None:
        """A task has ended well."""
        if not task.actions:
            return
        self._took[task.name] = self._clock() - self._began[task.name]
        console.task_ended(task.name)
        self.is_complete = task.name == WALK
        if task.name not in CHECKS:
            self.ran.append(task.name)
        self._described += task.values.get("descriptors_generated", 0)
        self._reasons = task.values.get("reasons", self._reasons)

    def add_failure(self, task: Any, fail: Any) -> None:
        """A task has failed: with a known error, or with one nobody foresaw, whose traceback is shown."""
        console.task_failed(task.name)
        if isinstance(fail, Failed):
            self.failure = self.failure or fail.error
            return
        if fail.get_name() == "UnmetDependency":
            return
        self.failure = self.failure or Error(
            f"task {task.name} failed unexpectedly", next_step="report the traceback above"
        )
        sys.stderr.write(fail.get_msg() + "\n")

    def skip_uptodate(self, task: Any) -> None:
        """A task is up to date."""
        if task.actions:
            self._reused.append(task.name)

    def skip_ignore(self, task: Any) -> None:
        """A task is ignored by the user's order."""
        self.ignored.append(task.name)
        console.task_ignored(task.name)

    def cleanup_error(self, exception: Any) -> None:
        """A teardown failed."""
        self.failure = self.failure or Error(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        """Doit itself failed."""
        self.failure = self.failure or Error(msg)

    def teardown_task(self, task: object) -> None:
        """No task of ours has a teardown."""

    def complete_run(self) -> None:
        """All selected tasks are done; the outcome is printed after the lock is free."""


def _count(names: list[str], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in names)
