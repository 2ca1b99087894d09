"""Every error that a caller may want to distinguish, and the one form in which a user reads them."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from pathlib import Path

from provisioning.base.printable import printable, printable_lines

AGAIN = "then run this again"
NEXT_STEP = {
    errno.ENOSPC: f"free space there, {AGAIN}",
    errno.EDQUOT: f"free space or have the quota raised, {AGAIN}",
    errno.EFBIG: f"raise the limit on the size of files (`ulimit -f`), {AGAIN}",
    errno.EROFS: "remount the file system writable, or move the cache directory to one that is",
    errno.EACCES: "give this user the permission (see `ls -ld`), or run this as the owner of the directory",
    errno.EPERM: "give this user the permission (see `ls -ld`), or run this as the owner of the directory",
    errno.EIO: "the device reported an I/O error: check `dmesg` and the disk before trusting it with a flight",
    errno.ENOENT: "check the path: it is not there, or something removed it a moment ago; then run this again",
    errno.EMFILE: f"raise the limit of open files (`ulimit -n`), {AGAIN}",
    errno.ENFILE: f"the system is out of file handles: close programs, {AGAIN}",
    errno.EISDIR: "a directory stands where a file should: move it away, then run this again",
    errno.EAGAIN: "close programs or raise the limit of processes (`ulimit -u`), then run this again",
    errno.ENOMEM: "close programs or raise the limit of memory (`ulimit -v`), then run this again",
    errno.ESTALE: "the server of this file system has lost the file: look at the mount, then run this again",
    errno.EBUSY: "another program uses it (`fuser -v` names it): wait for it or end it, then run this again",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ELOOP: "a symbolic link stands where a file should: remove it",
}
"""What to do where the system refused something, by its number of the error."""
MOST_CHARACTERS, MOST_FACTS = 2000, 20
"""Of one text, and of facts, of an error that comes from another process."""


class Error(Exception):
    """A mistake or misfortune with a known cause.

    `what` is one sentence; `file` and `key` say where; `facts` are aligned below it; `next_step` says what to do:
    where an error raised for an OSError has none, that of the system's reason. Its text cannot steer a terminal,
    whatever names and answers of others went into it.
    """

    exit_code = 10
    report: object = None
    """The build report, on an error raised by `rules.build`."""

    def __init__(
        self,
        what: str,
        *,
        file: Path | str | None = None,
        key: str | None = None,
        facts: Mapping[str, object] | None = None,
        next_step: str | None = None,
    ) -> None:
        self.what = printable_lines(what)
        super().__init__(self.what)
        self.file = None if file is None else str(file)
        self.key = key
        self.facts = dict(facts or {})
        refused = sys.exc_info()[1]
        of_the_system = NEXT_STEP.get(refused.errno or 0) if isinstance(refused, OSError) else None
        self.next_step = of_the_system if next_step is None else next_step

    def __reduce__(self) -> tuple[object, ...]:
        return (_revive, (type(self), self.__dict__))

    def __str__(self) -> str:
        where = {name: printable(text) for name, text in (("file", self.file), ("key", self.key)) if text is not None}
        rows = {**where, **self.facts, "next step": self.next_step}
        shown = {printable(name): printable_lines(str(value)) for name, value in rows.items() if value is not None}
        width = max(map(len, shown), default=0)
        return "\n".join([self.what, *(f"  {name + ':':<{width + 1}} {value}" for name, value in shown.items())])


def as_plain(error: Error) -> dict[str, object]:
    """Return an error as what JSON can hold, no text of it longer than MOST_CHARACTERS."""
    facts = {str(fact)[:100]: str(text)[:MOST_CHARACTERS] for fact, text in list(error.facts.items())[:MOST_FACTS]}
    texts = {"what": error.what, "file": error.file, "key": error.key, "next_step": error.next_step}
    cut = {name: None if text is None else text[:MOST_CHARACTERS] for name, text in texts.items()}
    return {"kind": type(error).__name__, "facts": facts, **cut}


def from_plain(said: Mapping[str, object], otherwise: type[Error]) -> Error:
    """Return the error that `said` holds, which nobody trusts; of the kind `otherwise` where it names none of ours."""
    kind = globals().get(str(said.get("kind")), otherwise)
    if not (isinstance(kind, type) and issubclass(kind, Error)) or kind is BuildLockHeldError:
        kind = otherwise
    texts = {name: None if said.get(name) is None else str(said[name]) for name in ("file", "key", "next_step")}
    facts = said.get("facts")
    return kind(str(said.get("what")), facts=facts if isinstance(facts, dict) else {}, **texts)


def _revive(kind: type[Error], state: dict[str, object]) -> Error:
    """Rebuild an error that crossed a process boundary."""
    error = kind.__new__(kind)
    Exception.__init__(error, state["what"])
    error.__dict__.update(state)
    return error


class ConfigError(Error):
    """flight.toml cannot be used; every issue is listed in one error."""

    exit_code = 11


class EmptyCorpusError(Error):
    """No tile lies inside the area at the chosen zoom levels."""

    exit_code = 12


class TileError(Error):
    """A tile or a tile source cannot be read or decoded."""

    exit_code = 13


class AreaError(Error):
    """An area, polygon or mission file cannot be understood."""

    exit_code = 14


class BackboneError(Error):
    """An ONNX model cannot be used as it is declared."""

    exit_code = 15


class EngineError(Error):
    """An engine cannot be compiled, read or run on this host."""

    exit_code = 16


class DescriptorError(Error):
    """A descriptor is non-finite, degenerate, or its store is damaged."""

    exit_code = 17


class DamagedDescriptorsError(DescriptorError):
    """Rows of the descriptor store are not as they were written; they were dropped, and can be computed again."""


class IndexingError(Error):
    """An index cannot be built within its limits, or its bytes are not an index."""

    exit_code = 18


class GateError(Error):
    """A measured quality is below its threshold; nothing is published."""

    exit_code = 19


class ManifestError(Error):
    """A Manifest cannot be made, or its bytes are not one."""

    exit_code = 20


class ManifestCoverageError(Error):
    """The walk found files that the Manifest does not list, or lists that are not there."""

    exit_code = 21


class VerificationError(Error):
    """A cache was refused by the verifier; `facts` holds every reason."""

    exit_code = 22


class BuildLockHeldError(Error):
    """Another process builds in this cache directory."""

    exit_code = 23

    def __init__(self, what: str, *, pid: int | None = None, **where: object) -> None:
        super().__init__(what, **where)  # type: ignore[arg-type]
        self.pid = pid


class FilesystemError(Error):
    """The file system cannot keep our promises, is full, read-only, or refused a call."""

    exit_code = 24


class SigningError(Error):
    """A key cannot be read, is not safe to use, or a signature could not be made."""

    exit_code = 25


class DeliveryError(Error):
    """A bundle cannot be written, read or installed."""

    exit_code = 26


class StoppedError(Error):
    """The build was asked to stop (SIGINT, SIGTERM, SIGHUP) and stopped in order."""

    exit_code = 27


class PhotoError(Error):
    """A photo, or a list of photos with their positions, cannot be read."""

    exit_code = 28


class TrustError(Error):
    """A trust file cannot be read, or must not take the place of the one that is installed."""

    exit_code = 29
