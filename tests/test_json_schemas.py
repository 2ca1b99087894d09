"""Promises of docs/reference/json.md: the keys there are those that the commands print, with these types."""

import json
import re
from pathlib import Path

import pytest

from provisioning.cli import main
from tests.caches import publish

PAGE = (Path(__file__).resolve().parents[1] / "docs/reference/json.md").read_text()
TYPES = {"text": str, "number": (int, float), "object": dict, "null": type(None), "true": bool, "false": bool}
OPEN = {"backends", "computer.gpu", "task_seconds", "task_seconds_before", "vehicle"}
"""Objects whose keys stand in their own line of the page."""


def documented(heading):
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", section, re.MULTILINE))


def flat(value, prefix=""):
    for key, inner in value.items():
        yield prefix + key, inner
        if isinstance(inner, dict) and prefix + key not in OPEN and key != "summary":
            yield from flat(inner, f"{prefix}{key}.")


def fits(value, kinds):
    names = kinds.split(" or ")
    return any(
        isinstance(value, (list, tuple)) if name.startswith("list") else isinstance(value, TYPES[name])
        for name in names
    )


@pytest.fixture
def cache(tmp_path):
    from provisioning.base.outcome import BuildReport, write_report

    cache = publish(tmp_path / "cache")
    (cache.root / ".build").mkdir(exist_ok=True)
    (cache.root / "flight.toml").touch()
    write_report(cache.root / ".build", BuildReport(outcome="SUCCESS"))
    return cache.root


def printed(words, capsys):
    main(words)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["status", "host"])
def test_the_page_has_every_key_and_its_type(command, cache, capsys):
    place = [str(cache)] if command == "status" else []
    said = dict(flat(printed([command, *place, "--json"], capsys)))
    page = documented(f"`flightcache {command} --json`")
    assert set(said) == set(page)
    assert [key for key, value in said.items() if not fits(value, page[key].strip())] == []


def test_the_page_has_every_key_of_the_summary(cache, capsys):
    said = printed(["status", str(cache), "--json"], capsys)["current"]["summary"]
    page = documented("The summary")
    assert set(said) == set(page)
    assert [key for key, value in said.items() if not fits(value, page[key].strip())] == []


def test_no_key_of_host_is_prose(capsys):
    said = printed(["host", "--json"], capsys)
    assert [key for key, _ in flat(said) if not re.fullmatch(r"[a-z0-9_.]+", key)] == []
