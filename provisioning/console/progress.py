"""Progress of a command that is no build: one live line on a terminal, one line every half minute elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from provisioning.base import events
from provisioning.console import awaiting
from provisioning.console.human import HumanListener
from provisioning.console.listener import fields_of, kind_of


class ProgressListener(HumanListener):
    """Shows progress and nothing else; what a command has to say it prints itself."""

    def __init__(
        self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, since: dict[str, float] | None = None
    ) -> None:
        super().__init__(stream, clock=clock)
        self._first = {} if since is None else since

    def show(self, record: logging.LogRecord) -> None:
        """Show an event, if it is one of progress."""
        if kind_of(record) != events.PROGRESS:
            return
        now = self._clock()
        if now - self._first.setdefault(str(fields_of(record)["task"]), now) >= awaiting.UNSEEN_S:
            super().show(record)

    @contextlib.contextmanager
    def kept_apart(self) -> Iterator[None]:
        """Take the live line away before anything else is written to the terminal."""
        if not self.live:
            yield
            return
        out, err = _Clearing(sys.stdout, self.clear), _Clearing(sys.stderr, self.clear)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield


class _Clearing:
    """A stream that takes the live line away before it writes."""

    def __init__(self, stream: TextIO, clear: Callable[[], None]) -> None:
        self._stream, self._clear = stream, clear

    def write(self, text: str) -> int:
        """Write `text` where the live line was."""
        self._clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
