"""The screens of a working day in each form of terminal, over a real cache: no-op, plan, status, refusal, photo, fleet.

`FLIGHTCACHE_UPDATE_GOLDEN=1 pytest -m slow tests/test_golden_screens.py` writes what is said now; read the difference first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_golden import _made, _masked
from tests.test_golden_forms import FORMS, hold_to, said

GOLDEN = Path(__file__).parent / "golden" / "screens"
SCREENS = (
    ("doit", "-f cache/dodo.py"),
    ("doit", "-f empty/dodo.py"),
    ("provisioning.cli", "plan changed"),
    ("provisioning.cli", "status cache"),
    ("provisioning.cli", "verify tampered --public-key key.pub.pem --flight F-2 --ground"),
    ("provisioning.cli", "locate tiles/14/8581/5737.jpg --cache cache --public-key key.pub.pem"),
    ("provisioning.cli", "fleet FLEET.toml"),
)
LIVE = "\r\x1b[2K"
"""Before each form of the live line: what follows it is replaced by the next."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A built cache, a changed, a tampered and an empty one, and a fleet that is built already."""
    with pytest.MonkeyPatch.context() as patch:
        folder = _made(tmp_path_factory.mktemp("screens"), patch)
        said(["fleet", "FLEET.toml"], None, {}, folder)
        yield folder


def screen(module: str, line: str, form: str, work: Path) -> str:
    """What stays on the screen of a command."""
    columns, environment = FORMS[form]
    options = environment.get("FORM", "").split() if module != "doit" else []
    *gone, last = said([*options, *line.split()], columns, environment, work, module).split(LIVE)
    kept = "".join(frame for frame in gone if frame.endswith("\n"))
    program = "doit" if module == "doit" else "flightcache"
    return f"$ {program} {line}\n{kept}{last}"


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_screens(form: str, work: Path) -> None:
    text = "\n".join(screen(module, line, form, work) for module, line in SCREENS)
    hold_to(GOLDEN, form, _masked(text, work, ""))
