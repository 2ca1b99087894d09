"""The last resort of a build that was asked to stop: end within seconds, whatever the code at work is doing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

STOP_WITHIN_S = 4.0
"""A build that has not stopped in order after this is killed: whatever is cut off then, nothing is lost."""
_wakeup_is_guarded = False


@contextlib.contextmanager
def exit_soon_after(*signals: int, within_s: float = STOP_WITHIN_S) -> Iterator[None]:
    """End this process with exit code 128 + signal if the block goes on `within_s` seconds after one of `signals`.

    A Python signal handler runs only between bytecodes, and a library may compute for minutes without coming to one;
    a thread that the kernel's own delivery wakes does not wait for that. For the main thread, around its handlers.
    """
    _leave_wakeup_to_parent()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    over = threading.Event()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, signals, over, within_s), daemon=True, name="stop-watch")
    watch.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.write(writer, b"\0")
        watch.join()
        os.close(reader)
        os.close(writer)


def _watch(reader: int, signals: tuple[int, ...], over: threading.Event, within_s: float) -> None:
    while not over.is_set():
        number = os.read(reader, 1)[0]
        if number in signals and not over.wait(within_s):
            sys.stderr.write(f"not stopped {within_s:g} s after {signal.Signals(number).name}: killed\n")
            os._exit(128 + number)


def _leave_wakeup_to_parent() -> None:
    """Keep a signal to a forked child from waking the watch of its parent through the inherited pipe."""
    global _wakeup_is_guarded  # noqa: PLW0603  os.register_at_fork cannot be undone: once is enough
    if not _wakeup_is_guarded:
        _wakeup_is_guarded = True
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1) and None)
