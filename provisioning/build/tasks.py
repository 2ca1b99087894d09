"""The table of tasks: what each is called, its step, why it is due, what it makes and from what. One row a task.

doit's tasks, `flightcache plan` and `why`, the record of the last build and DESIGN.md's table are derived from it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from provisioning.base.disk.artifacts import Target
from provisioning.base.frozen import dataclass
from provisioning.base.hashing import Fact
from provisioning.build import steps
from provisioning.build.reasons import Due, Reasons
from provisioning.build.request import NetworkRequest, Request
from provisioning.flight import publish

WALK = "coverage"
"""The task that runs every time."""
CHECKS = frozenset({"preflight", WALK})
"""Tasks that only look: a run of these alone has built nothing."""


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task of a build. `step(**given)` makes `makes` and `publishes` from the files `needs` and from `facts`.

    `due` says why the task must run, () if it is up to date; a task without it always runs. A `name` with a colon
    belongs to the group before the colon.
    """

    name: str
    summary: str
    step: Callable[..., Mapping[str, object] | None]
    given: Mapping[str, object]
    due: Callable[[], Reasons] | None
    makes: tuple[Target, ...] = ()
    publishes: tuple[Path, ...] = ()
    needs: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The name without that of a model."""
        return self.name.partition(":")[0]


def task_rows(request: Request) -> tuple[TaskRow, ...]:
    """Return the tasks of `request` in the order in which they are built."""
    return tuple(_rows(request, Due(request)))


def _rows(request: Request, due: Due) -> Iterator[TaskRow]:
    def row(name: str, summary: str, step: Callable[..., Mapping[str, object] | None], **rest: object) -> TaskRow:
        return TaskRow(**{"name": name, "summary": summary, "step": step, "given": {"request": request}, **rest})  # type: ignore[arg-type]

    describing = request.descriptor_network
    engines = tuple(network.engine.path for network in request.networks)
    current = tuple(request.cache / publish.CURRENT / name for name in publish.MANIFEST_FILES)
    yield row(
        "preflight",
        "Check what the scan already decides: coverage, freshness, kind of index, disk space, the Manifest's limits.",
        steps.check_scan,
        due=due.unchecked,
        facts=_tiles(request),
    )
    for network in request.networks:
        yield from _network_rows(request, network, due)
    yield row(
        "descriptors",
        "Describe the tiles that have no descriptor yet.",
        steps.describe,
        due=due.described,
        needs=(describing.engine.path,),
        after=("preflight", f"engine:{describing.name}"),
        facts={**_tiles(request), "keys": request.descriptor_keys, **_cuts(request)},
    )
    yield row(
        "corpus",
        "Build corpus.index over the descriptors.",
        steps.build_index,
        due=due.indexed,
        makes=(request.index, request.index_info),
        needs=(describing.engine.path,),
        after=("descriptors",),
        facts={**_tiles(request), **request.index.facts},
    )
    yield row(
        "gates",
        "Measure quality: fidelity, recall, gaps, freshness.",
        steps.measure,
        due=due.gates,
        makes=(request.gates,),
        needs=(*engines, request.index.path),
        after=("engine", "corpus"),
        facts=request.gates.facts,
    )
    yield row(
        "report",
        "Draw report.html and coverage.geojson, and pack what else goes on board.",
        steps.draw_report,
        due=due.report,
        makes=request.extras,
        needs=(request.gates.path,),
        after=("gates",),
        facts=request.report.facts,
    )
    yield row(
        "manifest",
        "Stage a complete generation with its signed Manifest, verify it, switch `current` to it.",
        steps.publish_generation,
        due=due.published,
        publishes=current,
        needs=(
            *engines,
            request.index.path,
            request.gates.path,
            *(target.path for target in request.extras),
            *(calibration.path for calibration, _ in request.calibration),
        ),
        after=("report",),
        facts={**_tiles(request), **_identity(request)},
    )
    yield row(
        WALK,
        "Walk and verify the published generation.",
        steps.walk,
        given={"request": request, "due": due},
        due=None,
        needs=current[:1],
        after=("manifest",),
        facts=_identity(request),
    )


def _network_rows(request: Request, network: NetworkRequest, due: Due) -> Iterator[TaskRow]:
    given = {"request": request, "network": network}
    yield TaskRow(
        name=f"onnx:{network.name}",
        summary="Prepare each backbone: preprocessing into the graph, precision into the types.",
        step=steps.make_onnx,
        given=given,
        due=functools.partial(due.onnx, network),
        makes=(network.typed,),
        needs=network.source.files,
        facts=network.typed.facts,
    )
    yield TaskRow(
        name=f"engine:{network.name}",
        summary="Compile each backbone for this host.",
        step=steps.compile_network,
        given=given,
        due=functools.partial(due.engine, network),
        makes=(network.engine,),
        needs=network.source.files,
        after=(f"onnx:{network.name}",),
        facts=network.engine.facts,
    )


def _cuts(request: Request) -> Mapping[str, Fact]:
    return {"overlap": request.overlap} if request.overlap > 1 else {}


def _tiles(request: Request) -> dict[str, Fact]:
    corpus = request.corpus
    return {"tile count": corpus.count, "tiles": corpus.coverage_sha256} if corpus else {}


def _identity(request: Request) -> dict[str, Fact]:
    identity = request.flight.flight
    until = {"not after": identity.not_after} if identity.not_after else {}
    return {"flight": identity.id, "aircraft": identity.aircraft, **until}
