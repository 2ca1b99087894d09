"""The archive of a bundle: a tar file with exactly one form.

Every header follows from a name and a size: regular file, mode 0644, owner 0, time 0 (POSIX ustar; sizes of 8 GiB and
more in GNU's base-256). So the same files give the same bytes, and a reader accepts a header only if it is the one it
would have written: links, devices, sparse files and other people's extensions have no form here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from provisioning.base.errors import DeliveryError

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)
COPY_BYTES = 1 << 20
_OCTAL_SIZE_LIMIT = 8**11
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a FIFO",
}


class Member(NamedTuple):
    """One file of an archive: its POSIX path relative to the generation, and its size."""

    name: str
    bytes: int


class Readable(Protocol):
    """Anything with the `read` of a binary file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


def padding(size: int) -> int:
    """Return how many zero bytes follow a member of `size` bytes."""
    return -size % BLOCK_BYTES


def header(member: Member) -> bytes:
    """Return the one header of `member`; DeliveryError if its name does not fit ustar."""
    prefix, name = _split(member.name)
    size = b"%011o\0" % member.bytes if member.bytes < _OCTAL_SIZE_LIMIT else b"\x80" + member.bytes.to_bytes(11, "big")
    block = bytearray(BLOCK_BYTES)
    fields = {
        0: name,
        100: b"0000644\0",
        108: b"0000000\0",
        116: b"0000000\0",
        124: size,
        136: b"00000000000\0",
        148: b" " * 8,
        156: b"0",
        257: b"ustar\x0000",
        345: prefix,
    }
    for offset, value in fields.items():
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _split(name: str) -> tuple[bytes, bytes]:
    """Return ustar's prefix and name of a path: 155 and 100 bytes, parted at a slash."""
    raw = name.encode("ascii")
    if len(raw) <= 100:
        return b"", raw
    at = raw.rfind(b"/", 0, 156)
    if at < 0 or len(raw) - at - 1 > 100:
        raise DeliveryError("a file name is too long for a bundle", file=name, next_step="give the file a shorter name")
    return raw[:at], raw[at + 1 :]


def parse_header(block: bytes) -> Member:
    """Return the member whose header `block` is; DeliveryError says what else it is. Inverse of `header`."""
    if len(block) < BLOCK_BYTES:
        raise DeliveryError("the bundle is truncated inside a header")
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "surrogateescape")
    except tarfile.HeaderError as error:
        raise DeliveryError(f"the bundle has a damaged header: {error}") from error
    name = repr(info.name)[1:-1]
    if block[156:157] in _KINDS:
        raise DeliveryError(f"the bundle holds {_KINDS[block[156:157]]}; only regular files are carried", file=name)
    reason = unsafe_name(info.name)
    if reason:
        raise DeliveryError(f"the bundle holds an unsafe name: {reason}", file=name)
    member = Member(info.name, info.size)
    if info.size < 0 or header(member) != block:
        raise DeliveryError("the bundle holds a header that flightcache does not write", file=name)
    return member


def unsafe_name(name: str) -> str | None:
    """Return why `name` must not be created below a directory, or None."""
    if not name or name.startswith("/"):
        return "absolute or empty"
    if not (name.isascii() and name.isprintable()) or "\\" in name or " " in name:
        return "characters other than printable ASCII, a space or a backslash"
    if any(part in {"", ".", ".."} for part in name.split("/")):
        return "'.', '..' or an empty part"
    return None


def read_exactly(stream: Readable, size: int, *, what: str) -> bytes:
    """Return `size` bytes of `stream`; DeliveryError if it ends before."""
    parts: list[bytes] = []
    while size:
        part = stream.read(min(size, COPY_BYTES))
        if not part:
            raise DeliveryError(f"the bundle is truncated inside {what}", next_step="copy the bundle again")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_body(stream: Readable, member: Member) -> Iterator[bytes]:
    """Yield the bytes of `member` in pieces and consume its padding, which must be zero."""
    left = member.bytes
    while left:
        piece = stream.read(min(left, COPY_BYTES))
        if not piece:
            raise DeliveryError(
                "the bundle is truncated inside a file", file=member.name, next_step="copy the bundle again"
            )
        left -= len(piece)
        yield piece
    if any(read_exactly(stream, padding(member.bytes), what="padding")):
        raise DeliveryError("the bundle hides bytes behind a file", file=member.name)


def read_end(stream: Readable) -> None:
    """Consume the end of the archive; DeliveryError if there is none, or anything behind it."""
    if read_exactly(stream, len(END), what="its end") != END:
        raise DeliveryError("the bundle holds more files than its Manifest lists")
    if stream.read(1):
        raise DeliveryError("the bundle goes on behind its end")
