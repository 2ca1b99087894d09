"""Promises of report.html: complete, self-contained, the same bytes, readable by everyone, bounded."""

import base64
import dataclasses
import hashlib
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from provisioning.base.hashing import sha256_bytes
from provisioning.cli.begin import demo_imagery as demo
from provisioning.config import Signing
from provisioning.flight import signing
from provisioning.flight.manifest import FileEntry, FlightPart, GateEntry, ZoomCount, to_bytes, with_hash
from provisioning.report import page, verifying
from provisioning.report.changes import changes
from provisioning.report.map.mosaic import MAX_BYTES, PAPER, make_mosaic, mosaic_places, mosaic_zoom
from provisioning.report.map.tilemap import Run, tile_map
from provisioning.report.model import Change, ReportModel, SkippedTile, SourceRow
from provisioning.report.page import render
from tests import building, report_models

VOID = {"meta", "link", "input", "br", "img", "circle", "path", "image"}
CSS = (Path(page.__file__).parent / "page.css").read_text()


@pytest.fixture(scope="module")
def complete(demo_imagery: Path) -> ReportModel:
    return report_models.model(demo_imagery)


@pytest.fixture(scope="module")
def gappy(demo_imagery: Path) -> ReportModel:
    """Every seventh tile of the finer level is missing; a route crosses the area."""
    return report_models.model(
        demo_imagery, keep=lambda place: place[0] == 15 or (place[1] + place[2]) % 7 != 0, routes=(report_models.ROUTE,)
    )


