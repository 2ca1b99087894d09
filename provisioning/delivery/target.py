"""The receiving end of a delivery: a directory on the vehicle that never holds half a cache.

    <target>/.c10.lock                    one installer or builder at a time
    <target>/.build/incoming/<sha256>     files that arrived, named by their content; `.part` while they arrive
    <target>/.build/stage, generations/, current    as in every cache directory: the switch is the build's own commit

A file is taken from `incoming` or from a published generation only after its SHA-256 was computed again, so a cut at
any moment costs at most the file that was on its way.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk import directories
from provisioning.base.disk.artifacts import ArtifactRecord
from provisioning.base.disk.files import (
    make_dirs,
    open_regular,
    read_regular,
    require_free_bytes,
    wrap_os_errors,
    write_all,
)
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import DeliveryError
from provisioning.base.hashing import Sha256, sha256_bytes, sha256_file
from provisioning.delivery.bundle.archive import COPY_BYTES
from provisioning.delivery.bundle.contents import MANIFEST_NAMES, Documents, Listed, listed
from provisioning.flight import publish
from provisioning.flight.manifest import MAX_BYTES, Manifest
from provisioning.flight.verify import CounterFloor, Verdict
from provisioning.flight.verify.floor import accepted_by

SPARE_BYTES = 4 << 20
"""Room for sidecars, Manifest and directories beside the files themselves."""

INCOMING = ".build/incoming"

Verify = Callable[[Path], Verdict]
"""Verifies one generation directory against the vehicle's expectations."""


class Outcome(NamedTuple):
    """What a delivery did: the generation now current, and how much of it had to come."""

    generation: Path
    counter: int
    manifest_hash: Sha256
    received_files: int
    received_bytes: int


class Earlier(NamedTuple):
    """A file that is held here, by its digest and its path below the cache directory."""

    sha256: Sha256
    relative: str


