"""doit's commands for a cache directory: each that writes holds the build lock, and recovery runs before it.

doit.cfg names these classes, so they replace doit's own in that directory and nowhere else. The lock wraps the whole
command: a lock in a task's setup would be taken after doit opened its database, and not at all on a no-op (measured).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit.cmd_clean import Clean as DoitClean
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_ignore import Ignore as DoitIgnore
from doit.cmd_resetdep import ResetDep as DoitResetDep
from doit.cmd_run import Run as DoitRun
from doit.exceptions import InvalidCommand, InvalidDodoFile

from provisioning import console
from provisioning.base.errors import Error
from provisioning.base.files import make_dirs, wrap_os_errors
from provisioning.base.lock import build_lock
from provisioning.base.outcome import BuildReport
from provisioning.base.stopping import exit_soon_after
from provisioning.build import history, steps
from provisioning.build.request import read_request
from provisioning.config import Flight
from provisioning.config.parse import read_flight
from provisioning.flight import publish
from provisioning.flight.signing import hand_over_password
from rules.reporter import Collector
from rules.signals import Stopped, stops_in_order
from rules.tasks import database

FAILED = 1
NOT_STARTED = 3


def cache_of(command: Any, params: Any) -> Path:
    """Return the cache directory of a command: where its dodo.py is."""
    given = getattr(command.loader, "root", None)
    return Path(given) if given else Path(params["dodoFile"]).absolute().parent


@contextlib.contextmanager
def sole_builder(flight: Flight) -> Iterator[None]:
    """Hold the lock of the cache; recovery has run. Raises BuildLockHeldError, FilesystemError."""
    with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
        publish.recover(flight.root, keep=flight.publish.keep_generations)
        _drop_damaged(database(flight.root))
        yield


def _drop_damaged(database: str) -> None:
    """Remove a database of doit that is none: it holds nothing that is needed, and doit would end with a traceback."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        try:
            db.execute("SELECT * FROM sqlite_master").fetchall()
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError:
            os.unlink(database)


class Guarded:
    """A doit command that writes: under the lock, after recovery, with our errors told as messages."""

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the command; 3 where it could not start."""
        self.cache = cache_of(self, params)
        try:
            with sole_builder(read_flight(self.cache)):
                return int(super().execute(params, args) or 0)  # type: ignore[misc]
        except Error as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return NOT_STARTED


class Forget(Guarded, DoitForget):  # type: ignore[misc]  # doit has no types
    """`doit forget`, under the lock."""


class Ignore(Guarded, DoitIgnore):  # type: ignore[misc]
    """`doit ignore`, under the lock."""


class ResetDep(Guarded, DoitResetDep):  # type: ignore[misc]
    """`doit reset-dep`, under the lock."""


class Clean(Guarded, DoitClean):  # type: ignore[misc]
    """`doit clean`, under the lock. Without task names it resets: older keys, descriptors and generations go too."""

    def _execute(
        self,
        dryrun: bool,  # noqa: FBT001 - doit's calling convention
        cleandep: bool,  # noqa: FBT001
        cleanall: bool,  # noqa: FBT001
        cleanforget: bool,  # noqa: ARG002, FBT001 - always forgets
        pos_args: list[str] | None = None,
    ) -> None:
        super()._execute(dryrun, cleandep, cleanall, True, pos_args)  # noqa: FBT003
        if not pos_args:
            steps.reset(self.cache, tell=print, dryrun=dryrun)


LOG_OPTION = {
    "name": "log",
    "long": "log",
    "type": str,
    "default": "human",
    "choices": (("human", "lines for a person"), ("json", "one JSON object a line, on standard error")),
    "help": "form of the log",
}


class Run(DoitRun):  # type: ignore[misc]
    """`doit run`: lock, recover, scan, build; then one line and one file that say how it ended."""

    cmd_options = (*DoitRun.cmd_options, LOG_OPTION)

    def execute(self, params: Any, args: list[str]) -> int:
        """Build and say how it ended; doit's exit codes, 130 or 143 where a signal stopped it in order."""
        if params["num_process"]:
            raise InvalidCommand("-n is refused: tasks depend on each other, and each uses all cores by itself")
        listener = console.listen(params["log"], sys.stderr)
        try:
            with exit_soon_after(signal.SIGTERM, signal.SIGINT), stops_in_order():
                rc, report = self.build(params, args)
        finally:
            listener.close()
        listener.finish(report)
        return rc

    def build(self, params: Any, args: list[str]) -> tuple[int, BuildReport]:
        """Build under the lock; return doit's exit code and the report, which is also written."""
        self.collector = Collector(time.monotonic)
        try:
            flight = read_flight(cache_of(self, params))
            hand_over_password(flight.signing)
            with wrap_os_errors("build here"), sole_builder(flight):
                return self._build_locked(flight, params, args)
        except Error as error:
            self.collector.failure, rc = error, NOT_STARTED
        except Stopped as stopped:
            self.collector.failure, rc = stopped.as_error(), stopped.exit_code
        return rc, self.collector.report(None)

    def _run_tasks(self, flight: Flight, params: Any, args: list[str]) -> int:
        if _asks_for_tiles(args):
            steps.survey(flight)
        make_dirs(flight.build_dir)
        params["reporter"], params["dep_file"] = self.collector, database(flight.root)
        try:
            rc = int(super().execute(params, args))
        except InvalidDodoFile as error:
            if not isinstance(error.__cause__, Error):
                raise
            self.collector.failure = error.__cause__  # no request could be made: no GPU, say, for the backend asked for
            return NOT_STARTED
        if self.collector.ran and not self.collector.failure:
            history.remember(read_request(flight.root), self.collector.seconds())
        return rc

    def _build_locked(self, flight: Flight, params: Any, args: list[str]) -> tuple[int, BuildReport]:
        try:
            with wrap_os_errors("build here"):
                rc = self._run_tasks(flight, params, args)
        except Error as error:
            self.collector.failure, rc = error, FAILED
        except Stopped as stopped:
            self.collector.failure, rc = stopped.as_error(), stopped.exit_code
        report = self.collector.report(flight.root)
        steps.record(flight, report)
        return rc, report


def _asks_for_tiles(selected: list[str]) -> bool:
    """Engines alone can be compiled without a single tile, for use after a hardware change."""
    return not selected or any(not name.startswith(("engine", "onnx")) for name in selected)
