"""Staging: a complete generation below `.build/stage`, every byte and name of it durable, before anything names it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from provisioning.base.artifacts import ArtifactRecord
from provisioning.base.errors import FilesystemError
from provisioning.base.files import (
    fsync_dir,
    require_free_bytes,
    temporary_beside,
    wrap_os_errors,
    write_all,
    write_new,
)
from provisioning.base.hashing import CHUNK_BYTES, Sha256, sha256_bytes, sha256_file
from provisioning.flight import manifest as manifests
from provisioning.flight.publish.generations import (
    GENERATIONS,
    MANIFEST,
    SIDECAR,
    SIGNATURE,
    dir_name,
    earlier_generation,
    next_counter,
    stage_dir,
)
from provisioning.flight.publish.recovery import clear, directories_of

_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


def stage(
    cache: Path, *, manifest: bytes, signature: bytes, files: Mapping[str, Path], records: Mapping[str, ArtifactRecord]
) -> Path:
    """Make a complete generation below `.build/stage` and return it; `files` maps its relative names to sources.

    Files of `.build` are hard-linked where the file system allows, all others copied. A source that is no longer what
    its record in `births` (by name) says raises FilesystemError. An older stage is removed.
    """
    counter = manifests.parse(manifest).build.counter
    final = stage_dir(cache) / dir_name(counter)
    temporary = temporary_beside(final)
    with wrap_os_errors("stage a generation", temporary):
        clear(stage_dir(cache))
        os.makedirs(temporary)
        require_free_bytes(temporary, _bytes_to_copy(cache, files), what="the staged generation")
        for name, source in sorted(files.items()):
            sha256 = _place(cache, source, temporary / name, records.get(name))
            write_new(temporary / (name + SIDECAR), _line(sha256), mode=0o444)
        write_new(temporary / MANIFEST, manifest, mode=0o444)
        write_new(temporary / (MANIFEST + SIDECAR), _line(sha256_bytes(manifest)), mode=0o444)
        write_new(temporary / (MANIFEST + SIGNATURE), signature, mode=0o444)
        _fsync_tree(temporary)
        os.rename(temporary, final)
    return final


def rollback(cache: Path, *, resign: Callable[[bytes], bytes], to: int | None = None) -> Path:
    """Stage the files of the generation before the current one (or of `to`) under a new counter; return the stage.

    `resign` signs the new Manifest: a vehicle's floor accepts only a higher counter. The caller verifies the generation
    before and the stage after, then commits. Raises FilesystemError if there is none.
    """
    source = earlier_generation(cache, to=to)
    with wrap_os_errors("read the generation to return to", source):
        with open(source / MANIFEST, "rb") as file:
            old = manifests.parse(file.read(manifests.MAX_BYTES))
        records = {entry.path: _as_listed(source / entry.path, entry.sha256) for entry in old.files}
    new = manifests.to_bytes(old._replace(build=old.build._replace(counter=next_counter(cache))))
    files = {name: source / name for name in records}
    return stage(cache, manifest=new, signature=resign(new), files=files, records=records)


def _as_listed(path: Path, sha256: Sha256) -> ArtifactRecord:
    """Return the present stat of `path` with the digest that a Manifest lists; other bytes are refused."""
    status = os.lstat(path)
    _require_digest(path, expected=sha256, found=sha256_file(path))
    return ArtifactRecord(sha256, status.st_size, status.st_mtime_ns, status.st_ino, {})


def _line(sha256: Sha256) -> bytes:
    return sha256.encode() + b"\n"


def _bytes_to_copy(cache: Path, files: Mapping[str, Path]) -> int:
    return sum(os.stat(source).st_size for source in files.values() if not _is_ours(cache, source))


def _is_ours(cache: Path, source: Path) -> bool:
    """Tell whether only this package writes `source`; a file of the user must not share an inode with a generation."""
    real = Path(os.path.realpath(source))
    return any(real.is_relative_to(os.path.realpath(cache / place)) for place in (".build", GENERATIONS))


def _place(cache: Path, source: Path, dest: Path, record: ArtifactRecord | None) -> Sha256:
    """Link or copy `source` to `dest`, durably, and return its digest; a source that is not as recorded is refused."""
    os.makedirs(dest.parent, exist_ok=True)
    if record is not None and _is_ours(cache, source) and record.is_stat_of(source) and _link(source, dest):
        return record.sha256
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
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
        try:
            while data := os.read(reader, CHUNK_BYTES):
                write_all(writer, data)
            os.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    return sha256_file(dest)


def _fsync_tree(root: Path) -> None:
    for directory in directories_of(root):
        fsync_dir(directory)