class Target:
    """A directory into which generations are delivered; get one from `opened`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / INCOMING

    def holdings(self) -> dict[Sha256, Path]:
        """Return the files here by digest, every digest computed now: arrived objects and published files."""
        found: dict[Sha256, Path] = {}
        with wrap_os_errors("read what is installed", self.root):
            for path in self._candidates():
                found.setdefault(sha256_file(path), path)
        return found

    def _candidates(self) -> Iterator[Path]:
        for top in (self.incoming, self.root / publish.GENERATIONS):
            for directory, _, names in os.walk(top, onerror=_reraise) if os.path.isdir(top) else ():
                paths = (
                    Path(directory, name) for name in sorted(names) if not name.endswith((".part", publish.SIDECAR))
                )
                yield from (path for path in paths if stat.S_ISREG(os.lstat(path).st_mode))

    def earlier_versions(self, held: Mapping[Sha256, Path]) -> dict[str, Earlier]:
        """Return, of the files `held` that a generation here lists under a path, the newest by that path."""
        found: dict[str, tuple[int, Earlier]] = {}
        for sha256, path in held.items():
            top, number, *rest = path.relative_to(self.root).parts
            if top == publish.GENERATIONS and number.isdecimal() and rest:
                version = int(number), Earlier(sha256, path.relative_to(self.root).as_posix())
                found["/".join(rest)] = max(version, found.get("/".join(rest), version))
        return {path: version for path, (_, version) in found.items()}

    def arrived_bytes(self, file: Listed) -> int:
        """Return how much of `file` an earlier delivery left behind."""
        with suppress(FileNotFoundError):
            status = os.lstat(self._part(file))
            return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size < file.bytes else 0
        return 0

    def require_room(self, files: Iterable[Listed]) -> None:
        """Raise FilesystemError unless what is still to come of `files` fits."""
        directories.make(self.root, INCOMING)
        needed = sum(file.bytes - self.arrived_bytes(file) for file in files) + SPARE_BYTES
        require_free_bytes(self.incoming, needed, what="the files of the new generation")

    def receive(self, file: Listed, pieces: Iterable[bytes], *, offset: int = 0) -> Path:
        """Store `file` durably under its digest; `pieces` begin at `offset`. DeliveryError if it is another file."""
        part = self._part(file)
        with wrap_os_errors("receive a file", part), directories.opened(self.root, INCOMING) as incoming:
            fd = _open_part(incoming, part.name)
            try:
                found = _append(fd, pieces, offset)
                os.fchmod(fd, 0o444)
                os.fsync(fd)
            finally:
                os.close(fd)
            if found != file.sha256:
                os.unlink(part.name, dir_fd=incoming)
                raise DeliveryError("a file arrived damaged and was dropped", file=file.path, next_step="send it again")
            os.rename(part.name, file.sha256, src_dir_fd=incoming, dst_dir_fd=incoming)
            os.fsync(incoming)
        return self.incoming / file.sha256

    def _part(self, file: Listed) -> Path:
        return self.incoming / f"{file.sha256}.part"

    def stage(self, documents: Documents, manifest: Manifest, held: Mapping[Sha256, Path]) -> Path:
        """Put the generation together from files that are here, all of it on the medium, and return its directory."""
        with wrap_os_errors("put the generation together", self.root):
            sources = {
                file.path: self.own(file, held.get(file.sha256, self.incoming / file.sha256))
                for file in listed(manifest)
            }
            records = {file.path: _record(file, sources[file.path]) for file in listed(manifest)}
        return publish.stage(
            self.root,
            manifest=documents.manifest,
            signature=documents.signature,
            more=documents.more,
            files=sources,
            records=records,
        )

    def own(self, file: Listed, source: Path) -> Path:
        """Return `source` under a name in `incoming`, by hard link if possible, so that generations share bytes."""
        path = self.incoming / file.sha256
        if source == path:
            return path
        directories.make(self.root, INCOMING)
        if self._linked(source, file.sha256):
            return path
        with open_regular(source) as pieces:
            return self.receive(file, iter(lambda: pieces.read(COPY_BYTES), b""))

    def _linked(self, source: Path, name: str) -> bool:
        """Link `source` into `incoming`; False where the file system has no room for links, or no links at all."""
        with directories.opened(self.root, INCOMING) as incoming:
            try:
                os.link(source, name, dst_dir_fd=incoming, follow_symlinks=False)
            except OSError:
                return False
            os.fsync(incoming)
        return True

    def forget_arrivals(self) -> None:
        """Remove what deliveries left behind; published generations keep their own links."""
        with suppress(OSError):
            directories.remove(self.root, INCOMING)


@contextmanager
def opened(root: Path, *, keep: int) -> Iterator[Target]:
    """Hold the lock of the cache directory `root`, made if absent, with the traces of an earlier cut removed."""
    make_dirs(root)
    with build_lock(root):
        publish.recover(root, keep=keep)
        yield Target(root)


def installed(root: Path, documents: Documents, floor: CounterFloor | None = None) -> Path | None:
    """Return the current generation if its Manifest is this very one, or was by what the floor remembers."""
    generation = publish.current_generation(root)
    if generation is None:
        return None
    try:
        same = read_regular(generation / MANIFEST_NAMES[0], limit=MAX_BYTES) == documents.manifest
    except OSError:
        same = False
    if not same and floor is not None:
        known = accepted_by(floor)
        same = known is not None and known == (int(generation.name), sha256_bytes(documents.manifest))
    return generation if same else None


def refuse_older(root: Path, manifest: Manifest) -> None:
    """Raise DeliveryError if a higher counter was ever published in `root`, or another Manifest with this one."""
    highest = publish.next_counter(root) - 1
    if manifest.build.counter < highest + (publish.current_generation(root) is not None):
        raise DeliveryError(
            "an older or equal generation is never installed over a newer one",
            file=root,
            facts={"counter installed": highest, "counter delivered": manifest.build.counter},
            next_step="build a new generation, or `flightcache rollback` where it was built: both get a higher counter",
        )


def set_aside_damaged(root: Path, generation: Path) -> None:
    """Remove a current generation that no longer verifies, `current` first, to make room for the same one unharmed."""
    with wrap_os_errors("remove the damaged generation", generation):
        directories.remove(root, publish.CURRENT)
        directories.sync(root, "")
        directories.remove(root, f"{publish.GENERATIONS}/{generation.name}")
        directories.sync(root, publish.GENERATIONS)


def switch(
    target: Target, documents: Documents, manifest: Manifest, held: Mapping[Sha256, Path], *, verify: Verify, keep: int
) -> Path:
    """Stage, verify and publish a generation all of whose files are here; VerificationError leaves the old one.

    held: where to find what did not arrive now.
    """
    staged = target.stage(documents, manifest, held)
    with verify(staged) as verdict:
        verdict.require()
    generation = publish.commit(target.root, staged, keep=keep)
    target.forget_arrivals()
    return generation


def _reraise(error: OSError) -> None:
    """Let `os.walk` fail where it would skip a directory in silence."""
    raise error


def _open_part(incoming: int, name: str) -> int:
    """Open a file that arrives. What is no file of this delivery's own to write is removed first.

    That is a FIFO, a file with a second name whose bytes are somebody's, and one that was complete, hence read-only,
    when its delivery was cut off.
    """
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=incoming, follow_symlinks=False)
        ours = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_mode & stat.S_IWUSR
        if not stat.S_ISLNK(status.st_mode) and not ours:
            os.unlink(name, dir_fd=incoming)
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=incoming)


def _append(fd: int, pieces: Iterable[bytes], offset: int) -> str:
    """Keep the first `offset` bytes of `fd`, write `pieces` behind them, and return the SHA-256 of it all."""
    digest, position = hashlib.sha256(), 0
    while position < offset and (kept := os.pread(fd, min(offset - position, COPY_BYTES), position)):
        digest.update(kept)
        position += len(kept)
    os.ftruncate(fd, position)
    os.lseek(fd, position, os.SEEK_SET)
    for piece in pieces:
        digest.update(piece)
        write_all(fd, piece)
    return digest.hexdigest()


def _record(file: Listed, path: Path) -> ArtifactRecord:
    status = os.lstat(path)
    return ArtifactRecord(file.sha256, status.st_size, status.st_mtime_ns, status.st_ino, {})
