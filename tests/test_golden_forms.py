"""What a person sees in each form of terminal, word for word: 60 and 120 columns, with colour and without, a pipe, ASCII.

`FLIGHTCACHE_UPDATE_GOLDEN=1 pytest tests/test_golden_forms.py` writes what is said now; read the difference first.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.caches import KEY, publish

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "forms"
COMMANDS = (
    "key --help",
    "status cache",
    "verify cache --public-key key.pem --ground",
    "verify cache --public-key key.pem --ground --flight F-119",
    "status cache --jsno",
)
FORMS = {
    "60-colour": (60, {"TERM": "xterm"}),
    "120-colour": (120, {"TERM": "xterm"}),
    "120-no-colour": (120, {"TERM": "xterm", "NO_COLOR": "1"}),
    "pipe": (None, {}),
    "pipe-color-always": (None, {"FORM": "--color always"}),
    "ascii": (60, {"TERM": "dumb", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
}
MASKS = (
    (r"(?m)^.*\(still running\)\n", ""),  # a busy machine takes half a minute for a step
    (r"\b[0-9a-f]{64}\b", "<sha256>"),
    (r"\b[0-9a-f]{16}\b", "<hash>"),
    (r"\d+(\.\d+)? (B|kB|MB|GB|TB)\b", "N MB"),
    (r"in \d+\.\d+ s", "in N s"),
    (r"up to [\d,]+ days old", "up to N days old"),
    (r"published .*?, not", "published just now, not"),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    cache = publish(folder / "cache")
    (cache.root / "flight.toml").touch()
    (folder / "key.pem").write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder


def said(
    words: list[str], columns: int | None, environment: dict[str, str], work: Path, module: str = "provisioning.cli"
) -> str:
    """What a command writes to a terminal of so many columns, or to a pipe."""
    keep = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "TERM")}
    environment = {**keep, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", module, *words]
    if columns is None:
        done = subprocess.run(command, capture_output=True, cwd=work, env=environment, check=False, timeout=300)
        return (done.stdout + done.stderr).decode()
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=work, env=environment):
        os.close(slave)
        text = b""
        try:
            while piece := os.read(master, 65536):
                text += piece
        except OSError:  # the terminal is gone with its last process
            pass
    os.close(master)
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "form", [pytest.param(name, marks=[pytest.mark.slow] if name == "120-colour" else []) for name in FORMS]
)
def test_form(form, work):
    """Of 120 columns with colour only nightly: each of the two is in another form."""
    columns, environment = FORMS[form]
    options = environment.get("FORM", "").split()
    text = "\n".join(
        f"$ flightcache {line}\n{said([*options, *line.split()], columns, environment, work)}" for line in COMMANDS
    )
    for pattern, shown in ((re.escape(str(work)), "WORK"), *MASKS):
        text = re.sub(pattern, shown, text)
    hold_to(GOLDEN, form, text.replace("\x1b[2K", ""))


def hold_to(golden: Path, form: str, text: str) -> None:
    """Compare what a terminal of this form shows with the text in `golden`, or write it there where that is asked."""
    text = text.replace("\x1b", "\\e")
    path = golden / f"{form}.txt"
    if os.environ.get("FLIGHTCACHE_UPDATE_GOLDEN"):
        golden.mkdir(exist_ok=True)
        path.write_text(text)
    assert _loose(text) == _loose(path.read_text())
    assert ("\\e[3" in text) == ("colo" in form and "no-colour" not in form)
    if form == "ascii":
        assert text.isascii()


def _loose(text: str) -> str:
    """Without the line breaks of argparse, whose usage lines differ between releases of Python."""
    return re.sub(r"\s+", " ", text.replace("'", ""))
