"""fs-verity by its kernel interface: against the kernel's header, a stand-in for the calls, and a real file system."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from provisioning.flight import verity
from provisioning.flight.verify import verify
from tests.caches import publish


def test_the_numbers_are_those_of_the_kernels_header(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/fsverity.h").is_file():
        pytest.skip("no C compiler with linux/fsverity.h (apt-get install gcc linux-libc-dev)")
    source = tmp_path / "numbers.c"
    source.write_text(
        "#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/fsverity.h>\n#include <stddef.h>\n"
        "int main(void) { struct fsverity_enable_arg a; (void)a;\n"
        'printf("%lu %lu %zu %zu %zu", (unsigned long)FS_IOC_ENABLE_VERITY, (unsigned long)FS_IOC_MEASURE_VERITY,'
        " sizeof a, offsetof(struct fsverity_enable_arg, salt_ptr), offsetof(struct fsverity_enable_arg, sig_ptr)); }\n"
    )
    subprocess.run([compiler, source, "-o", tmp_path / "numbers"], check=True)
    said = subprocess.run([tmp_path / "numbers"], capture_output=True, text=True, check=True).stdout
    assert said == f"{verity._ENABLE} {verity._MEASURE} {struct.calcsize('=IIIIQIIQ88x')} 16 32"


def test_enabling_and_measuring_by_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled: set[int] = set()

    def ioctl(fd: int, request: int, argument) -> int:
        inode = os.fstat(fd).st_ino
        if request == verity._ENABLE:
            if inode in enabled:
                raise OSError(errno.EEXIST, "File exists")
            enabled.add(inode)
        elif inode not in enabled:
            raise OSError(errno.ENODATA, "No data available")
        else:
            struct.pack_into("=HH32s", argument, 0, 1, 32, bytes(range(32)))
        return 0

    monkeypatch.setattr(verity.fcntl, "ioctl", ioctl)
    cache = publish(tmp_path / "cache")
    files = [path for path in cache.generation.iterdir() if path.is_file()]
    with verify(cache.root, cache.expect) as verdict:
        assert verdict.verity_digest("corpus.index") is None
        assert verity.enable_all(files) == f"enabled on {len(files)} files"
        assert verity.enable_all(files) == f"enabled on {len(files)} files"
        assert verdict.verity_digest("corpus.index") == "sha256:" + bytes(range(32)).hex()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.EROFS, errno.ETXTBSY])
def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def ioctl(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(verity.fcntl, "ioctl", ioctl)
    (tmp_path / "file").write_bytes(b"x")
    assert verity.enable_all([tmp_path / "file"]).startswith("not enabled: ")


def test_a_file_of_a_file_system_that_has_it_cannot_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "engine"
    file.write_bytes(b"engine" * 4000)
    said = verity.enable_all([file])
    if said.startswith("not"):
        pytest.skip(f"fs-verity {said}")
    with open(file, "rb") as opened:
        assert verity.measure(opened.fileno()) is not None
    with pytest.raises(PermissionError):
        open(file, "r+b").close()
    with pytest.raises(PermissionError):
        os.truncate(file, 0)
    other = tmp_path / "other"
    other.write_bytes(b"another" * 4000)
    os.rename(other, file)  # a name is not protected: what is measured there now is another file, or nothing
    with open(file, "rb") as opened:
        assert verity.measure(opened.fileno()) is None
