"""The verification, as numbered steps. docs/manifest.md specifies the same numbers for every implementation."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping

from provisioning.base.errors import ManifestError, SigningError
from provisioning.base.hashing import sha256_bytes
from provisioning.flight.manifest import MAX_BYTES, Manifest, manifest_hash, parse
from provisioning.flight.signing import SIGNATURE_BYTES, PublicKey, read_fingerprints
from provisioning.flight.verify.digests import OpenFile, sha256_all
from provisioning.flight.verify.expect import ANY, CounterFloor, Expectations, KnownFile, KnownGood
from provisioning.flight.verify.floor import raise_floor, read_floor, refuse_below
from provisioning.flight.verify.opening import MANIFEST, SIDECAR, SIGNATURE, open_file, open_generation, read_small
from provisioning.flight.verify.reasons import Code, Reason, Refusal
from provisioning.flight.verify.verdict import Signed, Verdict, VerifiedFile, close_all
from provisioning.flight.verify.walking import walk_handle

SIDECAR_BYTES = 65


def verify(cache: str | os.PathLike[str], expect: Expectations, *, known: KnownGood | None = None) -> Verdict:
    """Decide whether the cache directory (or single generation) `cache` may be flown.

    Never raises on what it finds; never says PASS by default. `known` lets a builder's no-op skip hashing files that
    it has hashed before and whose stat is unchanged; flight software never passes it.
    """
    try:
        root = open_generation(cache)  # step 1
        try:
            return _verify(root, cache, expect, known or {})
        finally:
            os.close(root)
    except Refusal as refusal:
        return Verdict((refusal.reason,))
    except Exception as error:  # noqa: BLE001  (fail closed: an unforeseen error is a reason, not a crash at take-off)
        return Verdict((Reason(Code.INTERNAL, "", f"{type(error).__name__}: {error}"),))


def _verify(root: int, cache: str | os.PathLike[str], expect: Expectations, known: KnownGood) -> Verdict:
    data, signature, reasons = read_signed(root)  # steps 2 and 3
    if data is None or signature is None:
        return Verdict(tuple(reasons))
    try:
        key = authenticate(data, signature, expect)  # step 4
        manifest = _parse(data)  # step 5
    except Refusal as refusal:
        return Verdict((*reasons, refusal.reason))
    reasons += check_expectations(manifest, sha256_bytes(data), expect, cache)  # step 6
    reasons += check_content(manifest)  # steps 7 and 8
    reasons += walk_handle(root, manifest)  # step 9
    files: dict[str, VerifiedFile] = {}
    try:
        reasons += open_and_hash(root, manifest, known, files)  # steps 10 and 11
        signed = Signed(data, signature)
        verdict = Verdict(
            _distinct(reasons), manifest=manifest, signed=signed, fingerprint=key.fingerprint, files=files
        )
    except BaseException:
        close_all(files)
        raise
    return _raise_floor(verdict, expect)  # step 12


def read_signed(root: int) -> tuple[bytes | None, bytes | None, list[Reason]]:
    """Return the bytes of the Manifest and of its signature, None for one that cannot be had, and the reasons."""
    found: dict[str, bytes | None] = {MANIFEST: None, SIGNATURE: None}
    reasons: list[Reason] = []
    for path, most in ((MANIFEST, MAX_BYTES), (SIGNATURE, SIGNATURE_BYTES)):
        try:
            found[path] = read_small(root, path, most=most)
        except Refusal as refusal:  # noqa: PERF203  (two rounds)
            reasons.append(refusal.reason)
    data, signature = found[MANIFEST], found[SIGNATURE]
    if data is not None:
        reasons += check_sidecar(root, MANIFEST, sha256_bytes(data))
    if signature is not None and len(signature) != SIGNATURE_BYTES:
        reasons.append(Reason(Code.SIZE, SIGNATURE, f"{len(signature)} bytes, {SIGNATURE_BYTES} expected"))
        signature = None
    return data, signature, reasons


def check_sidecar(root: int, path: str, sha256: str) -> Iterator[Reason]:
    """Yield a reason unless `path`.sha256 holds exactly the hex digest and a newline."""
    try:
        sidecar = read_small(root, path + SIDECAR, most=SIDECAR_BYTES)
    except Refusal as refusal:
        yield refusal.reason
        return
    if sidecar != f"{sha256}\n".encode():
        yield Reason(Code.SIDECAR, path + SIDECAR, f"does not hold the digest of {path}")


def authenticate(data: bytes, signature: bytes, expect: Expectations) -> PublicKey:
    """Return the trusted key that signed `data`; Refusal if none did, or if that one does not count."""
    weak = [key for key in expect.keys if key.is_weak]
    if weak:
        raise Refusal(Code.KEY_WEAK, "", f"the trusted key {weak[0].fingerprint} accepts signatures nobody made")
    signer = next((key for key in expect.keys if key.verifies(signature, data)), None)
    if signer is None:
        raise Refusal(Code.SIGNATURE, SIGNATURE, f"not a signature of Manifest.json by any of {len(expect.keys)} keys")
    if signer.fingerprint in _fingerprints(expect.revoked, Code.KEY_REVOKED):
        raise Refusal(Code.KEY_REVOKED, SIGNATURE, f"signed by the revoked key {signer.fingerprint}")
    allowed = expect.fingerprints
    if allowed is not ANY and signer.fingerprint not in _fingerprints(allowed, Code.KEY_NOT_ALLOWED):
        raise Refusal(
            Code.KEY_NOT_ALLOWED, SIGNATURE, f"the key {signer.fingerprint} is not in the list of allowed keys"
        )
    return signer


def _fingerprints(texts: Iterable[str], code: Code) -> frozenset[str]:
    """Return fingerprints in their one form; Refusal if one cannot be read: nobody knows then whom it is about."""
    try:
        return frozenset().union(*map(read_fingerprints, texts))
    except SigningError as error:
        raise Refusal(code, "", error.what) from error


def _parse(data: bytes) -> Manifest:
    try:
        return parse(data)
    except ManifestError as error:
        code = Code.SCHEMA if error.key == "schema" else Code.MALFORMED
        raise Refusal(code, MANIFEST, "; ".join(map(str, error.facts.values()))) from error


def check_expectations(
    manifest: Manifest, sha256: str, expect: Expectations, cache: str | os.PathLike[str]
) -> Iterator[Reason]:
    """Yield what is not as expected: flight, aircraft, host tuple, time, counter; `sha256` is of Manifest.json."""
    flight = manifest.flight
    for code, wanted, found in (
        (Code.FLIGHT, expect.flight_id, flight.flight_id),
        (Code.AIRCRAFT, expect.aircraft_id, flight.aircraft_id),
    ):
        if wanted is not ANY and wanted != found:
            yield Reason(code, MANIFEST, f"for {code} {found or 'none'}, expected {wanted or 'none'}")
    if expect.host is not ANY:
        for name in manifest.host._fields:
            here, there = getattr(expect.host, name), getattr(manifest.host, name)
            if here is not ANY and here != there:
                yield Reason(Code.HOST, MANIFEST, f"{name} is {there}, expected {here}")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expect.now_s))
    if flight.not_after is not None and now > flight.not_after:
        yield Reason(Code.EXPIRED, MANIFEST, f"not to be flown after {flight.not_after}; it is {now} here")
    try:
        refuse_below(read_floor(expect.counter_floor, cache), manifest.build.counter, sha256)
    except Refusal as refusal:
        yield refusal.reason


def check_content(manifest: Manifest) -> Iterator[Reason]:
    """Yield what contradicts itself inside the Manifest: an origin outside the box, a hash that is not its own."""
    origin = manifest.flight.takeoff_origin
    if origin is not None and not manifest.area.bbox_e7.holds(origin):
        yield Reason(Code.ORIGIN, MANIFEST, "the take-off point is outside the area")
    recomputed = manifest_hash(manifest)
    if recomputed != manifest.build.manifest_hash:
        yield Reason(Code.MANIFEST_HASH, MANIFEST, f"records {manifest.build.manifest_hash}, is {recomputed}")


def open_and_hash(root: int, manifest: Manifest, known: KnownGood, files: dict[str, VerifiedFile]) -> list[Reason]:
    """Open every listed file into `files`, compare size, sidecar and SHA-256, and return the reasons."""
    reasons: list[Reason] = []
    to_hash: list[OpenFile] = []
    for entry in manifest.files:
        try:
            fd = open_file(root, entry.path)
        except Refusal as refusal:
            reasons.append(refusal.reason)
            continue
        status = os.fstat(fd)
        files[entry.path] = VerifiedFile(fd, status.st_size, entry.sha256, status.st_mtime_ns)
        reasons += check_sidecar(root, entry.path, entry.sha256)
        if status.st_size != entry.bytes:
            reasons.append(Reason(Code.SIZE, entry.path, f"{status.st_size} bytes, the Manifest says {entry.bytes}"))
        elif known.get(entry.path) != KnownFile(status.st_size, status.st_mtime_ns, status.st_ino, entry.sha256):
            to_hash.append(OpenFile(entry.path, fd, status.st_size))
    return reasons + list(_check_digests(files, to_hash))


def _check_digests(opened: Mapping[str, VerifiedFile], to_hash: list[OpenFile]) -> Iterator[Reason]:
    results = sha256_all(to_hash)
    for path in (file.path for file in to_hash):
        result = results.get(path)
        if result is None:  # a thread that died must not leave a file unhashed and accepted
            yield Reason(Code.INTERNAL, path, "was not hashed")
        elif isinstance(result, OSError):
            yield Reason(Code.UNREADABLE, path, str(result.strerror))
        elif result != opened[path].sha256:
            yield Reason(Code.DIGEST, path, f"SHA-256 is {result}, the Manifest says {opened[path].sha256}")
        elif not opened[path].is_unchanged():
            yield Reason(Code.CHANGED, path, "changed while it was hashed")


def _distinct(reasons: list[Reason]) -> tuple[Reason, ...]:
    """Drop what two steps saw alike: the walk and the opening both meet a missing file."""
    return tuple(dict.fromkeys(reasons))


def _raise_floor(verdict: Verdict, expect: Expectations) -> Verdict:
    floor = expect.counter_floor
    if not verdict.passed:
        verdict.close()
    elif isinstance(floor, CounterFloor) and floor.raise_on_pass and verdict.signed is not None:
        try:
            raise_floor(floor, verdict.require().build.counter, sha256_bytes(verdict.signed.manifest))
        except Refusal as refusal:
            verdict.close()
            return Verdict((refusal.reason,), manifest=verdict.manifest, fingerprint=verdict.fingerprint)
    return verdict
