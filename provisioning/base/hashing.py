"""SHA-256 of bytes and files, and the digest of a set of facts that keys an artefact."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from decimal import Decimal
from pathlib import Path
from typing import NewType

from provisioning.base.disk.files import open_regular
from provisioning.base.disk.jsonfile import to_json

Sha256 = NewType("Sha256", str)
"""64 lower-case hex digits."""

CHUNK_BYTES = 1 << 20

on_hashed: ContextVar[Callable[[int, int], None] | None] = ContextVar("on_hashed", default=None)
"""Called with bytes done and bytes in all while a whole cache is hashed; None: nobody waits for it."""

SHOWN = 16
"""Digits of a digest that people are shown; JSON has all 64."""


def short(digest: str) -> str:
    """Return the first digits of a digest, for people."""
    return digest[:SHOWN]


def sha256_bytes(data: bytes | bytearray | memoryview) -> Sha256:
    """Return the SHA-256 of `data`."""
    return Sha256(hashlib.sha256(data).hexdigest())


def sha256_fd(fd: int) -> Sha256:
    """Return the SHA-256 of the open file `fd` from its start, in constant memory and without moving its offset."""
    digest, view, offset = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES)), 0
    while count := os.preadv(fd, [view], offset):
        digest.update(view[:count])
        offset += count
    return Sha256(digest.hexdigest())


def sha256_file(path: Path | str) -> Sha256:
    """Return the SHA-256 of the file at `path`; OSError passes through."""
    with open_regular(path) as file:
        return sha256_fd(file.fileno())


Fact = str | int | bool | None | Decimal | Path | Iterable["Fact"] | Mapping[str, "Fact"]


def plain(fact: Fact) -> object:
    """Return `fact` as JSON can hold it, decimals without trailing zeros; TypeError for what has no canonical text."""
    if fact is None or isinstance(fact, (str, bool, int)):
        return fact
    if isinstance(fact, Decimal):
        return f"{fact.normalize():f}"
    if isinstance(fact, Path):
        return fact.as_posix()
    if isinstance(fact, Mapping):
        return {str(name): plain(value) for name, value in fact.items()}
    if isinstance(fact, (bytes, float, set, frozenset)):
        raise TypeError(f"{type(fact).__name__} has no canonical text: {fact!r}")
    return [plain(value) for value in fact]


def digest_of(facts: Mapping[str, Fact]) -> Sha256:
    """Return the digest of `facts`: SHA-256 of their JSON with sorted keys, in ASCII, without spaces.

    Floats and sets raise TypeError: their text depends on who prints them.
    """
    return sha256_bytes(to_json(plain(facts), ascii_only=True))
