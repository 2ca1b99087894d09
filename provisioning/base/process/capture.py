"""Asking another program: its answer is read up to a limit of bytes and of time, whatever it sends."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PIECE = 1 << 16
KEPT_ERRORS = 1 << 18
"""Bytes of what a program says on stderr that are kept: the last ones."""


class Answer(NamedTuple):
    """How a program ended, and what it wrote to stdout and (the end of) to stderr."""

    returncode: int
    out: bytes
    err: bytes


def last_lines(text: str, *, most: int = 600) -> str:
    """Return the last whole lines of what a program said, up to `most` characters; the last one in any case."""
    lines = text.strip().splitlines()
    while len(lines) > 1 and sum(map(len, lines)) > most:
        del lines[0]
    return "\n".join(lines)


class AnswerTooLongError(subprocess.SubprocessError):
    """More came on stdout than was asked for; the program was killed."""


def ask(
    command: Sequence[str],
    request: bytes = b"",
    *,
    most_bytes: int,
    within_s: float,
    environment: Mapping[str, str] | None = None,
    cwd: str | None = None,
    log: Path | None = None,
) -> Answer:
    """Run `command` with `request` on stdin and return its answer; `log` gets what it said on stderr, even if it fails.

    Memory held is `most_bytes` and a little. The program and all it started are killed before this returns or raises.
    OSError: it cannot be started. subprocess.TimeoutExpired: it had not ended after `within_s` seconds.
    AnswerTooLongError: it wrote more than `most_bytes` to stdout.
    """
    end, said = time.monotonic() + within_s, bytearray()
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment,
        cwd=cwd,
        bufsize=0,
        start_new_session=True,
    )
    try:
        with child:
            try:
                out = _exchange(child, request, said, most_bytes, end)
                returncode = child.wait(_left(child, end))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # its session is its own: nothing of ours is in that group
    finally:
        if log is not None:
            log.write_bytes(bytes(said))
    return Answer(returncode, bytes(out), bytes(said))


def _exchange(
    child: subprocess.Popen[bytes], request: bytes, said: bytearray, most_bytes: int, end: float
) -> bytearray:
    """Write the request and read both streams until they end; `said` gets stderr."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    out, rest = bytearray(), memoryview(request)
    with selectors.DefaultSelector() as streams:
        for stream, event in ((child.stdin, selectors.EVENT_WRITE), *((s, selectors.EVENT_READ) for s in
                              (child.stdout, child.stderr))):  # fmt: skip
            os.set_blocking(stream.fileno(), False)
            streams.register(stream, event)
        while streams.get_map():
            for key, _ in streams.select(_left(child, end)):
                if key.fileobj is child.stdin:
                    rest = _written(child.stdin.fileno(), rest)
                    ended = not rest
                else:
                    ended = not _read(key.fd, out if key.fileobj is child.stdout else said)
                if ended:
                    streams.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            if len(out) > most_bytes:
                raise AnswerTooLongError(f"more than {most_bytes} bytes were answered")
            del said[:-KEPT_ERRORS]
    return out


def _left(child: subprocess.Popen[bytes], end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise subprocess.TimeoutExpired(child.args, 0)
    return left


def _written(fd: int, data: memoryview) -> memoryview:
    """Return what is left of `data`; nothing where nobody reads."""
    try:
        return data[os.write(fd, data[:PIECE]) :] if data else data
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]


def _read(fd: int, into: bytearray) -> bool:
    piece = os.read(fd, PIECE)
    into += piece
    return bool(piece)
