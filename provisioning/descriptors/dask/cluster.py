"""Descriptors on several machines: a dask cluster computes, the coordinator alone reads tiles and writes the store.

A lost worker costs its tasks only: they run again elsewhere, and the descriptors are the same bytes. Memory here is
bounded by the tasks under way. Nothing a worker says is trusted that the golden tile has not shown it can do.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from provisioning.base.errors import DescriptorError, TileError
from provisioning.base.events import warn
from provisioning.catalogue import Tile
from provisioning.descriptors.dask.remote import EnginePlugin, Golden, Job, compute, refusal
from provisioning.descriptors.pipeline.loader import Fault, TileLoader, Unit
from provisioning.descriptors.pipeline.results import Results
from provisioning.engines import Network

RETRIES = 2
AHEAD = 2
"""Tasks under way for each thread of the fleet: one computing, one waiting beside it."""
PATIENCE_S = 120.0
"""How long the fleet may be without any worker that fits before the run gives up."""
CONNECT_S = 20

Batches = Iterable[Sequence[Unit]]


def submit(
    batches: Batches, network: Network, loader: TileLoader, results: Results, *, job: Job, engine: bytes, scheduler: str
) -> None:
    """Have the workers of the dask cluster at `scheduler` compute `batches`.

    DescriptorError: no such cluster, no worker that fits (each with its reason), a task that failed three times.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return
    golden = _golden(first, network, loader, results)
    if golden is None:
        submit(batches, network, loader, results, job=job, engine=engine, scheduler=scheduler)
        return
    with _client(scheduler) as client, _ready(client, job, engine, golden):
        _run(client, job, chain([first], batches), loader, results)


def _golden(units: Sequence[Unit], network: Network, loader: TileLoader, results: Results) -> Golden | None:
    """Compute the first unit of `units` that can be seen here; None if none can, which are then faults."""
    faults = []
    for unit in units:
        try:
            return Golden(unit, loader.read(unit.tile), network(loader.image(unit)[None])[0])
        except TileError as error:  # noqa: PERF203 - the first good one ends the loop
            faults.append(Fault(unit, error.what))
    results.fail(faults)
    return None


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    try:
        import distributed
    except ImportError as error:
        raise DescriptorError(
            "dask is not installed", key="descriptors.executor", next_step="pip install 'flightcache[dask]'"
        ) from error
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise DescriptorError(
            f"no dask scheduler answers at {scheduler or 'no address'}",
            key="descriptors.scheduler",
            next_step="start one with `dask scheduler` and workers with `dask worker`",
        ) from error
    with client, client.as_current():
        yield client


@contextmanager
def _ready(client: Any, job: Job, engine: bytes, golden: Golden) -> Iterator[None]:
    """Have every worker, and any that joins later, check itself; DescriptorError if none fits."""
    from distributed import WorkerPlugin

    plugin = type("Engine", (EnginePlugin, WorkerPlugin), {})(job, engine, golden)
    client.register_plugin(plugin, name=plugin.name)
    try:
        refusals = {worker: why for worker, why in client.run(refusal, job).items() if why}
        for worker, reason in refusals.items():
            warn("descriptor.failure", worker=worker, reason=reason)
        if not _threads(client, job):
            raise DescriptorError(
                "no worker of the dask cluster can run this engine",
                key="descriptors.scheduler",
                facts=refusals or {"workers": "none"},
                next_step="start `dask worker` on computers like this one, with the same versions installed",
            )
        yield
    finally:
        client.unregister_worker_plugin(plugin.name)


def _threads(client: Any, job: Job) -> int:
    """Return how many tasks the workers that fit can run at once."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return int(sum(worker["resources"].get(job.resource, 0) for worker in workers))


def _run(client: Any, job: Job, batches: Batches, loader: TileLoader, results: Results) -> None:
    from distributed import wait

    batches, under_way = iter(batches), set[Any]()
    last_seen = time.monotonic()
    while True:
        threads = _threads(client, job)
        while len(under_way) < AHEAD * threads and (units := next(batches, None)) is not None:
            under_way.add(_submit(client, job, units, loader, results))
        if threads:
            last_seen = time.monotonic()
        if not under_way and threads:
            return
        if time.monotonic() - last_seen > PATIENCE_S:
            raise DescriptorError("every worker that could run this engine has gone", key="descriptors.scheduler")
        under_way -= _collect(wait, under_way, results)


def _submit(client: Any, job: Job, units: Sequence[Unit], loader: TileLoader, results: Results) -> Any:
    """Read the tiles of `units` here and send them off; a task asks for one unit of the engine's resource."""
    data: dict[Tile, bytes] = {}
    readable = []
    for unit in units:
        try:
            if unit.tile not in data:
                data[unit.tile] = loader.read(unit.tile)
            readable.append(unit)
        except TileError as error:  # noqa: PERF203 - one bad tile must not cost its task
            results.fail([Fault(unit, error.what)])
    return client.submit(compute, job, readable, data, pure=False, retries=RETRIES, resources={job.resource: 1})


def _collect(wait: Any, under_way: set[Any], results: Results) -> set[Any]:
    """Store what has come back within a second; return those futures."""
    if not under_way:
        time.sleep(0.2)
        return set()
    try:
        done = wait(under_way, timeout=1, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return set()
    return {future for future in done if _stored(future, results)}


def _stored(future: Any, results: Results) -> bool:
    """Store the answer of one task; False where it was lost with its worker and is being computed again."""
    if future.status in ("pending", "lost"):
        return False
    if future.status != "finished":
        reason = future.exception() if future.status == "error" else future.status
        raise DescriptorError("a task failed on the fleet, and so did its retries", facts={"reason": repr(reason)})
    units, vectors, faults = future.result()
    results.fail(faults)
    if units:
        results.put(units, vectors)
    return True
