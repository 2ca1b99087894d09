"""From tiles to an index whose quality has been measured."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from provisioning import catalogue, descriptors
from provisioning.area.place import describe_place
from provisioning.base import events
from provisioning.base.disk.artifacts import atomic_output, read_whole
from provisioning.base.disk.files import make_dirs
from provisioning.base.errors import DamagedDescriptorsError, EmptyCorpusError, GateError
from provisioning.build.request import Request, requirements_of
from provisioning.config import BuildSettings, Index
from provisioning.config.parse import require_sources
from provisioning.index.transform.spec import AUTO
from provisioning.network.backbone import model_file, onnx_source, resolved
from provisioning.network.shape import known_shape, learn_shape, shape_target
from provisioning.quality.gates.corpus import accepted_coverage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from provisioning.descriptors.store.store import DescriptorStore
    from provisioning.index.ids import Gather, Rows
    from provisioning.quality.gates.subject import Subject
    from provisioning.quality.gates.transforms import Chosen
    from provisioning.quality.gates.values import Figure


def survey(flight: BuildSettings) -> None:
    """Find out what the rules must know before they can be declared: the tiles, the descriptor's length, the host.

    Raises EmptyCorpusError, TileError, AreaError, BackboneError.
    """
    require_sources(flight.root, flight.tiles.source)
    make_dirs(flight.build_dir)
    started = time.monotonic()
    try:
        corpus = catalogue.scan(flight.selection, flight.build_dir)
    except EmptyCorpusError as error:
        events.error(
            "empty.corpus",
            reason=error.what,
            bbox=[side / 1e7 for side in catalogue.area_of(flight.area, flight.flight.takeoff, flight.build_dir).bbox],
            zoom_levels=flight.area.all_zooms,
            sector_class=flight.flight.sector_class,
            elapsed_s=round(time.monotonic() - started, 3),
        )
        raise
    events.event(
        "corpus",
        tiles=corpus.count,
        place=describe_place(corpus.bbox),
        accepted="; ".join(accepted_coverage(flight.area, corpus)),
    )
    backbone = flight.descriptor_backbone
    source = onnx_source(backbone, flight.root, flight.build_dir / "onnx-digests.json")
    target = shape_target(flight.build_dir / "store", backbone, source)
    known_shape(target) or learn_shape(target, backbone, source)


Done = TypeVar("Done")
MOST_REPAIRS = 3
"""Times that damaged rows of the descriptor store are computed again in one build."""


def check_scan(request: Request) -> None:
    """Raise what the scan already decides; where gates fail, the holes of the area are drawn first.

    Raises GateError, IndexingError, ManifestError, FilesystemError.
    """
    from provisioning.build.preflight import draw_holes, preflight, require_room

    try:
        preflight(request)
        require_room(request)
    except GateError as error:
        raise draw_holes(request, error) from error


def describe(request: Request) -> Mapping[str, object]:
    """Put the tiles that have no descriptor yet through the network; return how many that were.

    A network in fp16 has been checked on these tiles before, or is now.

    Raises DescriptorError, EngineError, TileError, FilesystemError.
    """
    from provisioning.build.preflight import require_room
    from provisioning.build.steps.networks import check_range, runnable

    check_range(request, request.descriptor_network)
    require_room(request)
    target, backend = runnable(request)
    flight, backbone = request.flight, request.descriptor_network.backbone
    engine = descriptors.Engine(
        read_whole(target), backend, backbone, model_file(flight.root, backbone), flight.engine.batch
    )
    wanted = descriptors.Wanted(
        flight.descriptor_store, request.descriptor_keys, request.tiles.coverage_sha256, request.overlap
    )
    done, before = _repairing(
        lambda: descriptors.describe(wanted, engine, flight.tiles, flight.build_dir, flight.descriptors),
        lambda error: int(str(error.facts.get("computed", 0))),
    )
    return {"descriptors_generated": before + done.computed}


@contextlib.contextmanager
def _corpus(request: Request) -> Iterator[tuple[Rows, list[DescriptorStore]]]:
    """Yield the rows of the index and the descriptor stores, one for each heading."""
    from provisioning.descriptors.store.store import DescriptorStore
    from provisioning.index.ids import rows_of

    flight = request.flight
    with contextlib.ExitStack() as stack:
        path, dtype = flight.descriptor_store, flight.descriptors.dtype
        stores = [stack.enter_context(DescriptorStore(path, key, dtype)) for key in request.descriptor_keys]
        ids, keys = catalogue.pieces_table(flight.build_dir, overlap=request.overlap)
        yield rows_of(ids, keys, rotations=flight.index.rotations), stores


def _over_descriptors(request: Request, work: Callable[[Request], None]) -> Mapping[str, object]:
    """Do `work`; tiles whose rows in the descriptor store prove damaged are described again; return how many."""
    _, again = _repairing(lambda: work(request), lambda _: int(str(describe(request)["descriptors_generated"])))
    return {"descriptors_generated": again} if again else {}


def _repairing(work: Callable[[], Done], repair: Callable[[DamagedDescriptorsError], int]) -> tuple[Done, int]:
    """Do `work`, anew after `repair` where rows of the descriptor store prove damaged and were forgotten.

    Returns its result and the sum of what `repair` computed. DamagedDescriptorsError where it does not end: then the
    disk is at fault.
    """
    computed = 0
    for _ in range(MOST_REPAIRS):
        try:
            return work(), computed
        except DamagedDescriptorsError as error:  # noqa: PERF203  a few rounds
            events.warn("descriptor.damaged", file=error.file, reason=error.what)
            computed += repair(error)
    return work(), computed


def build_index(request: Request) -> Mapping[str, object]:
    """Write corpus.index over the descriptors of the corpus, and what was built beside it. Raises IndexingError."""
    return _over_descriptors(request, _build_index)


def _build_index(request: Request) -> None:
    from provisioning.index.write.build import build

    with _corpus(request) as (rows, stores), atomic_output(request.index) as output:
        gather = rows.gather([store.gather for store in stores])
        asked, chosen = _with_transform(request, rows, gather)
        info = build(asked, rows.ids, gather, output, planned=request.vectors)
    if chosen is not None:
        info = dataclasses.replace(info, transform_found=chosen.found, transform_reason=chosen.reason)
    with atomic_output(request.index_info) as output:
        output.write_text(info.to_json(), encoding="utf-8")


def _with_transform(request: Request, rows: Rows, gather: Gather) -> tuple[Index, Chosen | None]:
    """Return [index] with the transform that `auto` takes, and the choice; as it is where it names one.

    The kind stays the one that plan and preflight named.
    """
    from provisioning.index.choice import choose
    from provisioning.index.write.parallel import idle_threads
    from provisioning.quality.gates.transforms import choose_transform

    asked = request.flight.index
    if asked.transform != AUTO:
        return asked, None
    with descriptors.decoded_tiles(request.flight.tiles, request.build_dir) as decode, idle_threads():
        chosen = choose_transform(_subject(request, rows, gather, decode, None))
    events.event("index.transform", transform=chosen.transform, found=chosen.found, reason=chosen.reason)
    kind = choose(asked, vectors=len(rows.ids), dimension=int(gather(slice(0, 1)).shape[1])).kind
    return dataclasses.replace(asked, transform=chosen.transform, kind=kind), chosen  # type: ignore[arg-type]


def _subject(
    request: Request, rows: Rows, gather: Gather, decode: Callable[[catalogue.Tile], NDArray[np.uint8]], index: Any
) -> Subject:
    """Return what is measured: the corpus with its network and its index, None where that is not made yet."""
    from provisioning.build.steps.networks import network_here
    from provisioning.quality.gates.degenerate import FLAT_LEVELS
    from provisioning.quality.gates.subject import Subject

    return Subject(
        asked=requirements_of(request.flight),
        corpus=request.tiles,
        rows=rows,
        gather=gather,
        index=index,
        network=network_here(request),
        decode=decode,
        fit=resolved(request.descriptor_network.backbone).fit_how,
        key=request.descriptor_keys[0],
        kept=request.build_dir / "gates",
        threads=request.flight.descriptors.threads,
        flat=catalogue.flat_ids(request.build_dir, FLAT_LEVELS),
    )


def _transform_figure(request: Request) -> Figure | None:
    """Return what goes on record of the transform that `auto` took; None where flight.toml names one."""
    from provisioning.index import read_info
    from provisioning.quality.gates.values import Figure

    info = read_info(request.index_info)
    return Figure(info.transform_found, info.transform_reason) if info.transform_reason else None


def measure(request: Request) -> Mapping[str, object]:
    """Measure every gate and keep the figures. Raises GateError listing all that failed; nothing is published then."""
    return _over_descriptors(request, _measure)


def _measure(request: Request) -> None:
    from provisioning.engines.accuracy.diagnosis import explain
    from provisioning.engines.accuracy.fidelity import reference_network
    from provisioning.engines.compile import golden_agreement
    from provisioning.index.read import load_index
    from provisioning.index.write.parallel import idle_threads
    from provisioning.quality.gates.limits import network_limits
    from provisioning.quality.gates.measure import measure as measure_gates

    flight, described = request.flight, request.descriptor_network
    with (
        _corpus(request) as (rows, stores),
        descriptors.decoded_tiles(flight.tiles, flight.build_dir) as decode,
        idle_threads(),
    ):
        gather = rows.gather([store.gather for store in stores])
        subject = _subject(request, rows, gather, decode, load_index(read_whole(request.index)))
        subject = dataclasses.replace(subject, transform=_transform_figure(request))
        try:
            result = measure_gates(
                subject,
                lambda: reference_network(described.backbone, described.source).limited(flight.engine.batch),
                backbone=described.backbone,
                today=dt.datetime.now(dt.timezone.utc).date(),
                stands_for="engine" if request.backend.runs_here else "typed",
                calibration=described.calibration,
                on_target=golden_agreement(described.engine.path),
            )
        except GateError as error:
            least = network_limits(flight.gates, described.backbone)["fidelity.cosine"].threshold
            raise explain(
                error,
                described.backbone,
                described.source,
                subject.images,
                typed=described.typed.path,
                allowed=Decimal(1) - (least or Decimal(0)),
            ) from error
    with atomic_output(request.gates) as output:
        output.write_text(result.to_json(), encoding="utf-8")
