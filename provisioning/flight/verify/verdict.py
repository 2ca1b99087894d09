"""The result of a verification: PASS with what was verified, or every reason against it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from provisioning.base.errors import VerificationError
from provisioning.base.named import NamedTuple
from provisioning.flight.manifest import Manifest
from provisioning.flight.verify.reasons import NEXT_STEP, Code, Reason

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class VerifiedFile(NamedTuple):
    """An open file whose bytes had this SHA-256."""

    fd: int
    bytes: int
    sha256: str
    mtime_ns: int

    def is_unchanged(self) -> bool:
        """Return whether the file still has the size and time at which it was hashed."""
        status = os.fstat(self.fd)
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.mtime_ns)


def close_all(files: dict[str, VerifiedFile]) -> None:
    """Close the descriptors of `files` and empty it."""
    while files:
        os.close(files.popitem()[1].fd)


class Signed(NamedTuple):
    """Manifest.json as it was verified, its signature, and the signatures of further keys (64 bytes each), if any."""

    manifest: bytes
    signature: bytes
    more: bytes = b""


class Verdict:
    """PASS or all reasons. On PASS `read` and `open` give what was verified; close it, or use it in a `with`.

    `manifest`, `signed` and `fingerprints` (of the keys that signed and count) are there as soon as the signatures were
    good, PASS or not. The truth value is `passed`.
    """

    def __init__(
        self,
        reasons: tuple[Reason, ...],
        *,
        manifest: Manifest | None = None,
        signed: Signed | None = None,
        fingerprints: tuple[str, ...] = (),
        files: dict[str, VerifiedFile] | None = None,
    ) -> None:
        self.reasons = reasons
        self.manifest = manifest
        self.signed = signed
        self.fingerprints = fingerprints
        self._files = files or {}

    @property
    def passed(self) -> bool:
        """Whether the cache may be flown. False whenever anything at all was not as it must be."""
        return not self.reasons and self.manifest is not None

    @property
    def fingerprint(self) -> str | None:
        """The first of the keys that signed."""
        return self.fingerprints[0] if self.fingerprints else None

    def __bool__(self) -> bool:
        return self.passed

    def require(self) -> Manifest:
        """Return the Manifest of a PASS; else VerificationError has all reasons and what to do about the first."""
        if not self.passed or self.manifest is None:
            raise VerificationError(
                "the cache is refused",
                facts={f"reason {number}": str(reason) for number, reason in enumerate(self.reasons, 1)},
                next_step=next((NEXT_STEP[reason.code] for reason in self.reasons if reason.code in NEXT_STEP), None),
            )
        return self.manifest

    def read(self, path: str) -> bytes:
        """Return the bytes of a listed file, hashed again as they are in memory: give these to a deserialiser.

        Whoever can write to the file between verification and loading gains nothing. VerificationError if the verdict
        is no PASS, the file is not listed, or its bytes have changed since.
        """
        file = self._file(path)
        with io.BufferedReader(_Reader(os.dup(file.fd), file.bytes)) as stream:
            data = stream.read(file.bytes)  # at most what was verified, and without a second copy in memory
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise self._changed(path)
        return data

    def open(self, path: str) -> io.BufferedReader:
        """Return a listed file open for reading, with its own position: the verified inode, not the name again.

        Nobody can put another file in its place; who can write to the inode itself can still change it after this
        call, so deserialisers get `read`. Raises as `read` does.
        """
        file = self._file(path)
        if not file.is_unchanged():
            raise self._changed(path)
        return io.BufferedReader(_Reader(os.dup(file.fd), file.bytes))

    @contextlib.contextmanager
    def descriptor(self, path: str) -> Iterator[int]:
        """Yield a descriptor of a listed file, for a reader that takes names: /proc/self/fd/N is the verified inode.

        Raises and promises as `open` does.
        """
        file = self._file(path)
        if not file.is_unchanged():
            raise self._changed(path)
        fd = os.dup(file.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def verity_digest(self, path: str) -> str | None:
        """Return the fs-verity digest of a listed file, None where the file system enforces none.

        A file that is opened by any name and measures the same has the verified bytes, and cannot be changed.
        """
        from provisioning.flight.verity import measure

        return measure(self._file(path).fd)

    def status(self, path: str) -> os.stat_result:
        """Return the stat of a listed file as verified; VerificationError if it may have changed since."""
        file = self._file(path)
        if not file.is_unchanged():
            raise self._changed(path)
        return os.fstat(file.fd)

    def _file(self, path: str) -> VerifiedFile:
        self.require()
        try:
            return self._files[path]
        except KeyError:
            raise VerificationError("not a file of this cache, or the verdict is closed", file=path) from None

    @staticmethod
    def _changed(path: str) -> VerificationError:
        reason = Reason(Code.CHANGED, path, "changed after it was verified")
        return VerificationError("a verified file has changed", file=path, facts={"reason 1": str(reason)})

    def close(self) -> None:
        """Close every file; the verdict itself stays readable."""
        close_all(self._files)

    def __enter__(self) -> Verdict:  # noqa: PYI034  (typing.Self is not in Python 3.10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Verdict {'PASS' if self.passed else ', '.join(map(str, self.reasons))}>"


class _Reader(io.RawIOBase):
    """A read-only view of a descriptor with a position of its own."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        count = os.preadv(self._fd, [view], self._at) if view else 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the start of the file")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
