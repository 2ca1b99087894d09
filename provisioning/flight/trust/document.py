"""trust.json, schema flight-cache-trust/1: one trust file is one sequence of bytes, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from provisioning.base.errors import ManifestError, TrustError
from provisioning.flight.manifest.checks import (
    Issues,
    array,
    digest,
    moment,
    name,
    one_of,
    optional,
    record,
    whole,
)
from provisioning.flight.manifest.schema import MAX_WHOLE, dump
from provisioning.flight.manifest.strict_json import MAX_BYTES, MAX_ISSUES, load
from provisioning.flight.signing import SIGNATURE_BYTES, PublicKey
from provisioning.flight.trust.types import (
    ROOT,
    SIGNING,
    Recovery,
    Signature,
    SignedVersion,
    Thresholds,
    Trust,
    TrustedKey,
    Version,
)

__all__ = ["MAX_BYTES", "parse", "payload", "to_bytes"]

SCHEMA = "flight-cache-trust/1"
MAX_KEYS = 64
MAX_REVOKED = 512
MAX_VERSIONS = 256
_SIGNATURE = re.compile(rf"[0-9a-f]{{{2 * SIGNATURE_BYTES}}}", re.ASCII)


def _key(value: Any, where: str, issues: Issues) -> Any:
    """Accept a raw public key in hex that is no weak one."""
    raw = digest(value, where, issues)
    if raw is None:
        return None
    key = PublicKey(bytes.fromhex(raw))
    if key.is_weak:
        issues.append(f"{where}: a weak key: anyone can make signatures that it accepts")
    return key


def _signature(value: Any, where: str, issues: Issues) -> Any:
    if type(value) is not str or not _SIGNATURE.fullmatch(value):
        issues.append(f"{where}: {2 * SIGNATURE_BYTES} lower-case hex digits expected")
        return None
    return bytes.fromhex(value)


_COUNT = whole(1, MAX_KEYS)
_SIGNED = record(
    Version,
    version=whole(1, MAX_WHOLE),
    keys=array(
        record(TrustedKey, role=one_of(ROOT, SIGNING), key=_key, name=optional(name), not_after=optional(moment)),
        least=2,
        most=MAX_KEYS,
    ),
    thresholds=record(Thresholds, root=_COUNT, signing=_COUNT),
    revoked=array(digest, most=MAX_REVOKED),
    not_after=optional(moment),
    recovery=optional(record(Recovery, above=whole(0, MAX_WHOLE), counter=whole(0, MAX_WHOLE))),
)
_SHAPE = record(
    lambda schema, versions: Trust(versions),  # noqa: ARG005  (checked, then always the same)
    schema=one_of(SCHEMA),
    versions=array(
        record(
            SignedVersion,
            signed=_SIGNED,
            signatures=array(record(Signature, fingerprint=digest, signature=_signature), most=MAX_KEYS),
        ),
        least=1,
        most=MAX_VERSIONS,
    ),
)


def parse(data: bytes, *, file: object = "trust.json") -> Trust:
    """Return the trust file whose bytes are `data`, its signatures unchecked; TrustError lists every issue.

    Only the canonical bytes are accepted: `to_bytes(parse(data)) == data`.
    """
    issues: Issues = []
    try:
        trust: Trust = _SHAPE(load(data), "", issues)
    except ManifestError as error:
        raise _malformed(file, *map(str, error.facts.values())) from error
    issues = issues or [issue for each in trust.versions for issue in _contradictions(each.signed)]
    issues = issues or list(_gaps(trust))
    if not issues and dump(_document(trust)) != data:
        issues = ["the bytes are not in canonical form (sorted keys and lists, two-space indent, final newline)"]
    if issues:
        raise _malformed(file, *issues)
    return trust


def _contradictions(version: Version) -> Iterator[str]:
    where = f"version {version.version}"
    prints = [key.key.fingerprint for key in version.keys]
    yield from (f"{where}: {each} is there twice" for each in sorted({p for p in prints if prints.count(p) > 1}))
    trusted = frozenset[str]().union(*(key.key.digests for key in version.keys))
    yield from (f"{where}: {each} is trusted and revoked" for each in version.revoked if each in trusted)
    for role, threshold in version.thresholds._asdict().items():
        if threshold > len(version.keys_of(role)):
            yield f"{where}: {threshold} {role} keys must sign, {len(version.keys_of(role))} are listed"
    if any(key.not_after for key in version.keys_of(ROOT)):
        yield f"{where}: a root key has no not_after; the version has"
    if version.recovery is not None and version.recovery.counter > version.recovery.above:
        yield f"{where}: recovery.counter is greater than recovery.above"


def _gaps(trust: Trust) -> Iterator[str]:
    numbers = [each.signed.version for each in trust.versions]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield "versions: not consecutive"


def _malformed(file: object, *issues: str) -> TrustError:
    return TrustError(
        "not a trust file",
        file=str(file),
        facts={f"issue {number}": issue[:200] for number, issue in enumerate(issues[:MAX_ISSUES], 1)},
        next_step="copy it again from where the root key signed it",
    )


def to_bytes(trust: Trust) -> bytes:
    """Return the bytes of a trust file: JSON, sorted keys, two-space indent; TrustError if they could not be read."""
    data = dump(_document(trust))
    parse(data)
    return data


def payload(version: Version) -> bytes:
    """Return what root keys sign: the line of the schema, then the canonical form of the version alone."""
    return SCHEMA.encode() + b"\n" + dump(_plain(_ordered(version)))


def _document(trust: Trust) -> dict[str, object]:
    versions = [
        {
            "signed": _plain(_ordered(each.signed)),
            "signatures": [_plain(one) for one in sorted(each.signatures)],
        }
        for each in trust.versions
    ]
    return {"schema": SCHEMA, "versions": versions}


def _ordered(version: Version) -> Version:
    keys = sorted(version.keys, key=attrgetter("role", "key"))  # the other parts may be None
    return version._replace(keys=tuple(keys), revoked=tuple(sorted(version.revoked)))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, PublicKey):
        return value.raw.hex()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(part) for key, part in value._asdict().items() if part is not None}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
