"""The documentation is true: its commands run, its generated pages are current, its links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from provisioning.base import errors
from provisioning.cli.running import command_parser
from tests.scripts import loaded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
RUN = re.compile(r"<!-- run( nightly)? -->\n```sh\n(.*?)```", re.DOTALL)
PATH = re.compile(r"`((?:provisioning|rules|tests|docs|bench|examples)/[\w/.-]*)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _reference() -> ModuleType:
    return loaded(DOCS / "reference.py")


@pytest.mark.parametrize("page", ["flight.toml.md", "cli.md"])
def test_generated_reference_is_current(page):
    text = _reference().pages()[page]
    assert (DOCS / "reference" / page).read_text() == text, "run python docs/reference.py"


def test_reference_lists_every_key_of_flight_toml():
    from provisioning.config.template import keys, sections

    page = (DOCS / "reference" / "flight.toml.md").read_text()
    for section in sections():
        assert f"## `{section.heading}`" in page
        for field in keys(section.kind):
            assert f"| `{field.name}` |" in page


def test_the_exit_code_of_every_error_is_documented():
    page = (DOCS / "reference" / "cli.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Error)]
    assert len(kinds) > 15
    for kind in kinds:
        assert f"| {kind.exit_code} | `{kind.__name__}`: " in page


def test_every_kind_of_event_is_documented():
    page = (DOCS / "reference" / "log.md").read_text()
    kinds = set()
    for folder in ("provisioning", "rules"):
        for source in (ROOT / folder).rglob("*.py"):
            kinds |= set(re.findall(r"\b(?:event|warn)\(\s*\"([a-z_.]+)\"", source.read_text()))
    assert len(kinds) > 15
    assert {kind for kind in kinds if f"`{kind}`" not in page} == set()


def _anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_ours_that_a_page_names_are_there(page):
    assert [path for path in PATH.findall(page.read_text()) if not (ROOT / path).exists()] == []


def test_layers_are_those_that_are_checked():
    design = (ROOT / "DESIGN.md").read_text().split("## Layers")[1].split("```")[1]
    stated = [
        set(re.split(r" {3,}", line.strip())[0].split()) for line in design.split("provisioning/\n")[1].splitlines()
    ]
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    checked = [set(re.findall(r"provisioning\.(\w+)", layer)) for layer in contract["layers"]]
    assert [layer for layer in stated if layer] == [layer for layer in checked if layer]


def _command_lines(page: Path) -> Iterator[list[str]]:
    """Every `flightcache COMMAND …` in the page's shell blocks, as words."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "flightcache" in words:
                words = words[words.index("flightcache") + 1 :]
                end = next((i for i, word in enumerate(words) if word in ("&&", "||", "|", ";", ">", "&")), len(words))
                yield [word.rstrip(";") for word in words[:end]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_the_page_exist_with_these_options(page, capsys):
    for words in _command_lines(page):
        assert _parses(words), f"{page.name}: flightcache {shlex.join(words)}: {capsys.readouterr().err}"


def _parses(words: list[str]) -> bool:
    if not words or words[0].startswith("-"):  # the word as an argument of another command
        return True
    filled = [re.sub(r"^\$.*", "0" * 64, word) for word in words[1:]]  # a variable: a fingerprint, or any path
    try:
        command_parser(words[0]).parse_args(filled)
    except (KeyError, SystemExit):
        return False
    return True


SMALL_DEMO = f"""#!{sys.executable}
from provisioning.cli.begin import demo_imagery
from provisioning.network.builtin import known
demo_imagery.COLUMNS, demo_imagery.ROWS = 1, 1
known.file_of = lambda _: None
from provisioning.cli import main
main()
"""


def _small_demo(programs: Path) -> Path:
    """Make a folder whose `flightcache` is the program, with five tiles and GIST: the whole is half a minute of work."""
    programs.mkdir()
    (programs / "flightcache").write_text(SMALL_DEMO)
    (programs / "flightcache").chmod(0o755)
    return programs


@pytest.mark.parametrize(
    ("page", "nightly"),
    [("tutorial.md", False), ("howto/hsm.md", False), pytest.param("tutorial.md", True, marks=pytest.mark.slow)],
)
def test_commands_marked_as_run_do_run(page, nightly, tmp_path):
    """Those of a page one after another; the whole landscape of the demo, and a second build of it, in the nightly run."""
    marked = RUN.findall((DOCS / page).read_text())
    script = "".join(words for later, words in marked if nightly or not later)
    assert "flightcache" in script, "nothing is marked as run"
    programs = (
        [Path(sys.executable).parent] if nightly else [_small_demo(tmp_path / "bin"), Path(sys.executable).parent]
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PATH": ":".join([*map(str, programs), os.environ["PATH"]]),
        "NO_COLOR": "1",
    }
    run = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-5000:]


def test_the_table_of_tasks_in_the_design_is_that_of_the_build():
    from provisioning.build import tasks

    text = Path(tasks.__file__).read_text()
    design = (ROOT / "DESIGN.md").read_text().split("## Rules")[1].split("`provisioning/build/tasks.py`")[0]
    stated = [name.partition(":")[0] for name in re.findall(r"^\| `([^`]+)` \|", design, re.MULTILINE)]
    built = re.findall(r'name=f"(\w+):|    yield row\(\n        (?:"(\w+)"|(WALK))', text)
    names = {first or second or "coverage" for first, second, _ in built}
    assert set(stated) == names
