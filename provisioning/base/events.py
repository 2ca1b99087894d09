"""Structured events: one logger, one record per event, fields instead of prose.

Kinds are stable names below `c10.provision.`; a handler turns records into JSON lines or a calm line for a person.
No key material is ever a field.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from provisioning.base.printable import printable

LOGGER = logging.getLogger("c10.provision")
PREFIX = "c10.provision."
PROGRESS = "progress"


def event(kind: str, /, *, level: int = logging.INFO, **fields: object) -> None:
    """Log one event of `kind` (without the prefix) with its fields; text in them cannot steer a terminal."""
    if LOGGER.isEnabledFor(level):
        shown = {name: printable(value) if isinstance(value, str) else value for name, value in fields.items()}
        LOGGER.log(level, "%s%s", PREFIX, kind, extra={"kind": PREFIX + kind, "kv": shown})


@contextlib.contextmanager
def forwarded(logger: logging.Logger | None) -> Iterator[None]:
    """Let `logger` handle every event of the block, too."""
    if logger is None:
        yield
        return
    handler = logging.Handler(logger.getEffectiveLevel())
    handler.emit = logger.handle  # type: ignore[method-assign]
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(min(LOGGER.getEffectiveLevel(), handler.level))
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


def error(kind: str, /, **fields: object) -> None:
    """Log an event after which nothing is published."""
    event(kind, level=logging.ERROR, **fields)


def warn(kind: str, /, **fields: object) -> None:
    """Log an event that a person should see again at the end of the build."""
    event(kind, level=logging.WARNING, **fields)


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
    event(PROGRESS, level=logging.DEBUG, task=task, done=done, total=total, unit=unit)
