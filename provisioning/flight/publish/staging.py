"""Staging: a complete generation below `.build/stage`, every byte and name of it durable, before anything names it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from provisioning.base.disk import directories
from provisioning.base.disk.artifacts import ArtifactRecord
from provisioning.base.disk.files import (
    open_regular,
    require_free_bytes,
    temporary_beside,
    wrap_os_errors,
    write_all,
    write_new,
)
from provisioning.base.errors import FilesystemError, SigningError
from provisioning.base.hashing import CHUNK_BYTES, Sha256, sha256_bytes, sha256_file
from provisioning.flight import manifest as manifests
from provisioning.flight.publish.generations import (
    BUILD,
    GENERATIONS,
    MANIFEST,
    MORE_SIGNATURES,
    SIDECAR,
    SIGNATURE,
    STAGE,
    dir_name,
    next_counter,
)
from provisioning.flight.publish.recovery import clear, directories_below

_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


def stage(
    cache: Path,
    *,
    manifest: bytes,
    signature: bytes,
    files: Mapping[str, Path],
    records: Mapping[str, ArtifactRecord],
    more: bytes = b"",
) -> Path:
    """Make a complete generation below `.build/stage` and return it; `files` maps its relative names to sources.

    Files of `.build` are hard-linked where the file system allows, all others copied. A source that is no longer what
    its record in `records` (by name) says raises FilesystemError. An older stage is removed. more: signatures of
    further keys.
    """
    counter = manifests.parse(manifest).build.counter
    relative = f"{STAGE}/{temporary_beside(Path(dir_name(counter))).name}"
    temporary, final = cache / relative, cache / STAGE / dir_name(counter)
    with wrap_os_errors("stage a generation", temporary):
        clear(cache, STAGE)
        directories.make(cache, relative, durable=False)
        require_free_bytes(temporary, _bytes_to_copy(cache, files), what="the staged generation")
        for name, source in sorted(files.items()):
            sha256 = _place(cache, source, temporary / name, records.get(name))
            write_new(temporary / (name + SIDECAR), _line(sha256), mode=0o444)
        write_new(temporary / MANIFEST, manifest, mode=0o444)
        write_new(temporary / (MANIFEST + SIDECAR), _line(sha256_bytes(manifest)), mode=0o444)
        write_new(temporary / (MANIFEST + SIGNATURE), signature, mode=0o444)
        if more:
            write_new(temporary / MORE_SIGNATURES, more, mode=0o444)
        for directory in directories_below(cache, relative):
            directories.sync(cache, directory)
        directories.rename(cache, relative, f"{STAGE}/{final.name}")
    return final


def rollback(
    cache: Path,
    source: Path,
    *,
    manifest: manifests.Manifest,
    records: Mapping[str, ArtifactRecord],
    resign: Callable[[bytes], bytes],
) -> Path:
    """Stage the files of generation `source` again, under a new counter; return the stage.

    manifest, records: what a verdict on `source` handed over, never read again: what is signed is what was verified.
    `resign` signs the new Manifest: a vehicle's floor accepts only a higher counter. The caller verifies the stage,
    then commits. Raises FilesystemError.
    """
    new = manifests.to_bytes(manifest._replace(build=manifest.build._replace(counter=next_counter(cache))))
    files = {entry.path: source / entry.path for entry in manifest.files}
    return stage(cache, manifest=new, signature=resign(new), files=files, records=records)


def _line(sha256: Sha256) -> bytes:
    return sha256.encode() + b"\n"


def _bytes_to_copy(cache: Path, files: Mapping[str, Path]) -> int:
    return sum(os.stat(source).st_size for source in files.values() if not _is_ours(cache, source))


def _is_ours(cache: Path, source: Path) -> bool:
    """Return whether only this package writes `source`: a file of the user must share no inode with a generation."""
    real = Path(os.path.realpath(source))
    return any(real.is_relative_to(os.path.realpath(cache / place)) for place in (BUILD, GENERATIONS))


_LONGEST_MARK = 128
_BEGIN = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY")
_BEGIN_UTF16 = re.compile(rb"-\0B\0E\0G\0I\0N\0 \0(?:[A-Z0-9 ]\0){0,40}P\0R\0I\0V\0A\0T\0E\0 \0K\0E\0Y")
_ED25519 = b"\x06\x03\x2b\x65\x70"
_DER = re.compile(rb"0.\x02\x01[\x00\x01]0\x05" + re.escape(_ED25519), re.DOTALL)
"""The beginning of PKCS#8 of an Ed25519 key, in DER and its base64."""
_BASE64 = (b"MC4CAQAwBQYDK2Vw", b"MFECAQEwBQYDK2Vw")


def refuse_private_key(path: Path) -> None:
    """Raise SigningError if a file that is about to be published holds a private key, PEM or DER, anywhere in it."""
    with open_regular(path) as file:
        before = b""
        while data := file.read(CHUNK_BYTES):
            if _holds_private_key(before + data):
                raise SigningError(
                    "a private key would be published with the cache",
                    file=path,
                    next_step="take it out of flight.toml ([[calibration]] lists files that everybody may read)",
                )
            before = data[-_LONGEST_MARK:]


def _holds_private_key(data: bytes) -> bool:
    if _BEGIN.search(data) or _BEGIN_UTF16.search(data) or any(mark in data for mark in _BASE64):
        return True
    return _ED25519 in data and _DER.search(data) is not None


def _place(cache: Path, source: Path, dest: Path, record: ArtifactRecord | None) -> Sha256:
    """Link or copy `source` to `dest`, durably, and return its digest; a source that is not as recorded is refused."""
    os.makedirs(dest.parent, exist_ok=True)
    if record is not None and _is_ours(cache, source) and record.is_stat_of(source) and _link(source, dest):
        return record.sha256
    refuse_private_key(source)
    sha256 = _copy(source, dest)
    if record is not None:
        _require_digest(source, expected=record.sha256, found=sha256)
    return sha256


def _require_digest(path: Path, *, expected: Sha256, found: Sha256) -> None:
    if found != expected:
        raise FilesystemError(
            "a file changed after it was made",
            file=path,
            facts={"expected SHA-256": expected, "found": found},
            next_step="run doit again: what is damaged is made anew",
        )


def _link(source: Path, dest: Path) -> bool:
    try:
        os.link(source, dest, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        return False
    return True


def _copy(source: Path, dest: Path) -> Sha256:
    require_free_bytes(dest.parent, os.stat(source).st_size, what=f"a copy of {dest.name}")
    with open_regular(source) as reader:
        writer = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
        try:
            while data := os.read(reader.fileno(), CHUNK_BYTES):
                write_all(writer, data)
            os.fsync(writer)
        finally:
            os.close(writer)
    return sha256_file(dest)
