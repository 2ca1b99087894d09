"""Hashing and inspecting tiles in parallel: what costs time, done once per tile and remembered."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from provisioning.base.errors import FilesystemError, TileError
from provisioning.base.events import progress
from provisioning.base.named import NamedTuple
from provisioning.sources.pixels.facts import InspectionSettings
from provisioning.sources.source import OF_THE_FILE
from provisioning.sources.tile_file import MOST_TILE_BYTES, read_file

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from provisioning.sources.processes.inspection import Asked, InspectedTile, InspectionWorker, InspectionWorkers

Result = TypeVar("Result")
Digest = bytes
"""A name for the type where a field is called `bytes`."""
RETRY_AFTER_S = (0.05, 0.5)
MACHINE_STEPS = {
    errno.ENOMEM: "close programs or raise the limit of memory (`ulimit -v`), then run doit again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), then run doit again",
    errno.ENFILE: "the system is out of file handles: close programs, then run doit again",
}
SHARE, SHARE_BYTES = 32, 4 << 20
"""Tiles inspected in one go by one process, and bytes after which no more are added."""
MOST_WORKERS = 8
AHEAD = 3
"""Shares for each process that are listed before the first is waited for."""


class Known(NamedTuple):
    """What the catalogue says of a tile."""

    sha256: bytes | None
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int
    suffix: str
    empty_ppm: int
    texture_centi: int
    fault: str | None
    day: int | None
    perceptual_hash: bytes | None = None


Where = Path | Digest | Callable[[], "Digest | None"] | None


class Candidate(NamedTuple):
    """A tile that is new or may have changed: where it is, its stat, and what was known of it.

    `where` is its file, its bytes, or what gives its bytes; None: the store holds none. `digest` is their SHA-256 if it
    is known, `day` the date that the store lists.
    """

    z: int
    x: int
    y: int
    suffix: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    known: Known | None
    where: Where
    digest: bytes | None = None
    day: int | None = None


class Found(NamedTuple):
    """What reading a candidate gave; `sha256` is None if it could not be read."""

    candidate: Candidate
    sha256: Digest | None
    bytes: int
    empty_ppm: int
    texture_centi: int
    fault: str | None
    perceptual_hash: Digest | None = None

    @property
    def is_changed(self) -> bool:
        """Return whether this may change the corpus."""
        known = self.candidate.known
        inspected = (known.sha256, known.empty_ppm, known.texture_centi, known.fault) if known else ()
        return inspected != (self.sha256, self.empty_ppm, self.texture_centi, self.fault)


class Inspector:
    """Inspects candidates with the settings of one scan; its processes start with the first ones."""

    def __init__(self, directories: Sequence[Path], settings: InspectionSettings) -> None:
        self._directories, self._settings = directories, settings
        self._count = max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0))))
        self._free: list[InspectionWorker] = []
        self._heard = 0

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self._count, thread_name_prefix="tiles")

    @cached_property
    def _workers(self) -> InspectionWorkers:
        from provisioning.sources.processes.inspection import InspectionWorkers

        return InspectionWorkers(self._directories, self._settings)

    def close(self) -> None:
        """End threads and processes."""
        if "_pool" in self.__dict__:
            self._workers.stop.set()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._workers.close()

    def inspected(self, candidates: Iterable[Candidate]) -> Iterator[Found]:
        """Read, hash and, where the bytes are new, decode each candidate; order is kept, memory is some shares."""
        waiting: deque[Future[list[Found]]] = deque()
        for share in shares_of(candidates):
            self.pass_over(len(share))
            self._workers  # noqa: B018 - made before threads ask for it
            waiting.append(self._pool.submit(self._some, share))
            if len(waiting) > AHEAD * self._count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def pass_over(self, count: int) -> None:
        """Count tiles that need not be inspected."""
        self._heard += count
        progress("tiles", self._heard, 0, unit="tiles")

    def _some(self, candidates: list[Candidate]) -> list[Found]:
        """Inspect a share; in a thread of its own."""
        worker = self._free.pop() if self._free else self._workers.worker()
        found = [each for share in shares_of(map(_fetched, candidates)) for each in inspect_share(worker, share)]
        self._free.append(worker)
        return found


def shares_of(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Yield what is inspected in one go: a number of tiles, or fewer of many bytes."""
    share: list[Candidate] = []
    held = 0
    for candidate in candidates:
        if share and (len(share) == SHARE or held + candidate.size > SHARE_BYTES):
            yield share
            share, held = [], 0
        share.append(candidate)
        held += candidate.size
    if share:
        yield share


def _fetched(candidate: Candidate) -> Candidate:
    """Return a tile with its bytes, where a store in Python gives them when it is asked."""
    if not callable(candidate.where) or _is_as_known(candidate, candidate.digest):
        return candidate
    data = candidate.where()
    return candidate._replace(where=data, size=len(data or b""))


