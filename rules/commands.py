"""doit's commands for a cache directory: each that writes holds the build lock, and recovery runs before it.

`rules.plugin` hands over to them wherever a command is about a cache. The lock wraps the whole command: a lock in a
task's setup would be taken after doit opened its database, and not at all on a no-op (measured). A command that is none
of these cannot write: see `rules.rule`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.cmd_clean import Clean as DoitClean
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_ignore import Ignore as DoitIgnore
from doit.cmd_resetdep import ResetDep as DoitResetDep
from doit.cmd_run import Run as DoitRun
from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from provisioning import console
from provisioning.base import events
from provisioning.base.disk.files import make_dirs, wrap_machine_errors
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import Error, FilesystemError
from provisioning.base.outcome import BuildReport
from provisioning.base.process import confined
from provisioning.base.process.blas import require_address_space
from provisioning.base.process.signals import Stopped, stop_goes_first, stops_in_order
from provisioning.base.process.stopping import exit_soon_after
from provisioning.build import recheck, steps
from provisioning.build.request import in_hand
from provisioning.config import BuildSettings, Flight
from provisioning.config.parse import keep_tables, read_flight
from provisioning.console.listener import Listener
from provisioning.console.streams import OutputError, answering
from provisioning.flight import publish
from provisioning.flight.signing import hand_over_password, key_apart
from rules.database import database, make_usable
from rules.plugin import OPTIONS, cache_of
from rules.reporter import Collector

__all__ = ["Clean", "Forget", "Ignore", "ResetDep", "Run"]

FAILED = 1
NOT_STARTED = 3
BY_DOIT = (InvalidCommand, InvalidDodoFile, InvalidTask, CmdParseError)
"""What doit says itself, as one line."""
OUTPUT_STEP = "read it in .build/build-report.json; where output goes to a file, make room on that disk"
ADDRESS_SPACE_BYTES = 1 << 30
SQLITE_PATH_BYTES = 510
"""SQLite takes 512 with a NUL on Unix (os_unix.c, MAX_PATHNAME)."""


def require_cache(command: Any, params: Any) -> Path:
    """Return the cache directory that a command is about. Raises InvalidCommand where there is none."""
    cache = cache_of(command, params)
    if cache is None:
        raise InvalidCommand("this is no flight cache: flight.toml and dodo.py are not here")
    return cache


@contextlib.contextmanager
def sole_builder(flight: Flight) -> Iterator[None]:
    """Hold the lock of the cache; recovery has run. Raises BuildLockHeldError, FilesystemError."""
    _require_short_paths(flight.root, flight.descriptor_store)
    with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
        publish.recover(flight.root, keep=flight.publish.keep_generations)
        make_usable(database(flight.root))
        with in_hand(flight):
            yield


def _require_short_paths(root: Path, descriptor_store: Path) -> None:
    """Refuse a directory in which SQLite could open none of our databases: it says only that it is "unable to"."""
    store = os.path.join(descriptor_store, "0" * 64, "map.sqlite-journal")
    longest = max(len(os.fsencode(os.path.realpath(path))) for path in (store, database(root) + "-journal"))
    if longest > SQLITE_PATH_BYTES:
        raise FilesystemError(
            "the path of the cache directory is too long for SQLite",
            file=root,
            facts={"longest path below it": f"{longest} bytes", "limit": f"{SQLITE_PATH_BYTES} bytes"},
            next_step="move the cache directory, or descriptors.store, to a shorter path",
        )


@contextlib.contextmanager
def _key_apart(command: Run, cache: Path) -> Iterator[None]:
    """Put the key of `cache` into a process of its own; what is wrong with its flight.toml is for the build to say.

    The build takes what was read here. A program that runs doit within itself goes on afterwards: it keeps its key,
    since giving it up is for ever.
    """
    if not is_program():
        yield
        return
    try:
        flight = command.read_flight(cache)
    except Error:
        yield
        return
    command.read_flight = lambda _: flight
    with key_apart(flight.signing, working=(flight.root, flight.descriptor_store)):
        yield


def is_program() -> bool:
    """Return whether this process is doit's: started as `doit`, `python -m doit`, or by a dodo.py."""
    name = os.path.basename(sys.argv[0])
    return name.startswith(("doit", "dodo")) or os.path.basename(os.path.dirname(sys.argv[0])) == "doit"


