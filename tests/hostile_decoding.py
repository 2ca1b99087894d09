"""A decoder with bugs, as the target of the processes that decode: certain tiles make it loop, crash or eat."""

from __future__ import annotations

import os
import signal

from provisioning.sources.processes.decoding import Decoding
from provisioning.sources.tile_file import read_file

LOOPS, CRASHES, KILLED, EATS, LEAVES = (
    b"<%s>" % name for name in (b"loops", b"crashes", b"killed", b"eats", b"leaves")
)


def misbehave(data):
    """Do what the last bytes of a tile say."""
    if data.endswith(LOOPS):
        while True:
            pass
    if data.endswith(CRASHES):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.endswith(KILLED):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.endswith(EATS):
        bytearray(8 << 30)
    if data.endswith(LEAVES):
        os._exit(0)


class HostileDecoding(Decoding):
    """The decoder of the build; what a tile's last bytes say happens while it is decoded."""

    def __call__(self, asked, room):
        data = read_file(asked.given[0]) if isinstance(asked.given[0], str) else asked.given[0] or b""
        misbehave(data)
        return super().__call__(asked, room)
