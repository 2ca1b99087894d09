"""Make docs/screenshots/: the report in every form it is read in, and a terminal during a build. Two small copies stay.

`python docs/screenshots.py [DIR]` needs Chromium, and pdftoppm for the printed page. The imagery is the demo's.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import itertools
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.cli.begin import demo_imagery as demo

if TYPE_CHECKING:
    from provisioning.report.model import ReportModel, TileMap

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


def browse(page: Path, *words: str) -> str:
    """Open `page` in a headless browser with a profile of its own; return what it wrote to standard output."""
    browser = chromium()
    if browser is None:
        raise SystemExit("no Chromium found: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", *words, page.absolute().as_uri()]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def shoot(page: Path, picture: Path, *, width: int, height: int, dark: bool = False) -> None:
    """Write a screenshot of `page`."""
    scheme = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    browse(page, *scheme, f"--window-size={width},{height}", f"--screenshot={picture}")


def print_pages(page: Path, stem: Path) -> list[Path]:
    """Print `page` as PDF and return pictures of its sheets."""
    pdf = stem.with_suffix(".pdf")
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    subprocess.run(["pdftoppm", "-r", "70", "-png", str(pdf), str(stem)], check=True)
    pdf.unlink()
    return sorted(stem.parent.glob(f"{stem.name}-*.png"))


def reports(work: Path, imagery: Path) -> tuple[Path, Path]:
    """Write two reports over the demo imagery: a complete one, and one with gaps and a route."""
    sys.path.insert(0, str(ROOT))
    from provisioning.report.model import SkippedTile, TileMark
    from provisioning.report.page import render
    from tests import report_models

    complete, gaps = work / "complete.html", work / "gaps.html"
    complete.write_bytes(render(report_models.model(imagery)))
    model = report_models.model(imagery, keep=_kept, routes=(report_models.ROUTE,))
    skipped = tuple(SkippedTile(16, 34_150 + x, 22_960, "satellite", "truncated JPEG") for x in range(3))
    marks = (
        *(TileMark(16, 34_150 + x, 22_960, "left out", "truncated JPEG") for x in range(3)),
        *(TileMark(16, 34_140 + x, 22_955, "degenerate", "no texture") for x in range(4)),
    )
    failures = tuple(report_models.failures(imagery))
    shown = dataclasses.replace(model, skipped=skipped, marks=marks, failures=failures, steps=_steps())
    gaps.write_bytes(render(dataclasses.replace(shown, required=_under(shown))))
    return complete, gaps


def _under(model: ReportModel) -> tuple[TileMap, ...]:
    """Return the tiles of the finest zoom level under the route, found by walking along it."""
    from provisioning.base.geometry.geo import tile_at
    from provisioning.report.map.tilemap import Run, tile_map

    (route,), zoom, parts = model.routes, max(demo.ZOOMS), 200
    lines = [(a, b) for a, b in itertools.pairwise(route)]
    found = {
        tile_at(
            zoom,
            lat_e7=a.lat_e7 + n * (b.lat_e7 - a.lat_e7) // parts,
            lon_e7=a.lon_e7 + n * (b.lon_e7 - a.lon_e7) // parts,
        )
        for a, b in lines
        for n in range(parts + 1)
    }
    return (tile_map(zoom, [Run(y, x, x) for x, y in sorted(found)], ()),)


def _steps() -> tuple[object, ...]:
    from provisioning.report.model import Step

    after = {
        "preflight": (), "onnx:net": (), "engine:net": ("onnx:net",), "descriptors": ("preflight", "engine:net"),
        "corpus": ("descriptors",), "gates": ("engine", "corpus"), "report": ("gates",), "manifest": ("report",),
        "coverage": ("manifest",),
    }  # fmt: skip
    return tuple(Step(name, names) for name, names in after.items())


def _kept(place: tuple[int, int, int]) -> bool:
    zoom, x, y = place
    in_hole = 34_147 < x < 34_153 and 22_960 < y < 22_963
    return zoom == 15 or not (in_hole or (7 * x + 13 * y) % 29 == 0)


def showing(page: Path, view: str) -> Path:
    """Return a copy of a report in which another view of the map is chosen."""
    text = page.read_text().replace(' checked><label for="show-imagery">', '><label for="show-imagery">')
    copy = page.with_name(f"{page.stem}-{view}.html")
    copy.write_text(text.replace(f'id="show-{view}"', f'id="show-{view}" checked'))
    return copy


def terminal(work: Path) -> Path:
    """Run a build in a pseudo-terminal and return a page with its screen: while it works, and at the end."""
    cache = _slow_cache(work)
    doit = [sys.executable, "-m", "doit"]
    frames = "".join(_pty_output(doit, cache)).split("\r\x1b[2K")
    working = [number for number, frame in enumerate(frames) if " left" in frame]
    during, end = _screen(frames[: working[len(working) // 2] + 1]), _screen(frames)
    again = _screen("".join(_pty_output(doit, cache)).split("\r\x1b[2K"))
    page = work / "terminal.html"
    style = "body{margin:0;padding:24px;background:#14181a;color:#e7e9e4;font:15px/1.45 'DejaVu Sans Mono',monospace}"
    style += "pre{margin:0 0 28px;white-space:pre-wrap}.g{color:#7fd49a}.r{color:#ff8a80}.y{color:#f0b35a}"
    screens = "".join(f"<pre>$ doit\n{screen}</pre>" for screen in (during, end, again))
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{style}</style>{screens}")
    return page


def _slow_cache(work: Path) -> Path:
    """Return a cache whose descriptors take some seconds: each tile at four headings, one thread."""
    from provisioning.cli.begin.init import create_cache

    os.environ["XDG_CONFIG_HOME"] = str(work / "config")
    cache = work / "valley"
    create_cache(cache, tiles=work / "tiles")
    text = (cache / "flight.toml").read_text()
    for before, after in (("# rotations = 1", "rotations = 4"), ("# threads = 0", "threads = 1")):
        text = text.replace(before, after)
    (cache / "flight.toml").write_text(text)
    return cache


def _pty_output(command: list[str], folder: Path) -> Iterator[str]:
    """Yield what `command` writes to a terminal of 100 columns."""
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(command[0], command, environment)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
    while select.select([master], [], [], 120)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:  # the terminal is gone with its last process
            break
        if not data:
            break
        yield data.decode(errors="replace")
    os.waitpid(pid, 0)


def _screen(frames: list[str]) -> str:
    """Return what stays on the screen, as HTML: a frame without a line end is replaced by the next."""
    *gone, last = frames
    text = "".join(frame for frame in gone if frame.endswith("\n")) + last
    shown = escape(text.replace("\r", ""))
    for code, style in (("32", "g"), ("31", "r"), ("33", "y")):
        shown = shown.replace(f"\x1b[{code}m", f'<span class="{style}">')
    return re.sub(r"\x1b\[0m", "</span>", shown)


def reduce(picture: Path, copy: Path, *, width: int) -> None:
    """Write a smaller JPEG of a screenshot, for the README."""
    from PIL import Image

    copy.parent.mkdir(exist_ok=True)
    with Image.open(picture) as image:
        size = (width, image.height * width // image.width)
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(copy, quality=80)


def main() -> int:
    """Make every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES.parent / "screenshots")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        demo.write_demo_tiles(work / "tiles")
        complete, gaps = reports(work, work / "tiles")
        shoot(complete, folder / "light.png", width=1280, height=1500)
        shoot(gaps, folder / "dark-gaps-route.png", width=1280, height=1500, dark=True)
        shoot(showing(gaps, "dates"), folder / "dates.png", width=1280, height=1500)
        shoot(showing(gaps, "coverage"), folder / "coverage.png", width=1280, height=1500)
        shoot(gaps, folder / "phone.png", width=390, height=2200)
        print_pages(gaps, folder / "print")
        shoot(terminal(work), folder / "terminal.png", width=1080, height=580)
    if folder == IMAGES.parent / "screenshots":
        reduce(folder / "dark-gaps-route.png", IMAGES / "report.jpg", width=800)
        reduce(folder / "terminal.png", IMAGES / "terminal.jpg", width=800)
    return 0


if __name__ == "__main__":
    sys.exit(main())
