"""What a build would do and why, found without the lock and without writing a byte in the cache directory."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from provisioning import catalogue
from provisioning.area.place import describe_place
from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.hashing import plain
from provisioning.build.estimate import Estimate, estimate
from provisioning.build.generation import contents
from provisioning.build.history import History, differences, read_history, short
from provisioning.build.preflight import chosen_index, preflight
from provisioning.build.reasons import Due
from provisioning.build.request import NetworkRequest, Request, make_request
from provisioning.build.tasks import CHECKS, task_rows
from provisioning.catalogue.database import catalogue_path, is_there
from provisioning.config.parse import read_flight, require_sources
from provisioning.descriptors.store.lookup import BYTES_PER_COMPONENT, count_lacking
from provisioning.flight import publish
from provisioning.index.transform.spec import AUTO
from provisioning.network.builtin.known import LIMITS
from provisioning.quality import gates

SHARE_OF_FP32 = {"fp32": 1.0, "fp16": 0.5, "int8": 0.25}
"""Bytes of a network's weights in a precision, to those in fp32."""
COPIES_IN_MEMORY = 2
"""An engine's bytes and the session of them."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A fact that differs from the last build; None where there was or is none."""

    fact: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.fact}: {self.before or 'none'} → {self.after or 'none'}"


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One task: whether and why it will run, which facts changed, how long it took last time (second)."""

    task: str
    why: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    seconds: float | None = None

    @property
    def will_run(self) -> bool:
        """Whether `doit` would run it."""
        return bool(self.why)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All tasks in the order of a build, and what the work amounts to."""

    tasks: tuple[TaskPlan, ...]
    place: str
    """Where the area lies, in words."""
    tiles: int
    added: int
    removed: int
    changed: int
    descriptors: int
    bytes_to_write: int
    memory_bytes: int
    index: str
    """Kind of the index to be built and what is expected of it; empty where none is built, or not yet known."""
    seconds: float | None
    """What the tasks take together that were timed before, or tried; None where none of them was."""
    seconds_tried: bool
    """Whether some of it comes from a short trial of the network instead of the last build."""
    not_timed: tuple[str, ...]
    """Tasks that will run of which no time is known."""
    why_not_timed: str
    """Why the network could not be tried; empty where it was, or need not be."""
    notes: tuple[str, ...] = ()
    """What the chosen network cannot do."""
    recognition: str = ""
    """What the published cache can find in flight, in words; empty where none is published."""

    @property
    def has_work(self) -> bool:
        """Whether `doit` would do anything."""
        return any(task.will_run for task in self.tasks)


def make_plan(root: Path) -> Plan:
    """Return what `doit` would do in the cache directory `root`.

    Raises what would stop it at once: FilesystemError of a link or directory where none may be, ConfigError,
    EmptyCorpusError, TileError, BackboneError, EngineError, GateError of coverage and freshness, IndexingError,
    ManifestError.
    """
    flight = read_flight(root)
    with wrap_os_errors("look at the cache directory", root):
        publish.refuse_links(root)
        publish.refuse_directory(root)
    require_sources(flight.root, flight.tiles.source)
    with tempfile.TemporaryDirectory() as scratch:
        aside = Path(scratch)
        _copy_catalogue(flight.build_dir, aside)
        corpus = catalogue.scan(flight.selection, aside)
        today = dt.datetime.now(dt.timezone.utc).date()
        request = make_request(flight, corpus, today=today, scanned=aside)
        if Due(request).unchecked():
            preflight(request)
        tasks = tuple(_tasks(request, read_history(flight.build_dir)))
        missing = _missing(request, aside) if _will_run("descriptors", tasks) else 0
        tried = _tried(request, aside, tasks)
    timed = {task.task: _timed(task, missing, tried) for task in tasks if task.will_run}
    known = [seconds for seconds in timed.values() if seconds is not None]
    return Plan(
        tasks=tasks,
        place=describe_place(corpus.bbox),
        tiles=corpus.count,
        added=corpus.added,
        removed=corpus.removed,
        changed=corpus.changed,
        descriptors=missing,
        **_sizes(request, tasks, missing, tried),
        seconds=round(sum(known), 2) if known or not timed else None,
        seconds_tried=bool(tried.seconds),
        not_timed=tuple(task for task, seconds in timed.items() if seconds is None),
        why_not_timed=tried.why_not,
        notes=tuple(LIMITS[b.onnx] for b in flight.backbone if b.role == "descriptor" and b.onnx in LIMITS),
        recognition=_recognition(root),
    )


