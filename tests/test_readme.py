"""The README's commands do what it says, run as they stand there (in the environment that is there already)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.building import edit, put_tiles

README_FILE = Path(__file__).resolve().parents[1] / "README.md"
README = README_FILE.read_text()


def block(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no block {mark}"
    return found[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shell(home: Path):
    """Return a function that runs a script in a home of its own, with `.venv` standing for this environment."""
    (home / ".venv").symlink_to(Path(sys.executable).parent.parent)
    environment = {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_two_commands_are_one_line_each() -> None:
    for mark in ("first-command", "test-command"):
        assert len(block(mark).splitlines()) == 1
        assert block(mark).startswith("python3 -m venv .venv && ")


def test_the_first_command_ends_with_the_demo_that_the_tutorial_runs() -> None:
    """The demo takes 15 s of processor time, and the tutorial begins with it: it is run there, of fewer tiles.

    Nightly it is run here as it is, and by `.ci/first` for each change.
    """
    tutorial = README_FILE.with_name("docs").joinpath("tutorial.md").read_text()
    first = re.search(r"<!-- run -->\n```sh\n(.*?)\n", tutorial)
    assert first
    assert first[1] == "flightcache demo first"
    assert block("first-command").split(" && ")[2].strip() == ".venv/bin/flightcache demo"


@pytest.mark.slow
def test_the_first_command_ends_with_a_verified_cache(shell, home: Path) -> None:
    _, _, demo = block("first-command").split(" && ")
    output = shell(demo)
    assert "SUCCESS manifest_hash" in output
    assert "PASS" in output
    assert (home / "flightcache-demo" / "current" / "Manifest.json.sig").stat().st_size == 64


@pytest.fixture(scope="module")
def first_cache(shell, home: Path) -> str:
    """What the commands for the first cache of one's own print; it lies in `valley`."""
    put_tiles(home / "tiles" / "valley", side=2)
    return shell(block("first-cache"))


def test_the_first_cache_of_ones_own(first_cache: str) -> None:
    assert first_cache.count("SUCCESS") == 1
    assert first_cache.count("IDEMPOTENT_NO_OP") == 1
    assert "PASS" in first_cache


@pytest.mark.usefixtures("first_cache")
def test_the_build_is_one_call_from_python(shell, home: Path) -> None:
    edit(home / "valley", "# id = …", 'id = "F-2"')
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    (home / "example.py").write_text(example[1] + "print(report.outcome)\n")
    assert shell("python example.py") == "SUCCESS\n"
