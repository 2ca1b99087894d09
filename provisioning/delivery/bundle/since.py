"""Manifest.json.delta: which files of a bundle are carried as what changed since an earlier generation, or not at all.

    {"counter": N, "files": {path: [sha256 of the base, bytes of the delta, sha256 of the delta]}, "manifest_hash": …,
     "schema": 1}

It has one form, and is refused in any other. Nobody signs it. It says what stands in the bundle and what the receiver
must hold; the files that come of it are compared with the signed Manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from provisioning.base.errors import DeliveryError
from provisioning.base.hashing import Sha256
from provisioning.delivery.bundle.archive import Member
from provisioning.delivery.bundle.contents import Listed, listed
from provisioning.delivery.bundle.delta import most_bytes
from provisioning.flight.manifest import Manifest

NAME = "Manifest.json.delta"
LIMIT_BYTES = 4 << 20
FOLDER = "delta/"
"""Where the deltas stand in the archive, each under the path of its file."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_COUNTER = 10**18


class Changed(NamedTuple):
    """A file of which the receiver must hold an earlier version, `base`; `bytes` and `sha256` are those of its delta.

    0 bytes: the earlier version is the file itself, and nothing is carried.
    """

    base: Sha256
    bytes: int
    sha256: str


class Since(NamedTuple):
    """The generation that the receiver must hold, and every file that is not carried whole, by path."""

    counter: int
    manifest_hash: str
    files: Mapping[str, Changed]

    def member(self, file: Listed) -> Member | None:
        """Return what the archive holds of `file`; None for nothing."""
        changed = self.files.get(file.path)
        if changed is None:
            return Member(file.path, file.bytes)
        return Member(FOLDER + file.path, changed.bytes) if changed.bytes else None


def to_bytes(since: Since) -> bytes:
    """Return the one form of the file."""
    value = {"schema": 1, **since._asdict(), "files": {path: list(each) for path, each in since.files.items()}}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def parse(data: bytes, manifest: Manifest) -> Since:
    """Read the file that came with `manifest`, the inverse of `to_bytes`; DeliveryError for any other form."""
    try:
        value = json.loads(data)
        since = Since(
            value["counter"], value["manifest_hash"], {path: Changed(*row) for path, row in value["files"].items()}
        )
        canonical = to_bytes(since) == data
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _bad("it cannot be read") from error
    files = {file.path: file for file in listed(manifest)}
    if not canonical or not _is_number(since.counter, _MOST_COUNTER) or not _is_sha256(since.manifest_hash):
        raise _bad("it is not in the one form")
    for path, changed in since.files.items():
        if path not in files or not _fits(files[path], changed):
            raise _bad(f"{path}: not what a file of the Manifest can have changed by")
    return since


def _fits(file: Listed, changed: Changed) -> bool:
    if not _is_sha256(changed.base) or not _is_number(changed.bytes, most_bytes(file.bytes)):
        return False
    if changed.base == file.sha256:
        return changed.bytes == 0 and changed.sha256 == ""
    return changed.bytes > 0 and _is_sha256(changed.sha256)


def _is_number(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _bad(detail: str) -> DeliveryError:
    return DeliveryError(
        "the bundle does not say in its own form what changed",
        file=NAME,
        facts={"detail": detail},
        next_step="make the bundle again",
    )
