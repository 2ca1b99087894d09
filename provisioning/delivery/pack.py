"""Writing a bundle: a verified generation as one archive, the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from provisioning.base import directories
from provisioning.base.errors import DeliveryError
from provisioning.base.events import Bytes
from provisioning.base.files import require_free_bytes, wrap_os_errors
from provisioning.base.hashing import Sha256, sha256_bytes, sha256_fd
from provisioning.delivery.archive import BLOCK_BYTES, COPY_BYTES, END, Member, header, padding
from provisioning.delivery.compression import compressing
from provisioning.delivery.contents import Documents, listed, sidecar, sidecar_of
from provisioning.flight.manifest import Manifest
from provisioning.flight.verify import Verdict


class Bundle(NamedTuple):
    """A bundle written: where, how large, its SHA-256."""

    path: Path
    bytes: int
    sha256: Sha256


def documents_of(verdict: Verdict, *, trust: bytes = b"") -> Documents:
    """Return the Manifest's files as they were verified; VerificationError if the verdict is no PASS.

    trust: a trust file that travels with them.
    """
    verdict.require()
    assert verdict.signed is not None
    manifest, signature, more = verdict.signed
    return Documents(manifest, sidecar(sha256_bytes(manifest)), signature, more, trust)


def bundle_name(manifest: Manifest, *, compressed: bool = True) -> str:
    """Return the default file name: flight (if any), counter and the first 12 digits of `manifest_hash`."""
    words = (manifest.flight.flight_id or "flight", f"{manifest.build.counter:06d}", manifest.build.manifest_hash[:12])
    safe = "".join(c if c.isalnum() or c in "-._" else "_" for c in "-".join(words))
    return safe + (".tar.zst" if compressed else ".tar")


def archive_bytes(documents: Documents, manifest: Manifest) -> int:
    """Return the size of the archive before compression."""
    sizes = [len(data) for _, data in documents.members()]
    sizes += [size for file in listed(manifest) for size in (file.bytes, sidecar_of(file).bytes)]
    return sum(BLOCK_BYTES + size + padding(size) for size in sizes) + len(END)


def pack(verdict: Verdict, documents: Documents, output: Path) -> Bundle:
    """Write the verified generation to `output`, compressed unless its name ends in `.tar`.

    The file appears under its name only when it is complete and on the medium; works on FAT and exFAT too.
    """
    manifest = verdict.require()
    require_free_bytes(output.parent, archive_bytes(documents, manifest), what="the bundle")
    part = output.name + ".part"
    with wrap_os_errors("write the bundle", output), directories.opened(output.parent) as directory:
        try:
            with _new_file(directory, part) as file:
                with _stream(output, file) as stream:
                    _write(stream, verdict, documents, manifest)
                file.flush()
                os.fsync(file.fileno())
                bundle = Bundle(output, os.fstat(file.fileno()).st_size, sha256_fd(file.fileno()))
            os.replace(part, output.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=directory)
            raise
        os.fsync(directory)
        return bundle


def _new_file(directory: int, name: str) -> BinaryIO:
    """Return a new file; what waits under its name, a link or a FIFO, is removed and never opened."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(name, flags, 0o644, dir_fd=directory), "w+b")


@contextmanager
def _stream(output: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    if output.suffix == ".tar":
        yield file
        return
    with compressing(file) as stream:
        yield stream


def _write(stream: BinaryIO, verdict: Verdict, documents: Documents, manifest: Manifest) -> None:
    for name, data in documents.members():
        _member(stream, Member(name, len(data)), data)
    count = Bytes("bundle", sum(file.bytes for file in listed(manifest)))
    for file in listed(manifest):
        with verdict.open(file.path) as source:
            _copy(stream, Member(file.path, file.bytes), source, count)
        _member(stream, sidecar_of(file), sidecar(file.sha256))
    stream.write(END)


def _member(stream: BinaryIO, member: Member, data: bytes) -> None:
    stream.write(header(member) + data + bytes(padding(member.bytes)))


def _copy(stream: BinaryIO, member: Member, source: BinaryIO, count: Bytes) -> None:
    stream.write(header(member))
    left = member.bytes
    while left:
        piece = source.read(min(left, COPY_BYTES))
        if not piece:
            raise DeliveryError("a file shrank while it was bundled", file=member.name, next_step="bundle again")
        stream.write(piece)
        left -= len(piece)
        count.add(len(piece))
    stream.write(bytes(padding(member.bytes)))
