"""Each file that a build remembers something in fails at each call that reads it: the next undisturbed run is right.

The files are found, not listed: all below `.build` that a build with work to do reads. strace fails the calls, so those
of SQLite and of the processes apart are met too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_crash_strace import strace_works
from tests.test_sampled_errors import Scene, doit, outcome_of, tracing

CALLS = {
    "openat": ("EIO", "ESTALE", "EACCES", "EMFILE"),
    "newfstatat": ("EIO", "ESTALE", "EACCES"),
    "fstat": ("EIO", "ESTALE"),
    "read": ("EIO", "ESTALE"),
    "pread64": ("EIO", "ESTALE"),
    "getdents64": ("EIO", "ESTALE"),
    "mmap": ("ENOMEM", "ENODEV"),
}
"""Calls by which something is read, and the errors that each may give."""
KINDS = (
    "catalogue.sqlite", "counter", "doit.sqlite", "history.json", "build-report.json", "onnx-digests.json", "rechecked",
    "engine-times.json", "/descriptors/", "/gates/", ".onnx", ".engine", ".compiled.json", "corpus.index", "gates.json",
    "report.html", "coverage.geojson", "shape.json",
)  # fmt: skip
"""Parts of paths; a file is of the last kind that it matches, and of "others" without one."""


def kind_of(path: str) -> str:
    return next((kind for kind in reversed(KINDS) if kind in path), "others")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("remembered"), "next")


@pytest.fixture(scope="module")
def reads(scene: Scene) -> dict[str, list[tuple[str, str]]]:
    """Path and call of every read of a build with work to do, by kind of file."""
    scene.restore()
    doit(scene.cache, *tracing(list(CALLS), scene.log), "-y")
    found: dict[str, set[tuple[str, str]]] = {}
    known = {str(path) for path in (scene.before / ".build").rglob("*")}
    for call, path in _named(scene.log.read_text(errors="replace"), scene.cache):
        if str(scene.before / path) in known:
            found.setdefault(kind_of(path), set()).add((path, call))
    return {kind: sorted(pairs) for kind, pairs in found.items()}


def _named(log: str, cache: Path) -> Iterator[tuple[str, str]]:
    """Yield the calls of a log with the paths below `cache` that are in them: as text, or as the names of descriptors."""
    for call, words in re.findall(r"^\d+ +(\w+)\((.*)", log, re.MULTILINE):
        for path in re.findall(rf'(?:"|\d<){re.escape(str(cache))}/(\.build/[^">]*)[">]', words):
            yield call, path


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.skipif(not strace_works(), reason="strace is not installed or may not trace")
@pytest.mark.parametrize("kind", [*KINDS, "others"])
def test_a_failed_read_of_what_is_remembered_leaves_no_mark(scene, reads, capsys, kind):
    wrong, tried = [], 0
    for path, call in reads.get(kind, []):
        for error in CALLS[call]:
            what = what_is_wrong(scene, path, call, error)
            tried += what is not None
            wrong += [what] if what else []
    with capsys.disabled():
        print(f"\n{kind}: {tried} errors", end=" ")
    assert not wrong, "".join(wrong)


def what_is_wrong(scene: Scene, path: str, call: str, error: str) -> str | None:
    """Build while each such call on the file fails, then without; None where none was made."""
    scene.restore()
    fault = ["-P", str(scene.cache / path), "-e", f"inject={call}:error={error}"]
    ended = doit(scene.cache, *tracing([call], scene.log), *fault)
    met = "".join(line for line in scene.log.read_text(errors="replace").splitlines(True) if "INJECTED" in line)
    if not met:
        return None
    how, wrong = outcome_of(ended, met)
    wrong += "".join((*scene.wrong_now(finished=how == "done"), *scene.wrong_next()))
    return wrong and f"\n=== {path} {call} {error}\n{wrong}--- said ({ended.code})\n{ended.said[-1500:]}"
