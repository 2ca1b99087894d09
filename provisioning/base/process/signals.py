"""Signals stop a program in order: finished work stays, the half-made goes, the lock is freed."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from provisioning.base.errors import StoppedError

LOOK_AGAIN_S, MOST_WAIT_S = 0.02, 3.5
"""How long a signal waits for an import to end: an extension module that meets an exception may end the process.
A block of `stop_waits` has the same time.

Most of what `base.process.stopping` leaves: under load, or from a cold disk, the libraries take seconds.
"""
_met: list[tuple[int, float]] = []
"""Signals that the present block met, and until when an import could hold the first one up."""
_waits: list[None] = []
"""One for each block of `stop_waits` that runs."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop. Not an Exception: no `except Exception` on the way may swallow it."""

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
def stops_in_order(*numbers: int) -> Iterator[None]:
    """Raise Stopped in the main thread on the first of the signals, after an import; the second acts as it did before.

    A block of `stop_waits` holds it up as an import does.

    One that is ignored stays so: `nohup` has the terminal go and the build go on, a shell Ctrl-C leave what it started
    in the background.

    Whatever error ends the block after a signal is Stopped: see `stop_goes_first`.

    In another thread this does nothing: signals belong to the program that calls the build.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        number: signal.getsignal(number) for number in numbers or (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        _met.append((number, time.monotonic() + MOST_WAIT_S))
        number, until = _met[0]
        if (_waits or _is_importing(frame)) and time.monotonic() < until:
            if signal.SIGALRM not in before:
                before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S)
            return
        restore()
        raise Stopped(number)

    try:
        for number in list(before):
            signal.signal(number, stop)
        with stop_goes_first():
            yield
    finally:
        restore()
        _met.clear()


@contextlib.contextmanager
def stop_goes_first() -> Iterator[None]:
    """Raise Stopped for an error of the block if a signal came before it.

    Of an exception in a callback SQLite makes an OperationalError, an extension module an ImportError; and a process
    that the terminal sent the signal to as well is missed. None of them is why the build ends.
    """
    try:
        yield
    except Exception as error:
        if _met:
            raise Stopped(_met[0][0]) from error
        raise


@contextlib.contextmanager
def stop_waits() -> Iterator[None]:
    """Have a signal wait for the end of the block: one that starts a process, which nobody else could then end."""
    _waits.append(None)
    try:
        yield
    finally:
        _waits.pop()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
