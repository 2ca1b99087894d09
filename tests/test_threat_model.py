"""docs/threat-model.md: every attack has an answer and a test, and every test that is named is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+(?:\.py)?)`", PAGE)))
DEFINED = {
    name
    for path in TESTS.glob("test_*.py")
    for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}


def tables() -> list[list[list[str]]]:
    """The tables of the page: rows of cells, without heads."""
    found = re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in found]


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_threat_model_names_is_there(name):
    assert (TESTS / name).is_file() if name.endswith(".py") else name in DEFINED


def test_every_attack_has_an_answer_and_what_shows_it():
    attacks = [table for table in tables() if table[0][-1] == "shown by"]
    assert len(attacks) == 2
    for head, rule, *rows in attacks:
        assert len(head) == len(rule) == 3
        assert all(len(row) == 3 and all(row) for row in rows), head
    shown = [row[2] for table in attacks for row in table[2:]]
    assert sum("`test_" in cell for cell in shown) > 0.9 * len(shown)
