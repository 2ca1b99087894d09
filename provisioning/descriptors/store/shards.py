"""Append-only shards of descriptors. A record says itself which tile it is of and whether it is whole.

shard  = header (64 bytes: "fcrows1 <dtype> <dimension>", newline, zeros), then records
record = SHA-256 of the tile (32 bytes), CRC-32 of digest and vector, four zero bytes, the vector; little-endian
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from provisioning.base.disk.files import fsync_dir, write_all
from provisioning.base.errors import DescriptorError
from provisioning.descriptors.store import generations

HEADER_BYTES = 64
MAGIC = b"fcrows1 "
SHARD_BYTES = 256 << 20
"""A shard is closed at this size: small enough to copy and to map, large enough that a million tiles are few files."""
BLOCK_BYTES = 4 << 20
"""Read at a time: descriptors of 8,448 numbers are 34 kB each, so a count of rows would bound nothing."""
DTYPES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}

Records = npt.NDArray[np.void]


@dataclass(frozen=True)
class Layout:
    """How records lie in the shards of one directory."""

    dtype: str
    dimension: int

    @cached_property
    def record(self) -> np.dtype[np.void]:
        """The numpy type of one record."""
        vector = (DTYPES[self.dtype], (self.dimension,))
        return np.dtype([("sha", "V32"), ("crc", "<u4"), ("zero", "<u4"), ("vector", *vector)])

    @property
    def rows_per_shard(self) -> int:
        """Records in a full shard."""
        return max(1, SHARD_BYTES // self.record.itemsize)

    @property
    def rows_per_block(self) -> int:
        """Records that are held in memory at a time while shards are read."""
        return max(1, BLOCK_BYTES // self.record.itemsize)

    @property
    def header(self) -> bytes:
        """First bytes of every shard."""
        return (MAGIC + f"{self.dtype} {self.dimension}\n".encode()).ljust(HEADER_BYTES, b"\0")


def read_layout(directory: Path) -> Layout | None:
    """Return the layout that the first whole shard header states, or None where there is none."""
    for number in shard_numbers(directory):
        with open(shard_path(directory, number), "rb") as file:
            words = file.read(HEADER_BYTES).rstrip(b"\0").split()
        if len(words) == 3 and words[0] + b" " == MAGIC and words[1].decode() in DTYPES and words[2].isdigit():
            return Layout(words[1].decode(), int(words[2]))
    return None


def shard_path(directory: Path, number: int) -> Path:
    """Return the path of a shard."""
    return directory / f"{number:06d}.rows"


def shard_numbers(directory: Path) -> list[int]:
    """Return the numbers of the shards there, ascending."""
    names = (name.partition(".") for name in os.listdir(directory))
    return sorted(int(stem) for stem, _, suffix in names if suffix == "rows" and stem.isdigit())


def make_records(layout: Layout, shas: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> Records:
    """Return the records of `vectors` [n, dimension] for the tiles `shas`."""
    records = np.zeros(len(shas), layout.record)
    records["sha"] = np.frombuffer(b"".join(shas), "V32")
    records["vector"] = vectors
    records["crc"] = _crcs(records)
    return records


def whole(records: Records) -> npt.NDArray[np.bool_]:
    """Return which records are as they were written."""
    found: npt.NDArray[np.bool_] = records["crc"] == _crcs(records)
    return found


def damaged(home: Path) -> tuple[int, int]:
    """Return how many rows of the newest generation in `home` are not as they were written, and how many there are."""
    directory = generations.existing(home)
    layout = read_layout(directory) if directory else None
    if directory is None or layout is None:
        return 0, 0
    total = row_count(directory, layout)
    bad = 0
    for start in range(0, total, layout.rows_per_block):
        rows = np.arange(start, min(start + layout.rows_per_block, total))
        bad += int((~whole(read_rows(directory, layout, rows))).sum())
    return bad, total


def _crcs(records: Records) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of digest and vector of each."""
    raw, size = np.ascontiguousarray(records).view(np.uint8).data, records.itemsize
    vectors = [raw[end - size + 40 : end] for end in range(size, len(raw) + 1, size)]
    return np.fromiter(map(zlib.crc32, vectors, map(zlib.crc32, records["sha"].tolist())), np.uint32, len(records))


