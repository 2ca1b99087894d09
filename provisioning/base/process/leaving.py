"""The end of a command: its exit code at once, instead of after every object of the interpreter was freed by itself."""

from __future__ import annotations

import atexit
import os
import sys
import threading

__all__ = ["leave"]


def leave(code: int) -> None:
    """End this process with exit code `code`, after what was registered to run at exit and with all output written.

    Freeing modules and objects is a quarter of the processor time of a build with nothing to do (measured); the kernel
    does it in no time. For the last call of a program. Returns where the interpreter has to end in its own order:
    another thread is at work, somebody traces or profiles, or the output cannot be written.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    if sys.gettrace() or sys.getprofile() or not all(thread.daemon for thread in others):
        return
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 - as an interpreter does that ends; there is no public name
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
