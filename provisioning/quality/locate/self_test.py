"""Does a verified cache run on this computer: its own engine on its own golden tiles, looked up in its own index.

In a process of its own: an engine that was made for another driver may end the process that loads it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from provisioning.base.errors import Error
from provisioning.config import TileSource
from provisioning.flight.verify import Verdict
from provisioning.index.among import scores_among
from provisioning.index.ids import Int64s, is_upright_tile
from provisioning.quality.locate.imagery import MAX_PIXELS, ON_BOARD
from provisioning.quality.locate.search import Locator
from provisioning.quality.query.rendering import Pixels

GOLDEN_TILES = 5
TIME_S = 300.0
"""Longest time for a self-test, second: a TensorRT engine of a large network loads in less than a minute."""
NEAR_BEST = 0.05
"""A golden tile's own row may score this much below the best row: a compressed index, or a tile like its neighbour."""
LEAST = 0.5
"""Least similarity of a golden tile to itself, whatever the index does to descriptors."""


class SelfTest(NamedTuple):
    """The result: whether the cache runs here, and what was tried, in words."""

    passed: bool
    said: str


def self_test(verdict: Verdict, *, within_s: float = TIME_S) -> SelfTest:
    """Load and run what the verdict passed, in a fork of this process that ends after `within_s`, second.

    For a process that has run no network and searched no index yet, as a command has not: the threads of OpenMP are
    not there in a fork, and FAISS waits for them until the time is over (measured).
    """
    return apart(lambda: _tested(verdict), within_s=within_s)


def apart(test: Callable[[], SelfTest], *, within_s: float) -> SelfTest:
    """Return what `test` returns in a child; a child that dies, hangs or raises has not passed."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:  # pragma: no cover  (ends without a report)
        status = 1
        try:
            os.close(reader)
            _answer(writer, test)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    try:
        answer = _read(reader, time.monotonic() + within_s)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)[1]
    if answer is None:
        return SelfTest(passed=False, said=f"not finished after {within_s:g} s")
    try:
        passed, said = json.loads(answer)
        return SelfTest(passed is True, str(said))
    except (ValueError, TypeError):
        code = os.waitstatus_to_exitcode(ended)
        return SelfTest(passed=False, said=f"the process that ran the engine ended with code {code}")


def _answer(fd: int, test: Callable[[], SelfTest]) -> None:
    try:
        result = test()
    except Error as error:
        result = SelfTest(passed=False, said=" ".join(str(error).split())[:500])
    except Exception as error:  # noqa: BLE001  (whatever a vendor's library raises, the engine does not run)
        result = SelfTest(passed=False, said=f"{type(error).__name__}: {error}"[:500])
    os.write(fd, json.dumps(result).encode())


def _read(fd: int, until: float) -> bytes | None:
    data = b""
    while True:
        ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return None
        piece = os.read(fd, 1 << 16)
        if not piece:
            return data
        data += piece


def _tested(verdict: Verdict) -> SelfTest:
    locator = Locator.from_verdict(verdict)
    if any(entry.path == ON_BOARD for entry in verdict.require().other):
        return _golden(verdict, locator)
    return _synthetic(locator)


def _golden(verdict: Verdict, locator: Locator) -> SelfTest:
    """Look tiles on board up: each must find its own row, or one as good."""
    rows = np.flatnonzero(is_upright_tile(locator.ids))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, GOLDEN_TILES).round().astype(int))]
    found = [_own_and_best(pixels, locator, row) for row, pixels in _tiles(verdict, locator, rows)]
    good = [own >= max(LEAST, best - NEAR_BEST) for own, best in found]
    if not found:
        return SelfTest(passed=False, said=f"no golden tile of {ON_BOARD} can be read")
    worst = min(own for own, _ in found)
    said = f"{sum(good)} of {len(good)} golden tiles find themselves, similarity {worst:.3f} at least"
    return SelfTest(2 * sum(good) > len(good), said)


def _tiles(verdict: Verdict, locator: Locator, rows: Int64s) -> Iterator[tuple[int, Pixels]]:
    """Yield rows of the index with the pixels of their tiles, read from the file that was verified."""
    from provisioning.base.geometry.geo import unpack_id
    from provisioning.catalogue import decode
    from provisioning.sources.containers.pmtiles import PMTiles

    with verdict.descriptor(ON_BOARD) as fd:
        archive = PMTiles(TileSource(path=Path(f"/proc/self/fd/{fd}")))
        try:
            for row in rows:
                place = unpack_id(int(locator.ids[row]))
                data = archive.read(place.z, place.x, place.y)
                if data is not None:
                    yield int(row), decode(data, max_pixels=MAX_PIXELS)
        finally:
            archive.close()


def _own_and_best(pixels: Pixels, locator: Locator, row: int) -> tuple[float, float]:
    vector = locator.describe(pixels, (0.0,))
    own = scores_among(locator.index, vector, np.array([row]), locator.ids)
    return float(own[0, 0]), float(locator.locate(pixels, k=1)[0].similarity)


def _synthetic(locator: Locator) -> SelfTest:
    """Without imagery on board: two images of noise must give two finite descriptors, the same each time."""
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    first, second, again = (locator.describe(images[n], (0.0,))[0] for n in (0, 1, 0))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return SelfTest(passed=False, said="the engine gives descriptors that are not finite")
    if float(np.abs(first - second).max()) == 0 or float(np.abs(first - again).max()) > 1e-2:
        return SelfTest(passed=False, said="the engine gives the same for all images, or another each time")
    locator.locate(images[0], k=1)
    return SelfTest(passed=True, said="engine and index load and answer; no golden tile is on board")
