"""What the CUDA driver says about the GPU, asked through ctypes.

Not by NVML: Jetson Orin has none. Not by a Python package: the driver library is there wherever a GPU is. And not in
this process: once CUDA is initialised no child that is forked later (`doit -n`) can use it.
"""

from __future__ import annotations

import ctypes
import functools
import json
import subprocess
import sys
from typing import NamedTuple  # run as a file: nothing of ours can be imported

LIBCUDA = "libcuda.so.1"
ANSWER_S = 30
"""A driver that has not answered by then is taken for none."""
_ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR = 75, 76


class Gpu(NamedTuple):
    """GPU 0 as the driver describes it."""

    name: str
    sm: str
    """Compute capability without its dot: `87`."""
    cuda_driver: int
    """CUDA version of the driver, 1000 * major + 10 * minor."""


@functools.cache
def query_gpu(library: str = LIBCUDA) -> Gpu | None:
    """Return GPU 0, or None where there is no driver or the driver reports no usable GPU. Asked once a process."""
    try:
        ctypes.CDLL(library)
        command = [sys.executable, "-I", "-S", __file__, library]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=ANSWER_S).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return None if found is None else Gpu(*found)


def _ask(library: str) -> Gpu | None:
    """Ask the driver in this process."""
    try:
        cuda = ctypes.CDLL(library)
        init, count = cuda.cuInit, ctypes.c_int()
    except (OSError, AttributeError):
        return None
    if init(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return None
    return _describe(cuda)


def _describe(cuda: ctypes.CDLL) -> Gpu | None:
    device, major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    answers = (
        cuda.cuDeviceGet(ctypes.byref(device), 0),
        cuda.cuDeviceGetName(name, len(name), device),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _ATTRIBUTE_MAJOR, device),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _ATTRIBUTE_MINOR, device),
        cuda.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(answers):
        return None
    return Gpu(name.value.decode("ascii", "replace"), f"{major.value}{minor.value}", version.value)


if __name__ == "__main__":
    print(json.dumps(_ask(sys.argv[1])))
