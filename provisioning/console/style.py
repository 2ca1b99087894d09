"""Whether and how text is coloured: words first, colour only where a terminal shows it or somebody asked for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TextIO

from provisioning.base.printable import printable

When = Literal["auto", "always", "never"]
WHEN: tuple[When, ...] = ("auto", "always", "never")
_when: ContextVar[When] = ContextVar("when", default="auto")

COLOURS = {"good": "32", "warn": "33", "bad": "31"}
"""Marks that have a colour; every other text is plain."""


@contextmanager
def colouring(when: When) -> Iterator[None]:
    """Colour what the block prints: `always`, `never`, or `auto`, where a terminal shows it."""
    before = _when.set(when)
    try:
        yield
    finally:
        _when.reset(before)


def may_colour(stream: TextIO) -> bool:
    """Return whether colour is welcome on `stream`.

    `--color` decides; else a terminal that is not dumb, and NO_COLOR (https://no-color.org) not set.
    """
    if _when.get() != "auto":
        return _when.get() == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(mark: str, text: str, stream: TextIO | None = None) -> str:
    """Return `text` in the colour of `mark`, where `stream` (standard output) may show it."""
    code = COLOURS.get(mark)
    return f"\x1b[{code}m{text}\x1b[0m" if code and may_colour(stream or sys.stdout) else text


def sentence(parts: Iterable[tuple[str, str]], stream: TextIO | None = None) -> str:
    """Return (text, mark) pairs as one sentence, joined by commas; nothing in it can steer a terminal."""
    return ", ".join(painted(mark, printable(text), stream) for text, mark in parts)
