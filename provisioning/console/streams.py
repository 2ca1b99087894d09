"""Standard output in any locale: what its encoding lacks is written in ASCII, never a reason to fail."""

from __future__ import annotations

import codecs
import io
import sys

HANDLER = "flightcache.ascii"
_ASCII = {"−": "-", "–": "-", "×": "x", "…": "...", "→": "->", "·": ".", "≥": ">=", "≤": "<=", "°": " deg"}
"""Signs of ours that an encoding may lack. File names and texts of users are written as escapes."""


def write_any_character() -> None:
    """Let standard output and standard error take every character, in whatever encoding the locale asks for.

    A Turkish ISO-8859-9 has no `−`, and no encoding has the surrogates of a file name that is not UTF-8.
    """
    codecs.register_error(HANDLER, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=HANDLER)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text), error.end
