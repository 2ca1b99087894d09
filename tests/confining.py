"""What a parser might do while it reads foreign input: functions for `base.process.confined` to call."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np

from provisioning.base import events
from provisioning.base.errors import BackboneError


def add(a, b):
    return a + b


def picture(side):
    return {"side": side}, np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)


def process():
    return os.getpid()


def loops():
    while True:
        pass


def grows():
    kept = []
    while True:
        kept.append(np.empty(1 << 28, np.uint8))  # not touched: address space is what is limited


def breaks():
    os.abort()


def prints():
    print("no answer")
    os.write(1, b"nor this")
    return "answer"


def forges(frame):
    for fd in range(3, 20):
        with contextlib.suppress(OSError):
            os.write(fd, frame)
    os._exit(0)


def refuses(path):
    raise BackboneError(
        "not this one", file=path, key="backbone.onnx", facts={"opset": 99}, next_step="export it again"
    )


def fails():
    raise ZeroDivisionError("a bug")


def warns():
    events.warn("backbone.batch", model="a\x1b[2J", reason="one at a time")
    return 1


def sums(count, *, images):
    return [int(image.sum()) for image in images(count)]


def takes_one_and_refuses(*, images):
    next(iter(islice(images(50), 1)))
    raise BackboneError("the first was bad")


def may(kind, place):
    try:
        if kind == "read":
            return Path(place).read_text()
        if kind == "write":
            return Path(place).write_text("x")
        if kind == "scratch":
            with tempfile.TemporaryDirectory() as made:
                (Path(made) / "a").write_text("x")
                (Path(made) / "a").rename(Path(made).parent / "moved")
            return "done"
        if kind == "environment":
            return " ".join([*os.environ, *os.environ.values(), *sys.argv])
        if kind == "connect":
            socket.create_connection(("127.0.0.1", int(place)), 1).close()
            return "connected"
    except OSError as error:
        return type(error).__name__
    raise AssertionError(kind)


def killed(name):
    os.kill(os.getpid(), getattr(signal, name))


def lacks(number):
    raise OSError(number, os.strerror(number))