class Page(HTMLParser):
    """Elements with their attributes, ids, links, text by section; complains about what is not closed."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html.decode())
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_every_section_shows_its_facts(complete):
    text = Page(render(complete)).text
    for fact in (
        "SURVEY-0417", "UAV-03", complete.manifest.build.manifest_hash, "onnxruntime", "avx2", "47.3102030°\u00a0N",
        "431.5\u00a0m", "gist-color", "recognition", "0.552", "needs a known heading", "recall@10 against exact search", "corpus.index",
        "inner_product", "nothing to gain from compression", "ortho-2024", "2024-08-27", "J. Doe", "SURVEY-0416",
        "calibration/camera.json", "4d" * 32, "9f" * 32, "5 of 7 gates pass", "1 gate waived", "no gaps",
    ):  # fmt: skip
        assert fact in text, fact


def test_what_the_compiler_reports_of_layers_is_shown_and_escaped(complete):
    page = render(dataclasses.replace(complete, notes=("net: 3 layers (2 Conv, 1 <Half>)",))).decode()
    assert "net: 3 layers (2 Conv, 1 &lt;Half&gt;)" in page


def test_gaps_are_counted_in_words_in_the_table_and_in_the_map_description(gappy):
    missing = sum(c.expected - c.present for c in gappy.manifest.tiles.per_zoom.values())
    page = Page(render(gappy))
    assert missing == 7
    assert f"! {missing} tiles missing" in page.text
    assert f"{missing} are missing; a route of 4 points is drawn; take-off at 47.3102030" in page.text


def test_same_model_gives_the_same_bytes_and_no_wall_time(complete, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert render(complete) == render(dataclasses.replace(complete))


def test_the_counter_is_not_shown_for_a_rollback_keeps_the_page(complete):
    build = complete.manifest.build
    later = dataclasses.replace(complete, manifest=complete.manifest._replace(build=build._replace(counter=4711)))
    assert render(later) == render(complete)


def test_page_is_self_contained_and_runs_no_script_but_its_own(gappy):
    page = render(gappy)
    data, script = re.findall(r"<script([^>]*)>(.*?)</script>", page.decode(), re.DOTALL)
    assert data[0] == ' type="application/json" id="map-data"'
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page.decode()
    assert re.findall(rb"\son\w+=|javascript:|fetch\(|XMLHttp|import\(|eval\(|innerHTML", page) == []
    assert b"default-src 'none'" in page
    links = [a.get("href") or a.get("src") for _, a in Page(page).elements if "href" in a or "src" in a]
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in links)
    assert re.findall(rb"url\((?!#)|https?://|@import", page) == []


def test_ids_are_unique_and_every_reference_resolves(gappy):
    page = Page(render(gappy))
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")}
    for _, attributes in page.elements:
        wanted |= set((attributes.get("aria-labelledby") or "").split())
        wanted |= set(re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for v in attributes.values())))
    wanted |= {attributes["for"] for attributes in page.all("label")}
    assert wanted <= set(ids)


def test_text_from_outside_cannot_become_markup(complete):
    evil = '<img src=x onerror="alert(1)">&'
    manifest = complete.manifest._replace(
        flight=FlightPart(evil, evil, None, evil), gates={evil: GateEntry(evil, evil, "pass", evil)}
    )
    skipped = (SkippedTile(1, 0, 0, evil, evil),)
    page = render(
        dataclasses.replace(
            complete, manifest=manifest, skipped=skipped, index_reason=evil, changes=(Change(evil, evil, evil),),
            sources=(SourceRow(name=evil, tiles=1, oldest=evil),),
        )
    )  # fmt: skip
    assert b"<img" not in page
    assert b"&lt;img src=x onerror=" in page
    Page(page)


def test_a_screen_reader_finds_language_landmarks_headings_captions_and_scopes(gappy):
    page = Page(render(gappy))
    assert page.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in page.elements if tag in ("header", "nav", "main", "footer")] == [
        "header",
        "nav",
        "main",
        "footer",
    ]
    assert len(page.all("h1")) == 1
    assert len(page.all("h2")) == len(page.all("section")) >= 8
    assert len(page.all("caption")) == len(page.all("table")) >= 5
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert all(svg.get("role") == "img" or svg.get("aria-hidden") == "true" for svg in page.all("svg"))


def test_the_keyboard_reaches_everything(gappy):
    page = Page(render(gappy))
    first_link = page.all("a")[0]
    assert (first_link["class"], first_link["href"]) == ("skip", "#content")
    scrollers = [a for tag, a in page.elements if tag == "pre" or a.get("class") == "wide"]
    assert scrollers
    assert all(scroller.get("tabindex") == "0" for scroller in scrollers)
    views, layers = ({a["id"] for a in page.all("input") if a["type"] == kind} for kind in ("radio", "checkbox"))
    assert views == {"show-imagery", "show-coverage", "show-dates"}
    assert {"layer-gaps", "layer-outline", "layer-route"} <= layers
    assert {label["for"] for label in page.all("label")} == views | layers | {"map-zoom"}


def _palettes() -> dict[str, dict[str, str]]:
    light, dark, printed = (
        dict(re.findall(r"--(\w[\w-]*): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    )
    return {"light": light, "dark": dark, "print": printed}


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", ["light", "dark", "print"])
@pytest.mark.parametrize("ink", ["ink", "soft", "accent", "good", "warn", "waived"])
@pytest.mark.parametrize("ground", ["paper", "sheet", "code"])
def test_text_contrast_is_at_least_aa(palette, ink, ground):
    colours = _palettes()[palette]
    one, other = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
    assert (one + 0.05) / (other + 0.05) >= 4.5


@pytest.mark.parametrize("palette", ["light", "dark", "print"])
def test_gaps_and_route_stand_out_from_their_ground(palette):
    colours = _palettes()[palette]
    for mark, ground in (("gap", "gap-ground"), ("route", "halo")):
        one, other = sorted((_luminance(colours[mark]), _luminance(colours[ground])), reverse=True)
        assert (one + 0.05) / (other + 0.05) >= 3


def test_first_generation_and_unchanged_generation_say_so(complete):
    assert "This is the first generation." in Page(render(dataclasses.replace(complete, changes=None))).text
    assert "Nothing but the signature." in Page(render(dataclasses.replace(complete, changes=()))).text


def test_changes_name_what_differs_and_nothing_else(complete):
    before = complete.manifest
    after = before._replace(
        flight=before.flight._replace(flight_id="SURVEY-0418"), tiles=before.tiles._replace(count=700), waivers=()
    )
    assert [change.what for change in changes(before, after) or ()] == ["flight id", "tiles", "waivers"]
    assert changes(None, after) is None
    assert changes(after, after) == ()


def test_an_engine_that_went_away_is_a_change(complete):
    before, after = complete.manifest, complete.manifest._replace(engines=())
    assert Change("engine gist-color", "fp32 2b2b2b2b2b2b", "–") in (changes(before, after) or ())


def test_many_skipped_tiles_are_cut_short_and_counted(complete):
    skipped = tuple(SkippedTile(16, x, 1, "satellite", "truncated") for x in range(5000))
    manifest = complete.manifest._replace(tiles=complete.manifest.tiles._replace(skipped=5000))
    page = render(dataclasses.replace(complete, skipped=skipped, manifest=manifest))
    assert b"And 4800 more." in page
    assert b"! 5,000 tiles skipped" in page
    assert len(page) < 600_000


def test_a_report_without_map_gates_or_take_off_is_still_a_page(complete):
    manifest = complete.manifest._replace(gates={}, waivers=(), flight=FlightPart(None, None, None, "default"))
    bare = Page(render(ReportModel(manifest=manifest)))
    assert "No gate was measured." in bare.text
    assert bare.all("input") == []


def test_mosaic_shows_the_imagery_where_it_is(demo_imagery):
    left, top = 2 * demo.WEST_COLUMN, 2 * demo.NORTH_ROW
    first = (demo_imagery / "16" / str(left) / f"{top}.jpg").read_bytes()
    mosaic = make_mosaic(
        16, (left, top, left + 4, top + 4), lambda _, x, y: first if (x, y) == (left + 2, top + 1) else None
    )
    assert mosaic is not None
    with Image.open(io.BytesIO(mosaic.jpeg)) as picture, Image.open(io.BytesIO(first)) as tile:
        assert picture.size == (1024, 1024)
        assert picture.getpixel((100, 100)) == pytest.approx(PAPER, abs=3)
        shown = picture.crop((512, 256, 768, 512)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        assert shown == pytest.approx(tile.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)), abs=4)


def test_a_tile_that_changed_changes_few_pieces_of_the_mosaic_each_written_by_itself_in_base64():
    """What a delta of the page lives on."""
    tiles = {(x, y): building.tile_image(16 * y + x) for x in range(16) for y in range(16)}
    jpegs = [
        make_mosaic(14, (0, 0, 16, 16), lambda _, x, y, t=shown: t[x, y]).jpeg
        for shown in (tiles, {**tiles, (5, 7): building.tile_image(999)})
    ]
    marker = re.compile(rb"\xff[\xd0-\xd7]")
    old, new = map(marker.split, jpegs)
    assert len(old) == len(new) == 1024
    assert 0 < sum(a != b for a, b in zip(old, new, strict=True)) <= 24
    assert all(found.start() % 3 == 0 for jpeg in jpegs for found in marker.finditer(jpeg))


@pytest.mark.parametrize(
    ("sizes", "best"),
    [
        ({15: (12, 11), 16: (24, 22)}, 16),
        ({15: (30, 30), 16: (60, 60), 17: (120, 120)}, 15),
        ({9: (1, 1), 16: (100, 100)}, 16),
        ({9: (1, 1), 10: (2, 2)}, 10),
        ({17: (500, 500), 18: (1000, 1000)}, 17),
    ],
)
def test_mosaic_takes_the_finest_level_it_can_read_else_the_coarsest_that_fills_it(sizes, best):
    assert mosaic_zoom(sizes) == best


def test_mosaic_of_nothing_is_none():
    assert make_mosaic(16, (0, 0, 10, 10), lambda *_: None) is None


def test_mosaic_leaves_out_what_it_cannot_read():
    assert make_mosaic(16, (0, 0, 4, 4), lambda *_: b"\xff\xd8 no picture") is None


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG"), ("RGB", "WEBP")]
)
def test_mosaic_reads_every_form_of_tile(mode, form):
    buffer = io.BytesIO()
    Image.new(mode, (256, 256)).save(buffer, form)
    assert make_mosaic(3, (0, 0, 1, 1), lambda *_: buffer.getvalue()) is not None


def test_mosaic_of_transparent_tiles_shows_paper():
    buffer = io.BytesIO()
    Image.new("RGBA", (256, 256), (255, 0, 0, 0)).save(buffer, "PNG")
    mosaic = make_mosaic(3, (0, 0, 1, 1), lambda *_: buffer.getvalue())
    assert mosaic is not None
    with Image.open(io.BytesIO(mosaic.jpeg)) as picture:
        assert picture.getpixel((5, 5)) == pytest.approx(PAPER, abs=3)


@pytest.mark.parametrize("side", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_million_tiles_of_noise_stay_below_one_and_a_half_megabytes(side):
    """Of 300 a side, cells and pictures are as many as of a thousand."""
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(noise, "JPEG", quality=90)
    reads = []

    def thumbnail(z: int, x: int, y: int) -> bytes:
        reads.append((z, x, y))
        return noise.getvalue()

    runs = [Run(y, 100_000, 100_000 + side - 1) for y in range(80_000, 80_000 + side)]
    present = ((x, run.y, None) for run in runs for x in range(run.first, run.last + 1) if (x ^ run.y) % 97)
    tiles = tile_map(18, runs, present)
    mosaic = make_mosaic(18, (100_000, 80_000, 100_000 + side, 80_000 + side), thumbnail)
    bbox = report_models.BBox(-426_000_000, 570_000_000, -412_000_000, 577_000_000)
    count = ZoomCount(sum(c.present for c in tiles.cells), side * side, 150_000)
    model = ReportModel(manifest=report_models.manifest(bbox, {18: count}), maps=(tiles,), mosaic=mosaic)
    assert sum(cell.expected for cell in tiles.cells) == side * side
    assert len(tiles.cells) <= 97 * 97
    assert len(reads) <= 1600
    places = mosaic_places((100_000, 80_000, 100_000 + side, 80_000 + side))
    assert {(x, y) for _, x, y in reads} <= places
    assert len(places) <= 16 * 1600
    assert mosaic is not None
    assert len(mosaic.jpeg) <= MAX_BYTES
    assert len(render(model)) < 1_500_000


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_commands_on_the_page_verify_a_real_generation_and_refuse_a_tampered_one(tmp_path, complete):
    key = signing.generate_key(tmp_path / "key.pem", password=None)
    generation = tmp_path / "000001"
    (generation / "calibration").mkdir(parents=True)
    (generation / "calibration" / "camera.json").write_bytes(b"{}")
    (generation / "corpus.index").write_bytes(b"index")
    (generation / report_models.ENGINE).write_bytes(b"engine")
    engine, entry = complete.manifest.engines[0], complete.manifest.calibration[0]
    manifest = with_hash(
        complete.manifest._replace(
            engines=(engine._replace(bytes=6, sha256=sha256_bytes(b"engine")),), other=(FileEntry("report.html", 2, sha256_bytes(b"ok")),),
            calibration=(entry._replace(bytes=2, sha256=sha256_bytes(b"{}")),),
            descriptor_index=complete.manifest.descriptor_index._replace(bytes=5, sha256=sha256_bytes(b"index")),
        )
    )  # fmt: skip
    data = to_bytes(manifest)
    (generation / "report.html").write_bytes(b"ok")
    (generation / "Manifest.json").write_bytes(data)
    (generation / "Manifest.json.sig").write_bytes(signing.sign(Signing(key=tmp_path / "key.pem"), data))
    shutil.copy(signing.public_key_path(tmp_path / "key.pem"), generation / "KEY.pub.pem")

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        words = ["bash", "-o", "pipefail", "-c", command]
        return subprocess.run(words, cwd=generation, capture_output=True, text=True, check=False)

    assert shell(verifying.FINGERPRINT).stdout.split()[0] == key.fingerprint
    assert shell(verifying.SIGNATURE).returncode == 0
    listed = shell(verifying.LISTED_FILES)
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == 4
    (generation / "corpus.index").write_bytes(b"Index")
    assert shell(verifying.LISTED_FILES).returncode != 0
    (generation / "Manifest.json").write_bytes(data.replace(b"SURVEY-0417", b"SURVEY-0418"))
    assert shell(verifying.SIGNATURE).returncode != 0


def test_the_verify_command_names_flight_and_aircraft_safely(complete):
    odd = complete.manifest._replace(flight=FlightPart("F;rm", None, None, "x"))
    assert verifying.verify_command(complete).endswith("--flight SURVEY-0417 --aircraft UAV-03")
    assert "--flight 'F;rm'" in verifying.verify_command(dataclasses.replace(complete, manifest=odd))
