"""Descriptors on several machines, seen from the build: it reads tiles, checks what comes back, and writes the store.

The cluster is talked to by another process (`dask.cluster`), which has neither key nor password and no way to the file
system. What it sends is plain arrays of the shape that was asked for. Of every task some descriptors, chosen after the
answer came, are computed here again: permuted, invented or swapped ones do not pass as a whole.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any, NamedTuple

from provisioning.base.errors import DescriptorError, TileError
from provisioning.base.events import error as log_error
from provisioning.base.events import warn
from provisioning.base.process.confined import bare_environment
from provisioning.catalogue import Tile
from provisioning.descriptors.dask.frames import Floats, FrameReader, foreign
from provisioning.descriptors.dask.remote import Golden, Job, agrees
from provisioning.descriptors.pipeline.loader import Fault, Loader, Unit
from provisioning.descriptors.pipeline.results import Results
from provisioning.engines import Network

SPOT_CHECKS = 25
"""One row in so many is computed again here, at least two of each task: 4 % of the work of one computer."""
SILENCE_S = 60.0
"""The other process says every second that it is there."""
LONGEST_REASON = 500

Batches = Iterable[Sequence[Unit]]


class Tls(NamedTuple):
    """PEM files: the authority that signed every certificate of the cluster, this computer's certificate and key."""

    ca: str
    certificate: str
    key: str


class Cluster(NamedTuple):
    """Where the scheduler is, and with what it is spoken to; without TLS whoever is on that network can be it."""

    scheduler: str
    tls: Tls | None = None


class Task(NamedTuple):
    """What one task computes: units, and the bytes of their tiles."""

    number: int
    units: Sequence[Unit]
    data: dict[Tile, bytes]


class Order(NamedTuple):
    """What the other process is started with."""

    job: Job
    engine: bytes
    golden: Golden
    cluster: Cluster


def submit(
    batches: Batches,
    network: Network,
    loader: Loader,
    results: Results,
    *,
    job: Job,
    engine: bytes,
    cluster: Cluster,
) -> None:
    """Have the workers of a dask cluster compute `batches`.

    DescriptorError: no such cluster, no worker that fits (each with its reason), a task that failed three times, an
    answer that is none or that does not stand the check.
    """
    batches = iter(batches)
    for first in batches:
        golden = _golden(first, network, loader, results)
        if golden is not None:
            _require_dask()
            if cluster.tls is None:
                warn("descriptors.no_tls", scheduler=cluster.scheduler)
            with _other_process(Order(job, engine, golden, cluster)) as process:
                _Exchange(process, network, loader, results).run(chain([first], batches))
            return


def _require_dask() -> None:
    if importlib.util.find_spec("distributed") is None:
        raise DescriptorError(
            "dask is not installed", key="descriptors.executor", next_step="pip install 'flightcache[dask]'"
        )


def _golden(units: Sequence[Unit], network: Network, loader: Loader, results: Results) -> Golden | None:
    """Compute the first unit of `units` that can be seen here; None if none can, which are then faults."""
    faults = []
    for unit in units:
        try:
            data = {tile: loader.read(tile) for tile in unit.tiles}
            return Golden(unit, data, network(loader.image(unit)[None])[0])
        except TileError as error:  # noqa: PERF203 - the first good one ends the loop
            faults.append(Fault(unit, error.what))
    results.fail(faults)
    return None


