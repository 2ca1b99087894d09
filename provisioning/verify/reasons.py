"""Why a cache is refused: stable codes, the same in every implementation of docs/manifest.md."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


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
    KEY_WEAK = "key-weak"
    KEY_NOT_ALLOWED = "key-not-allowed"
    KEY_REVOKED = "key-revoked"
    SIGNATURE = "signature"
    SCHEMA = "schema"
    MALFORMED = "malformed"
    FLIGHT = "flight"
    AIRCRAFT = "aircraft"
    HOST = "host"
    COUNTER = "counter"
    FLOOR = "floor"
    ORIGIN = "origin"
    MANIFEST_HASH = "manifest-hash"
    UNLISTED = "unlisted"
    DIGEST = "digest"
    CHANGED = "changed"
    INTERNAL = "internal"

    def __str__(self) -> str:
        return self.value


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
        super().__init__(code, file, detail)
        self.reason = Reason(code, file, detail)
