"""Progress is shown of work that lasts: what shows it is imported only then, so that a short command starts sooner."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from provisioning.base import events
from provisioning.base.hashing import on_hashed

UNSEEN_S = 0.5
"""Work that ends sooner shows no line: it would only flicker."""


@contextlib.contextmanager
def progress_shown(shown: bool) -> Iterator[None]:  # noqa: FBT001  (the opposite of --quiet)
    """Show on standard error how far the block is; results on standard output are never mixed with it."""
    if not shown or sys.stderr is None:
        yield
        return
    stream, since = sys.stderr, dict[str, float]()
    heard = on_hashed.set(lambda done, all_: events.progress("verify", done, all_, unit="bytes"))
    with contextlib.ExitStack() as stack:
        stack.callback(on_hashed.reset, heard)

        def begin(task: str) -> None:
            now = time.monotonic()
            if now - since.setdefault(task, now) < UNSEEN_S:
                return
            try:
                events.before_progress.remove(begin)
            except ValueError:  # another thread has begun
                return
            from provisioning.console.progress import ProgressListener

            listener = ProgressListener(stream, since=since)
            listener.open()
            stack.callback(listener.close)
            stack.enter_context(listener.kept_apart())

        events.before_progress.append(begin)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                events.before_progress.remove(begin)
