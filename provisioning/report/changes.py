"""What differs between two generations, for people: names and short digests, no bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from provisioning.flight.manifest import Manifest
from provisioning.report.model import Change

ABSENT = "–"


def changes(before: Manifest | None, after: Manifest) -> tuple[Change, ...] | None:
    """Return what `after` has different from `before`, in a fixed order; None if there is no generation before."""
    if before is None:
        return None
    was, now = _facts(before), _facts(after)
    names = [*now, *(name for name in was if name not in now)]
    return tuple(
        Change(name, was.get(name, ABSENT), now.get(name, ABSENT)) for name in names if was.get(name) != now.get(name)
    )


def _facts(manifest: Manifest) -> Mapping[str, str]:
    return dict(_pairs(manifest))


def _pairs(manifest: Manifest) -> Iterator[tuple[str, str]]:
    flight, tiles, index = manifest.flight, manifest.tiles, manifest.descriptor_index
    yield "flight id", flight.flight_id or ABSENT
    yield "aircraft", flight.aircraft_id or ABSENT
    yield "take-off point", str(tuple(flight.takeoff_origin)) if flight.takeoff_origin else ABSENT
    yield "sector class", flight.sector_class
    yield "area (1e-7 degree)", " ".join(map(str, manifest.area.bbox_e7))
    yield "host", " ".join(manifest.host)
    yield "tiles", f"{tiles.count} ({tiles.coverage_sha256[:12]})"
    for zoom, count in sorted(tiles.per_zoom.items()):
        yield f"tiles at zoom {zoom}", f"{count.present} of {count.expected}"
    yield "oldest capture", tiles.oldest_capture or ABSENT
    yield "index", f"{index.kind}, {index.vectors} × {index.dimension} ({index.sha256[:12]})"
    for engine in manifest.engines:
        yield f"engine {engine.model}", f"{engine.precision} {engine.sha256[:12]}"
        yield f"ONNX of {engine.model}", engine.onnx_sha256[:12]
    for calibration in manifest.calibration:
        yield f"calibration {calibration.purpose} {calibration.path}", calibration.sha256[:12]
    yield "sources", _listed(tiles.sources)
    yield "waivers", _listed(f"{waiver.gate} by {waiver.by}" for waiver in manifest.waivers)
    yield "accepted", _listed(entry.detail for entry in manifest.accepted)
    for name, gate in sorted(manifest.gates.items()):
        yield f"gate {name}", f"{gate.measured or ABSENT} ({gate.verdict})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or ABSENT
