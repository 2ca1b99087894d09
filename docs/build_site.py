"""Make the documentation a site that needs no network: `python docs/build_site.py [DIR]` writes it to dist/site.

The documents are written for a checkout: they link to each other, to examples and to code, by relative paths. So the
site has whatever can be reached from `docs/` and the README: a folder becomes its README or a list of its pages, a
source file a page that shows it. The table of `docs/README.md` is the sidebar. Sphinx warns of links and anchors that
lead nowhere, and of pages that are in no list; each warning is an error here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
CONTENTS = "docs/README.md"
RENAMED = {"README.md": "index.md", CONTENTS: "contents.md", "docs/index.md": "index-and-gates.md"}
"""`docs/index.md` is the page on corpus.index; a site has its first page under that name."""

FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
LANGUAGES = {".py": "python", ".cpp": "cpp", ".hpp": "cpp", ".toml": "toml", ".service": "ini", ".conf": "ini"}
PICTURES = (".jpg", ".png", ".svg")


def main() -> int:
    """Build the site; return Sphinx's exit code."""
    if importlib.util.find_spec("furo") is None or importlib.util.find_spec("myst_parser") is None:
        raise SystemExit("Sphinx, MyST or Furo is missing: pip install -c .ci/constraints.txt -e '.[docs]'")
    target = Path(sys.argv[1] if sys.argv[1:] else ROOT / "dist" / "site")
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_sources(Path(scratch))
        words = ["-q", "-W", "--keep-going", "-n", "-b", "html", "-c", str(ROOT / "docs"), "-d", f"{scratch}/.doctrees"]
        done = subprocess.run([sys.executable, "-m", "sphinx", *words, scratch, str(target)], check=False)
    if done.returncode == 0:
        print(f"open {target / 'index.html'}")
    return done.returncode


def write_sources(folder: Path) -> None:
    """Write what Sphinx reads to `folder`: the pages under their names in the site, and the pictures."""
    for path, text in reachable().items():
        place = folder / uri_of(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            shutil.copyfile(ROOT / path, place)
        else:
            place.write_text(text, encoding="utf-8")


def reachable() -> dict[str, str | None]:
    """Return the text of each page by its path in the repository; None for a picture, which is copied."""
    waiting = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]
    read: dict[str, str | None] = {}
    while waiting:
        path = waiting.pop()
        if path not in read:
            read[path] = text = _text_of(path)
            waiting += [] if text is None or _is_source(path) else _targets(path, text)
    pages = {p: text if text is None or _is_source(p) else _in_site(p, text) for p, text in read.items()}
    pages["README.md"] = f"{pages['README.md']}\n{_sidebar(pages)}"
    return pages


def uri_of(path: str) -> str:
    """Return where the site has the file or folder `path` of the repository."""
    inside = path.removeprefix("docs/")
    if path in RENAMED:
        return RENAMED[path]
    if (ROOT / path).is_dir():
        return f"{inside}/index.md"
    return f"{inside}.md" if _is_source(path) else inside


def _is_source(path: str) -> bool:
    return (ROOT / path).is_file() and not path.endswith((".md", *PICTURES))


def _text_of(path: str) -> str | None:
    file = ROOT / path
    if file.is_dir():
        names = [page.name for page in sorted(file.glob("*.md"))]
        listed = [f"- [{_title(f'{path}/{name}')}]({file.name}/{name})" for name in names]
        return "\n".join([f"# {file.name.capitalize()}", "", *listed, "", _toctree("", names), ""])
    if _is_source(path):
        language = LANGUAGES.get(file.suffix, "text")
        return f"---\norphan: true\n---\n# {file.name}\n\n````{language}\n{file.read_text()}````\n"
    return None if path.endswith(PICTURES) else file.read_text()


def _title(path: str) -> str:
    return (ROOT / path).read_text().partition("\n")[0].removeprefix("# ")


def _sidebar(pages: dict[str, str | None]) -> str:
    """Return the lists of pages: one for each row of the table of contents, and one of what is in none."""
    rows = re.findall(r"^\| ([^|]+) \| (.*\]\(.*) \|$", (ROOT / CONTENTS).read_text(), re.MULTILINE)
    lists = {caption: list(dict.fromkeys(_targets(CONTENTS, row))) for caption, row in rows}
    listed = {path for row in lists.values() for path in row} | {"README.md"}
    rest = [p for p in pages if p.endswith(".md") and p not in listed and not p.startswith("docs/decisions/")]
    lists["the project"] = sorted(rest, key=lambda path: (path != CONTENTS, path.count("/"), path))
    return "\n".join(_toctree(caption, [uri_of(path) for path in row]) for caption, row in lists.items())


def _toctree(caption: str, names: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}" if caption else "", "", *names, "```"])


def _targets(path: str, text: str) -> Iterator[str]:
    for outside in FENCED.split(text)[::2]:
        yield from (linked for _, link, _ in LINK.findall(outside) if (linked := _linked(path, link)))


def _in_site(path: str, text: str) -> str:
    """Return the page with its links as the site has them; blocks of code are left as they are."""
    place = PurePosixPath(uri_of(path)).parent

    def moved(found: re.Match[str]) -> str:
        linked, (_, mark, anchor) = _linked(path, found[2]), found[2].partition("#")
        return found[0] if not linked else f"{found[1]}{os.path.relpath(uri_of(linked), place)}{mark}{anchor}{found[3]}"

    return _outside_code(text, lambda part: LINK.sub(moved, part))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts = FENCED.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)


def _linked(path: str, link: str) -> str | None:
    """Return the file or folder of the repository that a link of the page `path` leads to; None for other addresses."""
    name = link.partition("#")[0]
    if not name or ":" in name:
        return None
    target = os.path.normpath(PurePosixPath(path).parent / name)
    if not (ROOT / target).exists():
        raise SystemExit(f"{path}: the link {link} leads nowhere")
    readme = f"{target}/README.md"
    return readme if (ROOT / readme).is_file() else target


if __name__ == "__main__":
    sys.exit(main())
