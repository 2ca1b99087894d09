"""Sending a verified generation to where it will fly: over any command that reaches the vehicle, or to a drive here."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import DeliveryError, Error, VerificationError
from provisioning.base.events import Bytes
from provisioning.base.hashing import Sha256
from provisioning.delivery.bundle.archive import COPY_BYTES
from provisioning.delivery.bundle.check import Trust, check_bundle
from provisioning.delivery.bundle.compression import zstd_module
from provisioning.delivery.bundle.contents import Documents, Listed
from provisioning.delivery.bundle.earlier import Bases, no_bases
from provisioning.delivery.bundle.pack import Bundle, pack
from provisioning.delivery.install import deliver
from provisioning.delivery.pipes import PATIENCE_S, Pipes, SilentError
from provisioning.delivery.stream import read_line, send_documents, send_needed
from provisioning.delivery.target import Outcome, Target, Verify
from provisioning.flight.manifest import Manifest
from provisioning.flight.vehicle import Vehicle
from provisioning.flight.verify import Verdict

END_S = 30
"""Longest time for a command to end after its pipe was closed, second."""

SSH = ("ssh", "-o", "ServerAliveInterval=15", "--")


class Destination(NamedTuple):
    """Where a generation goes: `host:path` over ssh, or a path here if `host` is empty."""

    host: str
    path: str


class Sent(NamedTuple):
    """What a sync did: the counter now current there, files and bytes that went over, bytes of the whole generation.

    receipt: what the vehicle signed about it, unread; None if it has no key of its own.
    """

    counter: int
    files: int
    sent_bytes: int
    generation_bytes: int
    receipt: bytes | None = None


def parse_destination(text: str) -> Destination:
    """Read TARGET as rsync and scp do: a colon before the first slash parts host and path."""
    host, colon, path = text.partition(":")
    if not colon or "/" in host:
        return Destination("", text)
    if not host or host.startswith("-") or not path:
        raise DeliveryError("not a target", file=text, next_step="write user@host:/path, or a directory here")
    return Destination(host, path)


def remote_command(
    to: Destination, *, shell: Sequence[str] | None, program: str, options: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the command that runs the receiver there; what follows `shell` (default: ssh HOST) is one command line.

    options: with their values, "" for one that has none.
    """
    words = [*shlex.split(program), "install", "--stream", "-", to.path]
    words += [word for option, value in options.items() for word in (option, value) if word]
    line = " ".join(shlex.quote(word) for word in words)
    return (*(shell if shell is not None else (*SSH, to.host)), line)


def sync_over(
    command: Sequence[str],
    verdict: Verdict,
    documents: Documents,
    *,
    bases: Bases | None = None,
    patience_s: float = PATIENCE_S,
) -> Sent:
    """Send the verified generation through `command`, whose standard streams are the receiver's.

    bases: opens earlier versions of its files; None: what the vehicle lacks goes whole.
    DeliveryError: the command failed, was cut, or for `patience_s` seconds took and said nothing (run it again, it goes
    on); or, with the receiver's words, refused.
    """
    manifest = verdict.require()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pipes = Pipes(process.stdin, process.stdout, patience_s=patience_s)
        try:
            return _converse(pipes, verdict, documents, manifest, bases)
        except SilentError:
            process.kill()
            raise
        except (BrokenPipeError, DeliveryError) as error:
            raise _last_words(process, pipes, command, error) from error
        finally:
            with suppress(OSError):
                process.stdin.close()


