"""Structured events: one logger, one record per event, fields instead of prose.

Kinds are stable names below `c10.provision.`; a handler turns records into JSON lines or a calm line for a person.
No key material is ever a field.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from provisioning.base.printable import printable

if TYPE_CHECKING:
    import logging

    LOGGER: logging.Logger

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""The levels of `logging`, whose import is a tenth of what `flightcache verify` takes."""
PREFIX = "c10.provision."
PROGRESS = "progress"


before_progress: list[Callable[[str], None]] = []
"""Called with the task at each report of progress, before it is logged: who shows progress may begin to listen then."""


def __getattr__(name: str) -> logging.Logger:
    """Return LOGGER, the logger of all events, when it is asked for.

    It has a handler that does nothing: else a warning that nobody listens to is printed, as its kind alone.
    """
    if name != "LOGGER":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import logging

    log = logging.getLogger("c10.provision")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return log


def event(kind: str, /, *, level: int = INFO, **fields: object) -> None:
    """Log one event of `kind` (without the prefix) with its fields; text in them cannot steer a terminal.

    Below a warning nothing is done where nobody has imported `logging`: whoever listens has.
    """
    if level < WARNING and "logging" not in sys.modules:
        return
    log = __getattr__("LOGGER")
    if log.isEnabledFor(level):
        shown = {name: printable(value) if isinstance(value, str) else value for name, value in fields.items()}
        log.log(level, "%s%s", PREFIX, kind, extra={"kind": PREFIX + kind, "kv": shown})


@contextlib.contextmanager
def forwarded(logger: logging.Logger | None) -> Iterator[None]:
    """Let `logger` handle every event of the block, too."""
    if logger is None:
        yield
        return
    import logging

    log = __getattr__("LOGGER")
    handler = logging.Handler(logger.getEffectiveLevel())
    handler.emit = logger.handle  # type: ignore[method-assign]
    level = log.level
    log.addHandler(handler)
    log.setLevel(min(log.getEffectiveLevel(), handler.level))
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def error(kind: str, /, **fields: object) -> None:
    """Log an event after which nothing is published."""
    event(kind, level=ERROR, **fields)


def warn(kind: str, /, **fields: object) -> None:
    """Log an event that a person should see again at the end of the build."""
    event(kind, level=WARNING, **fields)


class Bytes:
    """Progress of work on `total` bytes, counted as they go by."""

    def __init__(self, task: str, total: int) -> None:
        self._task, self._total, self._done = task, total, 0

    def add(self, count: int) -> None:
        """Count `count` bytes more."""
        self._done += count
        progress(self._task, self._done, self._total, unit="bytes")


def progress(task: str, done: int, total: int, *, unit: str = "") -> None:
    """Report progress of long work; free when nobody listens (level DEBUG)."""
    for begin in tuple(before_progress):
        begin(task)
    event(PROGRESS, level=DEBUG, task=task, done=done, total=total, unit=unit)
