"""The tables of inputs in docs/tiles.md and docs/missions.md name what is really tried."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
ROW = re.compile(
    r"^\| (.+?) \| (.+?) \| (0\.\d) \| (.*?) ?\| `(test_\w+\.py)::(test_\w+)(?:\[(.+)\])?` \|$", re.MULTILINE
)


def rows():
    return [row for page in ("tiles.md", "missions.md") for row in ROW.findall((DOCS / page).read_text())]


@cache
def functions(file):
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_sixty_inputs_and_more_are_tried_each_once():
    tried = [row[4:] for row in rows()]
    assert len(tried) == len(set(tried))
    assert len(tried) >= 60


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_row_has_its_test(row):
    *_, file, function, case = row
    assert function in functions(file), f"{file} has no {function}"
    text = (TESTS / file).read_text() + (TESTS / "test_places_sources.py").read_text()
    name = case.rpartition("place0-")[2].removeprefix("directory of ")
    parts = [] if re.fullmatch(r"options\d|", name) else re.split(r"-(?=[EU])|(?<=\d)-(?=U)", name)
    assert all(part in text for part in parts), f"{file} has no case {case}"


@pytest.mark.slow
def test_every_named_case_is_collected(pytester_ids):
    assert {f"tests/{row[4]}::{row[5]}" + (f"[{row[6]}]" if row[6] else "") for row in rows() if row[6]} <= pytester_ids


@pytest.fixture
def pytester_ids():
    """Return the ids of all cases, as pytest collects them."""
    import subprocess
    import sys

    files = sorted({f"tests/{row[4]}" for row in rows()})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", *files]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())
