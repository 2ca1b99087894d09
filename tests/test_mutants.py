"""Tests that can fail: a sample of mutants is killed by the tests that guard them; what may survive has its reason.

A mutant is one changed line in a copy of the package. The full form makes every mutant that mutmut knows; what it left
standing is in docs/mutants.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import ROOT, Mutant

SAMPLE = [
    # file, line as it is, line as it must not be, guards
    ("base/geometry/geo.py", "if tileid >= 0 else -1", "if True else -1", "test_geo.py"),
    ("base/geometry/geo.py", "0 <= y < 1 << z", "0 <= y <= 1 << z", "test_geo.py"),
    ("base/geometry/geo.py", "(low + 1, high - 1) if", "(low + 1, high - 2) if", "test_geo.py"),
    (
        "flight/manifest/checks.py",
        "not low <= value <= high",
        "not low <= value",
        "test_vectors.py -k refused_manifest",
    ),
    ("flight/manifest/formula.py", "sorted(_lines(m))", "list(_lines(m))", "test_vectors.py -k accepted"),
    (
        "flight/manifest/coverage.py",
        "return runs, sorted(run)",
        "return runs, run",
        "test_vectors.py -k coverage_digests",
    ),
    ("flight/manifest/schema.py", "!= data:", "is None:", "test_vectors.py -k refused_manifest"),
    (
        "flight/manifest/consistency.py",
        "bbox_e7.south >= m",
        "bbox_e7.south > m",
        "test_manifest.py -k could_not_be_read",
    ),
    ("flight/publish/staging.py", "and record.is_stat_of(source)", "", "test_publish.py -k changed"),
    ("flight/publish/committing.py", "make_read_only(cache, relative)", "pass", "test_publish.py -k read_only"),
    ("flight/publish/recovery.py", "(keep - 1)", "keep", "test_publish.py -k kept"),
    (
        "flight/publish/generations.py",
        "current_number(cache) or 0, *numbers)",
        "0, *numbers)",
        "test_publish.py -k counter",
    ),
    ("flight/verify/walking.py", "unlisted < MAX_REPORTED", "unlisted <= MAX_REPORTED", "test_attacks.py -k orphans"),
    ("flight/verify/walking.py", "missing = sorted(expected - seen)", "missing = ()", "test_attacks.py -k missing"),
    ("flight/verify/steps.py", "elif not opened[path].is_unchanged()", "elif False", "test_attacks.py -k rewritten"),
    ("flight/verify/floor.py", "if counter < floor.counter:", "if counter > floor.counter:", "test_verify.py -k floor"),
    ("flight/verify/verdict.py", ".hexdigest() != file.sha256", ".hexdigest() is None", "test_attacks.py -k rewritten"),
]


def survives(root: Path, file: str, old: str, new: str, guards: str) -> bool:
    """Make one mutant below `root`; tell whether its guards all pass."""
    copy = shutil.copytree(ROOT / "provisioning", root / "provisioning")  # with what is compiled already of the others
    shutil.copytree(ROOT / "tests", root / "tests")
    shutil.copy(ROOT / "pyproject.toml", root)
    text = (copy / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file} has changed: choose another mutant for {old!r}"
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "--hypothesis-seed=0", *f"tests/{guards}".split()]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), f"{guards} ran no test: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.returncode == 0


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("every", [len(SAMPLE), pytest.param(1, marks=pytest.mark.slow)])
def test_a_sample_of_mutants_is_killed_by_the_tests_that_guard_them(tmp_path: Path, every: int) -> None:
    sample = SAMPLE[::every]
    with ThreadPoolExecutor(2) as pool:
        survived = list(
            pool.map(lambda numbered: survives(tmp_path / str(numbered[0]), *numbered[1]), enumerate(sample))
        )
    assert [mutant for mutant, lives in zip(sample, survived, strict=True) if lives] == []


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_code_as_it_is_passes_the_guards_of_a_mutant(tmp_path: Path) -> None:
    assert survives(
        tmp_path / "copy", "base/geometry/geo.py", "if tileid >= 0 else -1", "if tileid >= 0 else -1", "test_geo.py"
    )


def test_every_explained_survivor_is_a_change_to_a_line_that_is_there() -> None:
    code = re.sub(r"\s+", " ", " ".join(p.read_text("utf-8") for p in sorted((ROOT / "provisioning").rglob("*.py"))))
    listed = mutants.explained()
    assert len(listed) > 20
    assert [mutant for mutant in listed if re.sub(r"\s+", " ", mutant.old) not in code] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('raise ValueError("no such tile")', 'raise ValueError("XXno such tileXX")', True),
        ('raise ValueError("no such tile")', 'raise ValueError("NO SUCH TILE")', True),
        ('raise ValueError("no such tile")', "raise ValueError(None)", False),
        ('open(path, "rb")', 'open(path, "RB")', False),
        ("low + 1", "low + 2", False),
    ],
)
def test_only_another_sentence_counts_as_words(old: str, new: str, words: bool) -> None:
    assert Mutant("geo.f", old, new).is_words() is words


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_every_mutant_is_killed_or_explained() -> None:
    pytest.importorskip("mutmut", reason="pip install mutmut==3.8.1")
    subprocess.run([sys.executable, "-m", "tests.mutants"], cwd=ROOT, check=True)
