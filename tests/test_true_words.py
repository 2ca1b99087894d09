"""Sentences of the documentation, tried: what it says of other tools and of doit is what they do."""

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provisioning.build.generation import provenance
from tests import building
from tests.caches import KEY, publish

ROOT = Path(__file__).resolve().parents[1]


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture
def wrapped(tmp_path):
    """Our key and signature as signify and minisign write theirs: `Ed`, a key number, and the bytes."""
    generation = publish(tmp_path / "cache").generation
    key = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = (generation / "Manifest.json.sig").read_bytes()
    for name, data in (("key", key), ("sig", signature)):
        text = base64.b64encode(b"Ed" + b"12345678" + data).decode()
        (tmp_path / name).write_text(f"untrusted comment: {name}\n{text}\n")
    return ["-V", "-p", str(tmp_path / "key"), "-x", str(tmp_path / "sig"), "-m", str(generation / "Manifest.json")]


@needs("signify-openbsd")
def test_signify_accepts_the_signature_wrapped(wrapped):
    subprocess.run(["signify-openbsd", *wrapped], check=True, capture_output=True)


@needs("minisign")
def test_minisign_does_not(wrapped):
    done = subprocess.run(["minisign", *wrapped], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "rusted comment" in done.stderr


@pytest.mark.parametrize("page", ["docs/manifest.md", "DESIGN.md"])
def test_provenance_has_the_names_that_are_written(page):
    text = (ROOT / page).read_text()
    assert provenance.BOM_FILE in text
    assert provenance.STATEMENT_FILE in text
    assert "bom.cdx.json" not in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-n", "2"], 3, "-n is refused"),
        (["-r", "json"], 3, "-r is refused"),
        (["forget"], 3, "doit forget --all"),
        (["forget", "--all"], 0, "forgetting all tasks"),
    ],
)
def test_doit_s_options_do_what_cli_md_says(words, code, said, tmp_path):
    cache = building.new_cache(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "doit", *words], cwd=cache, capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_sidecars_are_checked_by_sha256sum_as_the_specification_says(tmp_path):
    text = (ROOT / "docs/manifest.md").read_text()
    command = next(part for part in text.split("`") if part.startswith("for f in *.sha256"))
    generation = publish(tmp_path / "cache").generation
    run = ["bash", "-c", command]
    assert subprocess.run(run, cwd=generation, capture_output=True, check=False).returncode == 0
    (generation / "corpus.index").chmod(0o644)
    (generation / "corpus.index").write_bytes(b"changed")
    assert subprocess.run(run, cwd=generation, capture_output=True, check=False).returncode != 0
