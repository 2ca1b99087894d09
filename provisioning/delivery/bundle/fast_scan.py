"""Rows of FAISS's fast scan (kind hrq), each in one piece, so that a delta sees which of them are old.

FAISS keeps them in blocks of 32: four bits of a row beside the same four of another, 16 bytes for each four bits; then
what else it knows of each row. A new row moves all later ones to other bits of other bytes. Here the whole blocks of a
stretch are written row by row instead, in as many bytes, and back: a permutation of bits, which fits any bytes, so what
it is applied to need not be believed. It needs no FAISS and no NumPy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

ROWS = 32
"""Rows in a block."""

_MOST_BLOCK_BYTES = 1 << 16
_LEAST_ROW_BYTES = 16  # shorter ones cost a receiver more time than they save
_PART_BYTES = 1 << 19
_SEARCH_BYTES = 64 << 20  # what stands before the rows: transforms
_NAME = b"Irfn"
_BEFORE = struct.Struct("<4xiq")  # of all that FAISS writes before the rows: components and rows,
_CENTRE = 73  # where the centre begins, of as many floats,
_AFTER = struct.Struct("<xi4Q")  # and, behind it: rows in a block, rows in all blocks, M, bytes of a row, bytes of all
_PLACES = [place for row in range(8) for place in (row, row + 8)]  # which of 16 rows has which of 16 bytes
_ORDER = [_PLACES.index(row) for row in range(16)]


class Blocks(NamedTuple):
    """Where in a file the blocks are, how many, and how long: each row has `fours` times four bits and `more` bytes."""

    offset: int
    blocks: int
    fours: int
    more: int

    @property
    def size(self) -> int:
        """Bytes in a block."""
        return 16 * self.fours + ROWS * self.more

    def fit(self, size: int) -> bool:
        """Return whether they are within a file of `size` bytes, and of a size that is worth it and bounded."""
        return (
            self.fours % 2 == 0
            and ROWS * _LEAST_ROW_BYTES <= self.size <= _MOST_BLOCK_BYTES
            and self.offset + self.blocks * self.size <= size
        )

    def by_rows(self, data: bytes, start: int) -> bytes:
        """Return the bytes of a file from `start` on with every block that is whole in them row by row."""
        return self._each(data, start, self._rows)

    def by_blocks(self, data: bytes, start: int) -> bytes:
        """Return what `by_rows` was given."""
        return self._each(data, start, self._packed)

    def streamed(self, pieces: Iterable[bytes], start: int, end: int) -> Iterator[bytes]:
        """Yield what `by_blocks` gives of the bytes from `start` to `end`, as they come; less than a block is held."""
        held = b""
        for piece in pieces:
            held += piece
            block = self._block(start + len(held))
            whole = max(start, self.offset) <= block and block + self.size <= min(end, self._end)
            ready = block - start if whole else len(held)
            if ready:
                yield self.by_blocks(held[:ready], start)
            held, start = held[ready:], start + ready

    @property
    def _end(self) -> int:
        return self.offset + self.blocks * self.size

    def _block(self, position: int) -> int:
        return position - (position - self.offset) % self.size

    def _each(self, data: bytes, start: int, change: Callable[[bytes], bytes]) -> bytes:
        first = self._block(max(start, self.offset) + self.size - 1) - start
        last = self._block(min(start + len(data), self._end)) - start
        if last <= first:
            return data
        step = max(1, _PART_BYTES // self.size) * self.size
        parts = [change(data[at : min(at + step, last)]) for at in range(first, last, step)]
        return b"".join([data[:first], *parts, data[last:]])

    def _rows(self, data: bytes) -> bytes:
        bits, half, more = 16 * self.fours, self.fours // 2, self.more
        starts = range(0, len(data), self.size)
        codes = b"".join([data[at : at + bits] for at in starts])
        value, low, high = _number(codes)
        lower = ((value & low) | (value >> 128 & low) << 4).to_bytes(len(codes), "little")
        upper = ((value >> 4 & low) | (value >> 128 & high)).to_bytes(len(codes), "little")
        columns = [each[place::32] for each in (lower, upper) for place in _ORDER]
        return b"".join(
            [
                part
                for number, at in enumerate(starts)
                for row, column in enumerate(columns)
                for part in (
                    column[number * half : (number + 1) * half],
                    data[at + bits + row * more : at + bits + (row + 1) * more],
                )
            ]
        )

    def _packed(self, data: bytes) -> bytes:
        bits, half, row_bytes = 16 * self.fours, self.fours // 2, self.fours // 2 + self.more
        count = len(data) // self.size
        lower, upper = bytearray(count * bits), bytearray(count * bits)
        for row in range(ROWS):
            column = b"".join([data[at : at + half] for at in range(row * row_bytes, len(data), self.size)])
            (upper if row >= 16 else lower)[_ORDER[row % 16] :: 32] = column
        (one, low, high), (other, *_) = _number(lower), _number(upper)
        value = (one & low) | (other & low) << 4 | ((one >> 4 & low) | (other & high)) << 128
        codes = value.to_bytes(count * bits, "little")
        parts = []
        for number in range(count):
            parts.append(codes[number * bits : (number + 1) * bits])
            begin = number * self.size + half
            parts += [data[at : at + self.more] for at in range(begin, begin + ROWS * row_bytes, row_bytes)]
        return b"".join(parts)


def _number(data: bytes | bytearray) -> tuple[int, int, int]:
    """Return bytes as a number, and the lower and upper four bits of each."""
    low = int.from_bytes(b"\x0f" * len(data), "little")
    return int.from_bytes(data, "little"), low, low << 4


def blocks_in(read: Callable[[int, int], bytes], size: int) -> Blocks | None:
    """Return where the blocks of an index are, of which `read` gives bytes by offset and length; None for another file.

    What is mistaken for one costs bytes on the link and nothing else.
    """
    if size < _AFTER.size or read(0, 4) not in (b"IxM2", b"IxPT"):
        return None
    for start in range(0, min(size, _SEARCH_BYTES), 1 << 20):
        part = read(start, min((1 << 20) + len(_NAME) - 1, size - start))
        at = part.find(_NAME)
        while at >= 0:
            if (found := _blocks_at(read, size, start + at)) is not None:
                return found
            at = part.find(_NAME, at + 1)
    return None


def _blocks_at(read: Callable[[int, int], bytes], size: int, at: int) -> Blocks | None:
    if at + _BEFORE.size > size:
        return None
    components, rows = _BEFORE.unpack(read(at, _BEFORE.size))
    after = at + _CENTRE + 4 * components
    if components < 1 or rows < 1 or after + _AFTER.size > size:
        return None
    in_block, in_all, fours, _, all_bytes = _AFTER.unpack(read(after, _AFTER.size))
    blocks = -(-rows // ROWS)
    if in_block != ROWS or in_all != blocks * ROWS or all_bytes % in_all or all_bytes < 16 * fours * blocks:
        return None
    found = Blocks(after + _AFTER.size, blocks, fours, (all_bytes // blocks - 16 * fours) // ROWS)
    return found if found.size * blocks == all_bytes and found.fit(size) else None
