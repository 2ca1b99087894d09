"""Where the rows of FAISS files are, for a sender: what it mistakes for an index costs it bytes and nothing else."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from provisioning.delivery.bundle.rows import ROWS, Where, most_columns

Read = Callable[[int, int], bytes]
"""Gives bytes of a file by offset and length."""

_SEARCH_BYTES = 64 << 20  # what stands before the rows: transforms
_PART_BYTES = 1 << 20
_NAMES = re.compile(b"Irfn|IxSQ|IxFI")
_HEADER = struct.Struct("<4siq21x")  # name, components, rows
_CENTRE = 73  # of a fast scan: where its centre begins, of as many floats as components,
_AFTER = struct.Struct("<xi4Q")  # and, behind it: rows in a block, rows in all blocks, M, bytes of a row, bytes of all
_QUANTISER = struct.Struct("<i16xQQ")  # kind, bytes of a row, numbers of the range: least values, then widths
_EIGHT_BITS = 0


class Found(NamedTuple):
    """Where the rows are, and for each component the range of its codes."""

    where: Where
    ranges: tuple[tuple[bytes, bytes], ...] = ()


def forms_of(ours: Found | None, theirs: Found | None) -> tuple[Where, Where, tuple[int, ...]] | None:
    """Return where the rows of two files are and which columns of them have changed; None for nothing worth saying."""
    if ours is None or theirs is None or bool(ours.where.blocks) != bool(theirs.where.blocks):
        return None
    same = len(ours.ranges) == len(theirs.ranges)
    pairs = enumerate(zip(ours.ranges, theirs.ranges, strict=True)) if same else ()
    columns = tuple(number for number, (one, other) in pairs if one != other)
    if len(columns) > most_columns(ours.where.row_bytes):
        columns = ()
    return (ours.where, theirs.where, columns) if ours.where.blocks or columns else None


def rows_in(read: Read, size: int) -> Found | None:
    """Return where the rows of an index of `size` bytes are; None for another file, or one of another kind."""
    if size < _HEADER.size or read(0, 4) not in (b"IxM2", b"IxPT"):
        return None
    at = _first(read, size)
    scan = _fast_scan(read, size, at)
    codes = _codes(read, size, scan.codes if scan else at)
    if scan is None:
        return codes
    return Found(Where(*scan[:4], *codes.where[4:]), codes.ranges) if codes else Found(scan._replace(codes=0))


def _first(read: Read, size: int) -> int:
    """Return where the first index that holds rows begins; where the file ends if there is none."""
    for begin in range(0, min(size, _SEARCH_BYTES), _PART_BYTES):
        found = _NAMES.search(read(begin, min(_PART_BYTES + 3, size - begin)))
        if found:
            return begin + found.start()
    return size


def _header(read: Read, size: int, at: int, name: bytes) -> tuple[int, int] | None:
    """Return components and rows of the index `name`, if it is at `at`."""
    if at + _HEADER.size > size:
        return None
    found, components, rows = _HEADER.unpack(read(at, _HEADER.size))
    return (components, rows) if found == name and components > 0 and rows > 0 else None


def _fast_scan(read: Read, size: int, at: int) -> Where | None:
    """Return its blocks, and in `codes` where they end."""
    components, rows = _header(read, size, at, b"Irfn") or (0, 0)
    after = at + _CENTRE + 4 * components
    if not components or after + _AFTER.size > size:
        return None
    in_block, in_all, fours, _, all_bytes = _AFTER.unpack(read(after, _AFTER.size))
    blocks, offset = -(-rows // ROWS), after + _AFTER.size
    if in_block != ROWS or in_all != blocks * ROWS or all_bytes % in_all or not 0 < fours <= all_bytes // blocks // 16:
        return None
    where = Where(offset, blocks, fours, (all_bytes // blocks - 16 * fours) // ROWS, offset + all_bytes)
    return where if where.forms((), size) else None


def _codes(read: Read, size: int, at: int) -> Found | None:
    """Return where codes of eight bits are, and their ranges."""
    components, rows = _header(read, size, at, b"IxSQ") or (0, 0)
    after = at + _HEADER.size + _QUANTISER.size
    codes = after + 8 * components + 8
    if not components or codes + rows * components > size:
        return None
    if _QUANTISER.unpack(read(after - _QUANTISER.size, _QUANTISER.size)) != (_EIGHT_BITS, components, 2 * components):
        return None
    data = read(after, 8 * components)
    floats = [data[each : each + 4] for each in range(0, len(data), 4)]
    ranges = tuple(zip(floats[:components], floats[components:], strict=True))
    return Found(Where(codes=codes, rows=rows, row_bytes=components), ranges)
