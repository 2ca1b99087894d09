"""Hashing and judging tiles in parallel: what costs time, done once per tile and remembered."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from provisioning.base.batches import batches_of
from provisioning.base.events import progress
from provisioning.sources.image import inspect_tile
from provisioning.sources.source import Stored
from provisioning.sources.xyz import read_file

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

BATCH = 512
SHARE = 16
"""Tiles judged in one go by one thread: handing over each alone costs as much as a small tile."""
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


class Candidate(NamedTuple):
    """A tile that is new or may have changed: where it is, its stat, and what was known of it."""

    z: int
    x: int
    y: int
    suffix: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    known: Known | None
    where: Path | Stored


class Found(NamedTuple):
    """What reading a suspect gave; `sha256` is None if it could not be read."""

    candidate: Candidate
    sha256: bytes | None
    bytes: int
    empty_ppm: int
    texture_centi: int
    fault: str | None

    @property
    def is_changed(self) -> bool:
        """Tell whether this may change the corpus."""
        known = self.candidate.known
        inspected = (known.sha256, known.empty_ppm, known.texture_centi, known.fault) if known else ()
        return inspected != (self.sha256, self.empty_ppm, self.texture_centi, self.fault)


def _size(candidate: Candidate) -> int:
    return len(candidate.where.data or b"") if isinstance(candidate.where, Stored) else candidate.size


class Inspector:
    """Judges suspects with the settings of one scan; its threads start with the first batch."""

    def __init__(self, *, max_pixels: int, nodata: tuple[int, ...], again: bool, blank: bool = True) -> None:
        self._max_pixels = max_pixels
        self._nodata = nodata
        self._again = again
        self._blank = blank
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
            if len(batch) <= SHARE or sum(map(_size, batch)) < SMALL_BYTES * len(batch):
                yield from map(self._one, batch)
                continue
            shares = [batch[at : at + SHARE] for at in range(0, len(batch), SHARE)]
            yield from chain.from_iterable(self._pool.map(self._some, shares))

    def _some(self, candidates: list[Candidate]) -> list[Found]:
        return [self._one(candidate) for candidate in candidates]

    def _one(self, candidate: Candidate) -> Found:
        where = candidate.where
        try:
            data = where.data if isinstance(where, Stored) else read_file(where)
        except OSError as error:
            return Found(candidate, None, 0, 0, 0, f"the file cannot be read: {error.strerror}")
        if data is None:
            return Found(candidate, None, 0, 0, 0, "the row holds no image")
        digest, known = sha256(data).digest(), candidate.known
        if known and known.sha256 == digest and not self._again:
            return Found(candidate, digest, len(data), known.empty_ppm, known.texture_centi, known.fault)
        verdict = inspect_tile(data, max_pixels=self._max_pixels, nodata=self._nodata, blank=self._blank)
        return Found(candidate, digest, len(data), *verdict)
