"""What a person or a log collector sees of a build. Plain ANSI: one live line does not justify importing a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TextIO

from provisioning.base import events

if TYPE_CHECKING:
    from provisioning.console.listener import Listener

__all__ = ["listen", "task_ended", "task_failed", "task_ignored", "task_started"]


def listen(log_format: Literal["human", "json"], stream: TextIO) -> Listener:
    """Show the events of this process on `stream` until the listener is closed.

    `finish(report)` then repeats the warnings, and says the outcome: for people as the last line of standard output,
    as JSON on `stream`.
    """
    listener = _json(stream) if log_format == "json" else _human(stream)
    listener.open()
    return listener


def _human(stream: TextIO) -> Listener:
    from provisioning.console.human import HumanListener  # here, because most commands only paint words

    return HumanListener(stream)


def _json(stream: TextIO) -> Listener:
    from provisioning.console.jsonl import JsonListener

    return JsonListener(stream)


def task_started(name: str) -> None:
    """Say that a task begins."""
    events.event("task.started", task=name)


def task_ended(name: str) -> None:
    """Say that a task has ended well."""
    events.event("task.ended", task=name)


def task_failed(name: str) -> None:
    """Say that a task has failed; why is said at the end."""
    events.event("task.failed", task=name)


def task_ignored(name: str) -> None:
    """Say that a task is left out because doit was asked to ignore it."""
    events.warn("task.ignored", task=name)
