"""What a generation consists of, in the order in which it travels: the Manifest's files first, then its list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from provisioning.base.hashing import Sha256
from provisioning.delivery.bundle.archive import Member
from provisioning.flight.manifest import Manifest

SIDECAR_BYTES = 65
MANIFEST_NAMES = ("Manifest.json", "Manifest.json.sha256", "Manifest.json.sig")
MANIFEST_LIMITS = (1 << 20, SIDECAR_BYTES, 64)
"""Largest sizes accepted, in the order of MANIFEST_NAMES."""

OPTIONAL_NAMES = ("Manifest.json.sigs", "Manifest.json.trust")
OPTIONAL_LIMITS = (16 * 64, 1 << 20)
"""What may follow them: signatures of further keys, and a trust file, which is no part of the generation."""


class Documents(NamedTuple):
    """The files that are the Manifest, as bytes, in the order of MANIFEST_NAMES and OPTIONAL_NAMES; b"" for none."""

    manifest: bytes
    sidecar: bytes
    signature: bytes
    more: bytes = b""
    trust: bytes = b""

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of each one that is there."""
        for name, data in zip(MANIFEST_NAMES + OPTIONAL_NAMES, self, strict=True):
            if data or name in MANIFEST_NAMES:
                yield name, data


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
