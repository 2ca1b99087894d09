"""What surrounds a command is no reason for a traceback: streams, encodings, limits, names of directories.

One row: what is done, and what exit codes are right. No row may show a traceback, and a cache that was fine is fine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import building

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.usefixtures("unmeasured")

STREAMS = {
    "stdout closed": (">&-", {0}),
    "stderr closed": ("2>&-", {0}),
    "both closed": (">&- 2>&-", {0}),
    "all closed": ("<&- >&- 2>&-", {0}),
    "stderr full": ("2>/dev/full", {0}),
    "stdout full": (">/dev/full", {1, 24}),
    "a reader that leaves": ("| head -c1", {0, 141}),
}
ENVIRONMENTS = {
    "optimised, neither TMPDIR nor HOME": {
        "PYTHONOPTIMIZE": "2",
        "TMPDIR": "/nonexistent",
        "HOME": "/nonexistent",
        "XDG_CONFIG_HOME": "",
    },
    "optimised": {"PYTHONOPTIMIZE": "2"},
    "warnings are errors": {"PYTHONWARNINGS": "error"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no TMPDIR": {"TMPDIR": "/nonexistent"},
    "no HOME": {"HOME": "/nonexistent", "XDG_CONFIG_HOME": ""},
    "ASCII by Python": {"PYTHONIOENCODING": "ascii:strict"},
}
COMMANDS = {
    "doit": [str(BIN / "doit")],
    "status": [str(BIN / "flightcache"), "status"],
    "plan": [str(BIN / "flightcache"), "plan"],
}


def rows(table, *, quick, apart=()):
    """Every row with `doit`, with the other commands the rows `quick`; the others, and what is one row too, in the long form."""
    return [
        pytest.param(
            command, row, marks=[] if row not in apart and (command == "doit" or row in quick) else [pytest.mark.slow]
        )
        for command in COMMANDS
        for row in table
    ]


@pytest.fixture(scope="module")
def cache(built_site, tmp_path_factory):
    made = building.copy_site(built_site, tmp_path_factory.mktemp("around") / "site")
    assert building.build(made).outcome == "IDEMPOTENT_NO_OP"  # a copy is scanned anew
    return made


def run(cache, command, *, shell="", environment=None, limit=""):
    line = f'{limit} set -o pipefail; "$0" "$@" {shell}'
    return subprocess.run(
        ["bash", "-c", line, *COMMANDS[command]],
        cwd=cache,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        check=False,
        timeout=300,
    )


def generations(cache):
    return sorted(path.name for path in (cache / "generations").iterdir())


def test_a_build_whose_messages_cannot_be_written_still_says_how_it_ended(built_cache, tmp_path):
    building.edit(built_cache, 'id = "F-1"', 'id = "F-2"')
    done = run(built_cache, "doit", shell="2>/dev/full")
    assert done.returncode == 0
    assert b"SUCCESS" in done.stdout
    (built_cache.parent / "tiles").rename(tmp_path / "elsewhere")
    done = run(built_cache, "doit", shell="2>/dev/full")
    assert done.returncode != 0
    assert b"FAILURE" in done.stdout


@pytest.mark.parametrize(
    ("command", "streams"),
    rows(STREAMS, quick={"stdout full"}, apart={"stdout closed", "stderr closed", "both closed"}),
)
def test_streams(cache, command, streams):
    shell, right = STREAMS[streams]
    done = run(cache, command, shell=shell)
    assert done.returncode in right, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    if streams == "stderr full" and command == "doit":
        assert b"IDEMPOTENT_NO_OP" in done.stdout
    if streams == "stdout full":
        assert b"cannot be written" in done.stderr
        assert done.returncode == (1 if command == "doit" else 24)
    assert generations(cache) == ["000001"]


def test_help_that_cannot_be_written_is_an_error_too(cache):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [BIN / "flightcache", "plan", "--help"], cwd=cache, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, b"cannot be written" in done.stderr) == (24, True)


ANSWERS = {
    "list": ["list"],
    "info": ["info", "corpus"],
    "clean": ["clean", "-n"],
    "forget": ["forget", "corpus"],
}
NO_READER = {"stdout closed": (">&-", 0), "stdout full": (">/dev/full", 1), "a reader that leaves": ("| head -c1", 141)}


@pytest.mark.parametrize(
    "streams", ["stdout full", "a reader that leaves", pytest.param("stdout closed", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[] if name == "list" else [pytest.mark.slow]) for name in ANSWERS]
)
def test_doit_s_other_commands_say_where_their_answer_cannot_be_written(cache, command, streams):
    shell, right = NO_READER[streams]
    line = f'set -o pipefail; "$0" "$@" {shell}'
    done = subprocess.run(
        ["bash", "-c", line, BIN / "doit", *ANSWERS[command]], cwd=cache, capture_output=True, check=False, timeout=300
    )
    assert done.returncode in ({right, 0} if right == 141 else {right})
    assert b"Traceback" not in done.stderr
    assert b"next step" not in done.stderr  # no disk of the cache is full
    assert (b"cannot be written" in done.stderr) == (right == 1)


@pytest.mark.parametrize(
    ("command", "around"),
    rows(ENVIRONMENTS, quick={"ASCII"}, apart={"optimised", "no TMPDIR", "no HOME", "ASCII by Python"}),
)
def test_environments(cache, command, around):
    done = run(cache, command, environment=ENVIRONMENTS[around])
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout
    assert generations(cache) == ["000001"]


@pytest.mark.parametrize(("command", "megabytes"), rows([64, 100, 150, 250, 400], quick={150}, apart={100, 250}))
def test_limits_of_memory(cache, command, megabytes):
    """Done, or said what is missing: never a traceback of ours, a wrong answer, a silent death by a signal."""
    done = run(cache, command, limit=f"ulimit -v {megabytes << 10};")
    said = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in said
    if done.returncode:  # 1 of `plan` is an answer: there is work
        assert done.returncode in ({1, 3} if command == "doit" else {10}), said
        assert "next step" in said
    assert generations(cache) == ["000001"]


NAMES = {
    "not UTF-8": b"caf\xe9",
    "spaces and quotes": b"a 'b' \"c\" $d",
    "a newline": b"a\nb",
    "longer than 400 characters": b"/".join([b"d" * 100] * 5),
}


@pytest.mark.parametrize(("command", "name"), rows(NAMES, quick={"not UTF-8"}, apart={"spaces and quotes"}))
def test_directories(cache, tmp_path, command, name):
    """A cache that was moved into such a directory, its tiles where they were."""
    where = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + NAMES[name]))
    where.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(cache, where, symlinks=True)
    done = run(where, command)
    if name == "longer than 400 characters" and command == "doit":
        assert done.returncode == 3
        assert b"too long for SQLite" in done.stderr
        return
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert b"Traceback" not in done.stderr
