"""The trust file: which keys may sign caches, changed by an offline root key. See docs/trust.md.

Imports the standard library and cryptography only: flight software reads it too.
"""

from provisioning.flight.trust.document import MAX_BYTES, parse, payload, to_bytes
from provisioning.flight.trust.rotation import (
    check_chain,
    missing_signatures,
    read_trust,
    recovered,
    signed_by_own_roots,
    update,
)
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

__all__ = [
    "MAX_BYTES",
    "ROOT",
    "SIGNING",
    "Recovery",
    "Signature",
    "SignedVersion",
    "Thresholds",
    "Trust",
    "TrustedKey",
    "Version",
    "check_chain",
    "missing_signatures",
    "parse",
    "payload",
    "read_trust",
    "recovered",
    "signed_by_own_roots",
    "to_bytes",
    "update",
]
