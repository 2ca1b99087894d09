"""Rows of an index as a delta compares them: what is alike in the earlier and the later file stands together.

FAISS's fast scan (kind hrq) keeps rows in blocks of 32: four bits of a row beside the same four of another, 16 bytes
for each four bits; then what else it knows of each row. A new row moves all later ones to other bits of other bytes.
And a component whose range has moved (sq8, hrq) changes one byte of every row. So whole blocks are written row by
row, and columns that have changed behind the others of their block. Both are permutations, of bits and of bytes, which
fit any bytes, so what they are applied to need not be believed. They need no FAISS and no NumPy.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

ROWS = 32
"""Rows in a block of the fast scan."""

MOST_COLUMNS = 64
_MOST_BLOCK_BYTES = 1 << 16
_COLUMNS_BYTES = 1 << 17
_LEAST_ROW_BYTES = 16  # shorter ones cost a receiver more time than they save
_PART_BYTES = 1 << 19
_PLACES = [place for row in range(8) for place in (row, row + 8)]  # which of 16 rows has which of 16 bytes
_ORDER = [_PLACES.index(row) for row in range(16)]


@dataclass(frozen=True)
class Form:
    """A permutation of each of so many `blocks` that follow each other in a file from `offset` on."""

    offset: int
    blocks: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes in a block."""

    @abstractmethod
    def fit(self, size: int) -> bool:
        """Return whether the blocks are within a file of `size` bytes, and bounded in what they cost."""

    @abstractmethod
    def _rows(self, data: bytes) -> bytes: ...

    @abstractmethod
    def _packed(self, data: bytes) -> bytes: ...

    def by_rows(self, data: bytes, start: int) -> bytes:
        """Return the bytes of a file from `start` on with every block changed that is whole in them."""
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


@dataclass(frozen=True)
class Blocks(Form):
    """Those of the fast scan: each row has `fours` times four bits and `more` bytes, and comes in one piece."""

    fours: int
    more: int

    @property
    def size(self) -> int:
        """Bytes in a block."""
        return 16 * self.fours + ROWS * self.more

    def fit(self, size: int) -> bool:
        """Return whether they are within the file, and rows neither too short nor too long."""
        return (
            self.fours % 2 == 0
            and ROWS * _LEAST_ROW_BYTES <= self.size <= _MOST_BLOCK_BYTES
            and self.offset + self.blocks * self.size <= size
        )

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


@dataclass(frozen=True)
class Columns(Form):
    """Blocks of rows of `row_bytes`, in which `columns` come last, each in one piece."""

    row_bytes: int
    columns: tuple[int, ...]

    @classmethod
    def of_rows(cls, offset: int, rows: int, row_bytes: int, columns: tuple[int, ...]) -> Columns:
        """Return those of as many whole blocks as `rows` fill."""
        return cls(offset, rows // _rows_in_block(row_bytes), row_bytes, columns)

    @property
    def size(self) -> int:
        """Bytes in a block."""
        return _rows_in_block(self.row_bytes) * self.row_bytes

    def fit(self, size: int) -> bool:
        """Return whether they are within the file, and columns ascending and few."""
        return (
            2 * _LEAST_ROW_BYTES <= self.row_bytes <= _MOST_BLOCK_BYTES
            and len(self.columns) <= most_columns(self.row_bytes)
            and all(a < b for a, b in zip((-1, *self.columns), (*self.columns, self.row_bytes), strict=True))
            and self.offset + self.blocks * self.size <= size
        )

    def _rows(self, data: bytes) -> bytes:
        return b"".join([part for at in range(0, len(data), self.size) for part in self._last(data, at)])

    def _last(self, data: bytes, begin: int) -> Iterator[bytes]:
        end = begin + self.size
        for row in range(begin, end, self.row_bytes):
            at = row
            for column in self.columns:
                yield data[at : row + column]
                at = row + column + 1
            yield data[at : row + self.row_bytes]
        yield from (data[begin + column : end : self.row_bytes] for column in self.columns)

    def _packed(self, data: bytes) -> bytes:
        return b"".join([part for at in range(0, len(data), self.size) for part in self._back(data, at)])

    def _back(self, data: bytes, at: int) -> Iterator[bytes]:
        rows, end = _rows_in_block(self.row_bytes), at + self.size
        columns = [data[end - number * rows : end - (number - 1) * rows] for number in range(len(self.columns), 0, -1)]
        ends = (*self.columns, self.row_bytes)
        lengths = [b - a - 1 for a, b in zip((-1, *ends), ends, strict=False)]
        for row in range(rows):
            for length, column in zip(lengths, columns, strict=False):
                yield data[at : at + length]
                yield column[row : row + 1]
                at += length
            yield data[at : at + lengths[-1]]
            at += lengths[-1]


def most_columns(row_bytes: int) -> int:
    """Return how many columns may have changed: each costs the receiver time."""
    return min(MOST_COLUMNS, row_bytes // 16)


def _rows_in_block(row_bytes: int) -> int:
    return max(1, _COLUMNS_BYTES // max(1, row_bytes))


class Where(NamedTuple):
    """Where in a file the blocks of a fast scan are, and the codes whose columns may have changed; 0 for none."""

    offset: int = 0
    blocks: int = 0
    fours: int = 0
    more: int = 0
    codes: int = 0
    rows: int = 0
    row_bytes: int = 0

    def forms(self, columns: tuple[int, ...], size: int) -> tuple[Form, ...] | None:
        """Return what is done to a file of `size` bytes; None for what cannot be or would cost too much."""
        found: list[Form] = [Blocks(*self[:4])] if self.blocks else []
        found += [Columns.of_rows(*self[4:], columns)] if columns else []
        return tuple(found) if all(form.fit(size) for form in found) else None


_WHERE = struct.Struct("<QQIIQQI")
MOST_BYTES = 2 * _WHERE.size + 4 * MOST_COLUMNS
"""Longest form of what a delta says of both files."""


def to_bytes(ours: Where, theirs: Where, columns: tuple[int, ...]) -> bytes:
    """Return what a delta says of the file, of its base and of the columns in both."""
    return _WHERE.pack(*ours) + _WHERE.pack(*theirs) + struct.pack(f"<{len(columns)}I", *columns)


def parse(data: bytes) -> tuple[Where, Where, tuple[int, ...]] | None:
    """Read it, the inverse of `to_bytes`; None for another length."""
    if not 2 * _WHERE.size <= len(data) <= MOST_BYTES or len(data) % 4:
        return None
    columns = struct.unpack_from(f"<{(len(data) - 2 * _WHERE.size) // 4}I", data, 2 * _WHERE.size)
    return Where(*_WHERE.unpack_from(data)), Where(*_WHERE.unpack_from(data, _WHERE.size)), columns


def by_rows(forms: tuple[Form, ...], data: bytes, start: int) -> bytes:
    """Return the bytes of a file from `start` on in these forms."""
    for form in forms:
        data = form.by_rows(data, start)
    return data


def streamed(forms: tuple[Form, ...], pieces: Iterator[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a file from `start` to `end` as they were, from pieces in these forms."""
    for form in reversed(forms):
        pieces = form.streamed(pieces, start, end)
    return pieces
