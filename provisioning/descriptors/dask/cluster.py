"""The process that talks to a dask cluster: `python -m provisioning.descriptors.dask.cluster`, started by `dask.link`.

dask unpickles what scheduler and workers send, so this process counts as theirs: it is started without password, gives
up the file system before it connects, and hands on plain numbers. A lost worker costs its tasks only: they run again
elsewhere. Memory is bounded by the tasks under way.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from provisioning.base.errors import DescriptorError
from provisioning.base.process import landlock
from provisioning.descriptors.dask.frames import write_frame
from provisioning.descriptors.dask.link import Order, Task, Tls
from provisioning.descriptors.dask.remote import EnginePlugin, Job, compute, refusal

RETRIES = 2
AHEAD = 2
"""Tasks under way for each thread of the fleet: one computing, one waiting beside it."""
PATIENCE_S = 120.0
"""How long the fleet may be without any worker that fits before the run gives up."""
CONNECT_S = 20
ENDED = None
Tasks = queue.Queue[Task | None]


def main(source: IO[bytes], answers: IO[bytes]) -> None:
    """Be that process: an Order and then Tasks come on `source`, frames go to `answers`."""
    order: Order = pickle.load(source)  # noqa: S301  from the process that started this one
    landlock.confine([*landlock.libraries(), *map(Path, order.cluster.tls or ())])
    tasks: Tasks = queue.Queue()
    threading.Thread(target=_receive, args=(source, tasks), daemon=True).start()
    try:
        with _client(*order.cluster) as client, _ready(client, order, answers):
            _run(client, order.job, tasks, answers)
    except Exception as error:  # noqa: BLE001  whatever it is, the build hears one sentence of it
        write_frame(answers, {"error": _as_json(error)})


def _as_json(error: Exception) -> dict[str, object]:
    if not isinstance(error, DescriptorError):
        return {"what": f"the dask cluster cannot be used: {type(error).__name__}: {error}"}
    facts = {name: str(value) for name, value in error.facts.items()}
    return {"what": error.what, "facts": facts, "next_step": error.next_step}


def _receive(source: IO[bytes], tasks: Tasks) -> None:
    """Take tasks as they come; the last one is None."""
    task: Task | None = pickle.load(source)  # noqa: S301  as above
    while task is not None:
        tasks.put(task)
        task = pickle.load(source)  # noqa: S301
    tasks.put(ENDED)


@contextmanager
def _client(scheduler: str, tls: Tls | None) -> Iterator[Any]:
    import distributed

    security = tls and distributed.Security(
        tls_ca_file=tls.ca, tls_client_cert=tls.certificate, tls_client_key=tls.key, require_encryption=True
    )
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False, security=security)
    except Exception as error:  # a transport raises whatever it stumbles over: TypeError for TLS without certificates
        raise DescriptorError(
            f"no dask scheduler answers at {scheduler or 'no address'}",
            key="descriptors.scheduler",
            facts={"reason": str(error)[:200]},
            next_step="start one with `dask scheduler` and workers with `dask worker`; with TLS the address is tls://",
        ) from error
    with client, client.as_current():
        yield client


@contextmanager
def _ready(client: Any, order: Order, answers: IO[bytes]) -> Iterator[None]:
    """Have every worker, and any that joins later, check itself; DescriptorError if none fits."""
    from distributed import WorkerPlugin

    job = order.job
    plugin = type("Engine", (EnginePlugin, WorkerPlugin), {})(job, order.engine, order.golden)
    client.register_plugin(plugin, name=plugin.name)
    try:
        refusals = {str(worker): str(why) for worker, why in client.run(refusal, job).items() if why}
        for worker, reason in refusals.items():
            write_frame(answers, {"worker": worker, "refused": reason})
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


def _run(client: Any, job: Job, tasks: Tasks, answers: IO[bytes]) -> None:
    """Ask for as many tasks as the fleet takes, hand answers on, until the last has come and is done."""
    under_way: dict[Any, Task] = {}
    asked, ended, last_seen = 0, False, time.monotonic()
    while not ended or under_way:
        threads = _threads(client, job)
        last_seen = time.monotonic() if threads else last_seen
        if time.monotonic() - last_seen > PATIENCE_S:
            raise DescriptorError("every worker that could run this engine has gone", key="descriptors.scheduler")
        want = 0 if ended else max(0, AHEAD * threads - len(under_way) - asked)
        asked += want
        write_frame(answers, {"want": want})  # also says that we are there
        while (task := _next(tasks, wait=not under_way)) is not _NOTHING:
            asked -= 1
            if task is ENDED:
                ended = True
                break
            under_way[_submit(client, job, task)] = task
        for future in _done(under_way):
            if _answered(future, under_way[future], answers):
                del under_way[future]


_NOTHING: Any = object()


def _next(tasks: Tasks, *, wait: bool) -> Any:
    """Return the next task, ENDED, or _NOTHING if none has come."""
    try:
        return tasks.get(timeout=0.2 if wait else 0.01)
    except queue.Empty:
        return _NOTHING


def _submit(client: Any, job: Job, task: Task) -> Any:
    """Send a task off; it asks for one unit of the engine's resource."""
    resources = {job.resource: 1}
    return client.submit(compute, job, task.units, task.data, pure=False, retries=RETRIES, resources=resources)


def _done(under_way: dict[Any, Task]) -> set[Any]:
    """Return the futures that have come back within a second."""
    from distributed import wait

    if not under_way:
        return set()
    try:
        done: set[Any] = wait(set(under_way), timeout=1, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return set()
    return done


def _answered(future: Any, task: Task, answers: IO[bytes]) -> bool:
    """Hand on the answer to one task; False where it was lost with its worker and is being computed again."""
    if future.status in ("pending", "lost"):
        return False
    if future.status != "finished":
        reason = future.exception() if future.status == "error" else future.status
        raise DescriptorError("a task failed on the fleet, and so did its retries", facts={"reason": repr(reason)})
    rows, described = future.result()
    faults = sorted(set(range(len(task.units))) - set(rows))
    head = {"task": task.number, "rows": list(rows), "faults": faults, "bytes": len(described)}
    write_frame(answers, head, bytes(described))
    return True


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
    os._exit(0)  # everything is written; an interpreter that ends would wait for the thread that reads
