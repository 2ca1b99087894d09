"""Writing a bundle: a verified generation as one archive, the same bytes every time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, BinaryIO, NamedTuple

from provisioning.base.disk import directories
from provisioning.base.disk.files import require_free_bytes, wrap_os_errors
from provisioning.base.errors import DeliveryError
from provisioning.base.events import Bytes
from provisioning.base.hashing import Sha256, sha256_bytes, sha256_fd
from provisioning.delivery.bundle.archive import BLOCK_BYTES, COPY_BYTES, END, Member, header, padding
from provisioning.delivery.bundle.compression import compressing, zstd_module
from provisioning.delivery.bundle.contents import Documents, Listed, listed, sidecar, sidecar_of
from provisioning.delivery.bundle.delta import LEAST_BYTES, differences
from provisioning.delivery.bundle.earlier import Generation
from provisioning.delivery.bundle.since import NAME, Changed, Since, to_bytes
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


def bundle_name(manifest: Manifest, *, compressed: bool = True, since: int | None = None) -> str:
    """Return the default file name: flight (if any), counter and the first 12 digits of `manifest_hash`.

    since: the generation that a bundle of what changed begins with.
    """
    words = [manifest.flight.flight_id or "flight", f"{manifest.build.counter:06d}", manifest.build.manifest_hash[:12]]
    words += [] if since is None else ["since", f"{since:06d}"]
    safe = "".join(c if c.isalnum() or c in "-._" else "_" for c in "-".join(words))
    return safe + (".tar.zst" if compressed else ".tar")


def archive_bytes(documents: Documents, manifest: Manifest, since: Since | None = None) -> int:
    """Return the size of the archive before compression."""
    sizes = [len(data) for _, data in documents.members()]
    sizes += [len(to_bytes(since))] if since else []
    for file in listed(manifest):
        member = since.member(file) if since else Member(file.path, file.bytes)
        sizes += [] if member is None else [member.bytes]
        sizes += [sidecar_of(file).bytes] if member and member.name == file.path else []
    return sum(BLOCK_BYTES + size + padding(size) for size in sizes) + len(END)


def pack(verdict: Verdict, documents: Documents, output: Path, *, since: Generation | None = None) -> Bundle:
    """Write the verified generation to `output`, compressed unless its name ends in `.tar`.

    since: a generation that the receiver holds; of each of its files that changed, only what changed is carried.
    The file appears under its name only when it is complete and on the medium; works on FAT and exFAT too.
    """
    manifest = verdict.require()
    part = output.name + ".part"
    with (
        wrap_os_errors("write the bundle", output),
        directories.opened(output.parent) as directory,
        TemporaryFile(dir=output.parent) if since else nullcontext(BytesIO()) as deltas,
    ):
        changes = _compared(verdict, manifest, since, deltas) if since else None
        require_free_bytes(output.parent, archive_bytes(documents, manifest, changes), what="the bundle")
        deltas.seek(0)
        try:
            with _new_file(directory, part) as file:
                with _stream(output, file) as stream:
                    _write(stream, verdict, documents, manifest, changes, deltas)
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


def _compared(verdict: Verdict, manifest: Manifest, earlier: Generation, deltas: IO[bytes]) -> Since:
    """Return which files changed since `earlier`, their deltas in `deltas` one after the other."""
    if zstd_module() is None:
        raise DeliveryError(
            "no zstd module to compare the generations", next_step="install backports.zstd, or leave --since out"
        )
    found = ((file.path, _change(verdict, file, earlier, deltas)) for file in listed(manifest))
    build = earlier.manifest.build
    return Since(build.counter, build.manifest_hash, {path: changed for path, changed in found if changed is not None})


def _change(verdict: Verdict, file: Listed, earlier: Generation, deltas: IO[bytes]) -> Changed | None:
    """Append the delta of one file; None for one that goes whole: it is new, small, or shares nothing."""
    old = earlier.file(file.path)
    if old is None or (old.sha256 != file.sha256 and file.bytes < LEAST_BYTES):
        return None
    if old.sha256 == file.sha256:
        return Changed(old.sha256, 0, "")
    start, digest = deltas.tell(), hashlib.sha256()
    with earlier.opened(old) as base, verdict.open(file.path) as source:
        for _, piece in differences(source, base, file) if base else ():
            digest.update(piece)
            deltas.write(piece)
    size = deltas.tell() - start
    if 0 < size < file.bytes:
        return Changed(old.sha256, size, digest.hexdigest())
    deltas.seek(start)
    deltas.truncate()
    return None


def _write(
    stream: BinaryIO,
    verdict: Verdict,
    documents: Documents,
    manifest: Manifest,
    since: Since | None,
    deltas: IO[bytes],
) -> None:
    for name, data in documents.members():
        _member(stream, Member(name, len(data)), data)
    if since is not None:
        _member(stream, Member(NAME, len(to_bytes(since))), to_bytes(since))
    members = {file: since.member(file) if since else Member(file.path, file.bytes) for file in listed(manifest)}
    count = Bytes("bundle", sum(member.bytes for member in members.values() if member))
    for file, member in members.items():
        if member is not None and member.name != file.path:
            _copy(stream, member, deltas, count)
        elif member is not None:
            with verdict.open(file.path) as source:
                _copy(stream, member, source, count)
            _member(stream, sidecar_of(file), sidecar(file.sha256))
    stream.write(END)


def _member(stream: BinaryIO, member: Member, data: bytes) -> None:
    stream.write(header(member) + data + bytes(padding(member.bytes)))


def _copy(stream: BinaryIO, member: Member, source: IO[bytes], count: Bytes) -> None:
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
