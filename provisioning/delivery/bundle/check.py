"""Reading a bundle: everything is checked before anything is written.

The Manifest's three files come first and are small, so the signature is checked before the list is believed; from then
on every name, size and digest is known, and what differs by one byte is refused. A bomb cannot grow beyond the signed
sizes.

A bundle made with --since says in one further file, which nobody signs, which files it carries as deltas or not at all.
Its bytes are compared with what that file says, and what comes of a delta with the signed Manifest, when it is applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import DeliveryError
from provisioning.base.events import Bytes
from provisioning.delivery.bundle.archive import (
    BLOCK_BYTES,
    Member,
    Readable,
    parse_header,
    read_body,
    read_end,
    read_exactly,
)
from provisioning.delivery.bundle.compression import decompressing
from provisioning.delivery.bundle.contents import (
    MANIFEST_LIMITS,
    MANIFEST_NAMES,
    OPTIONAL_LIMITS,
    OPTIONAL_NAMES,
    Documents,
    Listed,
    listed,
    sidecar,
    sidecar_of,
)
from provisioning.delivery.bundle.since import LIMIT_BYTES, NAME, Changed, Since
from provisioning.delivery.bundle.since import parse as parse_since
from provisioning.flight.manifest import Manifest

Trust = Callable[[Documents], Manifest]
"""Checks signature and expectations and returns the parsed Manifest, or raises VerificationError."""


class Checked(NamedTuple):
    """A bundle whose every byte was read and found to be what its signed Manifest lists."""

    path: Path
    documents: Documents
    manifest: Manifest
    since: Since | None = None


class Carried(NamedTuple):
    """A file as a bundle carries it: whole, where `changed` is None, or its delta; the bytes come in pieces."""

    file: Listed
    changed: Changed | None
    pieces: Iterator[bytes]


def check_bundle(path: Path, trust: Trust) -> Checked:
    """Read the bundle at `path` from end to end and write nothing.

    DeliveryError: not a bundle, damaged, truncated, or holding anything but the listed files. VerificationError: not
    trusted, from `trust`.
    """
    with wrap_os_errors("read the bundle", path), _named(path), decompressing(path) as raw:
        stream = Ahead(raw)
        documents = read_documents(stream)
        manifest = trust(documents)
        since = read_since(stream, manifest)
        for carried in read_files(stream, manifest, since):
            for _ in carried.pieces:
                pass
        read_end(stream)
    return Checked(path, documents, manifest, since)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the bundle's path to the facts of a DeliveryError."""
    try:
        yield
    except DeliveryError as error:
        error.facts.setdefault("bundle", str(path))
        raise


class Ahead:
    """A stream that a header can be given back to."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._ahead = b""

    def read(self, size: int, /) -> bytes:
        """Return what was given back first, then what follows."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._stream.read(size)

    def peek(self) -> bytes:
        """Return the next header without taking it."""
        self._ahead = read_exactly(self, BLOCK_BYTES, what="a header")
        return self._ahead

    def begins(self, name: str) -> bool:
        """Return whether the file `name` is next."""
        return any(self.peek()) and parse_header(self.peek()).name == name


def read_documents(stream: Ahead) -> Documents:
    """Return the Manifest's files, which open every bundle, within their size limits."""
    parts = [_document(stream, *each) for each in zip(MANIFEST_NAMES, MANIFEST_LIMITS, strict=True)]
    for name, limit in zip(OPTIONAL_NAMES, OPTIONAL_LIMITS, strict=True):
        here = stream.begins(name)
        parts.append(_document(stream, name, limit) if here else b"")
        if here and not parts[-1]:
            raise DeliveryError("the bundle holds an empty file where none is written", file=name)
    return Documents(*parts)


def _document(stream: Readable, name: str, limit: int) -> bytes:
    member = _next(stream, seen=set())
    if member.name != name:
        raise DeliveryError(f"this is not a bundle: it holds another file where {name} must be", file=member.name)
    if member.bytes > limit:
        raise DeliveryError(f"the bundle's {name} is larger than {limit} bytes", facts={"bytes": member.bytes})
    return b"".join(read_body(stream, member))


def read_since(stream: Ahead, manifest: Manifest) -> Since | None:
    """Return what a bundle made with --since says of itself, None for a whole one."""
    return parse_since(_document(stream, NAME, LIMIT_BYTES), manifest) if stream.begins(NAME) else None


def read_files(stream: Readable, manifest: Manifest, since: Since | None) -> Iterator[Carried]:
    """Yield each file that is carried; a digest is compared when the last piece has been taken."""
    seen = {*MANIFEST_NAMES, *OPTIONAL_NAMES, NAME}
    members = {file: since.member(file) if since else Member(file.path, file.bytes) for file in listed(manifest)}
    count = Bytes("read the bundle", sum(member.bytes for member in members.values() if member))
    for file, member in members.items():
        if member is None:
            continue
        changed = since.files.get(file.path) if since else None
        _expect(stream, member, seen)
        yield Carried(file, changed, _compared(stream, member, changed.sha256 if changed else file.sha256, count))
        if changed is None:
            _expect(stream, sidecar_of(file), seen)
            if b"".join(read_body(stream, sidecar_of(file))) != sidecar(file.sha256):
                raise DeliveryError("a .sha256 in the bundle is not the digest of its file", file=file.path)


def _next(stream: Readable, *, seen: set[str]) -> Member:
    block = read_exactly(stream, BLOCK_BYTES, what="a header")
    if not any(block):
        raise DeliveryError("the bundle ends before all files of its Manifest")
    member = parse_header(block)
    if member.name in seen:
        raise DeliveryError("the bundle holds a name twice", file=member.name)
    return member


def _expect(stream: Readable, wanted: Member, seen: set[str]) -> None:
    member = _next(stream, seen=seen)
    if member != wanted:
        raise DeliveryError(
            "the bundle differs from its Manifest",
            file=member.name,
            facts={"found": f"{member.name}, {member.bytes} bytes", "expected": f"{wanted.name}, {wanted.bytes} bytes"},
        )
    seen.add(member.name)


def _compared(stream: Readable, member: Member, sha256: str, count: Bytes) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for piece in read_body(stream, member):
        digest.update(piece)
        count.add(len(piece))
        yield piece
    if digest.hexdigest() != sha256:
        raise DeliveryError("a file in the bundle is not the one its Manifest lists", file=member.name)
