"""doit's own database: what is wrong with it is never a traceback, builds nothing again, and has a next step that works."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from doit.dependency import JSONCodec, SqliteDB

from provisioning.base.errors import FilesystemError
from provisioning.base.words import typed
from rules.database import IN_MEMORY, database, for_reading, make_usable
from tests.building import doit_here

DOIT = str(Path(sys.executable).parent / "doit")


def statements(*lines):
    def change(path):
        with closing(sqlite3.connect(path)) as db:
            for line in lines:
                db.execute(line)
            db.commit()

    return change


def overwrite(at, new):
    def change(path):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(new)

    return change


def replaced(make):
    def change(path):
        path.unlink()
        make(path)

    return change


DAMAGE = {
    "no database": overwrite(0, b"\xff" * 100),
    "a rotten page": overwrite(4096, b"\x55" * 4096),
    "cut off": lambda path: os.truncate(path, 5000),
    "an entry that is no JSON": statements("UPDATE doit SET task_data = '{oops'"),
    "an entry that is a number": statements("UPDATE doit SET task_data = 7"),
    "an entry that is nothing": statements("UPDATE doit SET task_data = NULL"),
    "an entry that is no text": statements("UPDATE doit SET task_data = x'ff00fe'"),
    "other columns": statements("DROP TABLE doit", "CREATE TABLE doit (a, b)"),
    "a newer SQLite's": overwrite(18, b"\x03\x03"),
}
NO_FILE = {
    "a directory": replaced(lambda path: (path.mkdir(), (path / "x").touch())),
    "a pipe": replaced(os.mkfifo),
    "a directory for its journal": lambda path: Path(f"{path}-journal").mkdir(),
}


@pytest.fixture
def path(tmp_path):
    made = tmp_path / ".build" / "doit.sqlite"
    made.parent.mkdir()
    db = SqliteDB(str(made), JSONCodec())
    db.set("corpus", "deps:", ["a", "b"])
    db.dump()
    return made


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_database_is_made_anew_by_what_writes_and_passed_over_by_what_shows(tmp_path, path, kind, capsys):
    DAMAGE[kind](path)
    assert for_reading(tmp_path) == IN_MEMORY
    assert "database is damaged" in capsys.readouterr().err
    make_usable(str(path))
    assert not path.exists()


def test_a_format_that_may_only_be_read_is_shown_and_made_anew_by_what_writes(tmp_path, path, capsys):
    overwrite(18, b"\x03")(path)
    assert for_reading(tmp_path) == str(path)
    make_usable(str(path))
    assert not path.exists()


@pytest.mark.parametrize("kind", NO_FILE)
def test_what_is_no_file_is_named_with_the_command_that_removes_it(tmp_path, path, kind, capsys):
    NO_FILE[kind](path)
    assert for_reading(tmp_path) == IN_MEMORY
    assert "not a file" in capsys.readouterr().err
    with pytest.raises(FilesystemError, match="not a file") as caught:
        make_usable(str(path))
    subprocess.run(shlex.split(re.findall("`(.*?)`", caught.value.next_step)[0]), check=True)
    make_usable(str(path))


def test_a_database_that_another_program_holds_is_left_alone(tmp_path, path, monkeypatch, capsys):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name: connect(name, timeout=0.01))
    with closing(connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(FilesystemError, match="is locked") as caught:
            make_usable(str(path))
        assert "another program" in caught.value.next_step
        assert for_reading(tmp_path) == IN_MEMORY
        assert "is locked" in capsys.readouterr().err
    assert for_reading(tmp_path) == str(path)


@pytest.mark.parametrize("call", ["open", "access"])
def test_one_that_may_not_be_written_is_refused_before_the_work(path, monkeypatch, call):
    """`access` is of its folder, where the journal would lie."""

    def denied(*_args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, call, denied if call == "open" else lambda *_args: False)
    with pytest.raises(FilesystemError, match="Permission denied") as caught:
        make_usable(str(path))
    assert "give this user the permission" in caught.value.next_step


def test_one_that_is_not_there_yet_or_whole_is_used(tmp_path, path):
    make_usable(str(path))
    assert for_reading(tmp_path) == str(path)
    path.unlink()
    make_usable(str(path))
    assert for_reading(tmp_path) == str(path)
    make_usable(database(tmp_path / "never built"))


def test_every_command_of_doit_takes_what_is_no_database(built_cache, capsys):
    path = built_cache / ".build" / "doit.sqlite"
    due = 1  # the tiles of a copy have not been scanned
    for words, code in ((["list", "-s"], 0), (["info", "corpus"], due), (["forget", "corpus"], 0), (["reset-dep"], 0)):
        path.write_bytes(b"\xff" * 5000)
        done = doit_here(built_cache, *words, capsys=capsys)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert ("damaged" in done.stderr) == (words[0] in ("list", "info"))
    path.unlink()
    path.mkdir()
    for words, code in ((["list", "--status"], 0), (["ignore", "corpus"], 3), (["clean", "-n"], 3), (["run"], 3)):
        done = doit_here(built_cache, *words, capsys=capsys)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert typed("rm", "-r", path) in done.stderr
    assert (built_cache / "current").exists()
