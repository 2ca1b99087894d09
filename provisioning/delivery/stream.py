r"""The two ends of `flightcache sync` and what they say to each other over one pipe.

    sender    flightcache-sync/1 {"sizes": [manifest, sidecar, signature, more?, trust?], "delta": 1?}\n  these files
    receiver  {"need": [[sha256, offset], …], "bases": {sha256: sha256, …}?}\n   after signature and expectations
    sender    for each, in that order: the bytes of that file from offset on
    receiver  {"done": {…}}\n  or at any time  {"error": text, "exit_code": n}\n

Sizes are signed, so nothing else needs framing; nothing is sent that the receiver holds, and after a cut the next run
goes on in the middle of a file.

A sender that says "delta" may be answered with bases: for a file that is needed, an earlier version that the receiver
holds. Then {"from": sha256}\n and the delta of that file (delivery/bundle/delta.py) stand in place of its bytes, or
{"from": null}\n and its bytes, where the sender does not have that version. An end that knows no deltas ignores both
words, and gets or sends whole files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple, Protocol

from provisioning.base.errors import DeliveryError
from provisioning.base.events import Bytes
from provisioning.base.hashing import Sha256
from provisioning.delivery.bundle.archive import COPY_BYTES, Readable
from provisioning.delivery.bundle.contents import MANIFEST_LIMITS, OPTIONAL_LIMITS, Documents, Listed, listed
from provisioning.delivery.bundle.delta import Base, differences, rebuilt
from provisioning.delivery.bundle.earlier import Bases, no_bases
from provisioning.flight.manifest import Manifest

GREETING = b"flightcache-sync/1 "
LINE_LIMIT = 1 << 20


class Writable(Protocol):
    """What the sender and the receiver need of a file to write to."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""
        ...

    def writelines(self, parts: Iterable[bytes], /) -> None:
        """Write each part."""
        ...

    def flush(self) -> None:
        """Keep nothing back."""
        ...


class Lines(Protocol):
    """Anything with the `readline` of a binary file."""

    def readline(self, limit: int, /) -> bytes:
        """Return the next line, at most `limit` bytes of it."""
        ...


class Opening(NamedTuple):
    """What a sender opens with: the Manifest's files, and whether it can send what changed inside a file."""

    documents: Documents
    sends_deltas: bool


class Need(NamedTuple):
    """A file the receiver lacks from `offset` on."""

    sha256: Sha256
    offset: int


def write_line(stream: Writable, value: object) -> int:
    """Write one JSON line, flush, and return its size."""
    line = json.dumps(value, sort_keys=True).encode() + b"\n"
    stream.write(line)
    stream.flush()
    return len(line)


def read_line(stream: Lines) -> dict[str, object]:
    """Return the next JSON line; DeliveryError if the other end went away or talks of something else."""
    line = stream.readline(LINE_LIMIT)
    if not line.endswith(b"\n"):
        raise DeliveryError(
            "the other end went away in the middle of the delivery",
            next_step="run the same command again: it goes on where it was cut",
        )
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DeliveryError("the other end does not speak flightcache-sync/1", facts={"said": line[:200]}) from error
    if not isinstance(value, dict):
        raise DeliveryError("the other end does not speak flightcache-sync/1", facts={"said": line[:200]})
    return value


def send_documents(stream: Writable, documents: Documents, *, deltas: bool = False) -> int:
    """Send the Manifest's files, and offer deltas; return the bytes sent."""
    stream.write(GREETING)
    sizes = [len(data) for data in documents]
    while len(sizes) > len(MANIFEST_LIMITS) and not sizes[-1]:
        sizes.pop()  # so that a receiver that knows only three understands
    sent = len(GREETING) + write_line(stream, {"sizes": sizes, **({"delta": 1} if deltas else {})})
    stream.writelines(documents)
    stream.flush()
    return sent + sum(map(len, documents))


