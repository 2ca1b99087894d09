"""What a generation consists of, in the order in which it travels: the Manifest's three files first, then its list."""

from __future__ import annotations

from typing import NamedTuple

from provisioning.base.hashing import Sha256
from provisioning.delivery.archive import Member
from provisioning.flight.manifest import Manifest

SIDECAR_BYTES = 65
MANIFEST_NAMES = ("Manifest.json", "Manifest.json.sha256", "Manifest.json.sig")
MANIFEST_LIMITS = (1 << 20, SIDECAR_BYTES, 64)
"""Largest sizes accepted, in the order of MANIFEST_NAMES."""


class Documents(NamedTuple):
    """The three files that are the Manifest, as bytes, in the order of MANIFEST_NAMES."""

    manifest: bytes
    sidecar: bytes
    signature: bytes


class Listed(NamedTuple):
    """A file that the Manifest lists."""

    path: str
    bytes: int
    sha256: Sha256


def listed(manifest: Manifest) -> tuple[Listed, ...]:
    """Return every file that `manifest` lists, by path."""
    return tuple(sorted(Listed(file.path, file.bytes, file.sha256) for file in manifest.files))


def sidecar(sha256: Sha256) -> bytes:
    """Return the content of the `.sha256` beside a file with this digest."""
    return f"{sha256}\n".encode("ascii")


def sidecar_of(file: Listed) -> Member:
    """Return the archive member that is the `.sha256` of `file`."""
    return Member(file.path + ".sha256", SIDECAR_BYTES)
