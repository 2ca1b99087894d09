"""Exit codes are part of the interface: each is distinct, documented, and what a user then sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provisioning.base import errors
from provisioning.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Error)]


def test_each_class_of_error_has_its_own_code() -> None:
    codes = [kind.exit_code for kind in CLASSES if "exit_code" in vars(kind)]  # the others are their parent to a user
    assert len(set(codes)) == len(codes)
    assert min(codes) >= 10


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_code_is_in_the_readme(kind: type[errors.Error]) -> None:
    section = README.read_text().split("## Exit codes")[1].split("\n## ")[0]
    assert re.search(rf"\| {kind.exit_code} \|", section)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan", "nowhere"], errors.ConfigError.exit_code),
        (["why", "corpus", "nowhere"], errors.ConfigError.exit_code),
        (
            ["verify", "nowhere", "--public-key", "nokey.pem"],
            errors.SigningError.exit_code,
        ),
    ],
)
def test_a_mistake_gives_its_code_and_a_next_step(
    words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    message = capsys.readouterr().err
    assert message.startswith(f"flightcache {words[0]}: ")
    assert "Traceback" not in message


def test_wrong_usage_is_two() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["no-such-command"])
    assert stopped.value.code == 2
