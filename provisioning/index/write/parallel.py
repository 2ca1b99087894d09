"""Work on a few threads of our own, each with one thread of BLAS and of FAISS.

Libraries that start threads by themselves wait for the last of them: on a busy machine a matrix product took 5 times
as long on four threads as on one, and blocks of FAISS codes 60 times (measured). Blocks that wait for nobody do not.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order; at most threads + 1 results are waiting."""
    from threadpoolctl import threadpool_limits

    waiting: deque[Future[Result]] = deque()
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads, initializer=_one_thread_each) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS use one thread, where others would cost more processor time than they save of the clock's."""
    with _faiss_threads(1):
        yield


@contextmanager
def idle_threads() -> Iterator[None]:
    """Let FAISS and BLAS use only the cores that are idle, where work cannot be cut into blocks."""
    import faiss
    from threadpoolctl import threadpool_limits

    idle = max(1, min(faiss.omp_get_max_threads(), (os.cpu_count() or 1) - round(os.getloadavg()[0])))
    with _faiss_threads(idle), threadpool_limits(idle, "blas"):
        yield


@contextmanager
def _faiss_threads(count: int) -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _one_thread_each() -> None:
    import faiss

    faiss.omp_set_num_threads(1)
