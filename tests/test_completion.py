"""Promises of shell completion, asked by real shells: commands, options, and the values that only this place knows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.cli import main
from provisioning.cli.begin.completion import FILES, SCRIPTS, reply

ROOT = Path(__file__).resolve().parents[1]


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A `flightcache` on PATH."""
    script = tmp_path / "bin" / "flightcache"
    script.parent.mkdir()

    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m provisioning.cli "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@needs("bash")
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("st", ["status"]),
        ("status --me", ["--metrics"]),
        ("fleet --only her", ["heron-1"]),
        ("status no", ["notes.txt"]),
    ],
)
def test_bash(typed, found, program):
    (program / "FLEET.toml").write_text('[[vehicle]]\nname = "heron-1"\n[[vehicle]]\nname = "kite"\n')
    (program / "notes.txt").touch()
    lines = f"COMP_WORDS=(flightcache {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _flightcache"
    script = SCRIPTS["bash"] + lines + '; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == found


@needs("fish")
@pytest.mark.parametrize(
    ("typed", "found"), [("st", "status\tshow what is current"), ("status --me", "--metrics\talso write Prometheus")]
)
def test_fish(typed, found, program, monkeypatch):
    monkeypatch.setenv("HOME", str(program))
    script = SCRIPTS["fish"] + f"complete -C 'flightcache {typed}'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(found)


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs(shell)) for shell in SCRIPTS])
def test_every_script_parses(shell, tmp_path, capsys):
    main(["completion", shell])
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    subprocess.run([shell, "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ([], {"status", "--color", "--quiet"}),
        (["--color"], {"auto", "never"}),
        (["status", "--color"], {"auto", "never"}),
        (["completion"], {"bash", "zsh", "fish"}),
        (["trust"], {"init", "sign", "show"}),
        (["trust", "sign"], {"--key", FILES}),
        (["verify", "--host"], {"arch=", "platform="}),
        (["verify", "--public-key"], {FILES}),
        (["init", "x", "--backbone"], {"builtin:gist-color", FILES}),
        (["install"], {FILES}),
    ],
)
def test_what_may_follow(before, found):
    assert found <= {word for word, _ in reply(before)}


@pytest.mark.parametrize("before", [["verify", "--flight"], ["locate", "-k"], ["fleet", "--only"], ["why"]])
def test_where_nothing_is_known_no_file_is_offered(before, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert FILES not in {word for word, _ in reply(before)}


def test_generations_and_tasks_of_this_place(tmp_path, monkeypatch):
    from tests import building

    cache = building.new_cache(tmp_path, network=building.GIST)
    monkeypatch.chdir(cache)
    (cache / "generations" / "000012").mkdir(parents=True)
    assert "12" in dict(reply(["rollback", "--to"]))
    assert {"engine:gist-color", "corpus"} <= set(dict(reply(["why"])))


def test_options_come_only_where_one_is_begun_or_nothing_else_is_there(capsys):
    main(["completion", "reply", "--", "trust", ""])
    assert "--" not in capsys.readouterr().out
    main(["completion", "reply", "--", "trust", "sign", "--"])
    assert "--key" in capsys.readouterr().out
