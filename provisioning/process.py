"""Processes that end when they must: children with their parent, a build within seconds of being told to stop."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from provisioning.errors import StoppedError

STOP_WITHIN_S = 4.0
"""A build told to stop that has not stopped after this is ended hard: whatever is cut off then, nothing is lost."""
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_forks_are_guarded = False
_wakeup_is_guarded = False


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends; exit if `parent` has ended already.

    Without it a child of a killed build writes on while the next build runs.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def guard_forks() -> None:
    """Make every later `os.fork` of this process (doit -n, multiprocessing) give a child that dies with its parent."""
    global _forks_are_guarded  # noqa: PLW0603  os.register_at_fork cannot be undone: once is enough
    if not _forks_are_guarded:
        _forks_are_guarded = True
        parents: list[int] = []
        os.register_at_fork(
            before=lambda: parents.append(os.getpid()),
            after_in_parent=lambda: parents.pop() and None,
            after_in_child=lambda: die_with_parent(parents.pop()),
        )


def _leave_wakeup_to_parent() -> None:
    """Keep a signal to a forked child from waking the watch of its parent through the inherited pipe."""
    global _wakeup_is_guarded  # noqa: PLW0603  os.register_at_fork cannot be undone: once is enough
    if not _wakeup_is_guarded:
        _wakeup_is_guarded = True
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1) and None)


@contextlib.contextmanager
def stops_in_order(within_s: float = STOP_WITHIN_S) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into StoppedError at the end of the block; for the main thread of a command.

    Inside the block the first of them raises KeyboardInterrupt, which no `except Exception` swallows. If the block is
    not over after `within_s` seconds (it may be deep in a library that looks at no signal), the process exits with
    128 + signal. A signal that is ignored, as under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, told = os.getpid(), []

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child, which has nothing to put in order
            os._exit(128 + number)
        told.append(number)
        if len(told) == 1:
            raise KeyboardInterrupt

    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    watch = _Watch(within_s)
    try:
        yield
    except KeyboardInterrupt:
        if not told:
            raise
        raise StoppedError(
            f"stopped by {signal.Signals(told[0]).name}",
            next_step="run doit again: it goes on from the finished work; the previous generation is untouched",
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        watch.end()


class _Watch:
    """Ends the process if a signal arrived and `end` was not called in time, even while Python runs no bytecode."""

    def __init__(self, within_s: float) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(self.reader, True)
        self.over = threading.Event()
        self.before = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        _leave_wakeup_to_parent()
        self.thread = threading.Thread(target=self._run, args=(within_s,), daemon=True, name="stop-watch")
        self.thread.start()

    def _run(self, within_s: float) -> None:
        while True:
            number = os.read(self.reader, 1)[0]
            if self.over.is_set():
                return
            if number in _SIGNALS and not self.over.wait(within_s):
                sys.stderr.write(f"not stopped {within_s:g} s after {signal.Signals(number).name}: ended hard\n")
                os._exit(128 + number)

    def end(self) -> None:
        """Stop watching."""
        self.over.set()
        signal.set_wakeup_fd(self.before)
        os.write(self.writer, b"\0")
        self.thread.join()
        os.close(self.reader)
        os.close(self.writer)
