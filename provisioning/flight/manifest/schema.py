"""Manifest.json, schemas flight-cache-manifest/1 and /2: one Manifest is one sequence of bytes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

from provisioning.base.disk.jsonfile import to_json
from provisioning.base.geometry.angles import BBox, Origin
from provisioning.base.limits import MAX_SOURCES, MAX_WAIVERS
from provisioning.flight.manifest.checks import (
    Check,
    Issues,
    array,
    date,
    decimal,
    digest,
    moment,
    name,
    one_of,
    optional,
    path,
    record,
    table,
    text,
    whole,
    word,
    zoom_key,
)
from provisioning.flight.manifest.consistency import contradictions
from provisioning.flight.manifest.strict_json import load, malformed
from provisioning.flight.manifest.types import (
    SCHEMA_1,
    SCHEMA_2,
    SCHEMAS,
    Accepted,
    AreaPart,
    Build,
    CalibrationEntry,
    Camera,
    Distortion,
    EngineEntry,
    FileEntry,
    FlightPart,
    GateEntry,
    Host,
    ImageInput,
    IndexEntry,
    Manifest,
    Mounting,
    Schema,
    TilesPart,
    Waiver,
    ZoomCount,
)

MAX_WHOLE = 2**53 - 1
"""Largest integer that every JSON reader keeps exact."""

_COUNT = whole(0, MAX_WHOLE)
_SIZE = whole(1, 1 << 16)
_LONGITUDE = whole(-1_800_000_000, 1_800_000_000)
_LATITUDE = whole(-900_000_000, 900_000_000)
_FILE = {"path": path, "bytes": _COUNT, "sha256": digest}


def _build(manifest_hash: Any, counter: Any, tool: Any) -> Build:
    tool = tool or {}
    return Build(manifest_hash, counter, tool.get("name"), tool.get("version"))


def _manifest(*, artifacts: Any, **parts: Any) -> Manifest:
    return Manifest(**parts, **(artifacts or dict.fromkeys(_ARTIFACTS)))


_ARTIFACTS = ("engines", "descriptor_index", "calibration", "other")
_ORIGIN: dict[str, Check] = {
    "lat_e7": _LATITUDE,
    "lon_e7": _LONGITUDE,
    "alt_mm": optional(whole(-20_000_000, 100_000_000)),
}
_FLIGHT = {"flight_id": optional(word), "aircraft_id": optional(word), "sector_class": word}
_MILLIPIXELS = whole(-(1 << 31), 1 << 31)
_REST: dict[str, Check] = {
    "build": record(
        _build, manifest_hash=digest, counter=whole(1, MAX_WHOLE), tool=record(dict, name=word, version=word)
    ),
    "area": record(
        AreaPart,
        bbox_e7=record(BBox, west=_LONGITUDE, south=_LATITUDE, east=_LONGITUDE, north=_LATITUDE),
        zoom_levels=array(whole(0, 24), least=1, most=25),
    ),
    "host": record(Host, backend=word, runtime=word, arch=word, device=name, platform=word, precision=word),
    "artifacts": record(
        dict,
        engines=array(
            record(
                EngineEntry,
                **_FILE,
                model=word,
                role=word,
                onnx_sha256=digest,
                key=digest,
                precision=word,
                input=optional(record(ImageInput, height=_SIZE, width=_SIZE, fit=word)),
            ),
            least=1,
        ),
        descriptor_index=record(
            IndexEntry,
            **_FILE,
            kind=word,
            metric=word,
            dimension=whole(1, 1 << 20),
            vectors=_COUNT,
            engine=path,
            key=digest,
            transform=word,
            rotations=whole(1, 360),
            overlap=optional(whole(2, 2)),
        ),
        calibration=array(record(CalibrationEntry, **_FILE, purpose=word)),
        other=array(record(FileEntry, **_FILE)),
    ),
    "tiles": record(
        TilesPart,
        coverage_sha256=digest,
        count=_COUNT,
        per_zoom=table(zoom_key, record(ZoomCount, present=_COUNT, expected=_COUNT, largest_hole_mm=_COUNT)),
        sources=array(name, most=MAX_SOURCES),
        skipped=_COUNT,
        oldest_capture=optional(date),
    ),
    "gates": table(
        word,
        record(
            GateEntry,
            measured=optional(decimal),
            threshold=optional(decimal),
            verdict=one_of("pass", "warn", "waived"),
            detail=text,
        ),
    ),
    "waivers": array(record(Waiver, gate=word, by=text, reason=text), most=MAX_WAIVERS),
}
_SHAPES: Mapping[Schema, Check] = {
    SCHEMA_1: record(
        _manifest,
        **_REST,
        schema=one_of(SCHEMA_1),
        flight=record(FlightPart, **_FLIGHT, takeoff_origin=optional(record(Origin, **_ORIGIN))),
    ),
    SCHEMA_2: record(
        _manifest,
        **_REST,
        schema=one_of(SCHEMA_2),
        flight=record(
            FlightPart,
            **_FLIGHT,
            takeoff_origin=optional(record(Origin, **_ORIGIN, alt_datum=optional(one_of("ellipsoid", "amsl")))),
            not_after=optional(moment),
        ),
        camera=optional(
            record(
                Camera,
                width=optional(_SIZE),
                height=optional(_SIZE),
                focal_x_mpx=optional(whole(1, 1 << 31)),
                focal_y_mpx=optional(whole(1, 1 << 31)),
                principal_x_mpx=optional(_MILLIPIXELS),
                principal_y_mpx=optional(_MILLIPIXELS),
                fov_e7=optional(whole(1, 1_799_999_999)),
                angles_of=optional(one_of("camera", "body")),
                height_mm=optional(whole(1, 100_000_000)),
                ground_mm=optional(whole(-20_000_000, 100_000_000)),
                distortion=optional(record(Distortion, model=word, coefficients=array(decimal, most=32))),
                mounting=optional(record(Mounting, yaw_e7=_LONGITUDE, pitch_e7=_LATITUDE, roll_e7=_LONGITUDE)),
            )
        ),
        accepted=array(record(Accepted, what=word, detail=text), most=64),
    ),
}


def to_bytes(m: Manifest) -> bytes:
    """Return the bytes to sign: JSON, sorted keys, two-space indent, UTF-8, final newline; lists in their order.

    ManifestError if `m` breaks the schema, so that what was written can be read.
    """
    data = dump(_plain(_ordered(m)))
    parse(data)
    return data


def dump(document: object) -> bytes:
    """Return the bytes of a signed document: sorted keys, two spaces a level, a newline at the end."""
    return to_json(document, indent=True) + b"\n"


def _ordered(m: Manifest) -> Manifest:
    """Return `m` with every list in the order of the format: files by path, zoom levels and waivers ascending."""
    return m._replace(
        area=m.area._replace(zoom_levels=tuple(sorted(m.area.zoom_levels))),
        engines=tuple(sorted(m.engines, key=attrgetter("path"))),  # whose last part may be None
        calibration=tuple(sorted(m.calibration)),
        other=tuple(sorted(m.other)),
        waivers=tuple(sorted(m.waivers)),
        accepted=tuple(sorted(m.accepted)),
    )


def _plain(m: Manifest) -> dict[str, object]:
    document: dict[str, Any] = _jsonable(m)
    build = document["build"]
    build["tool"] = {"name": build.pop("tool_name"), "version": build.pop("tool_version")}
    document["artifacts"] = {key: document.pop(key) for key in _ARTIFACTS}
    if m.schema == SCHEMA_1 and not m.accepted:
        del document["accepted"]  # a key of schema 2
    return document


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _jsonable(part) for key, part in value._asdict().items() if part is not None}
    return [_jsonable(part) for part in value] if isinstance(value, tuple) else value


def parse(data: bytes) -> Manifest:
    """Return the Manifest whose bytes are `data`; ManifestError lists every issue, and nothing else is raised.

    Only the canonical bytes are accepted: `to_bytes(parse(data)) == data`.
    """
    return _parse(bytes(data))


@lru_cache(maxsize=4)
def _parse(data: bytes) -> Manifest:
    """Parse bytes once: a build meets those of what is published seven times."""
    document = load(data)
    issues: Issues = []
    schema = document.get("schema") if type(document) is dict else SCHEMA_1
    if schema not in SCHEMAS:
        raise malformed(f"schema: {' or '.join(SCHEMAS)} expected", schema=True)
    manifest: Manifest = _SHAPES[schema](document, "", issues)
    if issues:
        raise malformed(*issues)
    issues = list(contradictions(manifest))
    if not issues and dump(_plain(_ordered(manifest))) != data:
        issues = ["the bytes are not in canonical form (sorted keys and lists, two-space indent, final newline)"]
    if issues:
        raise malformed(*issues)
    return manifest