def inspect_share(worker: InspectionWorker, candidates: Sequence[Candidate]) -> list[Found]:
    """Return what one process finds of tiles whose bytes fit into its room. FilesystemError: this computer failed."""
    known = [_without_inspection(each) for each in candidates]
    unknown = [each for each, found in zip(candidates, known, strict=True) if found is None]
    inspected = zip(unknown, worker.inspect(_asked(unknown, worker.room)) if unknown else [], strict=True)
    return [found or _found(worker, *next(inspected)) for found in known]


def _without_inspection(at: Candidate) -> Found | None:
    """Return what is known of a tile whose bytes are known, or are none."""
    if at.known and _is_as_known(at, at.digest):
        return _as_known(at, at.known)
    if at.where is None:
        return _unread(at, "the row holds no image")
    if isinstance(at.where, bytes) and len(at.where) > MOST_TILE_BYTES:
        return _unread(at, f"it has {len(at.where):,} bytes: no tile image has more than {MOST_TILE_BYTES:,}")
    return None


def _asked(unknown: Iterable[Candidate], room: memoryview) -> list[Asked]:
    """Return what to ask of tiles; bytes in hand are copied into the room."""
    from provisioning.sources.processes.inspection import Asked, Span

    asked, end = [], 0
    for at in unknown:
        if isinstance(at.where, bytes):
            start, end = end, end + len(at.where)
            room[start:end] = at.where
            where: str | Span = Span(start, end - start, at.digest)
        else:
            where = os.path.abspath(str(at.where))
        asked.append(Asked(at[:3], where, at.known and at.known.sha256))
    return asked


def _found(worker: InspectionWorker, at: Candidate, inspected: InspectedTile | TileError) -> Found:
    """Return what a process found of a tile; what it cannot open is read here: a link to where it may not look."""
    from provisioning.sources.processes.inspection import AS_KNOWN

    if isinstance(inspected, TileError):
        return _ends_processes(at, inspected.what)
    if inspected.inspection:
        empty_ppm, texture_centi, fault, picture = inspected.inspection
        return Found(at, inspected.sha256, inspected.size, empty_ppm, texture_centi, fault, picture)
    if at.known and inspected.done == AS_KNOWN:
        return _as_known(at, at.known)._replace(bytes=inspected.size)
    data = _read_here(at)
    return data if isinstance(data, Found) else inspect_share(worker, [at._replace(where=data)])[0]


def _read_here(at: Candidate) -> bytes | Found:
    path = at.where
    if isinstance(path, bytes):
        return path
    assert isinstance(path, Path)
    try:
        return undisturbed(lambda: read_file(path), at)
    except OSError as error:
        return _unread(at, f"the file cannot be read: {error.strerror}")


def _ends_processes(at: Candidate, why: str) -> Found:
    """Return the verdict on a tile at which processes end: kept with its digest, so that it is not tried again."""
    data = _read_here(at)
    return data if isinstance(data, Found) else Found(at, sha256(data).digest(), len(data), 0, 0, why)


def _unread(at: Candidate, why: str) -> Found:
    return Found(at, None, 0, 0, 0, why)


def _is_as_known(at: Candidate, digest: Digest | None) -> bool:
    return digest is not None and at.known is not None and at.known.sha256 == digest


def _as_known(at: Candidate, known: Known) -> Found:
    return Found(at, known.sha256, known.size, known.empty_ppm, known.texture_centi, known.fault, known.perceptual_hash)


def undisturbed(work: Callable[[], Result], candidate: Candidate) -> Result:
    """Return what `work` gives or raise what it says of the file, however the machine is at this moment.

    No memory, no descriptor left, a device or a server that fails: tried again, then FilesystemError, and nothing is
    recorded about the tile. OSErrors that belong to the file itself pass through.
    """
    for wait_s in RETRY_AFTER_S:
        try:
            return work()
        except (OSError, MemoryError) as error:
            if getattr(error, "errno", None) in OF_THE_FILE:
                raise
        time.sleep(wait_s)
    try:
        return work()
    except (OSError, MemoryError) as error:
        if getattr(error, "errno", None) in OF_THE_FILE:
            raise
        raise _machine_failed(error, candidate) from error


def _machine_failed(error: OSError | MemoryError, candidate: Candidate) -> FilesystemError:
    why = error.strerror or str(error) if isinstance(error, OSError) else "out of memory"
    where = candidate.where
    return FilesystemError(
        f"this computer could not look at a tile: {why}",
        file=where if isinstance(where, Path) else None,
        facts={"tile": f"{candidate.z}/{candidate.x}/{candidate.y}", "tries": len(RETRY_AFTER_S) + 1},
        next_step=MACHINE_STEPS.get(getattr(error, "errno", None) or errno.ENOMEM)
        or "check `dmesg`, the disk and the network it hangs on, then run doit again: nothing was recorded of the tile",
    )
