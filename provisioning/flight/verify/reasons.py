"""Why a cache is refused: stable codes, the same in every implementation of docs/manifest.md."""

from __future__ import annotations

from enum import Enum

from provisioning.base.named import NamedTuple


class Code(str, Enum):
    """The reason codes, in the order of the steps that give them."""

    CACHE_UNREADABLE = "cache-unreadable"
    CURRENT_INVALID = "current-invalid"
    MISSING = "missing"
    SYMLINK = "symlink"
    NOT_A_FILE = "not-a-file"
    OTHER_FILE_SYSTEM = "other-file-system"
    UNREADABLE = "unreadable"
    SIZE = "size"
    SIDECAR = "sidecar"
    TRUST = "trust"
    KEY_WEAK = "key-weak"
    KEY_NOT_ALLOWED = "key-not-allowed"
    KEY_REVOKED = "key-revoked"
    KEY_EXPIRED = "key-expired"
    THRESHOLD = "threshold"
    SIGNATURE = "signature"
    SCHEMA = "schema"
    MALFORMED = "malformed"
    FLIGHT = "flight"
    AIRCRAFT = "aircraft"
    HOST = "host"
    COUNTER = "counter"
    FLOOR = "floor"
    EXPIRED = "expired"
    ORIGIN = "origin"
    MANIFEST_HASH = "manifest-hash"
    UNLISTED = "unlisted"
    DIGEST = "digest"
    CHANGED = "changed"
    INTERNAL = "internal"

    def __str__(self) -> str:
        return self.value


NEXT_STEP = {
    Code.CACHE_UNREADABLE: "check the path; build with doit, or install a bundle",
    Code.CURRENT_INVALID: "move it away if it is no link; run doit, or install again",
    Code.MISSING: "run doit, or install again",
    Code.SYMLINK: "find out who put it there; run doit, or install again",
    Code.NOT_A_FILE: "find out who put it there; run doit, or install again",
    Code.OTHER_FILE_SYSTEM: "find out who mounted it there",
    Code.UNREADABLE: "check owner, mode and medium",
    Code.SIZE: "run doit, or install again; check the medium",
    Code.SIDECAR: "run doit, or install again",
    Code.TRUST: "install a newer trust file, or check the clock of this computer",
    Code.KEY_WEAK: "replace this key; find out where it came from",
    Code.KEY_NOT_ALLOWED: "sign again with an allowed key",
    Code.KEY_REVOKED: "sign again with a current key",
    Code.KEY_EXPIRED: "sign again with a current key, or check the clock of this computer",
    Code.THRESHOLD: "let another key sign too: flightcache cosign",
    Code.SIGNATURE: "check which key this vehicle trusts and which one signed",
    Code.SCHEMA: "use builder and verifier of one release",
    Code.MALFORMED: "do not fly it: the signer is broken or hostile",
    Code.FLIGHT: "install the cache of this flight",
    Code.AIRCRAFT: "install the cache of this aircraft",
    Code.HOST: "compile for this computer: doit engine, here or for this host",
    Code.COUNTER: "install the newest cache",
    Code.FLOOR: "check the floor file; to begin, write 0 into it",
    Code.EXPIRED: "build a new cache, or check the clock of this computer",
    Code.ORIGIN: "correct the take-off point or the area in flight.toml and run doit",
    Code.MANIFEST_HASH: "do not fly it: the builder is broken",
    Code.UNLISTED: "remove it; find out who put it there",
    Code.DIGEST: "run doit, or install again; check the medium",
    Code.CHANGED: "stop what writes there",
    Code.INTERNAL: "report it with its detail",
}
"""What to do about a reason, in one line."""


class Reason(NamedTuple):
    """One reason: its code, the file it concerns (relative to the generation, or "" for none), and the detail."""

    code: Code
    file: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.file + ': ' if self.file else ''}{self.detail}"


class Refusal(Exception):  # noqa: N818  (not an error of the program)
    """Carries one reason out of a step; never leaves this package."""

    def __init__(self, code: Code, file: str, detail: str) -> None:
        self.reason = Reason(code, file, detail)
