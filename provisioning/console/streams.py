"""Standard output in any locale: what its encoding lacks is written in ASCII, never a reason to fail."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
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


def drop_output() -> None:
    """Let what is still to be written to standard output go nowhere: its reader has left, or its disk is full.

    Without this the interpreter writes it again as it ends, and fails with a traceback and exit code 120.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text), error.end
