"""The parts of a PMTiles v3 archive as bytes: header and directories, written and parsed.

https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator
from typing import NamedTuple

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
    """Return the entries of a serialised directory. IndexError, ValueError or OverflowError if it is damaged."""
    numbers = _varints(data)
    count = next(numbers)
    if count * 4 > len(data):
        raise ValueError("fewer bytes than entries")
    ids, first = array("Q"), 0
    for _ in range(count):
        delta = next(numbers)
        if ids and not delta:
            raise ValueError("a tile id is there twice")
        first += delta
        ids.append(first)
    runs = array("Q", (next(numbers) for _ in range(count)))
    lengths = array("Q", (next(numbers) for _ in range(count)))
    offsets = array("Q")
    for i in range(count):
        offset = next(numbers)
        offsets.append(offset - 1 if offset else offsets[i - 1] + lengths[i - 1] if i else -1)
    return Directory(ids, runs, lengths, offsets)


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while True:
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise ValueError("a number is longer than 64 bits")
        yield value


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
