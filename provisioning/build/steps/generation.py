"""From artefacts to a published generation: drawn, composed, signed, staged, verified, switched to."""

from __future__ import annotations

from pathlib import Path

from provisioning import catalogue
from provisioning.base import events
from provisioning.base.disk.artifacts import atomic_output
from provisioning.base.errors import Error, ManifestCoverageError, VerificationError
from provisioning.build import reasons, recheck, unused
from provisioning.build.generation import contents
from provisioning.build.request import MAP_FILE, REPORT_FILE, Request
from provisioning.build.steps.housekeeping import forget_superseded
from provisioning.flight import manifest, publish
from provisioning.flight.verify import Code, Reason, verify
from provisioning.quality import gates


def draw_report(request: Request) -> None:
    """Write report.html, coverage.geojson and, where asked for, the imagery. Raises TileError, FilesystemError."""
    from provisioning.build.generation.report_model import report_model
    from provisioning.report.geojson import coverage_geojson
    from provisioning.report.page import render

    model = report_model(request)
    drawn = {
        REPORT_FILE: lambda: render(model),
        MAP_FILE: lambda: coverage_geojson(
            bbox=request.tiles.bbox,
            maps=model.maps,
            outline=model.outline,
            routes=model.routes,
            takeoff=model.manifest.flight.takeoff_origin,
        ),
    }
    stated = [target for target in request.extras if target.kind == "provenance"]
    for target in request.extras:
        if target in stated:
            continue
        with atomic_output(target) as output:
            if target.name in drawn:
                output.write_bytes(drawn[target.name]())
            else:
                catalogue.write_pmtiles(request.flight.selection, request.build_dir, output)
    if stated:
        from provisioning.build.steps.provenance import state_provenance

        state_provenance(request, stated)


def publish_generation(request: Request) -> None:
    """Stage a complete generation with its signed Manifest, verify it, switch `current` to it.

    Raises ManifestError, SigningError, FilesystemError; ManifestCoverageError or VerificationError for a stage that the
    verifier refuses. `current` then still names what it named.
    """
    try:
        staged = _stage(request)
        with verify(staged, reasons.expectations(request)) as verdict:
            _require_none(verdict.reasons, strict=True)
            verdict.require()
    except Error as error:
        events.error("manifest.failure", reason=error.what)
        publish.recover(request.cache, keep=request.flight.publish.keep_generations)
        events.error("rollback.done", cache_root=str(request.cache), reason=error.what)
        raise
    publish.commit(request.cache, staged, keep=request.flight.publish.keep_generations)
    recheck.note(request.build_dir)  # the verifier has just read all of it
    try:
        forget_superseded(request)
        unused.tidy(request)
    except Error as error:
        events.warn("tidy.failed", reason=error.what)  # the cache is published all the same


def _stage(request: Request) -> Path:
    data = manifest.to_bytes(contents.compose(request, counter=publish.next_counter(request.cache)))
    return publish.stage(
        request.cache,
        manifest=data,
        signature=request.signer.sign(data),
        files=contents.files(request),
        records=contents.records(request),
    )


def walk(request: Request, due: reasons.Due) -> dict[str, object]:
    """Walk and verify the current generation; return how many reasons stand against it.

    Raises ManifestCoverageError for unlisted or missing files (with `coverage.strict = false` unlisted files only
    warn), VerificationError for anything else.
    """
    found = due.examined()
    _require_none(found, strict=request.flight.coverage.strict, cache=request.cache)
    if due.is_recheck:
        recheck.note(request.build_dir)
    unused.note_use(request)
    now = contents.published(request.cache)
    says = gates.recognition_of(now.manifest.gates) if now else ""
    if says:
        events.event("recognition", says=says)
    return {"reasons": len(found)}


COVERAGE = frozenset({Code.UNLISTED, Code.MISSING, Code.SYMLINK, Code.NOT_A_FILE})


def _require_none(found: tuple[Reason, ...], *, strict: bool, cache: Path | None = None) -> None:
    if not found:
        return
    paths = [reason.file for reason in found]
    if not strict and all(reason.code == Code.UNLISTED for reason in found):
        events.warn("coverage.orphans.lenient", orphans=paths, cache_root=str(cache))
        return
    facts = {f"reason {number}": reason for number, reason in enumerate(found, 1)}
    if all(reason.code in COVERAGE for reason in found):
        events.error("coverage.orphans", orphans=paths, cache_root=str(cache))
        raise ManifestCoverageError(
            "the generation holds files that its Manifest does not list, or lacks files that it lists",
            facts=facts,
            next_step="remove what does not belong there, then run `doit` again",
        )
    raise VerificationError("the generation does not verify", facts=facts, next_step="run `doit` again")
