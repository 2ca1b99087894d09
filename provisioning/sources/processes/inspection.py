"""What a process does that inspects tiles (`base/process`): bytes read and hashed, decoded and inspected.

Many share one request: to inspect them together costs less. A process that ends at one of them does not say which;
they are then inspected one by one.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from provisioning.base.errors import FilesystemError, TileError
from provisioning.base.process.workers import Items, Limits, SeveralError, Worker, Workers
from provisioning.sources.pixels.eighth import inspect_tiles
from provisioning.sources.pixels.facts import InspectionSettings
from provisioning.sources.pixels.image import Inspection, load_decoders
from provisioning.sources.pixels.likeness import PERCEPTUAL_HASH_BYTES
from provisioning.sources.processes import common as apart
from provisioning.sources.tile_file import MOST_TILE_BYTES, read_file

ANSWER = struct.Struct("<BI32sIIBH")
"""What was done; number of bytes and SHA-256; emptiness and texture of the Inspection; bytes of hash and fault."""
INSPECTED, AS_KNOWN, UNREADABLE = range(3)
"""UNREADABLE: the file cannot be opened there."""
MOST_FAULT_BYTES = 400
MOST_REMEMBERED = 4096
"""Inspections remembered for the same bytes elsewhere: a picture of the sea, or of "no imagery"."""
ROOM_BYTES = MOST_TILE_BYTES


class Span(NamedTuple):
    """Bytes in the room: where they begin, how many they are, and their SHA-256 if it is known."""

    start: int
    size: int
    digest: bytes | None


class Asked(NamedTuple):
    """A tile to be inspected: the path of its file, or its bytes; not if these have the digest `known`."""

    at: tuple[int, int, int]
    where: str | Span
    known: bytes | None


class InspectedTile(NamedTuple):
    """What the inspection of a tile gave; `inspection` is None unless it was inspected."""

    done: int
    size: int
    sha256: bytes
    inspection: Inspection | None


class InspectTiles:
    """Inspects tiles."""

    prepare = staticmethod(load_decoders)

    def __init__(self, settings: InspectionSettings) -> None:
        apart.keep_memory()
        self._settings = settings._asdict()
        self._inspections: dict[bytes, Inspection] = {}

    def __call__(self, asked: Sequence[Asked], room: memoryview) -> bytes:
        """Return an ANSWER for each, hash and fault behind it."""
        read = [self._read(each, room) for each in asked]
        inspections = self._inspected({digest: data for done, data, digest in read if done == INSPECTED})
        return b"".join(
            _packed(done, len(data), digest, inspections[digest] if done == INSPECTED else Inspection(0, 0, None))
            for done, data, digest in read
        )

    def _read(self, asked: Asked, room: memoryview) -> tuple[int, bytes, bytes]:
        _, where, known = asked
        if isinstance(where, Span):
            data, digest = bytes(room[where.start : where.start + where.size]), where.digest
        else:
            try:
                data, digest = read_file(where), None
            except OSError:
                return UNREADABLE, b"", b""
        digest = digest or sha256(data).digest()
        return (AS_KNOWN if digest == known else INSPECTED), data, digest

    def _inspected(self, data: dict[bytes, bytes]) -> dict[bytes, Inspection]:
        """Return what is found of each of the bytes, by digest."""
        if len(self._inspections) > MOST_REMEMBERED:
            self._inspections.clear()
        new = {digest: each for digest, each in data.items() if digest not in self._inspections}
        found = inspect_tiles(list(new.values()), **self._settings)
        self._inspections.update(zip(new, found, strict=True))
        return {digest: self._inspections[digest] for digest in data}


def _packed(done: int, size: int, digest: bytes, inspection: Inspection) -> bytes:
    empty_ppm, texture_centi, fault, perceptual_hash = inspection
    picture, reason = perceptual_hash or b"", (fault or "").encode()[:MOST_FAULT_BYTES]
    return ANSWER.pack(done, size, digest, empty_ppm, texture_centi, len(picture), len(reason)) + picture + reason


def _unpacked(answer: bytes, count: int) -> Iterator[InspectedTile]:
    """Yield what an answer says, which nobody trusts; TileError if it is none."""
    at = 0
    for _ in range(count):
        if len(answer) < at + ANSWER.size:
            raise TileError("the process that looks at tiles gave no answer")
        done, size, digest, empty_ppm, texture_centi, hash_bytes, fault_bytes = ANSWER.unpack_from(answer, at)
        at += ANSWER.size
        perceptual_hash = answer[at : at + PERCEPTUAL_HASH_BYTES] if hash_bytes == PERCEPTUAL_HASH_BYTES else None
        at += hash_bytes
        fault = answer[at : at + fault_bytes].decode(errors="replace") if fault_bytes else None
        at += fault_bytes
        inspection = Inspection(min(empty_ppm, 1_000_000), texture_centi, fault, perceptual_hash)
        yield InspectedTile(done, size, digest, inspection if done == INSPECTED else None)


class InspectionWorkers:
    """Processes that inspect tiles: files of `directories`, and bytes that they are given."""

    def __init__(self, directories: Iterable[Path], settings: InspectionSettings) -> None:
        self._workers = Workers(
            InspectTiles,
            settings,
            items=Items("the tile", _name, TileError, lambda asked: len(asked) > 1),
            reads=directories,
            room_bytes=ROOM_BYTES,
            limits=Limits(memory_bytes=apart.memory_bytes(settings.max_pixels)),
        )

    @property
    def stop(self) -> threading.Event:
        """Set it, and whoever waits for an answer gets a StoppedError."""
        return self._workers.stop

    def worker(self) -> InspectionWorker:
        """Return one more, which one thread uses at a time; its process starts with the first tile."""
        return InspectionWorker(self._workers.worker())

    def close(self) -> None:
        """End the processes."""
        self._workers.close()


class InspectionWorker:
    """One process that inspects tiles."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.room = worker.rooms

    def inspect(self, asked: Sequence[Asked]) -> list[InspectedTile | TileError]:
        """Inspect tiles, whose bytes may be in the room; a TileError says that one ends processes.

        What is no image is looked at again by a new process: a library that was loaded half-way, or memory that ran
        out, may say so of any bytes. FilesystemError: this computer failed.
        """
        found = self._once(asked)
        doubtful = [n for n, each in enumerate(found) if isinstance(each, InspectedTile) and _fault(each)]
        if doubtful:
            self._worker.renew()
            again = self._once([asked[n] for n in doubtful])
            for n, second in zip(doubtful, again, strict=True):
                found[n] = _agreed(found[n], second)
        return found

    def _once(self, asked: Sequence[Asked]) -> list[InspectedTile | TileError]:
        (answer,) = self._worker.read([asked])
        if isinstance(answer, bytes):
            return list(_unpacked(answer, len(asked)))
        if isinstance(answer, SeveralError):
            return [each for one in asked for each in self._once([one])]
        if isinstance(answer, TileError):
            return [answer]
        raise answer


def _name(asked: Sequence[Asked]) -> str:
    return "{}/{}/{}".format(*asked[0].at)


def _fault(inspected: InspectedTile) -> str | None:
    return inspected.inspection.fault if inspected.inspection else None


def _agreed(first: InspectedTile | TileError, second: InspectedTile | TileError) -> InspectedTile | TileError:
    """Return what two processes found of a tile that the first found to be no image."""
    if isinstance(first, TileError) or isinstance(second, TileError) or not _fault(second):
        return second
    if _fault(first) != _fault(second):
        raise FilesystemError(
            f"this computer failed: two looks at a tile differ: {_fault(first)}; then: {_fault(second)}",
            next_step="close programs, look at `dmesg`, the disk and the memory, then run again",
        )
    return second
