"""Attacks by names: what steers a terminal or fakes a line is printed as its escape, by every command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from provisioning.base.printable import steers
from provisioning.base.words import typed
from provisioning.cli import main
from tests import building

HOSTILE = "a\x1b[2K\rb\nSUCCESS manifest_hash \x9b31m\u202e\u061c\u2028'\\"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory of a hostile name with a built cache, its key and a photo of such a name."""
    place = tmp_path_factory.mktemp("names") / HOSTILE
    place.mkdir()
    cache = building.new_cache(place, side=2)
    tile = next((place / "tiles").rglob("*.jpg"))
    (place / f"{HOSTILE}.jpg").write_bytes(tile.read_bytes())
    shutil.copy(tile, tile.parent / f"{tile.stem}{HOSTILE}.jpg")
    assert building.build(cache).outcome == "SUCCESS"
    return place


ANY = ["--any-flight", "--any-aircraft", "--any-host"]
COMMANDS = [
    ["plan", "cache"],
    ["tiles", "cache"],
    ["tiles", "cache", "--scan"],
    ["status", "cache"],
    ["verify", "{x}no", "--public-key", "{key}"],
    ["verify", "{x}/cache", "--public-key", "{key}", "--ground"],
    ["doctor", "cache", "--public-key", "{key}"],
    ["clean", "cache", "--old"],
    ["locate", "{x}.jpg", "--cache", "cache", "--public-key", "{key}"],
    ["evaluate", ".", "cache", "--public-key", "{key}"],
    ["bundle", "cache", "-o", "{x}.tar", "--public-key", "{key}"],
    ["info", "{x}.tar", "--public-key", "{key}"],
    ["info", "{x}.tar"],
    ["install", "{x}.tar", "{x}target", "--public-key", "{key}", "--no-self-test", *ANY],
    ["verify", "{x}target", "--public-key", "{key}", *ANY],
    ["fallback", "{x}target", "--public-key", "{key}"],
    ["sync", "{x}drive", "cache", "--public-key", "{key}"],
    ["keygen", "{x}k.pem"],
    ["key", "fingerprint", "{x}k.pub.pem"],
    ["trust", "init", "{x}t.json", "--root", "{x}k.pub.pem", "--signing", "{key}", "--not-after", "never"],
    ["trust", "sign", "{x}t.json", "--key", "{x}k.pem"],
    ["trust", "install", "{x}t.json", "{x}target"],
    ["cosign", "cache", "--key", "{x}k.pem", "--public-key", "{key}"],
    ["init", "{x}new", "--tiles", "tiles"],
    ["fleet", "{x}.toml"],
]


def test_no_command_prints_a_name_that_steers_a_terminal_or_fakes_a_line(place, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    monkeypatch.chdir(place)
    (place / f"{HOSTILE}drive").mkdir()
    (place / HOSTILE).symlink_to(".")
    for words in COMMANDS:
        main([word.replace("{x}", HOSTILE).replace("{key}", str(place / "key.pub.pem")) for word in words])
        said = "".join(capfd.readouterr())
        assert said
        lines = said.split("\n")
        assert not [line for line in lines if steers(line.replace("\t", ""))], words
        assert not [line for line in lines if re.match("SUCCESS manifest_hash \\W", line)], words


@pytest.mark.parametrize("words", [["list"], ["info", "corpus"], [], ["clean", "-n"]])
def test_doit_prints_no_name_that_steers_a_terminal(place, words):
    command = [sys.executable, "-m", "doit", *words]
    done = subprocess.run(command, cwd=place / "cache", capture_output=True, check=False)
    assert not [line for line in (done.stdout + done.stderr).decode().split("\n") if steers(line.replace("\t", ""))]


def test_a_command_line_to_be_typed_names_the_hostile_file_and_nothing_else():
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("no bash here")
    line = typed("printf", "%s", HOSTILE)
    assert not steers(line)
    done = subprocess.run([shell, "-c", line], capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=True)
    assert done.stdout == HOSTILE.encode()


@pytest.mark.parametrize(
    "words",
    [
        [HOSTILE],
        ["plan", "--" + HOSTILE.replace(" ", "")],
        ["sync", "a", "--keep", HOSTILE],
        ["init", "a", "--source-scheme", HOSTILE],
        ["verify", ".", "--revoked", HOSTILE],
        ["verify", ".", "--revoked-file", HOSTILE],
    ],
)
def test_wrong_usage_does_not_steer_a_terminal(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert not [line for line in capsys.readouterr().err.split("\n") if steers(line)]