def row_count(directory: Path, layout: Layout) -> int:
    """Return the number after the last whole record."""
    numbers = shard_numbers(directory)
    if not numbers:
        return 0
    return numbers[-1] * layout.rows_per_shard + rows_in(directory, layout, numbers[-1])


def rows_in(directory: Path, layout: Layout, number: int) -> int:
    """Return the whole records in one shard; 0 if it is not there."""
    try:
        size = os.stat(shard_path(directory, number)).st_size
    except FileNotFoundError:
        return 0
    return max(0, size - HEADER_BYTES) // layout.record.itemsize


class Appender:
    """Writes records behind the last whole one, opening new shards as they fill. The one being filled stays open.

    Whoever appends holds the store's lock: others may have appended meanwhile.
    """

    def __init__(self, directory: Path, layout: Layout) -> None:
        self._directory, self._layout = directory, layout
        self._fd = -1

    def append(self, records: Records) -> None:
        """Write `records`. Not yet durable."""
        while len(records):
            start = self._rows()
            now = records[: self._layout.rows_per_shard - start]
            write_all(self._fd, now.tobytes() if start else self._layout.header + now.tobytes())
            records = records[len(now) :]

    def _rows(self) -> int:
        """Return how many records are in the shard that is open, once it is one with room for another."""
        if self._fd >= 0:
            found = os.fstat(self._fd)
            rows, over = divmod(found.st_size - HEADER_BYTES, self._layout.record.itemsize)
            if found.st_nlink and not over and 0 < rows < self._layout.rows_per_shard:
                return rows
            self.close()
        number, rows = divmod(row_count(self._directory, self._layout), self._layout.rows_per_shard)
        path = shard_path(self._directory, number)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = HEADER_BYTES + rows * self._layout.record.itemsize if rows else 0
        if os.fstat(self._fd).st_size != end:
            os.ftruncate(self._fd, end)  # half a record of a writer that died
        return rows

    def close(self) -> None:
        """Let go of the shard."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def sync(directory: Path, layout: Layout, first: int, end: int) -> None:
    """Make the rows from `first` up to `end`, and the names of their shards, durable."""
    for number in range(first // layout.rows_per_shard, -(-end // layout.rows_per_shard)):
        fd = os.open(shard_path(directory, number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    fsync_dir(directory)


class Mapped(NamedTuple):
    """A shard in memory, and the file that it was: number and bytes."""

    inode: int
    size: int
    records: Records


def read_rows(
    directory: Path, layout: Layout, rows: npt.NDArray[np.int64], mapped: dict[int, Mapped] | None = None
) -> Records:
    """Return the records with these numbers, in this order; DescriptorError if a shard is gone or too short.

    `mapped`: shards that stay mapped for the next call. Where each call maps them anew, rows of 512 numbers take eight
    times as long, in page faults (measured).
    """
    kept = {} if mapped is None else mapped
    shard_of, within = np.divmod(rows, layout.rows_per_shard)
    numbers = set(shard_of.tolist())
    if len(numbers) == 1:
        return _read(directory, layout, numbers.pop(), within, kept)
    found = np.empty(len(rows), layout.record)
    for number in numbers:
        chosen = np.flatnonzero(shard_of == number)
        found[chosen] = _read(directory, layout, number, within[chosen], kept)
    return found


def _read(
    directory: Path, layout: Layout, number: int, within: npt.NDArray[np.int64], mapped: dict[int, Mapped]
) -> Records:
    path = shard_path(directory, number)
    try:
        stat = os.stat(path)
        there = mapped.get(number)
        if there is None or there[:2] != (stat.st_ino, stat.st_size):
            count = (stat.st_size - HEADER_BYTES) // layout.record.itemsize
            records = np.memmap(path, layout.record, "r", HEADER_BYTES, (count,)).view(np.ndarray)
            there = mapped[number] = Mapped(stat.st_ino, stat.st_size, records)
        return there.records[within]
    except (FileNotFoundError, ValueError, IndexError) as error:
        raise DescriptorError(
            "a shard of the descriptor store is gone or too short",
            file=path,
            next_step="remove the store's directory for this key: its descriptors are computed anew",
        ) from error
