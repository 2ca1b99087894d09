"""Threads that work together and stop together: a bounded channel between them, and the group that runs them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
POLL_S = 0.2
"""How soon a waiting thread sees that another has failed, and the main thread a signal."""


class Channel(Generic[Item]):
    """A queue of at most `size` items. Waiting ends when the group stops; iteration ends when it is closed."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._size, self._stop = size, stop
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, *items: Item) -> bool:
        """Wait for room for one and add all `items`; False where the group has stopped, and nobody will take them."""
        with self._changed:
            while len(self._items) >= self._size and not self._stop.is_set():
                self._changed.wait(POLL_S)
            self._items.extend(items)
            self._changed.notify_all()
        return not self._stop.is_set()

    def close(self) -> None:
        """Say that no more items come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while (item := self.take()) is not None:
            yield item

    def take(self) -> Item | None:
        """Wait for an item; None where none will come."""
        return next(iter(self.take_share(1, of=1)), None)

    def take_share(self, most: int, *, of: int) -> list[Item]:
        """Wait for items and take those due to one of `of` takers, `most` at most; none where none will come."""
        with self._changed:
            while not self._items and not self._closed and not self._stop.is_set():
                self._changed.wait(POLL_S)
            if self._stop.is_set():
                return []
            self._changed.notify_all()
            return [self._items.popleft() for _ in range(min(most, -(-len(self._items) // of)))]


class ThreadGroup:
    """Threads started in a `with` block, which waits for them. The first error of any stops all and is raised.

    `stop` is set then; what the threads wait for should end with it.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, name: str, work: Callable[[], None], *, then: Callable[[], None] | None = None) -> None:
        """Run `work` in a thread, and `then` after it, however it ends."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for the group
                self._errors.append(error)
                self.stop.set()
            finally:
                if then:
                    then()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> ThreadGroup:  # noqa: PYI034 - Self is newer than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop.set()
        try:
            self._wait()
        except BaseException:
            self.stop.set()
            self._wait()
            raise
        if self._errors and error is None:
            raise self._errors[0]

    def _wait(self) -> None:
        for thread in self._threads:
            while thread.is_alive():
                thread.join(POLL_S)


class Countdown:
    """Call `last` when `count` threads have each called this once."""

    def __init__(self, count: int, last: Callable[[], None]) -> None:
        self._left, self._last, self._mutex = count, last, threading.Lock()

    def __call__(self) -> None:
        """Count one thread."""
        with self._mutex:
            self._left -= 1
            done = self._left == 0
        if done:
            self._last()
