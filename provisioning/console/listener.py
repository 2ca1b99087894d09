"""What every listener has: a place in the log for the length of a build, and warnings that are not forgotten."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from provisioning.base import events
from provisioning.base.hashing import on_hashed

if TYPE_CHECKING:
    from provisioning.base.outcome import BuildReport


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """Return the fields of an event; none for a record that is not an event."""
    return getattr(record, "kv", {})


def kind_of(record: logging.LogRecord) -> str:
    """Return the kind of an event without the prefix, or the message of a record that is not an event."""
    return str(getattr(record, "kind", record.getMessage())).removeprefix(events.PREFIX)


def words(record: logging.LogRecord) -> str:
    """Return an event for reading: its kind, then `name value` for each field."""
    fields = ", ".join(f"{name} {_value(value)}" for name, value in fields_of(record).items() if value is not None)
    return f"{kind_of(record)}: {fields}" if fields else kind_of(record)


def _value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        shown = " ".join(map(str, value[:5]))
        return f"{shown} and {len(value) - 5} more" if len(value) > 5 else shown
    return str(value)


WARNINGS_SHOWN = 20
"""Warnings that a person is shown, of one kind while they come and in all at the end; the JSON log has every one."""


class Listener(logging.Handler):
    """A handler on the event log; `open` and `close` may each be called once."""

    wanted = logging.INFO

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.DEBUG)
        self.stream = stream
        self.warnings: dict[str, int] = {}
        self.warning_count = 0
        self._level_before, self._heard_before = events.LOGGER.level, on_hashed.get()

    def open(self) -> None:
        """Begin to listen; progress is only computed if this listener shows it."""
        self._level_before = events.LOGGER.level
        events.LOGGER.setLevel(self.wanted)
        events.LOGGER.addHandler(self)
        self._heard_before = on_hashed.get()
        on_hashed.set(lambda done, all_: events.progress(self.working_on(), done, all_, unit="bytes"))

    def working_on(self) -> str:
        """Return what a cache is read for: the work that its progress is shown as."""
        return "verify"

    def close(self) -> None:
        """Stop listening."""
        on_hashed.set(self._heard_before)
        events.LOGGER.removeHandler(self)
        events.LOGGER.setLevel(self._level_before)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, and keep it if it is a warning."""
        if record.levelno >= logging.WARNING:
            self._count(words(record))
        with contextlib.suppress(OSError):  # nobody reads, or its disk is full: the build goes on
            self.show(record)

    def _count(self, text: str) -> None:
        self.warning_count += 1
        if text in self.warnings or len(self.warnings) < WARNINGS_SHOWN:
            self.warnings[text] = self.warnings.get(text, 0) + 1

    def show(self, record: logging.LogRecord) -> None:
        """Show one record."""
        raise NotImplementedError

    def finish(self, report: BuildReport, summary: Sequence[tuple[str, str]] = ()) -> None:
        """Say how the build ended; may be called after `close`.

        summary: what the published cache is worth, as (text, mark) pairs; empty where nothing was verified.
        """
        raise NotImplementedError
