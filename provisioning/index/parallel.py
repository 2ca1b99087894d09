"""Blocks prepared on a few threads while others are written; results in order, never more than a few in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS = 2


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order; at most THREADS + 1 results are waiting."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(THREADS, initializer=_one_thread_each) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def idle_threads() -> Iterator[None]:
    """Let FAISS use the cores that are idle: a thread too many makes all wait (50 times slower was measured)."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, min(before, (os.cpu_count() or 1) - round(os.getloadavg()[0]))))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _one_thread_each() -> None:
    """Keep FAISS from starting threads of its own for each block: on a busy machine they cost 60 times the work."""
    import faiss

    faiss.omp_set_num_threads(1)
