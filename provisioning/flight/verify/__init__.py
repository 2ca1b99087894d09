"""The verifier that builder, ground and aircraft share: one call decides whether a cache may be flown.

Imports the standard library and cryptography only, so that flight software can use it alone. See docs/manifest.md.
"""

from provisioning.flight.verify.expect import (
    ANY,
    Anything,
    CounterFloor,
    Expectations,
    ExpectedHost,
    KnownFile,
    KnownGood,
)
from provisioning.flight.verify.reasons import NEXT_STEP, Code, Reason
from provisioning.flight.verify.steps import verify
from provisioning.flight.verify.verdict import Signed, Verdict
from provisioning.flight.verify.walking import expected_paths, walk

__all__ = [
    "ANY",
    "NEXT_STEP",
    "Anything",
    "Code",
    "CounterFloor",
    "Expectations",
    "ExpectedHost",
    "KnownFile",
    "KnownGood",
    "Reason",
    "Signed",
    "Verdict",
    "expected_paths",
    "verify",
    "walk",
]
