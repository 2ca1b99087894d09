"""The steps of a build as plain functions of a request; rules/ declares when each runs."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning import contents, descriptors, engines, events, manifest, publish, signing, staleness, tiles
from provisioning.config import Flight
from provisioning.errors import EmptyCorpusError, Error, ManifestCoverageError, VerificationError
from provisioning.files import make_dirs, remove_tree, write_durably
from provisioning.outcome import BuildReport, write_report
from provisioning.request import NetworkRequest, Request
from provisioning.store import making
from provisioning.verify import Code, Reason, verify

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def scan(flight: Flight) -> tiles.Corpus:
    """Bring the tile catalogue up to date. Raises EmptyCorpusError, TileError, AreaError."""
    make_dirs(flight.build_dir)
    try:
        return tiles.scan(flight)
    except EmptyCorpusError as error:
        events.event("empty.corpus", reason=error.what)
        raise


def make_onnx(request: Request, network: NetworkRequest) -> None:
    """Write the typed ONNX of `network`: preprocessing in the graph, precision in the types."""
    with making(network.typed) as output:
        engines.make_typed(network.backbone, network.source, output, _sample(request, network))


def _sample(request: Request, network: NetworkRequest) -> engines.Images:
    """Return a function that gives corpus tiles as `network` takes them, evenly spaced over the corpus."""

    def images(count: int) -> Iterable[NDArray[np.uint8]]:
        return descriptors.sample_images(request.flight, network.backbone, network.source, count)

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
    except Error as error:
        events.event("engine.failure", model=network.name, reason=error.what)
        raise
    return {f"seconds:{network.name}": round(compiled.elapsed_s, 3)}


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
