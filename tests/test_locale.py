"""Commands say what they have to say in any locale: no encoding of the terminal ends one with a traceback."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.console.streams import write_any_character
from tests import building


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = building.new_cache(tmp_path_factory.mktemp("locale"))
    (cache.parent / "tiles").rename(cache.parent / "karo Ğ−ü")
    building.edit(cache, '/tiles"', '/karo Ğ−ü"\nname = "karo"')
    return cache


def _ran(words, cwd, encoding, **more):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, **more}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=environment, capture_output=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("utf-8", "iso8859-9", "koi8-r"))]
)
def test_plan_prints_its_signs_or_their_ascii(cache, encoding):
    ran = _ran(["provisioning.cli", "plan", "."], cache, encoding)
    said = ran.stdout.decode(encoding)
    assert ran.stderr == b""
    assert ran.returncode == 1
    assert ("~0)" in said, "−0" in said or "-0" in said) == (True, True)


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-9"])
def test_doit_names_a_path_that_the_encoding_lacks(cache, encoding):
    building.edit(cache, "karo Ğ−ü", "yok Ğ−ü")
    try:
        ran = _ran(["doit"], cache, encoding)
    finally:
        building.edit(cache, "yok Ğ−ü", "karo Ğ−ü")
    assert b"Traceback" not in ran.stderr + ran.stdout
    assert b"UnicodeEncodeError" not in ran.stderr + ran.stdout
    assert b"next step" in ran.stderr + ran.stdout


@pytest.mark.parametrize(
    ("text", "encoding", "written"),
    [
        ("+0 −1", "ascii", b"+0 -1"),
        ("+0 −1", "utf-8", "+0 −1".encode()),
        ("4 × 4", "iso8859-9", "4 × 4".encode("iso8859-9")),
        ("çok", "ascii", rb"\xe7ok"),
        ("karo\udcff.jpg", "utf-8", rb"karo\udcff.jpg"),
    ],
)
def test_what_an_encoding_lacks_is_written_in_ascii(monkeypatch, text, encoding, written):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    write_any_character()
    print(text, end="", flush=True)
    assert raw.getvalue() == written


def test_a_stream_that_keeps_bytes_of_file_names_is_left_alone(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape"))
    write_any_character()
    print("karo\udcff.jpg", end="", flush=True)
    assert raw.getvalue() == b"karo\xff.jpg"


TEXTS = {"read_text", "write_text"}
PACKAGES = [Path(__file__).parents[1] / name for name in ("provisioning", "rules")]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_text_file_is_written_or_read_as_the_locale_has_it(package):
    """In the C locale of Python without UTF-8 mode a degree sign ended a build, and Latin-1 would have changed its bytes."""
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TEXTS:
                if "METADATA" in ast.dump(node) or "PKG-INFO" in ast.dump(node):
                    continue  # a distribution's, which takes no encoding
                found += [f"{path}:{node.lineno}"] if "encoding" not in {word.arg for word in node.keywords} else []
    assert found == []
