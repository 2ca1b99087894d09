"""The steps of a build as plain functions of a request; rules/ declares when each runs."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning import (
    contents,
    descriptors,
    engines,
    events,
    index,
    manifest,
    publish,
    signing,
    staleness,
    tiles,
)
from provisioning.backbone import onnx_source, prepare, resolved
from provisioning.config import Flight
from provisioning.errors import (
    EmptyCorpusError,
    Error,
    FilesystemError,
    ManifestCoverageError,
    TileError,
    VerificationError,
)
from provisioning.files import make_dirs, remove_tree, reported, write_durably
from provisioning.hashing import sha256_bytes
from provisioning.outcome import BuildReport, write_report
from provisioning.request import MAP_FILE, REPORT_FILE, NetworkRequest, Request
from provisioning.shape import known_shape, learn_shape, shape_target
from provisioning.store import Target, birth, making
from provisioning.verify import Code, Reason, verify

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from provisioning.descriptors.store import DescriptorStore
    from provisioning.index.ids import Rows


def survey(flight: Flight) -> None:
    """Find out what the rules must know before they can be declared: the tiles, the descriptor's length, the host.

    Raises EmptyCorpusError, TileError, AreaError, BackboneError.
    """
    make_dirs(flight.build_dir)
    try:
        corpus = tiles.scan(flight)
    except EmptyCorpusError as error:
        events.event("empty.corpus", reason=error.what)
        raise
    backbone = flight.descriptor_backbone
    source = onnx_source(backbone, flight.root, flight.build_dir / "onnx-digests.json")
    target = shape_target(flight, backbone, source)
    shape = known_shape(target) or learn_shape(target, backbone, source)
    index.settle(flight, corpus, shape.dimension)


def make_onnx(request: Request, network: NetworkRequest) -> None:
    """Write the typed ONNX of `network`: preprocessing in the graph, precision in the types."""
    with making(network.typed) as output:
        engines.make_typed(network.backbone, network.source, output, _sample(request, network))


def _sample(request: Request, network: NetworkRequest) -> engines.Images:
    """Return a function that gives corpus tiles as `network` takes them.

    `doit engine` may run before a scan, or without the tiles: it gets none, except for int8, which is made of them.
    """

    def images(count: int) -> Iterator[NDArray[np.uint8]]:
        if network.backbone.role != "descriptor" or request.corpus is None:
            return
        try:
            yield from descriptors.sample_images(request.flight, network.backbone, network.source, count)
        except TileError:
            if network.backbone.precision == "int8":
                raise

    return images


def compile_network(request: Request, network: NetworkRequest) -> Mapping[str, object]:
    """Compile the engine of `network` in a fresh process. Raises EngineError."""
    flight = request.flight
    spec = engines.engine_spec(
        network.typed.path, network.host, network.backbone, flight.engine, state=flight.build_dir / "compiling"
    )
    try:
        with making(network.engine) as output:
            log = flight.build_dir / "log" / f"engine-{network.name}.log"
            compiled = engines.compile_engine(spec, output, log=log)
            write_durably(engines.compiled_path(network.engine.path), compiled.to_json().encode())
    except Error as error:
        events.event("engine.failure", model=network.name, reason=error.what)
        raise
    return {f"seconds:{network.name}": round(compiled.elapsed_s, 3)}


def describe(request: Request) -> Mapping[str, object]:
    """Put the tiles that have no descriptor yet through the network; return how many that were.

    Raises DescriptorError, EngineError, TileError, FilesystemError.
    """
    described, backend = request.descriptor_network, request.backend
    if backend.runs_here:
        engine = _verified(described.engine)
    else:  # an engine for another computer is stood for by the ONNX it was compiled from
        engine, backend = _verified(described.typed), engines.OnnxRuntime()
    done = descriptors.describe(request.flight, engine=engine, backend=backend, keys=request.descriptor_keys)
    return {"descriptors_generated": done.computed}


def _verified(target: Target) -> bytes:
    """Return the bytes of an artefact, which are those of its record of birth; FilesystemError if they are not."""
    with reported(f"read {target.name}", target.path):
        data = target.path.read_bytes()
    born = birth(target)
    if born is None or sha256_bytes(data) != born.sha256:
        raise FilesystemError(f"{target.name} is not as it was made", file=target.path, next_step="run `doit` again")
    return data


@contextlib.contextmanager
def _corpus(request: Request) -> Iterator[tuple[Rows, list[DescriptorStore]]]:
    """Yield the rows of the index and the descriptor stores, one for each heading."""
    from provisioning.descriptors.store import DescriptorStore
    from provisioning.index.corpus import corpus_rows

    flight = request.flight
    with contextlib.ExitStack() as stack:
        path, dtype = descriptors.store_path(flight), flight.descriptors.dtype
        stores = [stack.enter_context(DescriptorStore(path, key, dtype)) for key in request.descriptor_keys]
        yield corpus_rows(flight), stores


def build_index(request: Request) -> None:
    """Write corpus.index over the descriptors of the corpus, and what was built beside it. Raises IndexError_."""
    from provisioning.index.corpus import build_corpus_index

    with _corpus(request) as (rows, stores), making(request.index) as output:
        gatherers = [store.gather for store in stores]
        keys = request.descriptor_keys
        info = build_corpus_index(request.flight, request.tiles, rows, gatherers, output, descriptor_keys=keys)
    with making(request.index_info) as output:
        output.write_text(info.to_json())


def measure(request: Request) -> None:
    """Measure every gate and keep the figures. Raises GateError listing all that failed; nothing is published then."""
    from provisioning.gates.measure import measure as measure_gates
    from provisioning.gates.subject import Subject
    from provisioning.index.read import load_index

    flight, described = request.flight, request.descriptor_network
    with _corpus(request) as (rows, stores), tiles.open_reader(flight) as reader:
        subject = Subject(
            flight=flight,
            corpus=request.tiles,
            rows=rows,
            gather=rows.gather([store.gather for store in stores]),
            index=load_index(_verified(request.index)),
            network=_network_here(request),
            read=reader.read,
            fit=resolved(described.backbone).fit,
            key=request.descriptor_keys[0],
        )
        result = measure_gates(
            subject,
            lambda: _reference(described),
            precision=described.backbone.precision,
            today=dt.datetime.now(dt.timezone.utc).date(),
            stands_for="engine" if request.backend.runs_here else "typed",
            calibration=described.calibration,
        )
    with making(request.gates) as output:
        output.write_text(result.to_json())


def _network_here(request: Request) -> engines.Network:
    """Return the descriptor engine, or its typed ONNX where the engine is for another computer."""
    described = request.descriptor_network
    if request.backend.runs_here:
        return request.backend.load(_verified(described.engine), custom_ops=described.backbone.custom_ops)
    return engines.OnnxRuntime().load(_verified(described.typed), custom_ops=described.backbone.custom_ops)


def _reference(described: NetworkRequest) -> engines.Network:
    """Return the network in fp32, run by ONNX Runtime: what every engine is held to."""
    if described.backbone.precision == "fp32":
        return engines.OnnxRuntime().load(_verified(described.typed), custom_ops=described.backbone.custom_ops)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        prepare(described.backbone, described.source, prepared)
        return engines.OnnxRuntime().load(prepared.read_bytes(), custom_ops=described.backbone.custom_ops)


def draw_report(request: Request) -> None:
    """Write report.html, coverage.geojson and, where asked for, the imagery. Raises TileError, FilesystemError."""
    from provisioning import report
    from provisioning.depict import report_model

    model = report_model(request)
    drawn = {
        REPORT_FILE: lambda: report.render(model),
        MAP_FILE: lambda: report.coverage_geojson(
            bbox=request.tiles.bbox,
            maps=model.maps,
            outline=model.outline,
            routes=model.routes,
            takeoff=model.manifest.flight.takeoff_origin,
        ),
    }
    for target in request.extras:
        with making(target) as output:
            if target.name in drawn:
                output.write_bytes(drawn[target.name]())
            else:
                tiles.write_pmtiles(request.flight, output)


def stage(request: Request) -> None:
    """Compose and sign the Manifest and stage the generation. Raises ManifestError, SigningError, FilesystemError."""
    try:
        composed = contents.compose(request, counter=publish.next_counter(request.cache))
        data = manifest.to_bytes(composed)
        ask = _ask_password if sys.stdin is not None and sys.stdin.isatty() else None
        signature = signing.sign(request.flight.signing, data, password=ask)
        publish.stage(
            request.cache,
            manifest=data,
            signature=signature,
            files=contents.files(request),
            births=contents.births(request),
        )
    except Error as error:
        events.event("manifest.failure", reason=error.what)
        raise


def _ask_password() -> bytes:
    return getpass.getpass("password of the signing key: ").encode()


def publish_staged(request: Request) -> None:
    """Verify the staged generation and switch `current` to it; with nothing staged, verify the current one.

    Raises ManifestCoverageError for unlisted or missing files (with `coverage.strict = false` unlisted files in a
    generation already published only warn), VerificationError for anything else.
    """
    staged = publish.staged_generation(request.cache)
    if staged is None:
        _judge(staleness.examine(request), strict=request.flight.coverage.strict)
        return
    with verify(staged, staleness.expectations(request)) as verdict:
        _judge(verdict.reasons, strict=request.flight.coverage.strict)
        hash_ = verdict.require().build.manifest_hash if verdict.passed else None
    publish.commit(request.cache, staged, keep=request.flight.publish.keep_generations)
    events.event("build.success", manifest_hash=hash_)


COVERAGE = frozenset({Code.UNLISTED, Code.MISSING, Code.SYMLINK, Code.NOT_A_FILE})


def _judge(reasons: tuple[Reason, ...], *, strict: bool) -> None:
    if not reasons:
        return
    paths = [reason.file for reason in reasons]
    if not strict and all(reason.code == Code.UNLISTED for reason in reasons):
        events.warn("coverage.orphans.lenient", paths=paths)
        return
    facts = {f"reason {number}": reason for number, reason in enumerate(reasons, 1)}
    if all(reason.code in COVERAGE for reason in reasons):
        events.event("coverage.orphans", paths=paths)
        raise ManifestCoverageError(
            "the generation holds files that its Manifest does not list, or lacks files that it lists",
            facts=facts,
            next_step="remove what does not belong there, then run `doit` again",
        )
    raise VerificationError("the generation does not verify", facts=facts, next_step="run `doit` again")


def record(flight: Flight, report: BuildReport) -> None:
    """Write the build report, under the lock."""
    if report.outcome == "IDEMPOTENT_NO_OP":
        events.event("idempotent.no_op", manifest_hash=report.manifest_hash)
    make_dirs(flight.build_dir)
    write_report(flight.build_dir, report)


KEPT = frozenset({"counter"})
"""Names in `.build` that a reset keeps: a counter that started again would let an old generation pass for new."""


def reset(cache: Path, *, tell: Callable[[str], object], dryrun: bool) -> None:
    """Remove everything that was built, `current` first, so that no reader meets a generation half removed."""
    build = cache / ".build"
    doomed = [cache / publish.CURRENT, cache / publish.GENERATIONS]
    with contextlib.suppress(FileNotFoundError):
        doomed += [build / name for name in sorted(os.listdir(build)) if name not in KEPT]
    for path in doomed:
        if not os.path.lexists(path):
            continue
        tell(f"removing {path}")
        if dryrun:
            continue
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            remove_tree(path)