def _converse(pipes: Pipes, verdict: Verdict, documents: Documents, manifest: Manifest, bases: Bases | None) -> Sent:
    bases = bases if zstd_module() else None
    sent = send_documents(pipes, documents, deltas=bases is not None)
    reply = _answer(pipes)
    sent += send_needed(pipes, reply, manifest, lambda file: verdict.open(file.path), bases=bases or no_bases)
    answer = _answer(pipes)
    done, receipt = answer.get("done"), answer.get("receipt")
    if not isinstance(done, dict) or done.get("counter") != manifest.build.counter:
        raise DeliveryError("the receiver did not confirm the generation", facts={"said": done})
    whole = sum(file.bytes for file in manifest.files) + sum(map(len, documents))
    said = receipt.encode() if isinstance(receipt, str) else None
    return Sent(manifest.build.counter, len(reply["need"]), sent, whole, said)  # type: ignore[arg-type]


def _answer(pipes: Pipes) -> dict[str, object]:
    reply = read_line(pipes)
    if "error" in reply:
        raise _RefusedError(str(reply["error"]))
    return reply


class _RefusedError(DeliveryError):
    """The receiver's own error."""


def _last_words(process: subprocess.Popen[bytes], pipes: Pipes, command: Sequence[str], error: Exception) -> Error:
    """Return the error to show: the receiver's own if it had time to tell one."""
    assert process.stdin is not None
    if not isinstance(error, _RefusedError):
        with suppress(OSError):
            process.stdin.close()
        try:
            _answer(pipes)
        except SilentError:
            process.kill()
        except DeliveryError as last:
            error = last
    if isinstance(error, _RefusedError):
        return DeliveryError(
            "the vehicle refused the generation", facts={"it said": "\n    " + error.what.replace("\n", "\n    ")}
        )
    return DeliveryError(
        "the delivery was cut",
        facts={"command": shlex.join(command), "exit code": _ended(process)},
        next_step="see above why the command ended; run the same again: it goes on where it was cut",
    )


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a command whose pipes are closed; one that does not end by itself is ended."""
    with suppress(OSError):
        process.stdout.close()  # type: ignore[union-attr]  # one that never stops talking ends by SIGPIPE
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def sync_here(
    root: Path,
    verdict: Verdict,
    documents: Documents,
    *,
    verify: Verify,
    keep: int = 1,
    vehicle: Vehicle | None = None,
) -> Sent:
    """Deliver the verified generation to a cache directory on a drive mounted here. vehicle: as `install_bundle`."""
    manifest = verdict.require()

    def fetch(target: Target, files: tuple[Listed, ...], _: Mapping[Sha256, Path]) -> None:
        count = Bytes("copy", sum(file.bytes for file in files))
        for file in files:
            with verdict.open(file.path) as source:
                target.receive(file, _counted(iter(lambda s=source: s.read(COPY_BYTES), b""), count))  # type: ignore[misc]

    outcome: Outcome = deliver(root, documents, manifest, fetch=fetch, verify=verify, keep=keep, vehicle=vehicle)
    whole = sum(file.bytes for file in manifest.files) + sum(map(len, documents))
    sent = outcome.received_bytes + sum(map(len, documents))
    return Sent(manifest.build.counter, outcome.received_files, sent, whole)


def _counted(pieces: Iterator[bytes], count: Bytes) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        count.add(len(piece))


def copy_bundle(verdict: Verdict, documents: Documents, output: Path, *, trust: Trust) -> Bundle | None:
    """Put the bundle on a medium that cannot hold a cache directory, and check it as it is read back from there.

    None: this very generation is on the medium already, unharmed. DeliveryError if the medium gives back other bytes.
    """
    if output.exists() and _holds(output, documents, trust):
        return None
    bundle = pack(verdict, documents, output)
    if not _holds(output, documents, trust):
        raise DeliveryError(
            "the medium gave back other bytes than were written",
            file=output,
            next_step="do not use this medium; take another one",
        )
    return bundle


def _holds(path: Path, documents: Documents, trust: Trust) -> bool:
    """Return whether the medium, not the page cache, gives back a whole bundle of this generation."""
    with wrap_os_errors("read the bundle back", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    try:
        checked = check_bundle(path, trust)
    except (DeliveryError, VerificationError):
        return False
    return checked.documents == documents and checked.since is None