class Guarded:
    """A doit command that writes: under the lock, after recovery, with our errors as messages."""

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the command; 3 where it could not start."""
        self.cache = require_cache(self, params)
        try:
            with wrap_machine_errors("go on"), sole_builder(read_flight(self.cache)), answering():
                return int(super().execute(params, args) or 0)  # type: ignore[misc]
        except Error as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return NOT_STARTED


class Forget(Guarded, DoitForget):  # type: ignore[misc]  # doit has no types
    """`doit forget TASK …` or `--all`, under the lock."""

    def _execute(self, forget_sub: bool, forget_disable_default: bool, forget_all: bool) -> None:  # noqa: FBT001
        if not (forget_all or self.sel_tasks):  # doit ends with a traceback here
            raise InvalidCommand("forget what? Name tasks (`doit forget corpus`), or all of them (`doit forget --all`)")
        super()._execute(forget_sub, forget_disable_default, forget_all)


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
        cleanforget: bool,  # noqa: ARG002, FBT001 - a cache always forgets
        pos_args: list[str] | None = None,
    ) -> None:
        super()._execute(dryrun, cleandep, cleanall, True, pos_args)  # noqa: FBT003
        if not pos_args:
            steps.reset(self.cache, log=print, dryrun=dryrun)


class Run(DoitRun):  # type: ignore[misc]
    """`doit run`: lock, recover, scan, build; then one line and one file that say how it ended."""

    cmd_options = (*DoitRun.cmd_options, *OPTIONS)
    collector: Collector
    read_flight: Callable[[Path], Flight] = staticmethod(read_flight)

    def execute(self, params: Any, args: list[str]) -> int:
        """Build and say how it ended; doit's exit codes, 128 and the signal where one stopped it in order."""
        cache = require_cache(self, params)
        if params["num_process"]:
            raise InvalidCommand("-n is refused: tasks depend on each other, and each uses all cores by itself")
        if params["reporter"] != "console":
            raise InvalidCommand("-r is refused: the words of a build are its own; `doit --log json` is for programs")
        self.collector = Collector(time.monotonic)
        listener = console.listen(params["log"], sys.stderr)
        try:
            rc, report = self._build_apart(cache, params, args)
        finally:
            listener.close()
        return rc if self._is_said(listener, report) else rc or FAILED

    def _is_said(self, listener: Listener, report: BuildReport) -> bool:
        """Say how the build ended; False where that cannot be written, though a program waits for it."""
        try:
            with answering():
                listener.finish(report, self.collector.summary())
        except OutputError as error:
            if not error.reader_left:
                line = f"the outcome, {report.outcome}, cannot be written to standard output: {error}"
                with contextlib.suppress(OSError):
                    print(f"ERROR: {line}\n  next step: {OUTPUT_STEP}", file=sys.stderr)
            return error.reader_left
        except OSError:  # of standard error, which has the outcome of `--log json`
            return False
        return True

    def _build_apart(self, cache: Path, params: Any, args: list[str]) -> tuple[int, BuildReport]:
        """Build with the processes that hold the key and read foreign input, and with signals that stop it in order."""
        with (
            self._ending() as done,
            wrap_machine_errors("build here"),
            _key_apart(self, cache),
            confined.apart(cache / ".build"),
            exit_soon_after(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
            stops_in_order(),
        ):
            done.append(self.build(cache, params, args))
        return done[0]

    def build(
        self, cache: Path, params: Any, args: list[str], *, clock: Callable[[], float] = time.monotonic
    ) -> tuple[int, BuildReport]:
        """Build `cache` under the lock; return doit's exit code and the report, which is also written."""
        self.collector = Collector(clock)
        with self._ending() as done:
            flight = self.read_flight(cache)
            hand_over_password(flight.signing)
            with wrap_machine_errors("build here"), sole_builder(flight):
                done.append(self._build_locked(flight, params, args))
        return done[0]

    @contextlib.contextmanager
    def _ending(self) -> Iterator[list[tuple[int, BuildReport]]]:
        """Give a list for exit code and report. They say what happens before they are there."""
        done: list[tuple[int, BuildReport]] = []
        try:
            yield done
        except Error as error:
            if done:
                events.warn("record.failed", reason=str(error))
            else:
                done.append(self._not_built(error, NOT_STARTED))
        except Stopped as stopped:
            if not done:
                done.append(self._not_built(stopped.as_error(), stopped.exit_code))

    def _not_built(self, error: Error, rc: int) -> tuple[int, BuildReport]:
        self.collector.failure = error
        return rc, self.collector.report(None)

    def _run_tasks(self, flight: BuildSettings, params: Any, args: list[str]) -> int:
        require_address_space(ADDRESS_SPACE_BYTES, what="a build")
        if _asks_for_tiles(args):
            steps.survey(flight)
        make_dirs(flight.build_dir)
        if params["deep"]:
            recheck.ask(flight.build_dir)
        params["reporter"], params["dep_file"] = self.collector, database(flight.root)
        selected = [str(flight.root / name) if os.sep in name else name for name in args]
        try:
            with stop_goes_first():
                rc = int(super().execute(params, selected))
        except InvalidDodoFile as error:
            if not isinstance(error.__cause__, Error):
                raise
            self.collector.failure = error.__cause__  # no request could be made: no GPU, say, for the backend asked for
            return NOT_STARTED
        return rc

    def _build_locked(self, flight: BuildSettings, params: Any, args: list[str]) -> tuple[int, BuildReport]:
        try:
            with stop_goes_first(), wrap_machine_errors("build here"):
                rc = self._run_tasks(flight, params, args)
        except Error as error:
            rc = self._after(error)
        except Stopped as stopped:
            self.collector.failure, rc = stopped.as_error(), stopped.exit_code
        except BY_DOIT:
            raise
        except Exception as error:  # noqa: BLE001 - as in a task: shown in full, and the outcome is said and written
            traceback.print_exc()
            self.collector.failure, rc = _unexpected(error), FAILED
        if self.collector.ignored and rc == 0:
            self.collector.failure, rc = _ignored(self.collector.ignored), FAILED
        report = self.collector.report(flight.root)
        self._write_down(flight, report)
        return rc, report

    def _after(self, error: Error) -> int:
        """Return the exit code after `error`; once every task is done (doit closes its database) it only warns."""
        if self.collector.is_complete:
            events.warn("record.failed", reason=str(error))
            return 0
        self.collector.failure = error
        return FAILED

    def _write_down(self, flight: BuildSettings, report: BuildReport) -> None:
        """Write what the next plan compares with, and the report. A failure warns: what is published stays so."""
        try:
            if self.collector.ran and not self.collector.failure:
                from provisioning.build import history

                history.remember(flight.build_dir, self.collector.facts, self.collector.seconds())
            steps.record(flight.build_dir, report)
            keep_tables(flight.root)
        except Error as error:
            events.warn("record.failed", reason=str(error))


def _unexpected(error: Exception) -> Error:
    failure = Error(
        f"the build failed unexpectedly: {type(error).__name__}: {error}",
        next_step="run `doit` again; if it fails again, report the traceback above",
    )
    failure.__cause__ = error
    return failure


def _ignored(ignored: list[str]) -> Error:
    return Error(
        f"not built: doit was asked to ignore {', '.join(ignored)}",
        next_step=f"run `doit forget {' '.join(ignored)}`, then `doit` again",
    )


def _asks_for_tiles(selected: list[str]) -> bool:
    """Engines alone can be compiled without a single tile, for use after a hardware change."""
    return not selected or any(not name.startswith(("engine", "onnx")) for name in selected)
