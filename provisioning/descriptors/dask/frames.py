"""What crosses from the process that talks to a cluster to the one that can sign: JSON heads and plain bytes.

    4 bytes, big-endian: length of the head    head: one JSON object    payload: as many bytes as the head's shape says

Nothing is unpickled on that way. Whatever a worker or a scheduler puts into an answer, here it is text and numbers.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from provisioning.base.errors import DescriptorError

HEAD_BYTES = 16 << 20
Floats = npt.NDArray[np.float32]


def write_frame(stream: IO[bytes], head: dict[str, Any], payload: bytes = b"") -> None:
    """Write one frame."""
    text = json.dumps(head).encode()
    stream.write(struct.pack(">I", len(text)) + text + payload)
    stream.flush()


class FrameReader:
    """Reads frames from a descriptor; nobody waits for longer than `silence_s`."""

    def __init__(self, fd: int, silence_s: float) -> None:
        self._fd, self._silence_s = fd, silence_s

    def head(self) -> dict[str, Any]:
        """Return the next head; DescriptorError if none comes, or something else."""
        (length,) = struct.unpack(">I", self.exactly(4))
        if length > HEAD_BYTES:
            raise foreign("a head of 16 MiB or more")
        try:
            head = json.loads(self.exactly(length))
        except (ValueError, RecursionError) as error:
            raise foreign("a head that is no JSON") from error
        if not isinstance(head, dict):
            raise foreign("a head that is no object")
        return head

    def floats(self, rows: int, dimension: int) -> Floats:
        """Return a payload float32 [rows, dimension]."""
        vectors: Floats = np.frombuffer(self.exactly(4 * rows * dimension), "<f4").reshape(rows, dimension).copy()
        return vectors

    def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes; DescriptorError at the end of the stream or after `silence_s` of silence."""
        data, end = bytearray(), time.monotonic() + self._silence_s
        while len(data) < count:
            if not select.select([self._fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise foreign("nothing for too long")
            piece = os.read(self._fd, min(1 << 20, count - len(data)))
            if not piece:
                raise foreign("the end of its answers")
            data += piece
            end = time.monotonic() + self._silence_s
        return bytes(data)


def foreign(what: str) -> DescriptorError:
    """Return the error for a frame that none of ours would send."""
    return DescriptorError(
        f"the process that talks to the dask cluster sent {what}",
        key="descriptors.scheduler",
        next_step="see the logs of scheduler and workers; finished descriptors are kept, run doit again",
    )
