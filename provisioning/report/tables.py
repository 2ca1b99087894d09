"""The sections of the report that are tables, one function each; an empty string where there is nothing to say."""

from __future__ import annotations

from provisioning.area.place import place_facts
from provisioning.report.html import Cell, Markup, code, facts, number, paragraph, section, table
from provisioning.report.map import mercator
from provisioning.report.model import ReportModel

SKIPPED_SHOWN = 200
VERDICT_MARKS = {"pass": "✓ pass", "warn": "! warn", "waived": "↷ waived"}


def coverage(model: ReportModel) -> str:
    """Return the tiles of each zoom level against what the area expects."""
    rows = []
    for zoom, count in sorted(model.manifest.tiles.per_zoom.items()):
        share = min(100.0, 100 * count.present / count.expected) if count.expected else 100.0
        bar = Markup(
            f'{share:.1f} % <span class="bar" aria-hidden="true"><span style="width:{share:.1f}%"></span></span>'
        )
        rows.append(
            (
                f"zoom {zoom}",
                number(count.present),
                number(count.expected),
                bar,
                number(mercator.distance(count.largest_hole_mm / 1000) if count.largest_hole_mm else "none"),
            )
        )
    headings = ("Zoom", "Present", "Expected", "Share", "Widest gap")
    tiles = table("Tiles in the area, by zoom level", headings, rows)
    place = facts(list(place_facts(model.manifest.area.bbox_e7).items()))
    accepted = [paragraph(entry.detail) for entry in model.manifest.accepted]
    return section(
        "coverage", "Coverage", place, tiles, *accepted, *(paragraph(note, "soft") for note in model.area_notes)
    )


def gates(model: ReportModel) -> str:
    """Return what was measured, with its threshold and verdict."""
    rows = [
        (name.replace("_", " "), number(gate.measured or "–"), number(gate.threshold or "–"),
         Cell(VERDICT_MARKS[gate.verdict], gate.verdict), gate.detail)
        for name, gate in sorted(model.manifest.gates.items())
    ]  # fmt: skip
    if not rows:
        return section("gates", "Quality gates", paragraph("No gate was measured.", "soft"))
    headings = ("Gate", "Measured", "Threshold", "Verdict", "Detail")
    return section(
        "gates",
        "Quality gates",
        table("Measured quality, and below or above what nothing is published", headings, rows),
    )


def engines(model: ReportModel) -> str:
    """Return the compiled networks."""
    rows = [
        (engine.model, engine.role, engine.precision,
         Cell(f"{engine.input.height} × {engine.input.width}, {engine.input.fit}" if engine.input else "–", "short"),
         number(engine.bytes), Cell(code(engine.onnx_sha256), "digest"))
        for engine in model.manifest.engines
    ]  # fmt: skip
    headings = ("Model", "Role", "Precision", "Input", "Bytes", "SHA-256 of its ONNX")
    networks = table("Networks, compiled for " + " ".join(model.manifest.host), headings, rows)
    return section("engines", "Engines", networks, *(paragraph(note, "soft") for note in model.notes))


def index(model: ReportModel) -> str:
    """Return the index and why it is of this kind."""
    index = model.manifest.descriptor_index
    rows = [
        ("Kind", index.kind),
        ("Expected", model.index_reason),
        ("Vectors", str(number(index.vectors).content)),
        ("Dimension", str(index.dimension)),
        ("Metric", index.metric),
        ("Transform", index.transform),
        ("Headings per tile", str(index.rotations)),
        ("Cut half a tile apart", "yes" if index.overlap else "no"),
        ("Bytes", str(number(index.bytes).content)),
        ("Described by", code(index.engine)),
    ]
    return section("index", "Index", facts(rows))


def sources(model: ReportModel) -> str:
    """Return the tile sources and the age of their imagery."""
    rows = [
        (source.name, number(source.tiles), source.oldest or "unknown", source.newest or "unknown")
        for source in model.sources
    ]
    headings = ("Source", "Tiles", "Oldest capture", "Newest capture")
    return section("sources", "Sources", table("Where the imagery comes from, and its age", headings, rows))


def skipped(model: ReportModel) -> str:
    """Return the tiles left out and why."""
    if not model.skipped:
        return ""
    rows = [(f"{t.z}/{t.x}/{t.y}", t.source, t.reason) for t in model.skipped[:SKIPPED_SHOWN]]
    rest = len(model.skipped) - SKIPPED_SHOWN
    more = paragraph(f"And {rest} more.", "soft") if rest > 0 else ""
    return section(
        "skipped", "Skipped tiles", table("Tiles left out, and why", ("Tile", "Source", "Reason"), rows), more
    )


def waivers(model: ReportModel) -> str:
    """Return the gates passed over and by whom."""
    rows = [(waiver.gate, waiver.by, waiver.reason) for waiver in model.manifest.waivers]
    if not rows:
        return ""
    return section("waivers", "Waivers", table("Gates knowingly passed over", ("Gate", "By", "Reason"), rows))


def changes(model: ReportModel) -> str:
    """Return what differs from the generation before."""
    heading = "Changes since the generation before"
    if model.changes is None:
        return section("changes", heading, paragraph("This is the first generation.", "soft"))
    if not model.changes:
        return section("changes", heading, paragraph("Nothing but the signature.", "soft"))
    return section("changes", heading, table("What is different", ("What", "Before", "Now"), model.changes))


def files(model: ReportModel) -> str:
    """Return every listed file with its digest."""
    rows = [(code(file.path), number(file.bytes), Cell(code(file.sha256), "digest")) for file in model.manifest.files]
    note = paragraph("This page and Manifest.json with its .sha256 and .sig lie beside them.", "soft")
    return section("files", "Files", table("Signed files", ("File", "Bytes", "SHA-256"), rows), note)
