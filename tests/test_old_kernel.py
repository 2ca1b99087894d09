"""An old kernel, by a filter of system calls: the build and the verifier do without what newer ones have."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests import old_kernel

ROOT = Path(__file__).resolve().parents[1]
BUILD = """
from pathlib import Path
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from tests import building
from tests.delivery import trust_anything_by
folder = Path({folder!r})
cache = building.new_cache(folder, side=2)
first, second = building.build(cache), building.build(cache)
with verify(cache, trust_anything_by(load_public_key(folder / "key.pub.pem"))) as verdict:
    print(first.outcome, second.outcome, verdict.passed)
"""


@pytest.fixture
def old():
    """Return a function that runs a program of Python on an old kernel and returns what it prints."""
    if platform.machine() not in old_kernel.AUDIT_ARCH:
        pytest.skip(f"the numbers of system calls of {platform.machine()} are not known here")
    if _run("pass").returncode:
        pytest.skip("this kernel takes no filter of system calls")

    def run(program: str) -> str:
        done = _run(program)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def _run(program: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "tests.old_kernel", sys.executable, "-c", program]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_filter_takes_what_it_says(old, tmp_path: Path) -> None:
    """Else the tests below, and the run of all tests behind `.ci/surroundings old-kernel`, would prove nothing."""
    calls = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for number in {sorted(old_kernel.lacking().values())}:
    assert libc.syscall(number, 0, 0, 0, 0, 0) == -1
    print(ctypes.get_errno())
try:
    os.open({str(tmp_path)!r}, os.O_TMPFILE | os.O_RDWR)
except OSError as error:
    print(error.errno)
print(os.stat({str(tmp_path)!r}).st_ino)
"""
    expected = [errno.ENOSYS] * len(old_kernel.lacking()) + [errno.EOPNOTSUPP, os.stat(tmp_path).st_ino]
    assert [int(word) for word in old(calls).split()] == expected
    assert ctypes.sizeof(old_kernel._Program) == 16  # as the kernel reads it: 2 bytes, padding, a pointer


def test_a_cache_is_built_published_and_verified(old, tmp_path: Path) -> None:
    assert old(BUILD.format(folder=str(tmp_path))) == "SUCCESS IDEMPOTENT_NO_OP True\n"


@pytest.mark.slow
def test_the_command_keeps_its_key_apart_without_landlock(old, tmp_path: Path) -> None:
    """Landlock is not there to hide the key file; the build is as it is with it."""
    from tests import building

    cache = building.new_cache(tmp_path, side=2)
    words = [str(Path(sys.executable).with_name("doit"))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.old_kernel", *words, "-d", str(cache), "-f", str(cache / "dodo.py")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout
