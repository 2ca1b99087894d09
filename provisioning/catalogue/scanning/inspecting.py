"""Hashing and inspecting tiles in parallel: what costs time, done once per tile and remembered."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from provisioning.base.batches import batches_of
from provisioning.base.errors import FilesystemError
from provisioning.base.events import progress
from provisioning.sources.eighth import inspect_tiles
from provisioning.sources.image import Inspection
from provisioning.sources.store import StoredTile
from provisioning.sources.tile_file import read_file

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Result = TypeVar("Result")
Digest = bytes
"""A name for the type where a field is called `bytes`."""
OF_THE_FILE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
)
"""What the system says of a file; every other error is of the machine at this moment."""
RETRY_AFTER_S = (0.05, 0.5)
MACHINE_STEPS = {
    errno.ENOMEM: "close programs or raise the limit of memory (`ulimit -v`), then run doit again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), then run doit again",
    errno.ENFILE: "the system is out of file handles: close programs, then run doit again",
}
BATCH = 512
SHARE = 16
"""Tiles inspected in one go by one thread: handing over each alone costs as much as a small tile."""
HASHED, AHEAD = 64, 4
"""Tiles hashed in one go by one thread, and how many such shares are listed before the first is waited for."""
MOST_REMEMBERED = 4096
"""Verdicts that are remembered for the same bytes elsewhere: a picture of the sea, or of "no imagery"."""
MOST_WORKERS = 8
SMALL_BYTES = 2048
"""Below this mean size threads fight over the interpreter: five times slower than one (measured)."""


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
    look: bytes | None = None


Hashed = tuple[StoredTile, "Digest | None"]
"""A tile as a store lists it, and the SHA-256 of its bytes; None where the store gave none."""


class Candidate(NamedTuple):
    """A tile that is new or may have changed: where it is, its stat, and what was known of it.

    `where` is its file, or what gives the bytes that a store holds; `digest` is the SHA-256 that the store lists, `day`
    the date.
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
    where: Path | Callable[[], bytes | None]
    digest: bytes | None = None
    day: int | None = None


class Found(NamedTuple):
    """What reading a suspect gave; `sha256` is None if it could not be read."""

    candidate: Candidate
    sha256: Digest | None
    bytes: int
    empty_ppm: int
    texture_centi: int
    fault: str | None
    look: Digest | None = None

    @property
    def is_changed(self) -> bool:
        """Tell whether this may change the corpus."""
        known = self.candidate.known
        inspected = (known.sha256, known.empty_ppm, known.texture_centi, known.fault) if known else ()
        return inspected != (self.sha256, self.empty_ppm, self.texture_centi, self.fault)


class _Read(NamedTuple):
    """A tile whose bytes are to be inspected."""

    at: Candidate
    digest: Digest
    data: Digest


class Inspector:
    """Inspects candidates with the settings of one scan; its threads start with the first batch."""

    def __init__(self, *, max_pixels: int, nodata: tuple[int, ...], blank: bool = True) -> None:
        self._max_pixels, self._nodata, self._blank = max_pixels, nodata, blank
        self._verdicts: dict[Digest, Inspection] = {}
        self._heard = 0

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        count = max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0))))
        return ThreadPoolExecutor(count, thread_name_prefix="tiles")

    def close(self) -> None:
        """Stop the threads."""
        if "_pool" in self.__dict__:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def inspected(self, candidates: Iterable[Candidate]) -> Iterator[Found]:
        """Read, hash and, where the bytes are new, decode each suspect; order is kept, memory is one batch."""
        for batch in batches_of(candidates, BATCH):
            self._heard += len(batch)
            progress("tiles", self._heard, 0, unit="tiles")
            if len(batch) <= SHARE or sum(candidate.size for candidate in batch) < SMALL_BYTES * len(batch):
                yield from chain.from_iterable(map(self._some, batches_of(batch, SHARE)))
                continue
            shares = [batch[at : at + SHARE] for at in range(0, len(batch), SHARE)]
            yield from chain.from_iterable(self._pool.map(self._some, shares))

    def hashed(self, tiles: Iterable[StoredTile]) -> Iterator[Hashed]:
        """Yield each tile with the SHA-256 of its bytes; large ones are hashed on every core as they come."""
        waiting: deque[tuple[list[StoredTile], Callable[[], list[Digest | None]]]] = deque()
        for share in batches_of(tiles, HASHED):
            data = [tile[3] for tile in share]
            is_large = sum([len(each or b"") for each in data]) >= SMALL_BYTES * len(share)
            waiting.append((share, self._pool.submit(_digests, data).result if is_large else partial(_digests, data)))
            if len(waiting) > AHEAD:
                yield from _finished(waiting.popleft())
        while waiting:
            yield from _finished(waiting.popleft())

    def pass_over(self, count: int) -> None:
        """Count tiles that need not be inspected."""
        self._heard += count
        progress("tiles", self._heard, 0, unit="tiles")

    def _some(self, candidates: list[Candidate]) -> list[Found]:
        read = [self._one(candidate) for candidate in candidates]
        verdicts = self._verdicts_of([each for each in read if isinstance(each, _Read)])
        return [
            each if isinstance(each, Found) else Found(each.at, each.digest, len(each.data), *verdicts[each.digest])
            for each in read
        ]

    def _one(self, candidate: Candidate) -> Found | _Read:
        """Read and hash one tile; where its bytes are known, or cannot be read, there is nothing to inspect."""
        where, known = candidate.where, candidate.known
        if known and known.sha256 and candidate.digest == known.sha256:
            return _as_known(candidate, known)
        try:
            data = undisturbed(lambda: read_file(where), candidate) if isinstance(where, Path) else where()
        except OSError as error:
            return Found(candidate, None, 0, 0, 0, f"the file cannot be read: {error.strerror}")
        if data is None:
            return Found(candidate, None, 0, 0, 0, "the row holds no image")
        digest = sha256(data).digest()
        if known and known.sha256 == digest:
            return _as_known(candidate, known)._replace(bytes=len(data))
        return _Read(candidate, digest, data)

    def _inspect(self, data: list[bytes]) -> list[Inspection]:
        return inspect_tiles(data, max_pixels=self._max_pixels, nodata=self._nodata, blank=self._blank)

    def _verdicts_of(self, read: list[_Read]) -> dict[Digest, Inspection]:
        """Return the verdict on each of the bytes that were read; pictures that stand in many places cost one look."""
        if len(self._verdicts) > MOST_REMEMBERED:
            self._verdicts.clear()
        verdicts = {each.digest: self._verdicts[each.digest] for each in read if each.digest in self._verdicts}
        new = {each.digest: each for each in read if each.digest not in verdicts}
        try:
            found = self._inspect([each.data for each in new.values()])
        except (OSError, MemoryError):
            found = [undisturbed(lambda: self._inspect([each.data])[0], each.at) for each in new.values()]  # noqa: B023
        verdicts.update(zip(new, found, strict=True))
        self._verdicts.update(zip(new, found, strict=True))
        return verdicts


def _as_known(candidate: Candidate, known: Known) -> Found:
    return Found(
        candidate, known.sha256, known.size, known.empty_ppm, known.texture_centi, known.fault, known.look
    )  # fmt: skip


def _digests(data: Sequence[bytes | None]) -> list[Digest | None]:
    return [None if each is None else sha256(each).digest() for each in data]


def _finished(share: tuple[list[StoredTile], Callable[[], list[Digest | None]]]) -> Iterator[Hashed]:
    tiles, digests = share
    return zip(tiles, digests(), strict=True)


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