@contextlib.contextmanager
def _other_process(order: Order) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process that talks to the cluster; it is gone when the block ends."""
    command = [sys.executable, "-m", "provisioning.descriptors.dask.cluster"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=bare_environment(),
            cwd="/",
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            send(process.stdin, order)
            yield process
        except (BrokenPipeError, DescriptorError) as error:
            if isinstance(error, DescriptorError) and process.poll() in (None, 0):
                raise
            raise _died(process, said) from error
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.communicate()


def send(stream: IO[bytes], message: object) -> None:
    """Write a message to the other process. Pickled: it may trust us, as we may not trust it."""
    pickle.dump(message, stream)
    stream.flush()


def _died(process: subprocess.Popen[bytes], said: IO[bytes]) -> DescriptorError:
    process.wait()
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").strip().splitlines() or ["nothing"]
    return DescriptorError(
        "the process that talks to the dask cluster ended",
        key="descriptors.scheduler",
        facts={"exit code": process.returncode, "last line": repr(lines[-1][:LONGEST_REASON])},
    )


@dataclass
class _Exchange:
    """One run: tasks go out as they are asked for, answers come in, are checked and stored."""

    process: subprocess.Popen[bytes]
    network: Network
    loader: Loader
    results: Results
    under_way: dict[int, Sequence[Unit]] = field(default_factory=dict)
    sent: int = 0

    def run(self, batches: Batches) -> None:
        """Serve the other process until every batch is stored."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        batches, frames, ended = iter(batches), FrameReader(self.process.stdout.fileno(), SILENCE_S), False
        while not ended or self.under_way:
            head = frames.head()
            if "error" in head:
                raise _error_of(head["error"])
            if "refused" in head:
                log_error("descriptor.failure", worker=_text(head.get("worker")), reason=_text(head["refused"]))
            for _ in range(min(_number(head.get("want", 0)), 1 << 16)):
                task = None if ended else self._next(batches)
                ended = ended or task is None
                if task is None:
                    break
                send(self.process.stdin, task)
            if "task" in head:
                self._store(head, frames)
        send(self.process.stdin, None)

    def _next(self, batches: Iterator[Sequence[Unit]]) -> Task | None:
        """Return the next task with its tiles read; None after the last."""
        for units in batches:
            data: dict[Tile, bytes] = {}
            readable = []
            for unit in units:
                try:
                    data.update({tile: data.get(tile) or self.loader.read(tile) for tile in unit.tiles})
                    readable.append(unit)
                except TileError as error:  # noqa: PERF203 - one bad tile must not cost its task
                    self.results.fail([Fault(unit, error.what)])
            if readable:
                self.sent += 1
                self.under_way[self.sent] = readable
                return Task(self.sent, readable, data)
        return None

    def _store(self, head: dict[str, Any], frames: FrameReader) -> None:
        """Store the answer to one task: each of its units once, with a descriptor or a fault."""
        units = self.under_way.pop(_number(head["task"]), None)
        rows, faults = head.get("rows"), head.get("faults")
        if units is None or not isinstance(rows, list) or not isinstance(faults, list):
            raise foreign("an answer to no task")
        if sorted(map(_number, [*rows, *faults])) != list(range(len(units))):
            raise foreign("an answer that is not one to each tile of its task")
        if head.get("bytes") != 4 * len(rows) * self.network.dimension:
            raise foreign("descriptors of another length")
        vectors = frames.floats(len(rows), self.network.dimension)
        self._check_faults([units[n] for n in faults])
        self._check_rows([units[n] for n in rows], vectors)
        if rows:
            self.results.put([units[n] for n in rows], vectors)

    def _check_faults(self, units: Sequence[Unit]) -> None:
        """Look at each tile that is said to be no image: only what cannot be seen here either is its fault."""
        for unit in units:
            try:
                self.loader.image(unit)
            except TileError as error:  # noqa: PERF203 - each has its own reason
                self.results.fail([Fault(unit, error.what)])
            else:
                raise _dishonest(unit, "says that the tile cannot be decoded, and here it can")

    def _check_rows(self, units: Sequence[Unit], vectors: Floats) -> None:
        """Compute a few of `units` again; which ones nobody can know beforehand."""
        count = min(len(units), max(2, len(units) // SPOT_CHECKS))
        for n in random.SystemRandom().sample(range(len(units)), count):
            mine = self.network(self.loader.image(units[n])[None])[0]
            if not agrees(vectors[n], mine):
                raise _dishonest(units[n], "gave another descriptor than this computer")


def _dishonest(unit: Unit, what: str) -> DescriptorError:
    tile = unit.tile
    return DescriptorError(
        f"a worker of the dask cluster {what}",
        key="descriptors.scheduler",
        facts={"tile": f"{tile.source} {tile.z}/{tile.x}/{tile.y}", "heading": unit.heading},
        next_step="find the worker that is broken or not yours; remove the descriptor store (.build/descriptors) if "
        "earlier answers of it may be in there, and run doit again",
    )


def _error_of(error: object) -> DescriptorError:
    """Return the error that the other process found, its texts as texts."""
    parts = error if isinstance(error, dict) else {}
    facts = parts.get("facts")
    return DescriptorError(
        _text(parts.get("what")),
        key="descriptors.scheduler",
        facts={_text(name): _text(value) for name, value in facts.items()} if isinstance(facts, dict) else {},
        next_step=_text(parts["next_step"]) if parts.get("next_step") else None,
    )


def _text(value: object) -> str:
    """Return `value` as text that moves no cursor."""
    text = str(value)[:LONGEST_REASON]
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise foreign("something else than a number")
    return value
