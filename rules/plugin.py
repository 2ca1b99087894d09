"""doit's commands as entry points: in a cache directory those of `rules.commands`, elsewhere doit's own, unchanged.

An entry point is there for every project of the environment. So this module imports doit alone, and what a cache needs
is imported where one is met.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from doit.cmd_clean import Clean as DoitClean
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_ignore import Ignore as DoitIgnore
from doit.cmd_info import Info as DoitInfo
from doit.cmd_list import List as DoitList
from doit.cmd_resetdep import ResetDep as DoitResetDep
from doit.cmd_run import Run as DoitRun

LOG_OPTION = {
    "name": "log",
    "long": "log",
    "type": str,
    "default": "human",
    "choices": (("human", "lines for a person"), ("json", "one JSON object a line, on standard error")),
    "help": "form of the log of a flight cache",
}
DEEP_OPTION = {
    "name": "deep",
    "long": "deep",
    "type": bool,
    "default": False,
    "help": "read what is published in full, also where nothing changed (a flight cache; see publish.recheck_days)",
}
OPTIONS = (LOG_OPTION, DEEP_OPTION)
FAILED, NOT_STARTED, STOPPED, READER_LEFT = 1, 3, 130, 141
PERMIT = "give this user the permission (see `ls -ld`), or run this as the owner of the cache directory"
AGAIN = "run this again; if it fails again, see `dmesg` and `ulimit -a`, then install flightcache anew"


def cache_of(command: Any, params: Any) -> Path | None:
    """Return the cache directory that a command is about: where its dodo.py is, beside a flight.toml; else None."""
    given = getattr(command.loader, "root", None)
    if given:
        return Path(given)
    if "dodoFile" not in params:
        return None
    dodo = Path(os.path.abspath(params["dodoFile"]))
    if params["seek_file"] and not os.path.isabs(params["dodoFile"]):
        dodo = next((path for path in (p / dodo.name for p in dodo.parents) if path.exists()), dodo)
    return dodo.parent if (dodo.parent / "flight.toml").exists() and dodo.exists() else None


class InCache:
    """A command that hands over to the class of its name in `rules.<module>` where it is about a flight cache."""

    module = "commands"

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the command and return doit's exit code."""
        try:
            cache = cache_of(self, params)
        except OSError as error:
            return _refused(error)
        if cache is None:
            return int(super().execute(params, args) or 0)  # type: ignore[misc]
        gc.set_threshold(100_000, 20, 20)  # the usual 700 makes a tenth of a no-op a search for garbage (measured)
        try:
            name = type(self).__name__
            kind = getattr(importlib.import_module(f"rules.{self.module}"), name)
            command = kind.__new__(kind)
            vars(command).update(vars(self))  # doit's constructor asks every distribution for plugins: 10 ms, done
            rc = _answered(command, params, args)
        except Exception as error:  # an import that fails half-way may raise anything
            if not _is_of_the_machine(error):
                raise
            rc = _refused(error)
        except KeyboardInterrupt:
            if _ends_here():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the next one would be a traceback
            sys.stderr.write("stopped by SIGINT before anything was built\n")
            rc = STOPPED
        if _ends_here():
            _leave(rc)
        return rc


def _answered(command: Any, params: Any, args: list[str]) -> int:
    """Run `command`; its exit code, or one that says that its answer could not be written."""
    from provisioning.console.streams import OutputError, answering, open_missing

    open_missing()
    command.outstream = sys.stdout
    try:
        with answering():
            return int(command.execute(params, args) or 0)
    except OutputError as error:
        if error.reader_left:
            return READER_LEFT
        sys.stderr.write(f"ERROR: the answer cannot be written: {error}\n")
        return FAILED


def _leave(code: int) -> None:
    """End this process at once, where the part of the program that does so can be loaded."""
    try:
        from provisioning.base.process.leaving import leave
    except Exception as error:  # as above
        if not _is_of_the_machine(error):
            raise
    else:
        leave(code)


def _is_of_the_machine(error: Exception) -> bool:
    """Return whether a part of the program could not be read or run, or is not all there, as `base.disk.files` does."""
    if isinstance(error, AttributeError):
        return isinstance(error.obj, ModuleType)
    if isinstance(error, SystemError):  # "error return without exception set": no memory for the exception
        return "exception set" in str(error)
    return isinstance(error, (OSError, MemoryError, ImportError))


def _ends_here() -> bool:
    """Return whether this process is the command `doit` or `python -m doit`, which ends with what a command returns."""
    program, doits = sys.modules["__main__"], sys.modules.get("doit.__main__")
    by_name = doits is not None and getattr(program, "main", None) is getattr(doits, "main", doits)
    return by_name or getattr(getattr(program, "__spec__", None), "name", "") == "doit.__main__"


def _refused(error: Exception) -> int:
    """Say that a part of the program could not be read or run, with nothing that would have to be loaded; doit's 3."""
    why = str(error) or type(error).__name__
    step = PERMIT if isinstance(error, PermissionError) else AGAIN
    sys.stderr.write(f"ERROR: this command cannot go on: {why}\n  next step: {step}\n")
    return NOT_STARTED


class Run(InCache, DoitRun):  # type: ignore[misc]  # doit has no types
    """`doit run`."""

    cmd_options = (*DoitRun.cmd_options, *OPTIONS)


class Clean(InCache, DoitClean):  # type: ignore[misc]
    """`doit clean`."""


class Forget(InCache, DoitForget):  # type: ignore[misc]
    """`doit forget`."""


class Ignore(InCache, DoitIgnore):  # type: ignore[misc]
    """`doit ignore`."""


class ResetDep(InCache, DoitResetDep):  # type: ignore[misc]
    """`doit reset-dep`."""


class Info(InCache, DoitInfo):  # type: ignore[misc]
    """`doit info`."""

    module = "info"


class List(InCache, DoitList):  # type: ignore[misc]
    """`doit list`."""

    module = "info"
