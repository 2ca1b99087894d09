"""Promises of report.html that only a browser can judge."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from tests.scripts import loaded

ROOT = Path(__file__).resolve().parents[1]


shots = loaded(ROOT / "docs" / "screenshots.py")
pytestmark = pytest.mark.skipif(shots.chromium() is None, reason="Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def pages(demo_imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A complete report, and one with gaps and a route."""
    return shots.reports(tmp_path_factory.mktemp("reports"), demo_imagery)


def _asked(page: Path, expression: str, width: int) -> object:
    """What a JavaScript expression gives in the page, at a window of this width; the page itself runs no script."""
    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text())
    script = f"<script>document.title = JSON.stringify({expression})</script></body>"
    asking = page.with_name("asking.html")
    asking.write_text(text.replace("</body>", script))
    # A headless window is at least 500 px wide: a frame of the wanted width is what a phone shows.
    framed = page.with_name("framed.html")
    framed.write_text(
        f'<iframe src="asking.html" width="{width}" height="800" onload="document.title=this.contentDocument.title">'
    )
    dom = shots.browse(framed, "--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title, dom[:300]
    return json.loads(unescape(title[1]))


@pytest.mark.parametrize("width", [320, 390, 768])
def test_no_width_scrolls_sideways(pages, width):
    assert _asked(pages[1], "document.documentElement.scrollWidth", width) <= width


def test_skip_link_appears_when_focused_and_leads_to_the_content(pages):
    shown = _asked(
        pages[0],
        "(() => { const a = document.querySelector('.skip'); a.focus(); const r = a.getBoundingClientRect();"
        " return [r.left >= 0 && r.top >= 0 && r.width > 20, !!document.querySelector(a.getAttribute('href'))] })()",
        800,
    )
    assert shown == [True, True]


def test_radio_buttons_switch_what_the_map_shows(pages):
    shown = _asked(
        pages[1],
        "['imagery', 'coverage', 'dates'].map(view => { document.getElementById('show-' + view).checked = true;"
        " return ['.imagery', '.date'].map(c => getComputedStyle(document.querySelector(c)).display != 'none') })",
        800,
    )
    assert shown == [[True, False], [False, False], [False, True]]


def test_every_text_is_at_least_twelve_pixels_on_a_phone(pages):
    smallest = _asked(
        pages[1],
        "Math.min(...[...document.querySelectorAll('body *')].filter(e => e.childNodes.length && !e.closest('svg')"
        " && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) && e.tagName != 'SCRIPT')"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))",
        390,
    )
    assert smallest >= 12


def _picture(page: Path, *, dark: bool) -> Image.Image:
    target = page.with_name(f"{page.stem}-{'dark' if dark else 'light'}.png")
    shots.shoot(page, target, width=900, height=900, dark=dark)
    return Image.open(target).convert("RGB")


def test_dark_page_is_dark_and_light_page_is_light(pages):
    light, dark = (ImageStat.Stat(_picture(pages[0], dark=dark).crop((0, 0, 900, 60))).mean for dark in (False, True))
    assert min(light) > 200
    assert max(dark) < 60


def test_imagery_gaps_and_route_are_really_drawn(pages):
    colours = _picture(pages[1], dark=False).getcolors(1 << 20)
    assert colours is not None
    seen = {colour for _, colour in colours}
    assert (0xD3, 0x00, 0x8C) in seen  # the route
    assert (0xF6, 0xDE, 0xDB) in seen  # the ground of a gap
    assert len(seen) > 20_000  # imagery


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed (poppler-utils)")
def test_print_has_every_section_on_few_pages(pages, tmp_path):
    shots.browse(pages[1], "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}")
    printed = subprocess.run(
        ["pdftotext", str(tmp_path / "report.pdf"), "-"], capture_output=True, text=True, check=True
    )
    for heading in re.findall(r"<h2[^>]*>([^<]*)</h2>", pages[1].read_text()):
        assert heading in printed.stdout
    assert printed.stdout.count("\f") <= 7
    assert "Skip to the content" not in printed.stdout


@pytest.mark.slow
def test_terminal_shows_a_bar_while_it_works_and_keeps_only_calm_lines(demo_imagery, tmp_path):
    shutil.copytree(demo_imagery, tmp_path / "tiles")
    during, end, again = re.findall(r"<pre>(.*?)</pre>", shots.terminal(tmp_path).read_text(), re.DOTALL)
    assert re.search(r"descriptors +█+.* of 2640  \d+ s left  \d+ tiles/s$", during)
    assert "█" not in end
    assert [line.split()[0] for line in end.splitlines()[1:-1]][:3] == [
        "onnx:gist-color",
        "engine:gist-color",
        "descriptors",
    ]
    assert 'class="g">SUCCESS</span>' in end
    assert len(again.splitlines()) == 3


MOVED = """(() => {
  const frame = document.querySelector('.frame'), svg = document.getElementById('finest');
  const press = key => frame.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
  const views = [svg.getAttribute('viewBox').split(' ').map(Number)];
  for (const key of ['+', '+', 'ArrowRight', '0']) {
    press(key);
    views.push(svg.getAttribute('viewBox').split(' ').map(Number));
  }
  return [views, document.querySelector('.scale + p').textContent];
})()"""


def test_the_map_zooms_moves_and_returns_by_keyboard(pages):
    (home, half, quarter, right, again), scale = _asked(pages[1], MOVED, 800)
    assert half[2] == pytest.approx(home[2] / 2, abs=0.01)
    assert quarter[2] == pytest.approx(home[2] / 4, abs=0.01)
    assert right[0] > quarter[0]
    assert again == pytest.approx(home, abs=0.01)
    assert scale == "2 km at the middle latitude"


POINTED = """(() => {
  const svg = document.getElementById('finest'), r = svg.getBoundingClientRect();
  return [[0.5, 0.5], [0.36, 0.36], [0.001, 0.001]].map(([x, y]) => {
    svg.dispatchEvent(new PointerEvent('pointermove', {clientX: r.left + x * r.width, clientY: r.top + y * r.height}));
    return document.querySelector('output').textContent;
  });
})()"""


def test_the_tile_under_the_pointer_is_named(pages):
    there, gap, outside = _asked(pages[1], POINTED, 800)
    assert re.fullmatch(r"16/3415\d/2296\d, there, (captured [\d-]+|date unknown)", there)
    assert re.fullmatch(r"16/\d+/\d+, missing", gap)
    assert outside.endswith("outside the area")


def test_a_layer_can_be_taken_away(pages):
    shown = _asked(
        pages[1],
        "['gaps', 'route'].map(name => { document.getElementById('layer-' + name).checked = false;"
        " return getComputedStyle(document.querySelector('#finest .layer-' + name)).display })",
        800,
    )
    assert shown == ["none", "none"]


def test_the_page_s_own_policy_lets_its_script_run(pages):
    dom = shots.browse(pages[0], "--virtual-time-budget=2000", "--dump-dom")
    assert 'role="application"' in dom
