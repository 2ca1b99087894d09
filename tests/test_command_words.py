"""Promises of what the command line makes of misspelt words, of options for every command, and of names with spaces."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from provisioning.base.errors import Error
from provisioning.base.words import counted, meant, meant_file, missing_part, typed
from provisioning.cli import GROUPS, main
from provisioning.cli.look import status as status_command
from provisioning.cli.parsing import take_everywhere
from provisioning.config.parse import parse
from provisioning.console.style import may_colour
from tests import building


def refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_one_is_counted_as_one():
    assert [counted(n, "file") for n in (0, 1, 2, 1000)] == ["0 files", "1 file", "2 files", "1,000 files"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stauts"], "there is no command 'stauts'; did you mean 'status'?"),
        (["verify", "--pubic-key", "k"], "there is no option --pubic-key; did you mean --public-key?"),
        (["verify", "--flihgt=F-1"], "there is no option --flihgt; did you mean --flight?"),
        (["--color", "never", "status", "--jsno"], "there is no option --jsno; did you mean --json?"),
        (["completion", "zhs"], "there is no 'zhs'; did you mean 'zsh'?"),
        (["status", "--color", "alwys"], "there is no 'alwys'; did you mean 'always'?"),
        (["status", "--utterly-else"], "there is no option --utterly-else"),
        (["--colr", "always", "status"], "there is no option --colr; did you mean --color?"),
        (["status", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_the_nearest_word_is_named(words, said, capsys):
    err = refused(words, capsys)
    assert said in err
    assert err.startswith("usage: flightcache ")


def test_usage_is_that_of_the_command(capsys):
    assert refused(["verify", "--pubic-key", "k"], capsys).startswith("usage: flightcache verify ")


def test_an_abbreviation_that_argparse_takes_is_not_misspelt(tmp_path, capsys):
    assert main(["status", str(tmp_path), "--js"]) == 11


@pytest.mark.parametrize(
    ("words", "left", "quiet", "color"),
    [
        (["-q", "status", "x"], ["status", "x"], True, "auto"),
        (["status", "x", "--color", "always"], ["status", "x"], False, "always"),
        (["status", "--color=never", "--", "-q"], ["status", "--", "-q"], False, "never"),
        (["locate", "--near=-33.9,151.2", "-k", "3"], ["locate", "--near=-33.9,151.2", "-k", "3"], False, "auto"),
        (["fleet", "--compile"], ["fleet", "--compile"], False, "auto"),
    ],
)
def test_options_for_every_command_stand_anywhere(words, left, quiet, color):
    taken, rest = take_everywhere(words)
    assert (rest, taken.quiet, taken.color) == (left, quiet, color)


@pytest.mark.parametrize(("when", "coloured"), [("always", True), ("never", False), ("auto", False)])
def test_color_decides_and_is_forgotten_again(when, coloured, monkeypatch):
    seen = []
    monkeypatch.setattr(status_command, "run", lambda _args: seen.append(may_colour(sys.stdout)) or 0)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["--color", when, "status"]) == 0
    assert seen == [coloured]
    assert not may_colour(sys.stdout)


def test_help_names_every_command_once_under_its_group(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    listed = re.findall(r"^  ([a-z][a-z-]*)  ", out, re.MULTILINE)
    assert listed == [name for commands in GROUPS.values() for name in commands]
    assert max(map(len, out.split("\noptions:")[0].splitlines()[1:])) <= 100


def test_the_nearest_word_ignores_case_and_is_none_where_nothing_is_near():
    assert meant("HERON-2", ["heron-1", "kite"]) == "; did you mean 'heron-1'?"
    assert meant("xyz", ["heron-1", "kite"]) == ""


@pytest.mark.parametrize("name", ["my cache", "a'b", "$HOME", "-x y", "plain"])
def test_what_is_to_be_typed_is_read_back_as_it_was(name):
    assert shlex.split(typed("cd", name)) == ["cd", name]


def test_init_prints_a_line_that_a_shell_can_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    building.new_cache(tmp_path, network=building.GIST)
    assert main(["init", "my cache", "--tiles", "tiles", "--key", "key.pem"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    assert shlex.split(line.removeprefix("next: "))[:2] == ["cd", "my cache"]


def test_a_misspelt_network_names_the_nearest(tmp_path):
    with pytest.raises(Error, match="did you mean 'builtin:gist-color'"):
        parse('[[backbone]]\nname = "x"\nonnx = "builtin:gist-colour"\n', root=tmp_path)


def test_a_misspelt_task_names_the_nearest(tmp_path, capsys):
    cache = building.new_cache(tmp_path, network=building.GIST)
    main(["tiles", str(cache), "--scan"])
    assert main(["why", "engine:gist-colour", str(cache)]) == 11
    assert "did you mean 'engine:gist-color'?" in capsys.readouterr().err


def test_the_descriptor_store_is_a_key_and_the_store_of_a_program_is_none(tmp_path):
    cache = building.new_cache(tmp_path, network=building.GIST)
    text = (cache / "flight.toml").read_text()
    shared = text.replace("[descriptors]\n", '[descriptors]\nstore = "/srv/shared"\n')
    assert parse(shared, root=cache).descriptors.store == Path("/srv/shared")
    with pytest.raises(Error) as refused:
        parse(text.replace("[tiles]\n", '[tiles]\nstore = "x"\n'), root=cache)
    assert "tiles.store" in str(refused.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("valey/flight.toml", "; did you mean 'valley'?"),
        ("valley/flight.tml", "; did you mean 'flight.toml'?"),
        ("valley/flight.toml", ""),
        ("something/else", ""),
    ],
)
def test_a_file_that_is_not_there_is_looked_for_among_its_neighbours(tmp_path, path, said):
    (tmp_path / "valley").mkdir()
    (tmp_path / "valley/flight.toml").touch()
    assert meant_file(tmp_path / path) == said
    assert missing_part(tmp_path / path) in {None, tmp_path / path, (tmp_path / path).parent}


@pytest.mark.parametrize("command", ["status", "plan", "tiles", "host", "cosign --key k", "info"])
def test_every_command_names_the_directory_that_was_meant(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valley").mkdir()
    name, *options = command.split()
    assert main([name, "valey", *options]) != 0
    assert capsys.readouterr().err.endswith("\n  did you mean 'valley'?\n")


def test_a_file_that_nobody_typed_gets_no_advice(tmp_path, monkeypatch, capsys):
    """A cache that lacks a file has others beside it; none of them is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valley").mkdir()
    (tmp_path / "valley/flight.tomlx").touch()
    assert main(["plan", "valley"]) != 0
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tiles", "tils"], "no such file: tils; did you mean 'tiles'?"),
        (["--tiles", "tiles", "--backbone", "builtin:gist-colour"], "did you mean 'builtin:gist-color'?"),
        (["--tiles", "tiles", "--backbone", "net.onx"], "no such file: net.onx; did you mean 'net.onnx'?"),
        (["--tiles", "tiles", "--key", "my kye.pem"], "make one with `flightcache keygen 'my kye.pem'`"),
    ],
)
def test_init_writes_nothing_that_names_what_is_not_there(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    building.put_tile(tmp_path / "tiles", 8580, 5736, seed=1)
    (tmp_path / "net.onnx").touch()
    assert main(["init", "new", *words]) == Error.exit_code + 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
