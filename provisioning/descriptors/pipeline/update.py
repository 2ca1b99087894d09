"""Bring the descriptor store up to date with the corpus: only tiles that are not in it go through the network."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from provisioning.base.batches import batches_of
from provisioning.base.disk.files import require_local_filesystem
from provisioning.base.errors import DamagedDescriptorsError, DescriptorError
from provisioning.base.events import progress
from provisioning.base.hashing import Sha256, sha256_bytes
from provisioning.catalogue import Piece, last_corpus, not_scanned, open_reader, pieces, tile_of
from provisioning.config import Flight
from provisioning.descriptors.dask.remote import Job
from provisioning.descriptors.facts import headings, store_path
from provisioning.descriptors.pipeline import layouts
from provisioning.descriptors.pipeline.decoders import Decoders
from provisioning.descriptors.pipeline.loader import Unit
from provisioning.descriptors.pipeline.memory import return_large_blocks
from provisioning.descriptors.pipeline.results import Results
from provisioning.descriptors.store.lookup import described_state
from provisioning.descriptors.store.receipts import write_receipt
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.engines import Backend, Network
from provisioning.network.backbone import model_file, resolved
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


def describe(flight: Flight, *, engine: bytes, backend: Backend, keys: Sequence[Sha256], overlap: int = 1) -> Described:
    """Compute the descriptors that the corpus of `flight` lacks; `keys` has one key for each of `index.rotations`.

    overlap: 2 where cuts are described, too. `engine` are verified bytes. Finished work stays, whatever happens.
    DescriptorError: tiles that gave no descriptor (all named), a constant descriptor, a damaged store.
    DamagedDescriptorsError: rows of before are damaged and now forgotten; call again. EngineError, FilesystemError pass
    through.
    """
    return_large_blocks()
    backbone = flight.descriptor_backbone
    network = backend.load(engine, custom_ops=backbone.custom_ops)
    corpus = last_corpus(flight)
    if corpus is None:
        raise not_scanned()
    require_local_filesystem(store_path(flight))
    with ExitStack() as stack:
        stores = [
            stack.enter_context(DescriptorStore(store_path(flight), key, flight.descriptors.dtype)) for key in keys
        ]
        for store in stores:
            store.tidy()
        reader = stack.enter_context(open_reader(flight))
        turns = headings(flight.index.rotations)
        view = View(turns, network.size, resolved(backbone).fit_how, flight.tiles.max_pixels, cuts=overlap > 1)
        decoders = Decoders(reader, view, batch=flight.engine.batch, slots=layouts.slots(_threads(flight)))
        stack.callback(decoders.close)
        todo = pieces(flight, overlap=overlap, since=described_state(flight, store_path(flight), keys, overlap=overlap))
        total = todo.total * len(keys)
        passed = Passed(known=total - todo.changed * len(keys))
        results = Results(stores, lambda done: progress("descriptors", passed.known + done, total, unit="tiles"))
        units = missing_units(todo.new, results, passed)
        _run(flight, units, network, decoders, results, engine=engine, backend=backend)
        for store in stores:
            store.flush()
        model = model_file(flight.root, backbone)
        results.require_all(model)
        try:
            require_variety(stores[0], passed.sample, model)
        except DamagedDescriptorsError as error:  # rows of before; those that were computed now are in the store
            facts = {"computed": results.computed}
            raise DamagedDescriptorsError(
                error.what, file=error.file, facts=facts, next_step=error.next_step
            ) from error
    for key in keys:
        write_receipt(store_path(flight), key, corpus.coverage_sha256, overlap=overlap)
    return Described(results.computed, todo.total, network.dimension)


def _run(
    flight: Flight,
    units: Iterable[Unit],
    network: Network,
    decoders: Decoders,
    results: Results,
    *,
    engine: bytes,
    backend: Backend,
) -> None:
    """Put `units` through the network with the layout that this host, or a fleet of its like, is fastest with."""
    settings, batch = flight.descriptors, flight.engine.batch
    if settings.executor == "dask":
        from provisioning.descriptors.dask.link import Cluster, Tls, submit

        pem = (settings.tls_ca, settings.tls_certificate, settings.tls_key)
        cluster = Cluster(settings.scheduler, Tls(*map(str, pem)) if all(pem) else None)

        job = Job(
            run=os.urandom(4).hex(),
            engine_sha256=sha256_bytes(engine),
            host=backend.probe(),
            custom_ops=flight.descriptor_backbone.custom_ops,
            headings=decoders.view.headings,
            how=decoders.view.how,
            max_pixels=decoders.view.max_pixels,
            batch=batch,
            cuts=decoders.view.cuts,
        )
        tasks = batches_of(units, settings.task_tiles)
        submit(tasks, network, decoders, results, job=job, engine=engine, cluster=cluster)
        return
    layout = layouts.fused if backend.name == "onnxruntime" else layouts.staged
    layout(units, network, decoders, results, threads=_threads(flight), batch=batch)


def _threads(flight: Flight) -> int:
    return flight.descriptors.threads or len(os.sched_getaffinity(0))


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
