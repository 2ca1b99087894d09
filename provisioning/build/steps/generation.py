"""From artefacts to a published generation: drawn, composed, signed, staged, verified, switched to."""

from __future__ import annotations

from collections.abc import Callable

from provisioning import catalogue
from provisioning.base import events
from provisioning.base.artifacts import atomic_output
from provisioning.base.errors import Error, ManifestCoverageError, VerificationError
from provisioning.build import contents
from provisioning.build import reasons as staleness
from provisioning.build.request import MAP_FILE, REPORT_FILE, Request
from provisioning.build.steps.housekeeping import forget_superseded
from provisioning.build.steps.provenance import state_provenance
from provisioning.flight import manifest, publish, signing
from provisioning.flight.verify import Code, Reason, verify


def draw_report(request: Request) -> None:
    """Write report.html, coverage.geojson and, where asked for, the imagery. Raises TileError, FilesystemError."""
    from provisioning import report
    from provisioning.build.report_model import report_model

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
    stated = [target for target in request.extras if target.kind == "provenance"]
    for target in request.extras:
        if target in stated:
            continue
        with atomic_output(target) as output:
            if target.name in drawn:
                output.write_bytes(drawn[target.name]())
            else:
                catalogue.write_pmtiles(request.flight, output)
    if stated:
        state_provenance(request, stated)


def stage(request: Request) -> None:
    """Compose and sign the Manifest and stage the generation. Raises ManifestError, SigningError, FilesystemError."""
    try:
        composed = contents.compose(request, counter=publish.next_counter(request.cache))
        data = manifest.to_bytes(composed)
        signature = signing.sign(request.flight.signing, data, password=signing.asker())
        publish.stage(
            request.cache,
            manifest=data,
            signature=signature,
            files=contents.files(request),
            records=contents.records(request),
        )
    except Error as error:
        events.event("manifest.failure", reason=error.what)
        raise


def publish_staged(request: Request, examined: Callable[[], tuple[Reason, ...]]) -> None:
    """Verify the staged generation and switch `current` to it; with nothing staged, judge the current one.

    `examined` gives what the verifier has against the current one; within a run that is found once.

    Raises ManifestCoverageError for unlisted or missing files (with `coverage.strict = false` unlisted files in a
    generation already published only warn), VerificationError for anything else.
    """
    staged = publish.staged_generation(request.cache)
    if staged is None:
        _judge(examined(), strict=request.flight.coverage.strict)
        return
    with verify(staged, staleness.expectations(request)) as verdict:
        _judge(verdict.reasons, strict=True)  # whatever is tolerated in what was published, nothing bad is published
        hash_ = verdict.require().build.manifest_hash
    publish.commit(request.cache, staged, keep=request.flight.publish.keep_generations)
    forget_superseded(request)
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
