"""Receipts: what a vehicle installed, said and signed by the vehicle. Schema flight-cache-receipt/1.

The vehicle's key proves who says it; a nonce of who asks proves that it is said now. See docs/trust.md.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from provisioning.base.disk.files import wrap_os_errors, write_durably
from provisioning.base.errors import DeliveryError, ManifestError
from provisioning.base.hashing import sha256_bytes
from provisioning.flight.manifest.checks import Issues, digest, moment, name, one_of, optional, record, text, whole
from provisioning.flight.manifest.schema import MAX_WHOLE, dump
from provisioning.flight.manifest.strict_json import load
from provisioning.flight.signing import PublicKey
from provisioning.flight.signing.private import load_private_key
from provisioning.flight.vehicle import Vehicle
from provisioning.flight.verify import Verdict

SCHEMA = "flight-cache-receipt/1"


class Receipt(NamedTuple):
    """What the vehicle says. Times are UTC; what it cannot know is None.

    verified: "PASS" or the reasons. self_test: "passed: …", "failed: …" or "not run: …". nonce: of who asked.
    """

    at: str
    hostname: str
    verified: str
    self_test: str
    counter: int | None = None
    manifest_sha256: str | None = None
    manifest_hash: str | None = None
    flight_id: str | None = None
    aircraft_id: str | None = None
    host: str | None = None
    trust_version: int | None = None
    fallback_from: int | None = None
    nonce: str | None = None


_SHAPE = record(
    Receipt,
    at=moment,
    hostname=name,
    verified=text,
    self_test=text,
    counter=optional(whole(1, MAX_WHOLE)),
    manifest_sha256=optional(digest),
    manifest_hash=optional(digest),
    flight_id=optional(name),
    aircraft_id=optional(name),
    host=optional(text),
    trust_version=optional(whole(1, MAX_WHOLE)),
    fallback_from=optional(whole(1, MAX_WHOLE)),
    nonce=optional(digest),
)


def _hex(value: Any, where: str, issues: Issues) -> Any:
    if type(value) is not str or len(value) != 128 or set(value) - set("0123456789abcdef"):
        issues.append(f"{where}: 128 lower-case hex digits expected")
        return None
    return bytes.fromhex(value)


def _raw(value: Any, where: str, issues: Issues) -> Any:
    raw = digest(value, where, issues)
    return None if raw is None else PublicKey(bytes.fromhex(raw))


class _Signed(NamedTuple):
    receipt: Receipt
    key: PublicKey
    signature: bytes


_SIGNED = record(
    lambda schema, **parts: _Signed(**parts),  # noqa: ARG005  (checked, then always the same)
    schema=one_of(SCHEMA),
    receipt=_SHAPE,
    key=_raw,
    signature=_hex,
)


def receipt_of(verdict: Verdict, *, hostname: str, self_test: str, **more: Any) -> Receipt:
    """Return the receipt for what a vehicle has, as its verifier sees it now."""
    said = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "hostname": hostname, "self_test": self_test}
    verified = "PASS" if verdict.passed else "; ".join(map(str, verdict.reasons))[:1000]
    manifest = verdict.manifest
    if manifest is not None:
        more |= {
            "counter": manifest.build.counter,
            "manifest_hash": manifest.build.manifest_hash,
            "flight_id": manifest.flight.flight_id,
            "aircraft_id": manifest.flight.aircraft_id,
            "host": " ".join(manifest.host),
        }
    if verdict.signed is not None:
        more["manifest_sha256"] = sha256_bytes(verdict.signed.manifest)
    return Receipt(verified=verified, **said, **more)  # type: ignore[arg-type]


def sign_receipt(vehicle: Vehicle, receipt: Receipt) -> bytes:
    """Return the receipt signed by the vehicle's own key; SigningError if that cannot be read."""
    key = load_private_key(vehicle.key_file, lambda: b"")
    document = {
        "schema": SCHEMA,
        "receipt": _plain(receipt),
        "key": key.public_key().public_bytes_raw().hex(),
        "signature": key.sign(_payload(receipt)).hex(),
    }
    return dump(document)


def read_receipt(data: bytes, key: PublicKey | None, *, nonce: str | None = None) -> Receipt:
    """Return the receipt in `data`; DeliveryError unless it is signed by `key` and answers `nonce`.

    key: the vehicle's, as it was written down when the vehicle was commissioned; None: whoever it says signed.
    """
    issues: Issues = []
    try:
        signed: _Signed = _SIGNED(load(data), "", issues)
    except ManifestError as error:
        issues = list(map(str, error.facts.values()))
    if issues:
        raise DeliveryError("not a receipt", facts={"issue": issues[0][:200]})
    if key is not None and signed.key != key:
        raise DeliveryError("the receipt is signed by another key", facts={"key": signed.key.fingerprint})
    if not signed.key.verifies(signed.signature, _payload(signed.receipt)):
        raise DeliveryError("the signature of the receipt is wrong")
    if nonce is not None and signed.receipt.nonce != nonce:
        raise DeliveryError("the receipt does not answer what was asked now: it may be an old one")
    return signed.receipt


def log(vehicle: Vehicle, what: str, **facts: object) -> None:
    """Append a line to the vehicle's log, kept to its last thousand lines."""
    file = vehicle.path / "log.jsonl"
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with wrap_os_errors("write the vehicle's log", file):
        lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
        lines.append(json.dumps({"at": at, "what": what, **facts}, sort_keys=True).encode() + b"\n")
        write_durably(file, b"".join(lines[-1000:]))


def _payload(receipt: Receipt) -> bytes:
    return SCHEMA.encode() + b"\n" + dump(_plain(receipt))


def _plain(receipt: Receipt) -> dict[str, object]:
    return {key: value for key, value in receipt._asdict().items() if value is not None}