def receive_documents(stream: IO[bytes]) -> Opening:
    """Return the files that the sender opens with, and whether it offers deltas."""
    if _take(stream, len(GREETING)) != GREETING:
        raise DeliveryError("the other end does not speak flightcache-sync/1")
    line = read_line(stream)
    sizes = line.get("sizes")
    limits = MANIFEST_LIMITS + OPTIONAL_LIMITS
    if not (isinstance(sizes, list) and len(MANIFEST_LIMITS) <= len(sizes) <= len(limits)):
        raise DeliveryError("the sender gave no sizes")
    if not all(type(size) is int and 0 <= size <= top for size, top in zip(sizes, limits, strict=False)):
        raise DeliveryError("the sender's Manifest or signature is too large", facts={"bytes": sizes})
    return Opening(Documents(*(_take(stream, size) for size in sizes)), line.get("delta") == 1)


def send_needed(
    stream: Writable,
    reply: dict[str, object],
    manifest: Manifest,
    open_file: Callable[[Listed], IO[bytes]],
    *,
    bases: Bases = no_bases,
) -> int:
    """Send what the receiver's `reply` asks for, which must be files of `manifest`; return the bytes sent."""
    files = {file.sha256: file for file in listed(manifest)}
    sent, needs = 0, _needs(reply, files)
    held = _held(reply, needs)
    count = Bytes("send", sum(files[need.sha256].bytes - need.offset for need in needs))
    for need in needs:
        file = files[need.sha256]
        with open_file(file) as source, bases(held.get(need.sha256, Sha256(""))) as base:
            if need.sha256 in held:
                sent += write_line(stream, {"from": held[need.sha256] if base else None})
            for done, piece in _changed(source, base, file, need.offset):
                stream.write(piece)
                sent += len(piece)
                count.add(done)
    stream.flush()
    return sent


def _changed(source: IO[bytes], base: Base | None, file: Listed, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield what is sent of `file`, each piece with the number of bytes of the file that it stands for."""
    if base is not None:
        yield from differences(source, base, file, offset=offset)
        return
    source.seek(offset)
    yield from ((len(piece), piece) for piece in _pieces(source, file.bytes - offset, file))


def _held(reply: dict[str, object], needs: tuple[Need, ...]) -> dict[Sha256, Sha256]:
    """Return the earlier version that the receiver holds of files it needs, by digest."""
    bases = reply.get("bases", {})
    if not isinstance(bases, dict) or not all(isinstance(base, str) for base in bases.values()):
        raise DeliveryError("the receiver did not say what it holds", facts={"said": bases})
    if bases.keys() - {need.sha256 for need in needs}:
        raise DeliveryError("the receiver names earlier versions of files that it does not ask for")
    return bases


def _needs(reply: dict[str, object], files: dict[Sha256, Listed]) -> tuple[Need, ...]:
    rows = reply.get("need")
    if not isinstance(rows, list):
        raise DeliveryError("the receiver did not say what it needs", facts={"said": reply})
    needs = tuple(Need(*row) for row in rows if isinstance(row, list) and len(row) == len(Need._fields))
    known = all(
        type(n.sha256) is str and n.sha256 in files and type(n.offset) is int and 0 <= n.offset <= files[n.sha256].bytes
        for n in needs
    )
    if len(needs) != len(rows) or not known or len({need.sha256 for need in needs}) != len(needs):
        raise DeliveryError("the receiver asks for files that are not in this generation, or for one more than once")
    return needs


def read_needed(stream: Readable, file: Listed, *, offset: int) -> Iterator[bytes]:
    """Yield the bytes of `file` from `offset` on."""
    return _pieces(stream, file.bytes - offset, file)


def read_changed(stream: IO[bytes], file: Listed, base: Base, sha256: Sha256, *, offset: int) -> Iterator[bytes]:
    """Yield the bytes of `file` from `offset` on, of which `base`, with digest `sha256`, is an earlier version."""
    said = read_line(stream).get("from")
    if said is None:
        return read_needed(stream, file, offset=offset)
    if said != sha256:
        raise DeliveryError("the sender compared with a file that is not held here", file=file.path)
    return rebuilt(stream, base, file, offset=offset)


def _pieces(stream: Readable, left: int, file: Listed) -> Iterator[bytes]:
    while left:
        piece = stream.read(min(left, COPY_BYTES))
        if not piece:
            raise DeliveryError(
                "the delivery was cut in the middle of a file",
                file=file.path,
                next_step="run the same command again: it goes on where it was cut",
            )
        left -= len(piece)
        yield piece


def _take(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise DeliveryError("the sender went away before it sent its Manifest")
    return data
