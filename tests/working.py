"""What the processes of `tests/test_workers.py` run."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from pathlib import Path

from provisioning.base.errors import ConfigError, TileError


def make(*, fails: str = ""):
    """Return the Handler: an item is the name of a function here, and its arguments."""
    if fails:
        raise TileError(fails)
    return handle


def prepare():
    prepared_by.append(os.getpid())


def prepared(room):
    return b"in the server" if prepared_by == [os.getppid()] else b"elsewhere"


prepared_by = []
make.prepare = prepare


def make_confined(fails: str):
    raise TileError(fails)


def handle(item, room):
    name, *arguments = item
    return globals()[name](room, *arguments)


def pid(room):
    return str(os.getpid()).encode()


def fill(room, value):
    room[:] = bytes([value]) * len(room)
    return b"filled"


def refuse(room, what):
    raise TileError(what, file="a.png", key="k", facts={"fact": 1}, next_step="step")


def refuse_otherwise(room):
    raise ConfigError("x")


def loop(room):
    while True:
        pass


def sleep(room, seconds):
    began = time.monotonic()
    time.sleep(seconds)
    return f"{began} {time.monotonic()}".encode()


def once(room, marker, how):
    """Do `how` the first time, and answer the second time; the marker is outside, where nobody else may write."""
    if not Path(marker).exists():
        Path(marker).touch()
        globals()[how](room)
    return b"second time"


def die(room, signal_number):
    os.kill(os.getpid(), signal_number)
    time.sleep(10)


def crash(room):
    die(room, signal.SIGSEGV)


def leave(room):
    os._exit(3)


def bug(room):
    return 1 / 0


def eat(room, size):
    bytearray(size)
    return b"eaten"


def fail(room, number):
    raise OSError(number, os.strerror(number))


def opens(room, path):
    try:
        with open(path, "rb") as file:
            return file.read(20)
    except OSError as error:
        return type(error).__name__.encode()


def writes(room, path):
    try:
        Path(path).write_bytes(b"x")
    except OSError as error:
        return type(error).__name__.encode()
    return b"written"


def connects(room, port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return b"connected"
    except OSError as error:
        return type(error).__name__.encode()


def sees(room, name):
    return os.environ.get(name, "nothing").encode()


def peeks(room, process):
    """Try to read the memory of another process, in which this one has seen an address that any process has."""
    libc = ctypes.CDLL(None, use_errno=True)
    return b"attached" if libc.ptrace(16, process, None, None) == 0 else os.strerror(ctypes.get_errno()).encode()


def large(room, size):
    return b"x" * size


def shrink(room):
    """Make the shared memory smaller: the trick that has a reader killed by SIGBUS."""
    return " ".join(filter(None, map(_truncated, os.listdir("/proc/self/fd")))).encode()


def _truncated(fd):
    try:
        if "memfd" not in os.readlink(f"/proc/self/fd/{fd}"):
            return ""
        os.ftruncate(int(fd), 0)
    except PermissionError:
        return "refused"
    except OSError:  # the handle of the listing itself
        return ""
    return "shrunk"


def forge(room, data):
    """Answer in the form of nothing."""
    import gc

    for each in gc.get_objects():
        if isinstance(each, socket.socket) and each.fileno() >= 0:
            each.send(data)
    time.sleep(10)


def has_in_memory(room, reversed_bytes):
    """Tell whether these bytes, given backwards, are anywhere in memory; it is read backwards, so as not to find them."""
    found = False
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("r") or "[v" in line:
                continue
            start, end = (int(side, 16) for side in span.split("-"))
            try:
                memory.seek(start)
                found |= reversed_bytes in memory.read(end - start)[::-1]
            except (OSError, MemoryError, OverflowError):
                continue
    return str(found).encode()


KEPT = "SENTINEL of working.py"


class NoMemory:
    """Nothing that a process has memory to receive."""

    def __reduce__(self):
        return no_memory, ()


def no_memory():
    raise MemoryError
