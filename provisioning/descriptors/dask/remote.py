"""What runs on the workers of a fleet: one engine, held once per process, and tasks that put tiles through it.

A worker computes only after it has shown that it is the computer the engine was compiled for and gives the golden
tile's descriptor. It then offers a resource named after the engine; tasks ask for that resource.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from provisioning.base.errors import DescriptorError, Error
from provisioning.base.hashing import Sha256, sha256_bytes
from provisioning.catalogue import Tile
from provisioning.config import Engine
from provisioning.descriptors.pipeline.loader import TileLoader, Unit
from provisioning.engines import HostTuple, Network, select

GOLDEN_COSINE = 0.9999
"""Engines that are not bit-identical between runs (TensorRT) must agree with the coordinator this well."""


@dataclass(frozen=True)
class Job:
    """What every task of one run has in common."""

    run: str
    """Tells this run from another with the same engine that uses the same cluster."""
    engine_sha256: Sha256
    host: HostTuple
    custom_ops: Path | None
    headings: tuple[Fraction, ...]
    how: str
    max_pixels: int
    batch: int
    cuts: bool = False

    @property
    def resource(self) -> str:
        """The name of what a worker that fits offers."""
        return f"flightcache-{self.engine_sha256[:16]}-{self.run}"


class Answer(NamedTuple):
    """Numbers of the units that could be seen, and their descriptors: float32 [n, dimension], little-endian, as bytes.

    The others are faults; the coordinator looks at those itself.
    """

    rows: list[int]
    described: bytes


class Golden(NamedTuple):
    """One tile at one heading with the descriptor that the coordinator computed for it."""

    unit: Unit
    data: Mapping[Tile, bytes]
    vector: npt.NDArray[np.float32]


@dataclass
class Held:
    """An engine in this process, one clone for each thread."""

    network: Network
    clones: threading.local = field(default_factory=threading.local)

    def mine(self) -> Network:
        """Return the clone of the calling thread."""
        if not hasattr(self.clones, "network"):
            self.clones.network = self.network.clone()
        clone: Network = self.clones.network
        return clone


_HELD: dict[str, Held] = {}
_REFUSALS: dict[str, str] = {}


def hold(job: Job, engine: bytes) -> None:
    """Load the engine for the tasks of `job`. DescriptorError, EngineError: this computer is not the one."""
    backend = select(Engine(backend=job.host.backend))  # type: ignore[arg-type]  # probed, so one of ours
    here = backend.probe()
    if here != job.host:
        raise DescriptorError("the engine was compiled for another host", facts={"engine": job.host, "here": here})
    if sha256_bytes(engine) != job.engine_sha256:
        raise DescriptorError("the engine did not arrive as it was sent")
    _HELD[job.resource] = Held(backend.load(engine, custom_ops=job.custom_ops))


def let_go(job: Job) -> None:
    """Free the engine."""
    _HELD.pop(job.resource, None)
    _REFUSALS.pop(job.resource, None)


def refusal(job: Job) -> str:
    """Return why this process does not compute for `job`; empty where it does."""
    return _REFUSALS.get(job.resource, "")


def compute(job: Job, units: Sequence[Unit], data: Mapping[Tile, bytes]) -> Answer:
    """Return the descriptors of `units`; `data` has the bytes of their tiles."""
    network = _HELD[job.resource].mine()
    loader = TileLoader(data.__getitem__, job.headings, network.size, job.how, job.max_pixels, cuts=job.cuts)
    images = loader.empty(job.batch)
    rows: list[int] = []
    parts = []
    for start in range(0, len(units), job.batch):
        batch = units[start : start + job.batch]
        seen, _ = loader.load_batch(batch, images)
        if seen:
            parts.append(network(images[: len(seen)]).astype("<f4").tobytes())
        rows += [start + n for n, unit in enumerate(batch) if unit in set(seen)]
    return Answer(rows, b"".join(parts))


def require_golden(job: Job, golden: Golden) -> None:
    """Raise DescriptorError if this process gives the golden tile another descriptor than the coordinator."""
    answer = compute(job, [golden.unit], golden.data)
    if not answer.rows:
        raise DescriptorError("the golden tile cannot be seen")
    found = np.frombuffer(answer.described, "<f4")
    if not same_descriptor(job, found, golden.vector):
        facts = {"cosine": f"{_cosine(found, golden.vector):.7f}"}
        raise DescriptorError("the golden tile has another descriptor here", facts=facts)


def same_descriptor(job: Job, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> bool:
    """Return whether two computers agree: in every bit on CPUs, to GOLDEN_COSINE where runs are not bit-identical."""
    same = np.array_equal(found, expected, equal_nan=True)
    return same or (job.host.backend != "onnxruntime" and agrees(found, expected))


def agrees(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> bool:
    """Return whether two descriptors are the same but for rounding; a kernel for one tile may round otherwise."""
    return np.array_equal(found, expected, equal_nan=True) or _cosine(found, expected) >= GOLDEN_COSINE


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


class EnginePlugin:
    """Makes a dask worker ready for one job when it starts, or says why it is not.

    The worker offers `job.resource` once for each of its threads when it has passed, and never otherwise.
    """

    idempotent = False

    def __init__(self, job: Job, engine: bytes, golden: Golden) -> None:
        self.job, self.engine, self.golden = job, engine, golden
        self.name = job.resource

    async def setup(self, worker: Any) -> None:
        """Check this computer, load the engine, compute the golden tile, offer the resource."""
        try:
            hold(self.job, self.engine)
            require_golden(self.job, self.golden)
        except Error as error:
            let_go(self.job)
            _REFUSALS[self.name] = str(error)
            return
        finally:
            self.engine = b""
        await worker.set_resources(**{self.name: worker.state.nthreads})

    async def teardown(self, worker: Any) -> None:
        """Withdraw the offer and free the engine."""
        await worker.set_resources(**{self.name: 0})
        let_go(self.job)
