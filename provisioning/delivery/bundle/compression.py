"""Zstandard around a bundle: the standard library's or its backport where installed, else the `zstd` command.

The vehicle needs no Python package for it; a bundle named `.tar` needs neither. A frame never asks for more than
128 MiB of window, and a reader never grants more.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import DeliveryError
from provisioning.delivery.bundle.archive import Readable

MAGIC = b"\x28\xb5\x2f\xfd"
LEVEL = 3
"""Weights and descriptors hardly compress: higher levels cost minutes and gain a few per cent (docs/decisions)."""
WINDOW_LOG = 27
PIECE = 1 << 17
MOST_EMPTY_FRAMES = 1000
"""In a row. We write one frame, others cut a file into many; 13 bytes each, they would keep a reader busy for hours."""


def zstd_module() -> ModuleType | None:
    """Return Python's zstd module or its backport; None where neither is installed."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(name)
    return None


@contextmanager
def compressing(output: BinaryIO) -> Iterator[BinaryIO]:
    """Yield a file whose bytes go to `output` as one zstd frame: one thread, so the same bytes every time."""
    zstd = zstd_module()
    if zstd is None:
        raise DeliveryError(
            "no zstd module to compress the bundle",
            next_step="install backports.zstd, or name the bundle .tar",
        )
    options = {zstd.CompressionParameter.compression_level: LEVEL, zstd.CompressionParameter.checksum_flag: 1}
    with zstd.ZstdFile(output, "w", options=options) as file:
        yield cast(BinaryIO, file)


@contextmanager
def decompressing(path: Path) -> Iterator[Readable]:
    """Yield the archive inside the bundle at `path`, compressed or not; DeliveryError on damage found while reading."""
    with open_regular(path) as file:
        compressed = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if not compressed:
            yield file
            return
        zstd = zstd_module()
        if zstd is None:
            with _command(path) as stream:
                yield stream
            return
        yield _Frames(file, zstd, path)


@contextmanager
def _command(path: Path) -> Iterator[Readable]:
    """Yield the output of the `zstd` command; its verdict is read when its output ends."""
    command = shutil.which("zstd")
    if command is None:
        raise DeliveryError(
            "nothing here can read zstd",
            file=path,
            next_step="install the zstd package of this system, or carry a bundle named .tar",
        )
    with subprocess.Popen(
        [command, "-dcq", f"--memory={1 << WINDOW_LOG}", "--", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            yield _Judged(process, path)
        finally:
            process.kill()


class _Frames:
    """What the frames of a file hold, one after the other; not many of them hold nothing."""

    def __init__(self, file: BinaryIO, zstd: ModuleType, path: Path) -> None:
        self._file, self._zstd, self._path = file, zstd, path
        self._frame: Any = None
        self._rest = b""
        self._idle = 0

    def read(self, size: int, /) -> bytes:
        while size:
            if not self._feed():
                return b""
            given = self._decompressed(size)
            if given:
                return given
        return b""

    def _feed(self) -> bool:
        """See to it that there is a frame with something to unpack; False at the end of the file."""
        if self._frame is not None and self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
        if not self._rest and (self._frame is None or self._frame.needs_input):
            self._rest = self._file.read(PIECE)
        if self._frame is None and self._rest:
            self._idle += 1
            if self._idle > MOST_EMPTY_FRAMES:
                raise _damaged(self._path, f"{MOST_EMPTY_FRAMES} frames that hold nothing")
            options = {self._zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
            self._frame = self._zstd.ZstdDecompressor(options=options)
        elif self._frame is not None and self._frame.needs_input and not self._rest:
            raise _damaged(self._path, "it ends within a frame")
        return self._frame is not None

    def _decompressed(self, size: int) -> bytes:
        try:
            given: bytes = self._frame.decompress(self._rest, size)
        except (self._zstd.ZstdError, EOFError) as error:
            raise _damaged(self._path, str(error)) from error
        self._rest = b""
        if given:
            self._idle = 0
        return given


class _Judged:
    """The output of a decompressor that fails at its end if the decompressor failed."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self._process = process
        self._path = path

    def read(self, size: int, /) -> bytes:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        data = self._process.stdout.read(size)
        if not data and size and self._process.wait() != 0:
            raise _damaged(self._path, self._process.stderr.read().decode(errors="replace").strip())
        return data


def _damaged(path: Path, detail: str) -> DeliveryError:
    return DeliveryError(
        "the bundle's compression is damaged or truncated",
        file=path,
        facts={"detail": detail},
        next_step="copy the bundle again",
    )
