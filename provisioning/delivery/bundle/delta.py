"""What changed inside a file, for a receiver that holds an earlier version, the base: `zstd --patch-from` in segments.

    offset in the base (8 bytes), length there (4), length of the frame (4), little-endian; the frame

Each frame gives the next SEGMENT_BYTES of the file, the last one what is left, and may copy from that part of the base.
Where both files are indexes whose rows are better compared in another form (delivery/bundle/rows.py), a head with the
length BY_ROWS and that of what follows comes first; then where the rows are in the file and in the base (offset and
blocks of a fast scan, 8 bytes each, fours and more, 4 each; offset and rows of codes, 8 each, bytes of a row, 4), and
which columns have changed (4 each). What a frame gives and copies from then has the blocks that are whole in it in that
form. A receiver that knows no such head refuses it as too long a part of the base.
So neither end holds more than one part of each, however large the file is, and a delivery goes on at any byte of the
file. A delta is never trusted: every length is bounded before memory is taken, and whoever applies one compares the
SHA-256 of the file with the signed Manifest, as for a file that arrived whole.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from provisioning.base.disk import directories
from provisioning.base.errors import DeliveryError
from provisioning.delivery.bundle.archive import Readable
from provisioning.delivery.bundle.compression import zstd_module
from provisioning.delivery.bundle.contents import Listed
from provisioning.delivery.bundle.indexes import forms_of, rows_in
from provisioning.delivery.bundle.rows import MOST_BYTES, Form, by_rows, parse, streamed, to_bytes

SEGMENT_BYTES = 8 << 20
MARGIN_BYTES = 2 << 20
WINDOW_BYTES = SEGMENT_BYTES + 2 * MARGIN_BYTES
"""Longest part of the base that one segment copies from."""

LEAST_BYTES = 4096
"""Smaller files go whole."""

MOST_GROWTH = 64 + (SEGMENT_BYTES >> 8)
"""By how much a frame may exceed what it holds (zstd's own bound)."""

BY_ROWS = 0xFFFFFFFF
"""In place of a length in the base: not a segment, but where the rows of both files are."""

_HEAD = struct.Struct("<QII")
_READ_BYTES = 1 << 16
_LEAST_WINDOW = 8  # zstd takes no shorter dictionary
_WINDOW_LOG = (SEGMENT_BYTES + WINDOW_BYTES).bit_length()
_ANCHORS = 16
_ANCHOR_BYTES = 64
_LEAST_DIFFERENT = 16  # an anchor of fewer different bytes is found everywhere


class Base(NamedTuple):
    """An earlier version of a file: an open descriptor, its size, and in which forms its rows are read."""

    fd: int
    size: int
    forms: tuple[Form, ...] = ()

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on; DeliveryError if the file has shrunk."""
        parts, at, left = [], offset, size
        while left:
            if not (part := os.pread(self.fd, left, at)):
                raise DeliveryError("an installed file shrank while it was read", next_step="run the same again")
            parts.append(part)
            at, left = at + len(part), left - len(part)
        return by_rows(self.forms, b"".join(parts), offset)


@contextmanager
def opened_base(root: Path, relative: str) -> Iterator[Base]:
    """Open a regular file at the POSIX path `relative` below the cache directory `root`, through no link.

    OSError or FilesystemError for what the system refuses, a link or a mount on the way; DeliveryError for no file.
    """
    parent, _, name = relative.rpartition("/")
    with directories.opened(root, parent) as directory:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise DeliveryError("an installed file is none", file=root / relative)
        yield Base(fd, status.st_size)
    finally:
        os.close(fd)


def most_bytes(size: int) -> int:
    """Return how long a delta that gives `size` bytes can be."""
    return size + -(-size // SEGMENT_BYTES) * (_HEAD.size + MOST_GROWTH) + _HEAD.size + MOST_BYTES


def differences(source: IO[bytes], base: Base, file: Listed, *, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the delta that gives `file`, read from `source`, from `offset` on: bytes of the file, and what to send."""
    forms, base, lead = _by_rows(source, base, file)
    windows, position = _Windows(base), offset
    source.seek(offset)
    while position < file.bytes:
        data = source.read(min(SEGMENT_BYTES, file.bytes - position))
        if not data:
            raise _shrank(file)
        data = by_rows(forms, data, position)
        start, window = windows.around(data, position)
        frame = _packed(data, window)
        yield len(data), lead + _HEAD.pack(start, len(window), len(frame)) + frame
        position, lead = position + len(data), b""


def _by_rows(source: IO[bytes], base: Base, file: Listed) -> tuple[tuple[Form, ...], Base, bytes]:
    """Return the forms of the file, the base in its own, and what says so; nothing of that where it would not help."""

    def read(at: int, size: int) -> bytes:
        source.seek(at)
        if len(data := source.read(size)) < size:
            raise _shrank(file)
        return data

    theirs = rows_in(base.read, base.size)
    said = forms_of(rows_in(read, file.bytes) if theirs else None, theirs)
    if said is None:
        return (), base, b""
    lead = to_bytes(*said)
    forms = _in_forms(lead, base, file)
    return (*forms, _HEAD.pack(0, BY_ROWS, len(lead)) + lead) if forms else ((), base, b"")


def _in_forms(lead: bytes, base: Base, file: Listed) -> tuple[tuple[Form, ...], Base] | None:
    """Return the forms of the file and the base in its own, as a delta says them; None for any that cannot be."""
    if said := parse(lead):
        ours, theirs, columns = said
        forms, of_base = ours.forms(columns, file.bytes), theirs.forms(columns, base.size)
        if forms is not None and of_base is not None:
            return forms, base._replace(forms=of_base)
    return None


def _packed(data: bytes, window: bytes) -> bytes:
    """Return `data` as one frame: fast with long matches; where that leaves much, thoroughly (measured: decision)."""
    frame = _compressed(data, window, level=3, long=True)
    if 0.03 < len(frame) / len(data) < 0.85:
        frame = min(frame, _compressed(data, window, level=12, long=False), key=len)
    return frame


def _compressed(data: bytes, window: bytes, *, level: int, long: bool) -> bytes:
    zstd = zstd_module()
    assert zstd is not None
    parameter = zstd.CompressionParameter
    options = {
        parameter.compression_level: level,
        parameter.window_log: _WINDOW_LOG,
        parameter.enable_long_distance_matching: int(long),
    }
    frame: bytes = zstd.compress(data, options=options, zstd_dict=_prefix(zstd, window))
    return frame


def _prefix(zstd: Any, window: bytes) -> Any:
    return zstd.ZstdDict(window, is_raw=True).as_prefix if window else None


class _Windows:
    """Which part of the base a segment resembles: where the last one did, moved by what was inserted or removed."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._moved = 0
        self._pause = self._wait = 0

    def around(self, data: bytes, position: int) -> tuple[int, bytes]:
        """Return offset and bytes of the part of the base that `data`, at `position` of the new file, comes from."""
        if self._base.size < _LEAST_WINDOW:
            return 0, b""
        anchors = list(_anchors(data))
        start, window = self._part(position, len(data))
        if self._base.size <= WINDOW_BYTES or self._follow(anchors, start - position, window):
            return start, window
        if self._looked_everywhere(anchors, position):
            return self._part(position, len(data))
        return start, window

    def _part(self, position: int, size: int) -> tuple[int, bytes]:
        length = min(size + 2 * MARGIN_BYTES, WINDOW_BYTES, self._base.size)
        if self._base.size <= WINDOW_BYTES:
            length = self._base.size
        start = max(0, min(position + self._moved - MARGIN_BYTES, self._base.size - length))
        return start, self._base.read(start, length)

    def _follow(self, anchors: list[tuple[int, bytes]], shift: int, window: bytes) -> bool:
        """Return whether anything of the segment is in `window`; the last place says where the next one should be."""
        found = [at + shift - where for where, anchor in anchors if (at := window.find(anchor)) >= 0]
        if found:
            self._moved, self._wait = found[-1], 0
        return bool(found)

    def _looked_everywhere(self, anchors: list[tuple[int, bytes]], position: int) -> bool:
        """Search the whole base for one anchor; after each time in vain, twice as many segments go without."""
        if self._pause or not anchors:
            self._pause = max(0, self._pause - 1)
            return False
        where, anchor = anchors[len(anchors) // 2]
        for start in range(0, self._base.size, SEGMENT_BYTES):
            part = self._base.read(start, min(SEGMENT_BYTES + _ANCHOR_BYTES, self._base.size - start))
            if (at := part.find(anchor)) >= 0:
                self._moved, self._wait = start + at - where - position, 0
                return True
        self._wait = self._pause = 2 * self._wait + 1
        return False


def _anchors(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield short pieces of `data`, each with its offset, that are not the same byte over and over."""
    for where in range(0, len(data) - _ANCHOR_BYTES, len(data) // _ANCHORS + 1):
        anchor = data[where : where + _ANCHOR_BYTES]
        if len(set(anchor)) >= _LEAST_DIFFERENT:
            yield where, anchor


class Pieces:
    """What an iterator gives, to be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        rest = self._rest or next(filter(None, self._pieces), b"")
        self._rest = rest[size:]
        return rest[:size]


def rebuilt(stream: Readable, base: Base, file: Listed, *, offset: int = 0) -> Iterator[bytes]:
    """Yield the bytes of `file` from `offset` on, as the delta in `stream` gives them; their SHA-256 is not compared.

    DeliveryError if the stream ends, or asks for more memory, more of the base or more bytes than there can be.
    """
    forms: tuple[Form, ...] = ()
    for start in range(offset, file.bytes, SEGMENT_BYTES):
        end = min(start + SEGMENT_BYTES, file.bytes)
        head = _HEAD.unpack(_exactly(stream, _HEAD.size, file))
        if start == offset and head[1] == BY_ROWS:
            said = _in_forms(_exactly(stream, min(head[2], MOST_BYTES + 1), file), base, file)
            if said is None:
                raise _bad(file, "its rows are where no index has them")
            forms, base = said
            head = _HEAD.unpack(_exactly(stream, _HEAD.size, file))
        yield from streamed(forms, _segment(stream, head, base, file, end - start), start, end)


def _segment(stream: Readable, head: tuple[int, int, int], base: Base, file: Listed, size: int) -> Iterator[bytes]:
    at, length, packed = head
    if length > WINDOW_BYTES or 0 < length < _LEAST_WINDOW or at + length > base.size or packed > size + MOST_GROWTH:
        raise _bad(file, "a segment is larger than any that flightcache writes, or beyond the earlier file")
    zstd = zstd_module()
    assert zstd is not None
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    frame = zstd.ZstdDecompressor(zstd_dict=_prefix(zstd, base.read(at, length)), options=options)
    try:
        while not frame.eof:
            data = _read(stream, min(packed, _READ_BYTES), file) if frame.needs_input else b""
            packed -= len(data)
            piece: bytes = frame.decompress(data, size + 1)
            size -= len(piece)
            if size < 0:
                raise _bad(file, "a segment unpacks to more than it may")
            if piece:
                yield piece
    except zstd.ZstdError as error:
        raise _bad(file, str(error)) from error
    if packed or frame.unused_data or size:
        raise _bad(file, "a segment is shorter than it must be")


def _exactly(stream: Readable, size: int, file: Listed) -> bytes:
    data = b""
    while len(data) < size:
        data += _read(stream, size - len(data), file)
    return data


def _read(stream: Readable, size: int, file: Listed) -> bytes:
    if not size:
        raise _bad(file, "a frame goes on behind its end")
    data = stream.read(size)
    if not data:
        raise DeliveryError(
            "the delivery was cut in the middle of a file",
            file=file.path,
            next_step="run the same command again: it goes on where it was cut",
        )
    return data


def _shrank(file: Listed) -> DeliveryError:
    return DeliveryError("a file shrank while it was sent", file=file.path, next_step="run the same again")


def _bad(file: Listed, detail: str) -> DeliveryError:
    return DeliveryError(
        "the differences of a file cannot be applied",
        file=file.path,
        facts={"detail": detail},
        next_step="send the whole file: `flightcache sync --whole`, or a bundle made without --since",
    )
