"""Artefacts addressed by what decides their bytes, each with a record of what was made.

The address says whether a file is the right one, the record whether it is still whole; no database is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from provisioning.base.disk import lock
from provisioning.base.disk.files import (
    discard,
    fsync_dir,
    fsync_file,
    make_dirs,
    replace,
    temporary_beside,
    without_write_permission,
    wrap_os_errors,
)
from provisioning.base.disk.jsonfile import from_json
from provisioning.base.errors import FilesystemError
from provisioning.base.frozen import dataclass
from provisioning.base.hashing import Fact, Sha256, digest_of, sha256_bytes, sha256_file

RECORD_SUFFIX = ".record"
EARLIER_RECORD_SUFFIX = ".born"
"""How records ended in caches built by early versions of 0.1.0: still read, so that no engine is compiled twice."""


@dataclass(frozen=True)
class Target:
    """A file of `kind` called `name`, decided by `facts`; it lives at `<store>/<digest of kind and facts>/<name>`."""

    store: Path
    kind: str
    name: str
    facts: Mapping[str, Fact]

    @cached_property
    def key(self) -> Sha256:
        """The digest of everything that decides the bytes."""
        return digest_of({"kind": self.kind, **self.facts})

    @property
    def path(self) -> Path:
        """Where the file is or will be."""
        return self.store / self.key / self.name

    @property
    def record(self) -> Path:
        """Where its artifact record is."""
        return self.path.with_name(self.name + RECORD_SUFFIX)

    @property
    def earlier_record(self) -> Path:
        """Where an early version of 0.1.0 wrote the same record."""
        return self.path.with_name(self.name + EARLIER_RECORD_SUFFIX)


@dataclass(frozen=True)
class ArtifactRecord:
    """What a file was when it was made: digest, size, and the stat by which it is known without reading it."""

    sha256: Sha256
    bytes: int
    mtime_ns: int
    inode: int
    facts: Mapping[str, object]

    def is_stat_of(self, path: Path) -> bool:
        """Return whether the regular file at `path` still has the recorded size, time and inode."""
        status = os.lstat(path)
        return (status.st_size, status.st_mtime_ns, status.st_ino) == (self.bytes, self.mtime_ns, self.inode)


def read_record(target: Target) -> ArtifactRecord | None:
    """Return the record of `target`, or None where there is none that can be read."""
    found = _read_record(target.record)
    return _read_record(target.earlier_record) if found is None else found


def _read_record(path: Path) -> ArtifactRecord | None:
    try:
        with open(path, "rb") as file:
            record = from_json(file.read())
        return ArtifactRecord(**{name: kind(record[name]) for name, kind in _FIELDS.items()})
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


_FIELDS = {"sha256": Sha256, "bytes": int, "mtime_ns": int, "inode": int, "facts": dict}


def is_intact(target: Target) -> bool:
    """Return whether the file of `target` is what was recorded: by its stat, or else by its SHA-256. Never raises.

    A file that was copied, moved or touched is read once; its record is then renewed if this process holds the lock.
    """
    try:
        record = read_record(target)
        if record is None or os.path.islink(target.path):
            return False
        if record.is_stat_of(target.path):
            return True
        return _is_same_by_content(target, record)
    except Exception:  # noqa: BLE001  whatever is on disk: a check that raises would end doit
        return False


def is_whole(target: Target) -> bool:
    """Return whether the bytes of `target`, all of which are read, are those of its record. Never raises."""
    try:
        record = read_record(target)
        return record is not None and sha256_file(target.path) == record.sha256
    except Exception:  # noqa: BLE001  as in `is_intact`
        return False


def recorded(store: Path) -> Iterator[tuple[Path, Sha256]]:
    """Yield the path of every file below `store` that has an artifact record, with the digest in it."""
    for record_path in sorted(store.glob(f"*/*{RECORD_SUFFIX}")):
        record = _read_record(record_path)
        if record is not None:
            yield record_path.with_name(record_path.name.removesuffix(RECORD_SUFFIX)), record.sha256


def read_whole(target: Target) -> bytes:
    """Return the bytes of `target`, which are those of its record; FilesystemError if they are not."""
    with wrap_os_errors(f"read {target.name}", target.path):
        data = target.path.read_bytes()
    record = read_record(target)
    if record is None or sha256_bytes(data) != record.sha256:
        raise FilesystemError(f"{target.name} is not as it was made", file=target.path, next_step="run `doit` again")
    return data


def _is_same_by_content(target: Target, record: ArtifactRecord) -> bool:
    if os.lstat(target.path).st_size != record.bytes or sha256_file(target.path) != record.sha256:
        return False
    if lock.is_held_for(target.record):
        with contextlib.suppress(Exception):
            _record(target, record.sha256, target.path, record.facts)
    return True


def _record(target: Target, sha256: Sha256, path: Path, facts: Mapping[str, object]) -> None:
    status = os.lstat(path)
    record = ArtifactRecord(sha256, status.st_size, status.st_mtime_ns, status.st_ino, facts)
    replace(target.record, (json.dumps(asdict(record), sort_keys=True, default=str) + "\n").encode())


@contextlib.contextmanager
def atomic_output(target: Target) -> Iterator[Path]:
    """Yield a path to write the file of `target` to; when the block ends well it is made durable, recorded and named.

    A block that raises leaves nothing. Raises FilesystemError; OSErrors of the block itself are reported so too.
    """
    with wrap_os_errors(f"make {target.kind} {target.name}", target.path):
        make_dirs(target.path.parent)
        temporary = temporary_beside(target.path)
        try:
            yield temporary
            without_write_permission(temporary)
            fsync_file(temporary)
            _record(target, sha256_file(temporary), temporary, target.facts)
            os.rename(temporary, target.path)
        except BaseException:
            discard(temporary)
            raise
        fsync_dir(target.path.parent)


def remove(target: Target) -> None:
    """Remove the file of `target`, its record and, when it is empty, its directory; what is not there is no error."""
    with wrap_os_errors(f"remove {target.kind} {target.name}", target.path):
        for path in (target.path, target.record, target.earlier_record):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(target.path.parent)
