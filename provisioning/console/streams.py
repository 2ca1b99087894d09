"""Standard output in any locale: what its encoding lacks is written in ASCII, never a reason to fail."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

HANDLER = "flightcache.ascii"
KEEPING_BYTES = "flightcache.bytes"
"""For the streams of the C locale, which give back the bytes of a file name as they are."""
_ASCII = {"−": "-", "–": "-", "×": "x", "…": "...", "→": "->", "·": ".", "≥": ">=", "≤": "<=", "°": " deg"}
"""Signs of ours that an encoding may lack. File names and texts of users are written as escapes."""


def write_any_character() -> None:
    """Let standard output and standard error take every character, in whatever encoding the locale asks for.

    A Turkish ISO-8859-9 has no `−`, and no encoding has the surrogates of a file name that is not UTF-8.
    """
    codecs.register_error(HANDLER, _in_ascii)
    codecs.register_error(KEEPING_BYTES, _in_bytes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=HANDLER)
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "surrogateescape":
            stream.reconfigure(errors=KEEPING_BYTES)


def open_missing() -> None:
    """Open /dev/null in place of standard streams that are closed (`doit >&-`).

    Else the next file that is opened gets the number of one of them, and what a library prints is written into it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:  # noqa: PERF203 - three of them
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open as long as the process
    atexit.register(_drop_messages)


class OutputError(Exception):
    """Standard output cannot be written. `reader_left`: it is a pipe that nobody reads (`| head -1`), no fault at all.

    No OSError: what is wrong with the output is not to be reported as an error of the files that a command is about.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.reader_left = isinstance(error, BrokenPipeError)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Write what the block prints to standard output, all of it. OutputError where that fails; other errors pass."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if (refused := _output_fails()) is None:
            raise
        _drop_output()
        raise OutputError(refused) from error


def _output_fails() -> OSError | None:
    """Return why standard output cannot be written (its disk is full), None where it can."""
    try:
        print(flush=True)  # what failed to be written before is not tried again by a flush
    except OSError as error:
        return error
    except ValueError:  # it is closed
        pass
    return None


def _drop_output() -> None:
    """Let what is still to be written to standard output go nowhere: its reader has left, or its disk is full.

    Without this the interpreter writes it again as it ends, and fails with a traceback and exit code 120.
    """
    _to_nowhere(sys.stdout)


def _drop_messages() -> None:
    """Let messages that standard error cannot take go nowhere: they do not decide how the command ended."""
    try:
        sys.stderr.flush()
    except OSError:
        _to_nowhere(sys.stderr)
    except (ValueError, AttributeError):  # it is closed
        pass


def _to_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text), error.end


def _in_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError):
        with contextlib.suppress(UnicodeEncodeError):
            first = error.object[error.start]
            return first.encode("ascii", "surrogateescape"), error.start + 1
        one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
        return _in_ascii(one)
    raise error
