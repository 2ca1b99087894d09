"""Judging a Manifest that arrived, before any of the files it lists: the verifier's own steps 3 to 8, on bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from provisioning.base.errors import ManifestError, VerificationError
from provisioning.base.hashing import sha256_bytes
from provisioning.delivery.check import Trust
from provisioning.delivery.contents import MANIFEST_NAMES, Documents, sidecar
from provisioning.delivery.target import Verify
from provisioning.flight.manifest import Manifest, parse
from provisioning.flight.verify import Code, CounterFloor, Expectations, Reason, Verdict, verify
from provisioning.flight.verify.reasons import Refusal
from provisioning.flight.verify.steps import authenticate, check_content, check_expectations


def trusting(expect: Expectations, root: Path) -> Trust:
    """Return the judge of Manifests meant for the cache directory `root`."""
    quiet = _without_raising(expect)

    def trust(documents: Documents) -> Manifest:
        try:
            authenticate(documents.manifest, documents.signature, quiet)
            manifest = parse(documents.manifest)
        except Refusal as refusal:
            raise _refused((refusal.reason,)) from refusal
        except ManifestError as error:
            raise _refused((Reason(Code.MALFORMED, MANIFEST_NAMES[0], str(error)),)) from error
        if reasons := tuple(_reasons(documents, manifest, quiet, root)):
            raise _refused(reasons)
        return manifest

    return trust


def verifying(expect: Expectations) -> Verify:
    """Return the verifier of staged and installed generations.

    It never raises the counter floor: until `current` is switched the old generation must still be good enough.
    """
    quiet = _without_raising(expect)

    def check(generation: Path) -> Verdict:
        return verify(generation, quiet)

    return check


def _without_raising(expect: Expectations) -> Expectations:
    floor = expect.counter_floor
    if not isinstance(floor, CounterFloor):
        return expect
    return expect._replace(counter_floor=floor._replace(raise_on_pass=False))


def _reasons(documents: Documents, manifest: Manifest, expect: Expectations, root: Path) -> Iterator[Reason]:
    sha256 = sha256_bytes(documents.manifest)
    if documents.sidecar != sidecar(sha256):
        yield Reason(Code.SIDECAR, MANIFEST_NAMES[1], "does not hold the digest of Manifest.json")
    yield from check_expectations(manifest, sha256, expect, root)
    yield from check_content(manifest)


def _refused(reasons: tuple[Reason, ...]) -> VerificationError:
    return VerificationError(
        "the generation that arrived is refused",
        facts={f"reason {number}": str(reason) for number, reason in enumerate(reasons, 1)},
        next_step="nothing was changed here; ask where it was built for a generation meant for this vehicle",
    )
