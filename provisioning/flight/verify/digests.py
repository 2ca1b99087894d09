"""Hashing many files at once, the largest first, in constant memory: the largest one is the floor of the time."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from threading import Lock, Thread

from provisioning.base.hashing import on_hashed
from provisioning.base.named import NamedTuple

CHUNK_BYTES = 1 << 20
"""Larger reads gain nothing (measured), and each thread has one such buffer."""

MAX_THREADS = 16
SERIAL_BYTES = 4 << 20
"""Below this starting threads costs more than it gains."""


class OpenFile(NamedTuple):
    """A file to hash: its path for messages, its handle, its size."""

    path: str
    fd: int
    bytes: int


def sha256_all(files: Sequence[OpenFile], *, threads: int | None = None) -> dict[str, str | OSError]:
    """Return the SHA-256 of every file by path, or the OSError that kept it from being read.

    Reads at most the size stated: a file that grows meanwhile cannot keep the verifier busy.
    """
    queue = sorted(files, key=lambda file: file.bytes)
    count = _counter(sum(file.bytes for file in files))
    results: dict[str, str | OSError] = {}
    lock = Lock()

    def work() -> None:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while True:
            with lock:
                if not queue:
                    return
                file = queue.pop()
            results[file.path] = _sha256(file, buffer, count)

    wanted = threads or min(MAX_THREADS, len(os.sched_getaffinity(0)))
    helpers = min(wanted, len(queue)) - 1 if sum(file.bytes for file in queue) > SERIAL_BYTES else 0
    running: list[Thread] = []
    with contextlib.suppress(RuntimeError):  # a limit of threads: fewer of them, at least this one
        for _ in range(helpers):
            thread = Thread(target=work, daemon=True)
            thread.start()
            running.append(thread)
    work()
    for thread in running:
        thread.join()
    return results


def _counter(total: int) -> Callable[[int], None]:
    """Return what is called with the bytes of each read; several threads may call it."""
    heard, done, lock = on_hashed.get(), 0, Lock()
    if heard is None:
        return lambda _count: None

    def count(more: int) -> None:
        nonlocal done
        with lock:
            done += more
            heard(done, total)

    return count


def _sha256(file: OpenFile, buffer: memoryview, count_bytes: Callable[[int], None]) -> str | OSError:
    digest, offset = hashlib.sha256(), 0
    try:
        while offset < file.bytes:
            count = os.preadv(file.fd, [buffer[: min(CHUNK_BYTES, file.bytes - offset)]], offset)
            if not count:
                break
            digest.update(buffer[:count])
            offset += count
            count_bytes(count)
    except OSError as error:
        return error
    return digest.hexdigest()
