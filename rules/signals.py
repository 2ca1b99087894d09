"""SIGTERM, SIGINT and SIGHUP stop a build in order: finished work stays, the half-made goes, the lock is freed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from provisioning.base.errors import StoppedError


class Stopped(KeyboardInterrupt):
    """A signal asked the build to stop. Not an Exception: no `except Exception` on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells report it."""
        return 128 + self.number

    def as_error(self) -> StoppedError:
        """Return what the build report says."""
        return StoppedError(f"stopped by {self}", next_step="run doit again: finished work is kept")


@contextlib.contextmanager
def stops_in_order() -> Iterator[None]:
    """Raise Stopped in the main thread on the first of the signals; a second one acts as it did before.

    A SIGHUP that is ignored, as `nohup` has it, stays so: the terminal may go and the build go on.

    In another thread this does nothing: signals belong to the program that calls the build.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]

    def stop(number: int, _frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        raise Stopped(number)

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
