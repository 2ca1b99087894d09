"""The pipes to and from a command that reaches a vehicle, with an end to patience: a silent vehicle is an error."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from typing import IO

from provisioning.base.errors import DeliveryError

PATIENCE_S = 600.0
"""Longest time in which nothing goes over, second: a vehicle hashes what it holds first, 60 GB at 100 MB/s."""

_READ_BYTES = 1 << 16


class Pipes:
    """Both ends as files, by `write`, `readline` and `flush`; each waits at most `patience_s` for the other side."""

    def __init__(self, outgoing: IO[bytes], incoming: IO[bytes], *, patience_s: float) -> None:
        self._out, self._in, self._patience_s = outgoing.fileno(), incoming.fileno(), patience_s
        self._read = bytearray()
        os.set_blocking(self._out, False)

    def write(self, data: bytes) -> int:
        """Write all of `data`; BrokenPipeError if the command is gone, DeliveryError if it takes nothing."""
        rest = memoryview(data)
        while rest:
            self._wait("takes", writing=True)
            rest = rest[self._write_some(rest) :]
        return len(data)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._out, data)
        except BlockingIOError:
            return 0

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Write each part."""
        for part in parts:
            self.write(part)

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""

    def readline(self, limit: int) -> bytes:
        """Return the next line, at most `limit` bytes of it; what there is if the command ends before."""
        while (end := self._read.find(b"\n") + 1) == 0 and len(self._read) < limit:
            self._wait("says", writing=False)
            if not (data := os.read(self._in, _READ_BYTES)):
                break
            self._read += data
        taken = min(end or len(self._read), limit)
        line = bytes(self._read[:taken])
        del self._read[:taken]
        return line

    def _wait(self, what: str, *, writing: bool) -> None:
        poll = select.poll()
        poll.register(self._out if writing else self._in, select.POLLOUT if writing else select.POLLIN)
        if not poll.poll(self._patience_s * 1000):
            raise SilentError(
                f"the vehicle {what} nothing",
                facts={"waited": f"{self._patience_s:g} s"},
                next_step="see that it is on and reachable, then run the same again: it goes on where it was",
            )


class SilentError(DeliveryError):
    """The other side neither takes nor says anything."""
