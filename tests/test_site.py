"""The documentation as a site: every page is in it, every link of it leads somewhere, and none of it asks the network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from tests.scripts import loaded

ROOT = Path(__file__).resolve().parents[1]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements whose address a browser fetches by itself."""


def builder() -> ModuleType:
    return loaded(ROOT / "docs" / "build_site.py")


def test_every_document_is_in_the_site_and_in_its_sidebar():
    pages = builder().reachable()
    documents = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")}
    assert documents <= pages.keys()
    listed = set(re.findall(r"^[^`:\s]+\.md$", (pages["README.md"] or "").split("```{toctree}", 1)[1], re.MULTILINE))
    decisions = {path for path in documents if path.startswith("docs/decisions/")}
    assert {builder().uri_of(path) for path in documents - decisions} <= listed
    assert "decisions/index.md" in listed


def test_links_to_sources_and_folders_lead_to_pages_of_the_site():
    pages = builder().reachable()
    assert "](examples/vehicle/README.md)" in (pages["README.md"] or "")
    assert "](../examples/sign_pkcs11.py.md)" in (pages["docs/howto/hsm.md"] or "")
    assert "def main" in (pages["examples/sign_pkcs11.py"] or "")
    assert pages["docs/images/report.jpg"] is None
    assert "](index-and-gates.md" in "".join(text or "" for path, text in pages.items() if path.startswith("docs/"))


@pytest.mark.parametrize("folder", [".", "docs", "examples", "bench"])
def test_no_page_has_words_that_a_browser_takes_for_html(folder):
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    reader = markdown_it.MarkdownIt("commonmark").enable("table")
    pages = (ROOT / folder).glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md")
    for page in pages:
        for block in reader.parse(page.read_text()):
            for token in [block, *(block.children or ())]:
                found = token.content.strip() if token.type in ("html_inline", "html_block") else "<!-- -->"
                assert found.startswith("<!--"), f"{page.name}: {found}"


class Addresses(HTMLParser):
    """What a page links to, what it has the browser fetch, and the places within it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.fetched.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built; the addresses of each of its pages."""
    for library in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(library, reason=f"{library} of the extra [docs] is not installed")
    folder = tmp_path_factory.mktemp("site") / "site"
    done = build(ROOT / "docs" / "build_site.py", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return {page: Addresses(page.read_text()) for page in sorted(folder.rglob("*.html"))}


def build(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_links_and_anchors_of_the_site_lead_somewhere(site):
    assert len(site) > 50
    for page, found in site.items():
        for link in (link for link in found.links + found.fetched if link and not urlsplit(link).scheme):
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target.suffix == ".html":
                assert anchor in site[target].places, f"{page.name}: {link}"


@pytest.mark.slow
def test_no_page_asks_the_network_for_anything(site):
    folder = min(site, key=lambda page: len(page.parts)).parent
    for page, found in site.items():
        assert [address for address in found.fetched if urlsplit(address).scheme not in ("", "data")] == [], page.name
    for sheet in folder.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.DOTALL)
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:|//)[^)]*", text) == [], sheet.name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("see [this](other.md#not-there)", "not-there"),
        ("see [this](../examples/gone.py)", "gone.py"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(site, page, said, tmp_path):
    for name in ("build_site.py", "conf.py", "site.css"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / name).write_bytes((ROOT / "docs" / name).read_bytes())
    (tmp_path / "README.md").write_text("# Title\n\n[contents](docs/README.md)\n")
    (tmp_path / "docs" / "README.md").write_text("# Contents\n\n| learn | [a](page.md), [b](other.md) |\n|---|---|\n")
    (tmp_path / "docs" / "other.md").write_text("# Other\n")
    (tmp_path / "docs" / "page.md").write_text("# Page\n")
    assert build(tmp_path / "docs" / "build_site.py", tmp_path / "site").returncode == 0
    (tmp_path / "docs" / "page.md").write_text(f"# Page\n\n{page}\n")
    done = build(tmp_path / "docs" / "build_site.py", tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr
