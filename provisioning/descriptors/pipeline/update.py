"""Bring the descriptor store up to date with the corpus: only tiles that are not in it go through the network."""

from __future__ import annotations

import ctypes
import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from provisioning.base.batches import batches_of
from provisioning.base.disk.files import require_local_filesystem
from provisioning.base.errors import DamagedDescriptorsError, DescriptorError
from provisioning.base.events import progress
from provisioning.base.hashing import Sha256, sha256_bytes
from provisioning.catalogue import Piece, open_reader, pieces, tile_of
from provisioning.config import Backbone, Tiles
from provisioning.config.schema import Descriptors
from provisioning.descriptors.dask.remote import Job
from provisioning.descriptors.pipeline import layouts
from provisioning.descriptors.pipeline.decoders import Decoders
from provisioning.descriptors.pipeline.loader import Unit
from provisioning.descriptors.pipeline.results import Results
from provisioning.descriptors.store.lookup import described_state
from provisioning.descriptors.store.receipts import write_receipt
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.engines import Backend, Network
from provisioning.network.backbone import resolved
from provisioning.sources.pixels.fitting import headings
from provisioning.sources.processes.decoding import View

CHUNK = 4096
"""Tiles looked up in the store at a time; also what the memory for waiting work is bounded by."""
SAMPLE = 64
SAME = 1e-6
"""Descriptors nearer than this in every component are the same."""


@dataclass(frozen=True)
class Described:
    """What was done: network runs, tiles and cuts in the corpus, length of a descriptor."""

    computed: int
    total: int
    dimension: int


@dataclass(frozen=True)
class Wanted:
    """Descriptors of a corpus: the store they are kept in, and a key for each heading at which tiles are described.

    coverage: the digest of the corpus. overlap: 2 where cuts are described, too.
    """

    store: Path
    keys: Sequence[Sha256]
    coverage: Sha256
    overlap: int = 1


@dataclass(frozen=True)
class Engine:
    """What computes them: verified bytes, the backend that loads them, and the backbone that they were compiled of.

    model: the name of its file, for errors. batch: tiles at a time.
    """

    data: bytes
    backend: Backend
    backbone: Backbone
    model: str
    batch: int


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of parameters in glibc's malloc.h."""
LARGE_BYTES, SPARE_BYTES = 2 << 20, 4 << 20


def describe(wanted: Wanted, engine: Engine, tiles: Tiles, build_dir: Path, settings: Descriptors) -> Described:
    """Compute the descriptors that the corpus of the last scan lacks. Finished work stays, whatever happens.

    DescriptorError: tiles that gave no descriptor (all named), a constant descriptor, a damaged store.
    DamagedDescriptorsError: rows of before are damaged and now forgotten; call again. EngineError, FilesystemError pass
    through.
    """
    return_large_blocks()
    network = engine.backend.load(engine.data, custom_ops=engine.backbone.custom_ops)
    require_local_filesystem(wanted.store)
    with ExitStack() as stack:
        stores = [stack.enter_context(DescriptorStore(wanted.store, key, settings.dtype)) for key in wanted.keys]
        for store in stores:
            store.tidy()
        reader = stack.enter_context(open_reader(tiles.source, build_dir))
        fit, turns, overlap = resolved(engine.backbone).fit_how, headings(len(wanted.keys)), wanted.overlap
        view = View(turns, network.size, fit, tiles.max_pixels, cuts=overlap > 1)
        decoders = Decoders(reader, view, batch=engine.batch, slots=layouts.slots(_threads(settings)))
        stack.callback(decoders.close)
        since = described_state(build_dir, wanted.store, wanted.keys, overlap=overlap)
        todo = pieces(build_dir, overlap=overlap, since=since)
        total = todo.total * len(turns)
        passed = Passed(known=total - todo.changed * len(turns))
        results = Results(stores, lambda done: progress("descriptors", passed.known + done, total, unit="tiles"))
        units = missing_units(todo.new, results, passed)
        _run(units, network, decoders, results, engine, settings)
        for store in stores:
            store.flush()
        results.require_all(engine.model)
        try:
            require_variety(stores[0], passed.sample, engine.model)
        except DamagedDescriptorsError as error:  # rows of before; those that were computed now are in the store
            facts = {"computed": results.computed}
            raise DamagedDescriptorsError(
                error.what, file=error.file, facts=facts, next_step=error.next_step
            ) from error
    for key in wanted.keys:
        write_receipt(wanted.store, key, wanted.coverage, overlap=overlap)
    return Described(results.computed, todo.total, network.dimension)


def _run(
    units: Iterable[Unit],
    network: Network,
    decoders: Decoders,
    results: Results,
    engine: Engine,
    settings: Descriptors,
) -> None:
    """Put `units` through the network with the layout that this host, or a fleet of its like, is fastest with."""
    if settings.executor == "dask":
        from provisioning.descriptors.dask.link import Cluster, Tls, submit

        pem = (settings.tls_ca, settings.tls_certificate, settings.tls_key)
        cluster = Cluster(settings.scheduler, Tls(*map(str, pem)) if all(pem) else None)

        job = Job(
            run=os.urandom(4).hex(),
            engine_sha256=sha256_bytes(engine.data),
            host=engine.backend.probe(),
            custom_ops=engine.backbone.custom_ops,
            headings=decoders.view.headings,
            how=decoders.view.how,
            max_pixels=decoders.view.max_pixels,
            batch=engine.batch,
            cuts=decoders.view.cuts,
        )
        tasks = batches_of(units, settings.task_tiles)
        submit(tasks, network, decoders, results, job=job, engine=engine.data, cluster=cluster)
        return
    layout = layouts.fused if engine.backend.name == "onnxruntime" else layouts.staged
    layout(units, network, decoders, results, threads=_threads(settings), batch=engine.batch)


def _threads(settings: Descriptors) -> int:
    return settings.threads or len(os.sched_getaffinity(0))


@dataclass
class Passed:
    """What went by: how much of it was known, and those with the smallest keys, a sample that has no order."""

    known: int = 0
    """Descriptors that were there already."""
    sample: list[bytes] = field(default_factory=list)
    """Different keys, ascending."""

    def add(self, keys: Iterable[bytes]) -> None:
        """Let these tiles and cuts be of the sample."""
        self.sample = heapq.nsmallest(SAMPLE, {*self.sample, *keys})


def missing_units(new: Iterable[Piece], results: Results, passed: Passed) -> Iterator[Unit]:
    """Yield what has no descriptor yet and is not under way: each distinct tile or cut at each heading, once."""
    for chunk in batches_of(new, CHUNK):
        by_key = {piece.key: piece for piece in reversed(chunk)}
        passed.add(by_key)
        absent = [set(store.missing(by_key)) for store in results.stores]
        passed.known += len(by_key) * len(absent) - sum(map(len, absent))
        lacking = set().union(*absent)
        wanted = [key for key in reversed(by_key) if key in lacking]
        units = (_unit(by_key[key], h) for key in wanted for h, lacks in enumerate(absent) if key in lacks)
        yield from results.expect(units)


def _unit(piece: Piece, heading: int) -> Unit:
    tile, *beside = map(tile_of, piece.tiles)
    return Unit(tile, heading, piece.cut, tuple(beside))


def require_variety(store: DescriptorStore, sample: Sequence[bytes], model: str) -> None:
    """Raise DescriptorError if unlike tiles all have the same descriptor: such an index finds nothing."""
    if len(sample) < 2:
        return
    vectors = store.gather(sample)
    if np.ptp(vectors, axis=0).max() <= SAME:
        raise DescriptorError(
            f"the descriptor is constant: {len(sample)} unlike tiles all have the same one",
            file=model,
            next_step="check the backbone's preprocessing (scale, mean, std, channels, layout) and its output",
        )


def return_large_blocks() -> bool:
    """Have glibc return blocks of 2 MiB and more when they are freed, for good; False where malloc is another.

    By its own rule it soon keeps blocks of up to 32 MiB, and those of a flush then come to lie between those of tiles:
    112 MiB instead of 94 after 200,000 tiles (measured). Tiles themselves stay below, for a block that is returned
    costs a page fault for each of its pages when the next one is made.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(_TRIM_THRESHOLD, SPARE_BYTES))
