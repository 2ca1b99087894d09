"""From tiles to an index whose quality has been measured."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from provisioning import catalogue, descriptors, index
from provisioning.base import events
from provisioning.base.artifacts import atomic_output
from provisioning.base.errors import EmptyCorpusError
from provisioning.base.files import make_dirs, require_free_bytes
from provisioning.build.request import Request
from provisioning.build.steps.networks import network_here, runnable, verified
from provisioning.config import Flight
from provisioning.descriptors.store.lookup import BYTES_PER_COMPONENT, count_lacking
from provisioning.network.backbone import onnx_source, resolved
from provisioning.network.shape import known_shape, learn_shape, shape_target

if TYPE_CHECKING:
    from provisioning.descriptors.store.store import DescriptorStore
    from provisioning.index.ids import Rows


def survey(flight: Flight) -> None:
    """Find out what the rules must know before they can be declared: the tiles, the descriptor's length, the host.

    Raises EmptyCorpusError, TileError, AreaError, BackboneError.
    """
    make_dirs(flight.build_dir)
    try:
        catalogue.scan(flight)
    except EmptyCorpusError as error:
        events.event("empty.corpus", reason=error.what)
        raise
    backbone = flight.descriptor_backbone
    source = onnx_source(backbone, flight.root, flight.build_dir / "onnx-digests.json")
    target = shape_target(flight, backbone, source)
    known_shape(target) or learn_shape(target, backbone, source)


def describe(request: Request) -> Mapping[str, object]:
    """Put the tiles that have no descriptor yet through the network; return how many that were.

    Raises DescriptorError, EngineError, TileError, FilesystemError.
    """
    _require_room(request)
    target, backend = runnable(request)
    done = descriptors.describe(request.flight, engine=verified(target), backend=backend, keys=request.descriptor_keys)
    return {"descriptors_generated": done.computed}


def _require_room(request: Request) -> None:
    """Refuse before hours of work what the disk cannot hold. FilesystemError tells the bytes."""
    flight, shape = request.flight, request.descriptor_network.shape
    if shape is None:
        return
    store = descriptors.store_path(flight)
    missing = count_lacking(flight, store, request.descriptor_keys)
    make_dirs(store)
    needed = missing * shape.dimension * BYTES_PER_COMPONENT[flight.descriptors.dtype]
    require_free_bytes(store, needed, what=f"{missing} descriptors")
    vectors = request.tiles.count * flight.index.rotations
    needed += index.choose(flight.index, vectors=vectors, dimension=shape.dimension).bytes
    require_free_bytes(flight.build_dir, needed, what="descriptors and index")


@contextlib.contextmanager
def _corpus(request: Request) -> Iterator[tuple[Rows, list[DescriptorStore]]]:
    """Yield the rows of the index and the descriptor stores, one for each heading."""
    from provisioning.descriptors.store.store import DescriptorStore
    from provisioning.index.ids import rows_of

    flight = request.flight
    with contextlib.ExitStack() as stack:
        path, dtype = descriptors.store_path(flight), flight.descriptors.dtype
        stores = [stack.enter_context(DescriptorStore(path, key, dtype)) for key in request.descriptor_keys]
        ids, shas = catalogue.corpus_table(flight)
        yield rows_of(ids, shas, rotations=flight.index.rotations), stores


def build_index(request: Request) -> None:
    """Write corpus.index over the descriptors of the corpus, and what was built beside it. Raises IndexingError."""
    from provisioning.index.build import build

    with _corpus(request) as (rows, stores), atomic_output(request.index) as output:
        info = build(request.flight.index, rows.ids, rows.gather([store.gather for store in stores]), output)
    with atomic_output(request.index_info) as output:
        output.write_text(info.to_json())


def measure(request: Request) -> None:
    """Measure every gate and keep the figures. Raises GateError listing all that failed; nothing is published then."""
    from provisioning.engines.fidelity import reference_network
    from provisioning.index.parallel import idle_threads
    from provisioning.index.read import load_index
    from provisioning.quality.gates.degenerate import FLAT_LEVELS
    from provisioning.quality.gates.measure import measure as measure_gates
    from provisioning.quality.gates.subject import Subject

    flight, described = request.flight, request.descriptor_network
    with _corpus(request) as (rows, stores), catalogue.open_reader(flight) as reader, idle_threads():
        subject = Subject(
            flight=flight,
            corpus=request.tiles,
            rows=rows,
            gather=rows.gather([store.gather for store in stores]),
            index=load_index(verified(request.index)),
            network=network_here(request),
            read=reader.read,
            fit=resolved(described.backbone).fit,
            key=request.descriptor_keys[0],
            flat=catalogue.flat_ids(flight, FLAT_LEVELS),
        )
        result = measure_gates(
            subject,
            lambda: reference_network(described.backbone, described.source),
            precision=described.backbone.precision,
            today=dt.datetime.now(dt.timezone.utc).date(),
            stands_for="engine" if request.backend.runs_here else "typed",
            calibration=described.calibration,
        )
    with atomic_output(request.gates) as output:
        output.write_text(result.to_json())
