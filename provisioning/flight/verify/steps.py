"""The verification, as numbered steps. docs/manifest.md specifies the same numbers for every implementation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from provisioning.base.errors import ManifestError, SigningError
from provisioning.base.hashing import sha256_bytes
from provisioning.flight.manifest import MAX_BYTES, Manifest, manifest_hash, parse
from provisioning.flight.signing import SIGNATURE_BYTES, PublicKey, read_fingerprints
from provisioning.flight.verify.digests import OpenFile, sha256_all
from provisioning.flight.verify.expect import ANY, CounterFloor, Expectations, KnownFile, KnownGood
from provisioning.flight.verify.floor import raise_floor, read_floor, refuse_below
from provisioning.flight.verify.opening import (
    MANIFEST,
    MORE_SIGNATURES,
    MOST_SIGNATURES,
    SIDECAR,
    SIGNATURE,
    open_file,
    open_generation,
    read_small,
)
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
        more = read_more(root)
        keys = authenticate(Signed(data, signature, more), expect)  # step 4
        manifest = _parse(data)  # step 5
    except Refusal as refusal:
        return Verdict((*reasons, refusal.reason))
    reasons += check_expectations(manifest, sha256_bytes(data), expect, cache)  # step 6
    reasons += check_content(manifest)  # steps 7 and 8
    reasons += walk_handle(root, manifest)  # step 9
    files: dict[str, VerifiedFile] = {}
    try:
        reasons += open_and_hash(root, manifest, known, files)  # steps 10 and 11
        verdict = Verdict(
            _distinct(reasons),
            manifest=manifest,
            signed=Signed(data, signature, more),
            fingerprints=tuple(key.fingerprint for key in keys),
            files=files,
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


def read_more(root: int) -> bytes:
    """Return the signatures of further keys, nothing if there are none; Refusal for a file of another size."""
    try:
        more = read_small(root, MORE_SIGNATURES, most=MOST_SIGNATURES * SIGNATURE_BYTES)
    except Refusal as refusal:
        if refusal.reason.code is Code.MISSING:
            return b""
        raise
    if not more or len(more) % SIGNATURE_BYTES:
        raise Refusal(Code.SIZE, MORE_SIGNATURES, f"{len(more)} bytes: a multiple of {SIGNATURE_BYTES} expected")
    return more


def authenticate(signed: Signed, expect: Expectations) -> tuple[PublicKey, ...]:
    """Return the trusted keys that signed and count; Refusal if there are too few of them.

    A key counts once, however many of its signatures there are; signatures of unknown keys count nothing.
    """
    keys, needed, revoked = _trusted(expect)
    weak = [key for key in keys if key.is_weak]
    if weak:
        raise Refusal(Code.KEY_WEAK, "", f"the trusted key {weak[0].fingerprint} accepts signatures nobody made")
    signatures = [signed.signature]
    signatures += [signed.more[at : at + SIGNATURE_BYTES] for at in range(0, len(signed.more), SIGNATURE_BYTES)]
    # In the order of the signatures: the first of Manifest.json.sig is the builder's.
    signers = dict.fromkeys(key for signature in signatures for key in keys if key.verifies(signature, signed.manifest))
    if not signers:
        raise Refusal(Code.SIGNATURE, SIGNATURE, f"not a signature of Manifest.json by any of {len(keys)} keys")
    counted = _counted(tuple(signers), revoked, expect)
    if len(counted) < needed:
        raise Refusal(Code.THRESHOLD, SIGNATURE, f"{needed} trusted keys must sign, {len(counted)} did")
    return counted


def _trusted(expect: Expectations) -> tuple[tuple[PublicKey, ...], int, frozenset[str]]:
    """Return the keys that may sign, how many must, and the fingerprints that are revoked."""
    trust = expect.trust
    if trust is None:
        return expect.keys, 1, expect.revoked
    if expect.keys:
        raise Refusal(Code.TRUST, "", "keys are given beside the trust file that names them")
    now = expect.now
    if trust.not_after is not None and now is not None and now > trust.not_after:
        raise Refusal(Code.TRUST, "", f"the trust file ends at {trust.not_after}; it is {now} here")
    keys = tuple(key.key for key in trust.signing_keys)
    return keys, trust.thresholds.signing, expect.revoked.union(trust.revoked)


def _counted(signers: tuple[PublicKey, ...], revoked: frozenset[str], expect: Expectations) -> tuple[PublicKey, ...]:
    """Return those of the keys that signed which count; Refusal if none does, with what is wrong with the first."""
    banned = _fingerprints(revoked, Code.KEY_REVOKED)
    allowed = expect.fingerprints
    listed = None if allowed is ANY else _fingerprints(allowed, Code.KEY_NOT_ALLOWED)
    ends = {key.key: key.not_after for key in expect.trust.keys} if expect.trust else {}
    refusals: list[Refusal] = []
    counted: list[PublicKey] = []
    for key in signers:
        name, end = key.fingerprint, ends.get(key)
        if banned & key.digests:
            refusals.append(Refusal(Code.KEY_REVOKED, SIGNATURE, f"signed by the revoked key {name}"))
        elif listed is not None and name not in listed:
            refusals.append(
                Refusal(Code.KEY_NOT_ALLOWED, SIGNATURE, f"the key {name} is not in the list of allowed keys")
            )
        elif end is not None and expect.now is not None and expect.now > end:
            refusals.append(Refusal(Code.KEY_EXPIRED, SIGNATURE, f"the key {name} counts until {end}"))
        else:
            counted.append(key)
    if not counted:
        raise refusals[0]
    return tuple(counted)


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
    now = expect.now
    if flight.not_after is not None and now is not None and now > flight.not_after:
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
            return Verdict((refusal.reason,), manifest=verdict.manifest, fingerprints=verdict.fingerprints)
    return verdict
