"""Manifest.json, schema flight-cache-manifest/1: one Manifest is one sequence of bytes, and back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from provisioning.angles import BBox, Origin
from provisioning.errors import ManifestError
from provisioning.manifest.checks import (
    MAX_FILES,
    Issues,
    array,
    date,
    decimal,
    digest,
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
from provisioning.manifest.types import (
    SCHEMA,
    AreaPart,
    Build,
    CalibrationEntry,
    EngineEntry,
    FileEntry,
    FlightPart,
    GateEntry,
    Host,
    ImageInput,
    IndexEntry,
    Manifest,
    TilesPart,
    Waiver,
    ZoomCount,
)

MAX_BYTES = 1 << 20
MAX_ISSUES = 20
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


def _manifest(*, schema: Any, artifacts: Any, **parts: Any) -> Manifest:
    del schema
    return Manifest(**parts, **(artifacts or dict.fromkeys(_ARTIFACTS)))


_ARTIFACTS = ("engines", "descriptor_index", "calibration", "other")
_SHAPE = record(
    _manifest,
    schema=one_of(SCHEMA),
    build=record(_build, manifest_hash=digest, counter=whole(1, MAX_WHOLE), tool=record(dict, name=word, version=word)),
    flight=record(
        FlightPart,
        flight_id=optional(word),
        aircraft_id=optional(word),
        takeoff_origin=optional(
            record(Origin, lat_e7=_LATITUDE, lon_e7=_LONGITUDE, alt_mm=optional(whole(-20_000_000, 100_000_000)))
        ),
        sector_class=word,
    ),
    area=record(
        AreaPart,
        bbox_e7=record(BBox, west=_LONGITUDE, south=_LATITUDE, east=_LONGITUDE, north=_LATITUDE),
        zoom_levels=array(whole(0, 24), least=1, most=25),
    ),
    host=record(Host, backend=word, runtime=word, arch=word, device=name, platform=word, precision=word),
    artifacts=record(
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
        ),
        calibration=array(record(CalibrationEntry, **_FILE, purpose=word)),
        other=array(record(FileEntry, **_FILE)),
    ),
    tiles=record(
        TilesPart,
        coverage_sha256=digest,
        count=_COUNT,
        per_zoom=table(zoom_key, record(ZoomCount, present=_COUNT, expected=_COUNT, largest_hole_mm=_COUNT)),
        sources=array(name, most=64),
        skipped=_COUNT,
        oldest_capture=optional(date),
    ),
    gates=table(
        word,
        record(
            GateEntry,
            measured=optional(decimal),
            threshold=optional(decimal),
            verdict=one_of("pass", "warn", "waived"),
            detail=text,
        ),
    ),
    waivers=array(record(Waiver, gate=word, by=text, reason=text), most=64),
)


def to_bytes(m: Manifest) -> bytes:
    """Return the bytes to sign: JSON, sorted keys, two-space indent, UTF-8, final newline; lists in their order.

    ManifestError if `m` breaks the schema, so that what was written can be read.
    """
    data = _dump(_plain(_ordered(m)))
    parse(data)
    return data


def _dump(document: object) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode(errors="surrogatepass")


def _ordered(m: Manifest) -> Manifest:
    """Return `m` with every list in the order of the format: files by path, zoom levels and waivers ascending."""
    return m._replace(
        area=m.area._replace(zoom_levels=tuple(sorted(m.area.zoom_levels))),
        engines=tuple(sorted(m.engines)),
        calibration=tuple(sorted(m.calibration)),
        other=tuple(sorted(m.other)),
        waivers=tuple(sorted(m.waivers)),
    )


def _plain(m: Manifest) -> dict[str, object]:
    document: dict[str, Any] = _jsonable(m)
    build = document["build"]
    build["tool"] = {"name": build.pop("tool_name"), "version": build.pop("tool_version")}
    document["artifacts"] = {key: document.pop(key) for key in _ARTIFACTS}
    document["schema"] = SCHEMA
    return document


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {key: _jsonable(part) for key, part in zip(value._fields, value, strict=True) if part is not None}
    return [_jsonable(part) for part in value] if isinstance(value, tuple) else value


def parse(data: bytes) -> Manifest:
    """Return the Manifest whose bytes are `data`; ManifestError lists every issue, and nothing else is raised.

    Only the canonical bytes are accepted: `to_bytes(parse(data)) == data`.
    """
    document = _json(data)
    issues: Issues = []
    if type(document) is dict and document.get("schema") != SCHEMA:
        raise _malformed(f"schema: {SCHEMA} expected", schema=True)
    manifest: Manifest = _SHAPE(document, "", issues)
    if issues:
        raise _malformed(*issues)
    issues = list(_contradictions(manifest))
    if not issues and _dump(_plain(_ordered(manifest))) != data:
        issues = ["the bytes are not in canonical form (sorted keys and lists, two-space indent, final newline)"]
    if issues:
        raise _malformed(*issues)
    return manifest


def _contradictions(m: Manifest) -> list[str]:
    """Return what no single value shows: paths that clash, boxes inside out, counts that do not add up."""
    issues = _clashes([entry.path for entry in m.files])
    if len(m.files) > MAX_FILES:
        issues.append(f"artifacts: more than {MAX_FILES} files")
    if m.area.bbox_e7.south >= m.area.bbox_e7.north or m.area.bbox_e7.west == m.area.bbox_e7.east:
        issues.append("area.bbox_e7: the box is empty")
    if len(set(m.area.zoom_levels)) != len(m.area.zoom_levels):
        issues.append("area.zoom_levels: a level is there twice")
    if m.descriptor_index.engine not in {engine.path for engine in m.engines}:
        issues.append("artifacts.descriptor_index.engine: not a listed engine")
    if sum(zoom.present for zoom in m.tiles.per_zoom.values()) != m.tiles.count:
        issues.append("tiles.count: not the sum of per_zoom present")
    if len(set(m.tiles.sources)) != len(m.tiles.sources):
        issues.append("tiles.sources: a source is there twice")
    return issues


def _clashes(paths: list[str]) -> list[str]:
    """Return paths that are the same file on a file system without case, or a file and a directory at once."""
    folded = [path.lower() for path in paths]
    twice = [path for path, count in Counter(folded).items() if count > 1]
    parents = {"/".join(path.split("/")[:depth]) for path in folded for depth in range(1, path.count("/") + 1)}
    sidecars = {path + ".sha256" for path in folded}
    return (
        [f"{path}: listed twice" for path in twice]
        + [f"{path}: a file and a directory" for path in folded if path in parents or path in sidecars]
        + [f"{path}: a file and a directory" for path in sidecars & parents]
    )


def _json(data: bytes) -> object:
    """Return the document in `data`: UTF-8 without BOM, no duplicate keys, no floats, bounded size.

    The depth needs no bound of its own: the schema ends at five levels, and Python's parser stops at its recursion
    limit by an exception.
    """
    if len(data) > MAX_BYTES:
        raise _malformed(f"larger than {MAX_BYTES} bytes")
    try:
        return json.loads(
            data.decode("utf-8", errors="strict"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as error:
        raise _malformed(f"not JSON: {str(error)[:200]}") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is there twice in one object")
    return document


def _integer(digits: str) -> int:
    if len(digits) > 17:
        raise ValueError("a number has too many digits")
    return int(digits)


def _refuse_number(number: str) -> NoReturn:
    raise ValueError(f"{number[:20]} is no whole number")


def _malformed(*issues: str, schema: bool = False) -> ManifestError:
    shown = [issue if issue.isprintable() else ascii(issue) for issue in issues[:MAX_ISSUES]]
    return ManifestError(
        "Manifest.json is not a Manifest of this schema" if schema else "Manifest.json is malformed",
        file="Manifest.json",
        key="schema" if schema else None,
        facts={f"issue {number}": issue[:200] for number, issue in enumerate(shown, 1)},
    )
