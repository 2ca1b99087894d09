"""Mutants of the code that decides whether a cache may be flown: made, run, and held against docs/mutants.md.

`python -m tests.mutants` does it in a temporary copy of the checkout, as `[tool.mutmut]` in pyproject.toml says. It
needs `pip install mutmut==3.8.1`, which nothing else uses, and half an hour of four processors. With patterns, such as
`'provisioning.base.geometry.geo.*'`, only those mutants are run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mutants.md"
JOBS = min(4, os.cpu_count() or 1)
KILLED, TIMED_OUT = {1, 3}, {-24, 24, 36, 152, 255}
"""Exit statuses that mutmut writes down."""
_EXPLAINED = re.compile(r"^- `([^`]+)`: `([^`]+)` → (?:`([^`]+)`|nothing)$", re.MULTILINE)


class Mutant(NamedTuple):
    """One change to one function: the lines that it takes out and those that it puts in, each without indentation."""

    function: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"- `{self.function}`: `{self.old}` → {f'`{self.new}`' if self.new else 'nothing'}"

    def is_words(self) -> bool:
        """Tell whether only sentences differ, by case or a mark around them: what a message says, not what is done."""
        pairs = zip(*(re.findall(r'"([^"]*)"', text) for text in (self.old, self.new)), strict=False)
        changed = [(one, other) for one, other in pairs if one != other]
        old, new = (re.sub(r'"[^"]*"', '""', text) for text in (self.old, self.new))
        return old == new and all(" " in one and _bare(one) == _bare(other) for one, other in changed)


def _bare(text: str) -> str:
    return text.replace("XX", "").lower()


class Made(NamedTuple):
    """A mutant that was made and run: its name and file as mutmut has them, its exit status, and what it changes."""

    name: str
    path: str
    status: int
    mutant: Mutant


def explained() -> set[Mutant]:
    """Return the survivors that the page gives a reason for."""
    return {Mutant(*groups) for groups in _EXPLAINED.findall(PAGE.read_text(encoding="utf-8"))}


def main(patterns: Sequence[str] = ()) -> int:
    """Run the mutants; print how each file stood, and every survivor without a reason. Return 1 if there is one."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copy = Path(scratch) / "checkout"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "mutants")
        shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(JOBS), *patterns]
        subprocess.run(command, cwd=copy, check=True)
        return report(fates_of(copy))


def report(fates: list[tuple[Made, str]]) -> int:
    """Print the table of the page and what is missing from its list; return 1 if anything is."""
    files: dict[str, Counter[str]] = {}
    for made, fate in fates:
        files.setdefault(made.path.removeprefix("provisioning/"), Counter()).update(["mutants", fate])
    for name, counts in files.items():
        print(name, *(f"{what} {number}" for what, number in counts.items()), sep="\t")
    print(*(made.mutant for made, fate in fates if fate == "survived"), sep="\n")
    fallen = {made.mutant for made, fate in fates if fate in ("killed", "timed out")}
    print(*(f"listed, but killed: {mutant}" for mutant in sorted(explained() & fallen)), sep="\n")
    return int(any(fate == "survived" for _, fate in fates))


def fates_of(copy: Path) -> list[tuple[Made, str]]:
    """Return what became of every mutant of the run in `copy`: killed, timed out, words, explained or survived."""
    reasons = explained()
    config = tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    guards = [*config["pytest_add_cli_args"], *config["pytest_add_cli_args_test_selection"]]

    def fate(made: Made) -> str:
        if made.status in KILLED | TIMED_OUT:
            return "killed" if made.status in KILLED else "timed out"
        if made.mutant.is_words() or made.mutant in reasons:
            return "words" if made.mutant.is_words() else "explained"
        return run_alone(copy, made.name, guards)

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(lambda made: (made, fate(made)), list(read(copy))))


def run_alone(copy: Path, name: str, guards: list[str]) -> str:
    """Return what becomes of a mutant in a process of its own.

    mutmut forks where everything is imported already: what a module computes as it is imported is mutated too late.
    """
    command = [sys.executable, "-m", "pytest", "-x", *guards]
    environment = {**os.environ, "MUTANT_UNDER_TEST": name, "PYTHONPATH": str(copy / "mutants")}
    try:
        done = subprocess.run(
            command, cwd=copy / "mutants", env=environment, stdout=subprocess.DEVNULL, timeout=600, check=False
        )
    except subprocess.TimeoutExpired:
        return "timed out"
    return "killed" if done.returncode else "survived"


def read(copy: Path) -> Iterator[Made]:
    """Yield every mutant that was run in `copy`."""
    os.chdir(copy)  # mutmut knows no other place
    for meta in sorted((copy / "mutants").rglob("*.meta")):
        path = meta.relative_to(copy / "mutants").as_posix().removesuffix(".meta")
        statuses = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        run = {name: status for name, status in statuses.items() if status is not None}
        yield from (Made(name, path, status, change(name, path)) for name, status in run.items())


def change(name: str, path: str) -> Mutant:
    """Return what a mutant changes. The working directory is the copy."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    lines = get_diff_for_mutant(name, path=path).split("\n")[3:]
    old, new = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    function = re.sub(r"__mutmut_\d+$", "", name.removeprefix("provisioning.")).replace(".x_", ".")
    return Mutant(re.sub(r"\.xǁ(\w+)ǁ", r".\1.", function), old, new)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
