"""The whole of flight.toml ends where a build is asked for: what is below takes what it uses."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from provisioning.build.request import Request
from provisioning.config import BuildSettings

ROOT = Path(__file__).resolve().parents[1]
ASK = ("config", "build", "cli")
"""Packages that parse flight.toml, or decide from it what is to be done."""
BELOW = sorted(
    path.name for path in (ROOT / "provisioning").iterdir()
    if (path / "__init__.py").is_file() and path.name not in ASK
)  # fmt: skip


def annotations(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            yield node.lineno, {each.id for each in ast.walk(node.annotation) if isinstance(each, ast.Name)}


@pytest.mark.parametrize("package", BELOW)
def test_no_function_or_field_below_the_request_takes_the_whole_flight(package):
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "provisioning" / package).rglob("*.py")
        for line, names in annotations(ast.parse(path.read_text(encoding="utf-8")))
        if names & {"Flight", "BuildSettings"}
    ]
    assert not found


def test_no_step_and_no_reason_of_a_build_can_reach_the_signing_key():
    """A request has settings without [signing], and who signs without where the key is."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "provisioning" / "build").rglob("*.py")
        if path.name != "request.py"
        for line, names in annotations(ast.parse(path.read_text(encoding="utf-8")))
        if names & {"Flight", "Signing"}
    ]
    assert not found
    assert {"signing", "lock"}.isdisjoint(field.name for field in dataclasses.fields(BuildSettings))
    assert Request.__annotations__["flight"] == "BuildSettings"


def test_what_takes_it_is_found():
    assert any("Flight" in names for _, names in annotations(ast.parse("def f(a: int, *, b: Flight | None): ...")))