def _recognition(cache: Path) -> str:
    now = contents.published(cache)
    return gates.recognition_of(now.manifest.gates) if now else ""


def _copy_catalogue(build_dir: Path, aside: Path) -> None:
    """Copy the catalogue as of its last commit, so that a scan there leaves the real one alone."""
    path = catalogue_path(build_dir)
    if not is_there(path):
        return
    frozen = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro{frozen}", uri=True)) as source,
            closing(sqlite3.connect(catalogue_path(aside))) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error:
        catalogue_path(aside).unlink(missing_ok=True)  # as after a loss: everything is looked at again


def _tasks(request: Request, history: History) -> Iterator[TaskPlan]:
    for row in task_rows(request):
        if row.due is None or row.name in CHECKS:
            continue
        why = row.due()
        now = {name: plain(fact) for name, fact in row.facts.items()}
        found = differences(history.facts[row.name], now) if why and row.name in history.facts else ()
        yield TaskPlan(
            task=row.name,
            why=tuple(str(reason) for reason in why),
            changes=tuple(_change(*change) for change in found),
            seconds=history.seconds.get(row.name),
        )


def _change(fact: str, before: object, after: object) -> Change:
    return Change(fact=fact, before=short(before), after=short(after))


def _missing(request: Request, aside: Path) -> int:
    return count_lacking(aside, request.flight.descriptor_store, request.descriptor_keys, overlap=request.overlap)


def _will_run(name: str, tasks: Iterable[TaskPlan]) -> bool:
    return any(task.task == name and task.will_run for task in tasks)


def _tried(request: Request, aside: Path, tasks: Iterable[TaskPlan]) -> Estimate:
    """Return what a trial of the network says, where no build has said how long a descriptor takes."""
    shape = request.descriptor_network.shape
    timed = any(task.task == "descriptors" and task.seconds is not None for task in tasks)
    return Estimate(shape) if shape and (timed or not _will_run("descriptors", tasks)) else estimate(request, aside)


def _timed(task: TaskPlan, missing: int, tried: Estimate) -> float | None:
    seconds = tried.seconds.get(task.task) if task.seconds is None else task.seconds
    return seconds * missing if seconds is not None and task.task == "descriptors" else seconds


def _model_bytes(network: NetworkRequest, tasks: tuple[TaskPlan, ...]) -> int:
    """Return about how many bytes the typed ONNX and the engine of `network` take, as far as they are to be made."""
    due = sum(_will_run(f"{made}:{network.name}", tasks) for made in ("onnx", "engine"))
    return int(due * network.source.size_bytes * SHARE_OF_FP32[network.backbone.precision])


def _sizes(request: Request, tasks: tuple[TaskPlan, ...], missing: int, tried: Estimate) -> dict[str, Any]:
    """Return bytes to write, memory and index."""
    assert tried.shape is not None
    shape = tried.shape
    written = missing * shape.dimension * BYTES_PER_COMPONENT[request.flight.descriptors.dtype]
    written += sum(_model_bytes(network, tasks) for network in request.networks)
    if not _will_run("corpus", tasks):
        return {"bytes_to_write": written, "memory_bytes": 0, "index": ""}
    choice = chosen_index(request, shape.dimension)
    text = f"{choice.kind}: {choice.reason}{'; cuts half a tile apart' if request.overlap > 1 else ''}"
    if request.flight.index.transform == AUTO:
        text += "; transform auto: chosen in the build from views of the tiles"
    memory = max(choice.build_bytes, COPIES_IN_MEMORY * request.descriptor_network.source.size_bytes)
    return {"bytes_to_write": written + choice.bytes, "memory_bytes": memory, "index": text}
