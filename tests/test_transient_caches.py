"""Each thing that a build remembers, with each error at each file of it: the next undisturbed run is right."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from provisioning.base.errors import EngineError
from provisioning.engines import host
from provisioning.engines.host import Machine, instruction_class
from tests import building

NUMBERS = (errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOMEM)
REMEMBERED = (
    "shape.json", ".born", "onnx-digests.json", "gates.json", "/gates/", ".compiled.json", "map.sqlite", "corpus.index",
    ".engine", ".onnx", "catalogue.sqlite", "index.json",
)  # fmt: skip
"""Parts of names in `.build`."""


class Fault:
    """An audit hook that fails the first `open` of a file with `part` in its name; it cannot be taken away, only idle."""

    part: str | None = None
    number = 0
    hits = 0

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if event != "open" or self.part is None or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(os.fspath(args[0]))
        if "/.build/" in path and self.part in path:
            self.part, self.hits = None, self.hits + 1
            raise OSError(self.number, os.strerror(self.number), path)


FAULT = Fault()
sys.addaudithook(FAULT)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A built cache directory, and the hash of its Manifest."""
    cache = building.new_cache(tmp_path_factory.mktemp("transient"), side=2)
    report = building.build(cache).report
    assert report.outcome == "SUCCESS"
    return cache, str(report.manifest_hash)


def disturbed(cache: Path, part: str, number: int) -> int:
    """Build while one open fails; return whether one did. Whatever it says, it is no traceback of ours."""
    FAULT.part, FAULT.number, FAULT.hits = part, number, 0
    try:
        building.build(cache)
    except (OSError, SystemExit):
        pass  # doit's own database and plugins are another promise
    finally:
        FAULT.part = None
    return FAULT.hits


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("part", REMEMBERED)
@pytest.mark.parametrize("first", [True, False], ids=["first build", "next build"])
def test_the_next_undisturbed_build_is_right(built, tmp_path, part, number, first):
    cache, expected = built
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy, symlinks=True)
    if first:
        for name in (".build", "current", "generations"):
            target = copy / name
            target.unlink() if target.is_symlink() else shutil.rmtree(target)
    disturbed(copy, part, number)
    report = building.build(copy).report
    assert report.outcome in ("SUCCESS", "IDEMPOTENT_NO_OP"), report.failure_reason
    assert report.manifest_hash == expected
    assert building.build(copy).report.outcome == "IDEMPOTENT_NO_OP"


def test_the_faults_reach_what_a_build_remembers(built, tmp_path):
    """The matrix above tests something: these files are opened by a next build."""
    cache, _ = built
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy, symlinks=True)
    assert disturbed(copy, "shape.json", errno.EIO) == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_a_moment_s_failure_makes_this_no_other_computer(monkeypatch, tmp_path, number):
    def fails(*_args: object, **_options: object) -> object:
        raise OSError(number, os.strerror(number))

    assert instruction_class(Machine(proc=tmp_path, machine="x86_64")) == "generic"  # no such file: a real answer
    monkeypatch.setattr(host, "open", fails, raising=False)
    with pytest.raises(EngineError, match="cannot say what it is"):
        instruction_class()
