"""A folder is small enough to be read as a list of concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST = 13
"""Twelve modules and `__init__`."""


@pytest.mark.parametrize("top", ["provisioning", "rules"])
def test_no_folder_holds_more_than_twelve_modules(top):
    folders = [ROOT / top, *(each for each in (ROOT / top).rglob("*") if each.is_dir())]
    crowded = {f"{each.relative_to(ROOT)}": n for each in folders if (n := len(list(each.glob("*.py")))) > MOST}
    assert len(folders) > 5 * (top == "provisioning")
    assert not crowded


def test_nothing_lies_loose_at_the_top():
    assert [each.name for each in (ROOT / "provisioning").glob("*.py")] == ["__init__.py"]
