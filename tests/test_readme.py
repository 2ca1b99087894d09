"""The README's commands do what it says, run as they stand there (in the environment that is there already)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.building import put_tiles

README_FILE = Path(__file__).resolve().parents[1] / "README.md"
README = README_FILE.read_text()


def block(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no block {mark}"
    return found[1]


@pytest.fixture
def shell(tmp_path: Path):
    """Return a function that runs a script in an empty home, with `.venv` standing for this environment."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    environment = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
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
def test_the_first_command_ends_with_a_verified_cache(shell, tmp_path: Path) -> None:
    _, _, demo = block("first-command").split(" && ")
    output = shell(demo)
    assert "SUCCESS manifest_hash" in output
    assert "PASS" in output
    assert (tmp_path / "flightcache-demo" / "current" / "Manifest.json.sig").stat().st_size == 64


def test_the_first_cache_of_ones_own(shell, tmp_path: Path) -> None:
    put_tiles(tmp_path / "tiles" / "valley", side=2)
    output = shell(block("first-cache"))
    assert output.count("SUCCESS") == 1
    assert output.count("IDEMPOTENT_NO_OP") == 1
    assert "PASS" in output
    shutil.rmtree(tmp_path / "valley")


def test_the_build_is_one_call_from_python(shell, tmp_path: Path) -> None:
    put_tiles(tmp_path / "tiles" / "valley", side=2)
    shell("flightcache init valley --tiles ~/tiles/valley")
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    (tmp_path / "example.py").write_text(example[1] + "print(report.outcome)\n")
    assert shell("python example.py") == "SUCCESS\n"
