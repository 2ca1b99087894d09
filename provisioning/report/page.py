"""report.html: one self-contained page, for screen, phone, paper and screen reader; complete without its one script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files

from provisioning.area.place import height_in_words
from provisioning.flight.summary import summarise
from provisioning.report import tables, verifying
from provisioning.report.failures import failures
from provisioning.report.html import facts, number, section
from provisioning.report.map.drawing import position
from provisioning.report.map.moving import SCRIPT_SOURCE, script_and_data
from provisioning.report.map.view import map_section
from provisioning.report.model import LonLat, ReportModel
from provisioning.report.steps import steps

POLICY = (
    f"default-src 'none'; script-src {SCRIPT_SOURCE}; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


def render(model: ReportModel) -> bytes:
    """Return report.html, UTF-8; the same bytes for the same model."""
    sections = [part for part in _sections(model) if part]
    title = _title(model)
    page = "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{files(__package__).joinpath('page.css').read_text(encoding='utf-8')}</style></head>",
            '<body><a class="skip" href="#content">Skip to the content</a>',
            _header(model, title),
            '<main id="content">',
            *sections,
            "</main>",
            _footer(model),
            script_and_data(model),
            "</body></html>\n",
        ]
    )
    return page.encode()


def _title(model: ReportModel) -> str:
    flight = model.manifest.flight
    return " ".join(["Flight cache", *(word for word in (flight.flight_id, flight.aircraft_id) if word)])


def _header(model: ReportModel, title: str) -> str:
    manifest = model.manifest
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading in _contents(model))
    return (
        f'<header><p class="eyebrow">What the aircraft will know</p><h1>{escape(title)}</h1>'
        f'<p class="soft">Manifest hash <span class="hash">{manifest.build.manifest_hash}</span></p>'
        f'<ul class="verdicts" aria-label="Outcome">{"".join(_verdicts(model))}</ul>'
        f"{facts(_facts(model))}"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav></header>'
    )


def _contents(model: ReportModel) -> Iterator[tuple[str, str]]:
    if model.maps:
        yield "map", "Map"
    yield from (("coverage", "Coverage"), ("gates", "Quality gates"))
    if model.failures:
        yield "failures", "Not recognised"
    yield from (("engines", "Engines"), ("index", "Index"))
    yield "sources", "Sources"
    if model.skipped:
        yield "skipped", "Skipped tiles"
    if model.manifest.waivers:
        yield "waivers", "Waivers"
    yield "changes", "Changes"
    if model.steps:
        yield "steps", "Steps"
    yield from (("files", "Files"), ("verify", "How to verify"))


def _verdicts(model: ReportModel) -> Iterator[str]:
    gates = model.manifest.gates.values()
    if passed := sum(gate.verdict == "pass" for gate in gates):
        yield f'<li class="pass">✓ {passed} of {len(gates)} gates pass</li>'
    summary = summarise(model.manifest, "NOT VERIFIED")
    if not summary.tiles_missing:
        yield '<li class="pass">✓ no gaps</li>'
    without = summary._replace(
        accepted=()
    )  # which is said in full below; nor state and counter: a rollback keeps the page
    for text, mark in without.parts()[2:]:
        yield f'<li class="{"warn" if mark == "warn" else "soft"}">{"! " if mark == "warn" else ""}{escape(text)}</li>'
    for entry in model.manifest.accepted:
        yield f'<li class="warn">! {escape(entry.detail)}</li>'


def _facts(model: ReportModel) -> Iterator[tuple[str, str]]:
    manifest = model.manifest
    west, south, east, north = manifest.area.bbox_e7
    yield "Tiles", str(number(manifest.tiles.count).content)
    yield "Zoom levels", ", ".join(map(str, manifest.area.zoom_levels))
    yield "Oldest capture", manifest.tiles.oldest_capture or "unknown"
    yield "Sector class", manifest.flight.sector_class
    yield "North-west corner", position(LonLat(west, north))
    yield "South-east corner", position(LonLat(east, south))
    if model.takeoff:
        height = height_in_words(model.takeoff)
        yield (
            "Take-off",
            ", ".join(filter(None, (position(LonLat(model.takeoff.lon_e7, model.takeoff.lat_e7)), height))),
        )
    yield "Compiled for", " · ".join(manifest.host)


def _sections(model: ReportModel) -> Iterator[str]:
    yield map_section(model)
    yield tables.coverage(model)
    yield tables.gates(model)
    yield failures(model)
    yield tables.engines(model)
    yield tables.index(model)
    yield tables.sources(model)
    yield tables.skipped(model)
    yield tables.waivers(model)
    yield tables.changes(model)
    yield steps(model)
    yield tables.files(model)
    yield section("verify", "How to verify", verifying.steps(model))


def _footer(model: ReportModel) -> str:
    build = model.manifest.build
    return (
        f"<footer><p>Made by {escape(build.tool_name)} {escape(build.tool_version)}. "
        "Nothing on this page is loaded from elsewhere. "
        "Only a passing verification, not this page, says that the cache is intact.</p></footer>"
    )
