"""The parts of a PMTiles v3 archive as bytes: header and directories, written and parsed.

https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md
"""

from __future__ import annotations

import struct
import zlib
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"PMTiles"
HEADER = struct.Struct("<7sB8Q3Q6B4iB2i")
ROOT_END = 16_384
"""The root directory must end within this many bytes of the file's start."""
NO_COMPRESSION, GZIP = 1, 2


class Header(NamedTuple):
    """The fixed part of an archive, in the order of the file."""

    magic: bytes
    version: int
    root_offset: int
    root_length: int
    metadata_offset: int
    metadata_length: int
    leaf_offset: int
    leaf_length: int
    data_offset: int
    data_length: int
    addressed_tiles: int
    tile_entries: int
    tile_contents: int
    clustered: int
    internal_compression: int
    tile_compression: int
    tile_type: int
    min_zoom: int
    max_zoom: int
    min_lon_e7: int
    min_lat_e7: int
    max_lon_e7: int
    max_lat_e7: int
    center_zoom: int
    center_lon_e7: int
    center_lat_e7: int


class Directory(NamedTuple):
    """Entries as columns: first tile id, how many tiles share the bytes (0: a leaf directory), length, offset."""

    ids: array[int]
    runs: array[int]
    lengths: array[int]
    offsets: array[int]


def parse_directory(data: bytes) -> Directory:
    """Return the entries of a serialised directory. ValueError if it is damaged."""
    import numpy as np

    numbers = _varints(data)
    count = int(numbers[0])
    if len(numbers) < 1 + 4 * count:
        raise ValueError("fewer numbers than entries")
    deltas, runs, lengths, given = numbers[1 : 1 + 4 * count].reshape(4, count)
    if count and (not deltas[1:].all() or max(runs.max(), given.max()) > MOST or lengths.max() > MOST_LENGTH):
        raise ValueError("a tile id is there twice, or a number is larger than any file")
    ids = np.cumsum(deltas)
    if (ids[1:] < ids[:-1]).any():
        raise ValueError("a tile id is longer than 64 bits")
    before = np.cumsum(lengths) - lengths  # where an entry without an offset of its own begins: behind the one before
    last = np.maximum.accumulate(np.where(given > 0, np.arange(count), 0))
    offsets = given[last] - 1 + before - before[last]
    if count and not given[0]:
        raise ValueError("the first entry has no offset")
    return Directory(*(array("Q", column.astype(np.uint64).tobytes()) for column in (ids, runs, lengths, offsets)))


MOST, MOST_LENGTH = 1 << 48, 1 << 40
"""No offset or run, and no length, is larger: the sum of a directory's lengths stays within 64 bits."""


def _varints(data: bytes) -> NDArray[np.uint64]:
    """Return the numbers of a directory, uint64, without one that is cut off. ValueError if one is too long."""
    import numpy as np

    digits = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(digits < 0x80)
    if not len(ends):
        raise ValueError("it holds no number")
    digits = digits[: ends[-1] + 1]
    starts = np.concatenate(([0], ends[:-1] + 1))
    places = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 8:
        raise ValueError("a number is longer than 63 bits")
    return np.add.reduceat((digits & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64), starts)


def serialise_directory(ids: list[int], runs: list[int], lengths: list[int], offsets: list[int]) -> bytes:
    """Return a directory as the specification writes it, in a gzip envelope; the inverse of `parse_directory`."""
    out = bytearray()
    _varint(out, len(ids))
    last = 0
    for tileid in ids:
        _varint(out, tileid - last)
        last = tileid
    for number in runs + lengths:
        _varint(out, number)
    expected = -1
    for offset, length in zip(offsets, lengths, strict=True):
        _varint(out, 0 if offset == expected else offset + 1)
        expected = offset + length
    return gzip_stored(bytes(out))


def gzip_stored(data: bytes) -> bytes:
    """Return `data` as a gzip member of stored blocks (RFC 1951, 3.2.4), the same on every host."""
    blocks = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)] or [b""]
    out = bytearray(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    for n, block in enumerate(blocks, 1):
        out += struct.pack("<BHH", n == len(blocks), len(block), len(block) ^ 0xFFFF) + block
    return bytes(out) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def _varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
