"""Text for a terminal or a log: names and messages of others must not steer the one or fake a line of the other."""

from __future__ import annotations

import re
from functools import cache

_STEERING = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
"""C0, DEL, C1, line separators, marks that turn the direction of text, and surrogates, which have no UTF-8.

By ranges and not by `str.isprintable`, which depends on the Unicode release that a Python knows. The same ranges are in
docs/manifest.md, section 2.2 (*text*), and in the C++ reader.
"""


@cache
def _steering() -> re.Pattern[str]:
    """Return the pattern compiled, which a build with nothing to do does not need: it takes 0.6 ms."""
    return re.compile(_STEERING)


@cache
def _steering_in_lines() -> re.Pattern[str]:
    return re.compile(_STEERING.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def _is_plain(text: str) -> bool:
    """Return whether `text` is printable Latin-1, which is the same in every Unicode release."""
    return text.isprintable() and (text.isascii() or max(text) <= "\xff")


def printable(text: object) -> str:
    """Return `text` with each character that steers a terminal as its escape in ASCII, a newline too; else as it is."""
    shown = str(text)
    return shown if _is_plain(shown) else _steering().sub(_escape, shown)


def printable_lines(text: str) -> str:
    """Return `text` like `printable`, but with its line breaks, behind each of which at least four spaces stand.

    So no line of it can be taken for one of ours, which begin at the left or with two spaces.
    """
    first, *more = _steering_in_lines().sub(_escape, text).split("\n")
    return "\n".join([first, *(line if line.startswith("    ") else "    " + line for line in more)])


def is_word(text: str) -> bool:
    """Return whether `text` is printable ASCII without spaces, and something."""
    return text != "" and text.isascii() and text.isprintable() and " " not in text


def steers(text: str) -> bool:
    """Return whether `text` has a character that steers a terminal; a Manifest holds no such text."""
    return not _is_plain(text) and _steering().search(text) is not None


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
