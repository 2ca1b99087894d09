"""Whether a Manifest that arrived is accepted, before any file that it lists: the verifier's steps 3 to 8, on bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from provisioning.base import events
from provisioning.base.errors import ManifestError, VerificationError
from provisioning.base.hashing import sha256_bytes
from provisioning.delivery.bundle.check import Trust
from provisioning.delivery.bundle.contents import MANIFEST_NAMES, Documents, sidecar
from provisioning.delivery.target import Verify
from provisioning.flight import trust as trusts
from provisioning.flight.manifest import Manifest, parse
from provisioning.flight.vehicle import Vehicle
from provisioning.flight.verify import Code, CounterFloor, Expectations, Reason, Signed, Verdict, verify
from provisioning.flight.verify.reasons import Refusal
from provisioning.flight.verify.steps import authenticate, check_content, check_expectations


class Recipient:
    """Who accepts generations for the cache directory `root`.

    vehicle, installed: where a trust file is installed, and which; a newer one that arrives takes its place first,
    whatever becomes of the generation that came with it: only root keys can sign one. Where none is installed, none
    that arrives is: it would be anybody's.
    """

    def __init__(
        self, expect: Expectations, root: Path, *, vehicle: Vehicle | None = None, installed: trusts.Trust | None = None
    ) -> None:
        self._expect = _without_raising(expect)
        self._root = root
        self._vehicle = vehicle
        self._installed = installed

    def trust(self, documents: Documents) -> Manifest:
        """Return the Manifest that arrived; VerificationError, TrustError if it, or the trust file, is refused."""
        self._update(documents.trust)
        try:
            authenticate(Signed(documents.manifest, documents.signature, documents.more), self._expect)
            manifest = parse(documents.manifest)
        except Refusal as refusal:
            raise _refused((refusal.reason,)) from refusal
        except ManifestError as error:
            raise _refused((Reason(Code.MALFORMED, MANIFEST_NAMES[0], str(error)),)) from error
        if reasons := tuple(_reasons(documents, manifest, self._expect, self._root)):
            raise _refused(reasons)
        return manifest

    def verify(self, generation: Path) -> Verdict:
        """Verify a staged or installed generation.

        The counter floor is not raised: until `current` is switched the old generation must still be good enough.
        """
        return verify(generation, self._expect)

    def _update(self, carried: bytes) -> None:
        if not carried or self._vehicle is None or self._installed is None:
            return
        offered, before = trusts.parse(carried, file="Manifest.json.trust"), self._installed.newest
        if offered.newest.version < before.version:
            return  # the generation left the ground before the trust file here was signed
        now = self._vehicle.install_trust(offered).newest
        if self._expect.trust == before:
            self._expect = self._expect._replace(trust=now)
        self._expect = self._expect._replace(revoked=self._expect.revoked.union(now.revoked))
        if now != before:
            events.event("trust.updated", file=str(self._vehicle.trust_file), version=now.version)


def trusting(expect: Expectations, root: Path) -> Trust:
    """Return what accepts Manifests meant for the cache directory `root`."""
    return Recipient(expect, root).trust


def verifying(expect: Expectations) -> Verify:
    """Return the verifier of staged and installed generations; it never raises the counter floor."""
    return Recipient(expect, Path()).verify


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
    older = any(reason.code is Code.COUNTER for reason in reasons)
    return VerificationError(
        "the generation that arrived is refused",
        facts={f"reason {number}": str(reason) for number, reason in enumerate(reasons, 1)},
        next_step=(
            "an older or equal generation is never installed over a newer one; where it was built, doit and rollback "
            "give a higher counter"
            if older
            else "no generation was changed here; ask where it was built for one meant for this vehicle"
        ),
    )
