"""What a well-typed flight.toml can still get wrong: contradictions, impossible areas, missing files, open keys."""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

from provisioning.base.geometry.angles import HALF_TURN_E7, TURN_E7, BBox
from provisioning.base.geometry.geo import MAX_LATITUDE_E7, MOST_ROTATIONS_WITH_CUTS, row_at
from provisioning.base.limits import MAX_DECIMALS, MAX_FILES, MAX_SOURCES, MAX_TEXT, MAX_WAIVERS
from provisioning.base.printable import is_word, steers
from provisioning.base.words import counted, meant, meant_file, typed
from provisioning.config.schema import (
    NO_PATH,
    Area,
    AreaPart,
    Backbone,
    BuildSettings,
    Calibration,
    Camera,
    Descriptors,
    Flight,
    FlightIdentity,
    Gates,
    Index,
    Sector,
    Signing,
    Tiles,
    TileSource,
    Waiver,
)

Found = tuple[str, str]
"""(key, problem)."""

MOST_TILES = 50_000_000
OTHER_FILES = 8
"""Files of a generation that are neither engine nor calibration: index, report, map, imagery, provenance."""
TRANSFORM = r"pca(-whiten)?\([1-9]\d*\)"
PLUGIN = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*|[A-Za-z0-9][A-Za-z0-9_.-]*"
"""An import path, or the name of an entry point."""
DATE_OR_RULE = r"|metadata|mtime|\d{4}-\d{2}-\d{2}|.*\.csv"
BUILTIN = "builtin:"
BUILTINS = ("builtin:efficientnet-lite0", "builtin:gist-color", "builtin:gist-gray")
PRESETS = (
    *("", "imagenet", "dinov2-salad", "megaloc", "mixvpr", "eigenplaces", "netvlad", "cosplace", "boq-resnet50"),
    *("boq-dinov2", "cricavpr", "anyloc", "clip", "dinov2", "dinov3", "dinov3-sat", "siglip"),
)
GATES = ("coverage", "freshness", "fidelity", "index_recall", "recognition", "degenerate", "batch_invariance")


def check(flight: Flight) -> Iterator[Found]:
    """Yield every contradiction in `flight`, and every file it names that is not there."""
    yield from _identity(flight.flight, flight.sector)
    yield from check_area(flight.area)
    yield from check_tiles(flight.tiles)
    yield from _backbones(flight.backbone)
    yield from _builtins(flight.backbone)
    yield from check_index(flight.index)
    yield from _waivers(flight.waiver)
    yield from _descriptors(flight.descriptors)
    yield from _thresholds(flight.gates, flight.area.min_coverage)
    yield from _files(flight)
    yield from _calibration(flight.calibration, backbones=len(flight.backbone))
    yield from check_camera(flight.camera)
    yield from _signing(flight.signing)


def _identity(who: FlightIdentity, sectors: Mapping[str, Sector]) -> Iterator[Found]:
    names = {"id": who.id, "aircraft": who.aircraft, "sector_class": who.sector_class}
    for name, value in names.items():
        if value is not None and not _is_id(value):
            yield f"flight.{name}", f"expected 1 to 128 printable ASCII characters without spaces, got {value!r}"
    yield from _not_after(who.not_after)
    yield from _sector(who.sector_class, sectors)
    origin = who.takeoff
    if origin and abs(origin.lat_e7) > MAX_LATITUDE_E7:
        yield "flight.takeoff.lat", "lies beyond 85.0511287 degrees, where Web Mercator tiles end"


def _not_after(text: str | None) -> Iterator[Found]:
    if text is None:
        return
    try:
        time.strptime(text, "%Y-%m-%d" if len(text) == len("2027-03-01") else "%Y-%m-%dT%H:%M:%SZ")
        sound = re.fullmatch(r"[0-9]{4}-.{5}(T.{8}Z)?", text, re.ASCII) and not text.endswith((":60Z", ":61Z"))
    except ValueError:
        sound = None
    if not sound:
        yield (
            "flight.not_after",
            f"expected a day 2027-03-01 or a second 2027-03-01T06:00:00Z in UTC, got {text[:40]!r}",
        )


def _sector(name: str, policies: Iterable[str]) -> Iterator[Found]:
    """A misspelt class would be one without a policy: imagery of any age would pass."""
    known = sorted({"default", *policies})
    if name not in known:
        yield (
            "flight.sector_class",
            f"there is no [sector.{name}] that says how old its imagery may be; known: {', '.join(known)}"
            + meant(name, known),
        )


def check_area(area: Area) -> Iterator[Found]:
    """Yield every contradiction in an area."""
    if not area.parts:
        yield "area", "needs one of bbox, geojson, mission, or an [[area.part]]"
    own = AreaPart(bbox=area.bbox, geojson=area.geojson, mission=area.mission, buffer_m=area.buffer_m, zooms=area.zooms)
    yield from _part(own, "area", required=False)
    for n, part in enumerate(area.part):
        yield from _part(part, f"area.part[{n}]", required=True)
    if any(not part.zooms for part in area.parts):
        yield "area.zooms", "is empty: name the zoom levels of the corpus, e.g. [16, 17]"
    for zoom in area.min_coverage.keys() - set(area.all_zooms):
        yield f"area.min_coverage.{zoom}", f"zoom {zoom} is not among the zoom levels {list(area.all_zooms)}"
    yield from _size(area)


def _part(part: AreaPart, key: str, *, required: bool) -> Iterator[Found]:
    given = [name for name in ("bbox", "geojson", "mission") if getattr(part, name) is not None]
    if len(given) > 1 or (required and not given):
        yield key, f"needs exactly one of bbox, geojson, mission; got {', '.join(given) or 'none'}"
    if part.bbox:
        yield from _bbox(part.bbox, f"{key}.bbox")
        if part.buffer_m is not None:
            yield f"{key}.buffer_m", "applies to a geojson or a mission, not to a bbox"
    if len(set(part.zooms)) != len(part.zooms):
        yield f"{key}.zooms", f"names a zoom level twice: {list(part.zooms)}"


def _bbox(bbox: BBox, key: str) -> Iterator[Found]:
    if bbox.south >= bbox.north:
        yield key, "south is not below north: the order is [west, south, east, north]"
    if bbox.west == bbox.east:
        yield key, "west equals east: the order is [west, south, east, north]"
    if max(abs(bbox.south), abs(bbox.north)) > MAX_LATITUDE_E7:
        yield key, "reaches beyond 85.0511287 degrees of latitude, where Web Mercator tiles end"
    if bbox.west > bbox.east and bbox.width_e7 > HALF_TURN_E7:
        yield key, "west > east means across the antimeridian, which would span more than half the world: swap them"


def _size(area: Area) -> Iterator[Found]:
    """An area of more tiles than any disk holds is a mistake."""
    boxes = [(part.bbox, zoom) for part in area.parts if part.bbox for zoom in part.zooms]
    tiles = sum(_tiles(bbox, zoom) for bbox, zoom in boxes)
    if tiles > MOST_TILES:
        yield "area", f"spans about {tiles:,.0f} tiles, more than {MOST_TILES:,}: check bbox and zooms"


def _tiles(bbox: BBox, zoom: int) -> float:
    return (bbox.width_e7 / TURN_E7 * (1 << zoom)) * abs(row_at(zoom, bbox.north) - row_at(zoom, bbox.south))


def check_tiles(tiles: Tiles) -> Iterator[Found]:
    """Yield every contradiction in [tiles] and its sources."""
    sources = tiles.source
    if len(sources) > MAX_SOURCES:
        yield "tiles.source", f"has {len(sources)} sources, more than {MAX_SOURCES}"
    for n, source in enumerate(sources):
        key = f"tiles.source[{n}]"
        yield from _store(source, key)
        if source.name and not _is_id(source.name):
            yield f"{key}.name", "expected 1 to 128 printable ASCII characters without spaces"
        if source.captured and not re.fullmatch(DATE_OR_RULE, source.captured):
            yield f"{key}.captured", f"expected YYYY-MM-DD, 'metadata', 'mtime' or a CSV file, got {source.captured!r}"
        elif not _is_a_day(source.captured):
            yield f"{key}.captured", f"there is no such day: {source.captured!r}"
        if source.kind in ("auto", "xyz") and not _gives_tiles(source.pattern):
            yield f"{key}.pattern", "must contain {z}, {x} and {y} (or {q}, a quadkey)"
        if source.values and not (len(source.values) == 2 and source.values[0] < source.values[1]):
            yield f"{key}.values", "expected [low, high], the pixel values that become 0 and 255"
    yield from _twice("tiles.source.name", "name", (s.name for s in sources if s.name))
    unnamed = (f"{s.path} {s.table} {s.pattern}" for s in sources if not s.name and not s.plugin and not s.store)
    yield from _twice("tiles.source.name", "store, and no name,", unnamed)
    if len(tiles.nodata) not in (0, 1, 3):
        yield "tiles.nodata", "expected one grey level, or three for red, green, blue"


def _is_a_day(captured: str) -> bool:
    """Return whether a capture date, if it is one, is in the calendar."""
    if not captured[:1].isdigit() or captured.endswith(".csv"):
        return True
    try:
        return bool(dt.date.fromisoformat(captured))
    except ValueError:
        return False


def _store(source: TileSource, key: str) -> Iterator[Found]:
    """A source is a path, or a plugin: then what says how a file is read has no meaning."""
    if not source.plugin:
        if source.path == NO_PATH and source.store is None:
            yield f"{key}.path", "is missing: a directory or file of tiles (or plugin: a store in Python)"
        if source.options:
            yield f"{key}.options", "belong to a plugin"
        return
    if not re.fullmatch(PLUGIN, source.plugin):
        yield f"{key}.plugin", f"expected package.module:Class or the name of an entry point, got {source.plugin!r}"
    default = TileSource()
    for name in ("path", "kind", "pattern", "table", "evidence", "values", "scheme"):
        if getattr(source, name) != getattr(default, name):
            yield f"{key}.{name}", "does not apply to a plugin"
    if source.captured in ("metadata", "mtime"):
        yield f"{key}.captured", "a plugin gives each tile's date itself: leave it out, or give a date or a CSV file"
    for name in source.options:
        if not name.isidentifier() or name == "root":
            yield (
                f"{key}.options.{name}",
                "expected the name of an argument of the store (root is given by flightcache)",
            )


def _gives_tiles(pattern: str) -> bool:
    return "{q}" in pattern or all(
        f"{{{name}}}" in pattern or re.search(rf"\{{{name}[^}}]*\}}", pattern) for name in "zxy"
    )


def _twice(key: str, what: str, names: Iterable[str]) -> Iterator[Found]:
    for name, count in Counter(names).items():
        if count > 1:
            yield key, f"{count} entries have the {what} {name!r}"


def _backbones(backbones: Sequence[Backbone]) -> Iterator[Found]:
    descriptors = [b.name for b in backbones if b.role == "descriptor"]
    if len(descriptors) != 1:
        found = ", ".join(descriptors) or "none"
        yield "backbone.role", f"exactly one backbone has the role 'descriptor'; found {found}"
    # Some file systems know no case: their engines would be one file.
    yield from _twice("backbone.name", "name, in whatever case,", (b.name.lower() for b in backbones))
    for n, backbone in enumerate(backbones):
        key = f"backbone[{n}]"
        if not _is_model_name(backbone.name):
            yield f"{key}.name", f"expected letters, digits, dash and dot, got {backbone.name!r}"
        if not _is_id(backbone.role):
            yield f"{key}.role", f"expected printable ASCII without spaces, got {backbone.role!r}"
        if backbone.preset not in PRESETS:
            yield f"{key}.preset", f"expected one of {', '.join(PRESETS[1:])}, got {backbone.preset!r}"
        if len(backbone.size) not in (0, 1, 2):
            yield f"{key}.size", "expected [height, width] in pixels"
        channels = 1 if backbone.channels == "gray" else 3
        for name in ("mean", "std"):
            if len(getattr(backbone, name)) not in (0, 1, channels):
                yield f"{key}.{name}", f"expected {counted(channels, 'number')}"
        if any(value == 0 for value in backbone.std):
            yield f"{key}.std", "contains 0"
        if backbone.skip_tokens and backbone.pooling not in ("avg", "gem"):
            yield f"{key}.skip_tokens", 'applies to pooling = "avg" or "gem"'
        if backbone.profile and backbone.profile.keys() - {"min", "opt", "max"}:
            yield f"{key}.profile", "expected the keys min, opt, max"


def _is_id(text: str) -> bool:
    return len(text) <= 128 and is_word(text)


def _is_model_name(text: str) -> bool:
    letters = text.replace(".", "").replace("-", "")
    return len(text) <= 64 and text[:1].isalnum() and letters.isascii() and letters.isalnum()


def check_index(index: Index) -> Iterator[Found]:
    """Yield what is wrong with [index], each value and all together; it need not come from a file."""
    for name in ("rotations", "overlap"):
        field = next(field for field in fields(index) if field.name == name)
        low, high, value = field.metadata["low"], field.metadata["high"], getattr(index, name)
        if not low <= value <= high:
            yield f"index.{name}", f"expected a whole number between {low} and {high}, got {value}"
    if index.transform not in ("auto", "none", "center") and not re.fullmatch(TRANSFORM, index.transform):
        yield "index.transform", f"expected auto, none, center, pca(d) or pca-whiten(d), got {index.transform!r}"
    if index.overlap == 2 and index.rotations > MOST_ROTATIONS_WITH_CUTS:
        most = f"at most {MOST_ROTATIONS_WITH_CUTS} with index.overlap = 2: an id has room for 64 cuts and headings"
        yield "index.rotations", f"expected {most}; got {index.rotations}"


def _waivers(waivers: Sequence[Waiver]) -> Iterator[Found]:
    if len(waivers) > MAX_WAIVERS:
        yield "waiver", f"at most {MAX_WAIVERS} waivers go on record"
    for n, waiver in enumerate(waivers):
        if waiver.gate not in GATES:
            yield f"waiver[{n}].gate", f"expected one of {', '.join(GATES)}, got {waiver.gate!r}"
        for name in ("by", "reason"):
            line = " ".join(getattr(waiver, name).split())
            if not 0 < len(line) <= MAX_TEXT or steers(line):
                yield f"waiver[{n}].{name}", f"expected 1 to {MAX_TEXT} characters, none of which controls a terminal"


def _descriptors(settings: Descriptors) -> Iterator[Found]:
    if settings.executor == "dask" and not settings.scheduler:
        yield "descriptors.scheduler", 'is missing: executor = "dask" needs tcp://host:port'
    tls = (settings.tls_ca, settings.tls_certificate, settings.tls_key)
    if any(tls) != all(tls):
        yield "descriptors.tls_ca", "tls_ca, tls_certificate and tls_key belong together: give all three or none"
    if any(tls) and not settings.scheduler.startswith("tls://"):
        yield "descriptors.scheduler", "with TLS the address is tls://host:port"


def _thresholds(gates: Gates, min_coverage: Mapping[int, Decimal]) -> Iterator[Found]:
    asked = {f"gates.{f.name}": getattr(gates, f.name) for f in fields(gates)}
    tables = {"area.min_coverage": min_coverage, **asked}
    for table, values in tables.items():
        each = values.items() if isinstance(values, dict) else [(None, values)]
        for name, value in each:
            if isinstance(value, Decimal) and int(value.normalize().as_tuple().exponent) < -MAX_DECIMALS:
                key = table if name is None else f"{table}.{name}"
                yield key, f"has more than {MAX_DECIMALS} decimals, which a Manifest cannot hold"


def missing_sources(sources: Sequence[TileSource]) -> Iterator[Found]:
    """Yield the tile sources that are not there: a scan needs them all, `doit engine` none."""
    if not sources:
        yield "tiles.source", 'is missing: add [[tiles.source]] with path = "…"'
    for n, source in enumerate(sources):
        if source.path != NO_PATH and not source.path.exists():
            yield f"tiles.source[{n}].path", f"no such file: {source.path}{meant_file(source.path)}"


def _files(flight: BuildSettings) -> Iterator[Found]:
    for key, path, is_there in _named_files(flight):
        if not is_there(path):
            yield key, f"no such file: {path}{meant_file(path)}"


def _calibration(files: Sequence[Calibration], *, backbones: int) -> Iterator[Found]:
    yield from _twice("calibration.path", "path", (str(c.path) for c in files))
    room = MAX_FILES - backbones - OTHER_FILES
    if len(files) > room:
        yield "calibration", f"a cache holds at most {room} calibration files beside these backbones"
    for n, calibration in enumerate(files):
        if not _is_id(calibration.purpose):
            yield f"calibration[{n}].purpose", "expected printable ASCII without spaces"


def _builtins(backbones: Sequence[Backbone]) -> Iterator[Found]:
    for n, backbone in enumerate(backbones):
        if backbone.onnx.startswith(BUILTIN) and backbone.onnx not in BUILTINS:
            expected = f"expected a file or one of {', '.join(BUILTINS)}, got {backbone.onnx!r}"
            yield f"backbone[{n}].onnx", expected + meant(backbone.onnx, BUILTINS)


def _named_files(flight: BuildSettings) -> Iterator[tuple[str, Path, Callable[[Path], bool]]]:
    for n, source in enumerate(flight.tiles.source):
        if source.captured.endswith(".csv"):
            yield f"tiles.source[{n}].captured", flight.root / source.captured, Path.is_file
    for n, backbone in enumerate(flight.backbone):
        if backbone.onnx not in BUILTINS and not backbone.onnx.startswith(BUILTIN):
            yield f"backbone[{n}].onnx", flight.root / Path(backbone.onnx).expanduser(), Path.is_file
        if backbone.custom_ops:
            yield f"backbone[{n}].custom_ops", backbone.custom_ops, Path.is_file
    for n, calibration in enumerate(flight.calibration):
        yield f"calibration[{n}].path", calibration.path, Path.is_file
    for part, key in ((flight.area, "area"), *((p, f"area.part[{n}]") for n, p in enumerate(flight.area.part))):
        for name in ("geojson", "mission"):
            if path := getattr(part, name):
                yield f"{key}.{name}", path, Path.is_file


def check_camera(camera: Camera) -> Iterator[Found]:
    """Yield every contradiction in [camera], and the file it names if that is not there."""
    lenses = [name for name in ("focal_px", "focal_mm", "fov_deg", "calibration") if getattr(camera, name) is not None]
    if len(lenses) > 1:
        yield "camera", f"needs one of focal_px, focal_mm, fov_deg, calibration; got {', '.join(lenses)}"
    if camera.calibration is not None and (camera.principal_px or camera.distortion):
        yield "camera.calibration", "holds principal point and distortion: leave principal_px and distortion out"
    if (camera.focal_mm is None) != (camera.sensor_width_mm is None):
        yield "camera.sensor_width_mm", "goes with focal_mm: give both or neither"
    if (camera.width_px is None) != (camera.height_px is None):
        yield "camera.height_px", "goes with width_px: give both or neither"
    for name in ("focal_px", "principal_px"):
        if getattr(camera, name) and camera.width_px is None:
            yield f"camera.{name}", "is in pixels of photos of one size: give width_px and height_px"
    if len(camera.principal_px) not in (0, 2):
        yield "camera.principal_px", "expected [x, y] in pixels"
    counts = (0, 4) if camera.distortion_model == "fisheye" else (0, 4, 5, 8)
    if len(camera.distortion) not in counts:
        yield "camera.distortion", f"expected {' or '.join(map(str, counts[1:]))} coefficients"
    if not lenses and (camera.principal_px or camera.distortion):
        yield "camera", "has a principal point or distortion but no focal length"
    if camera.calibration is not None and not camera.calibration.is_file():
        yield "camera.calibration", f"no such file: {camera.calibration}"


def _signing(signing: Signing) -> Iterator[Found]:
    if bool(signing.key) == bool(signing.command):
        yield "signing", "needs exactly one of key and command"
    if signing.command and not signing.public_key:
        yield "signing.public_key", "is needed with signing.command"
    if signing.public_key and not signing.public_key.is_file():
        yield "signing.public_key", f"no such file: {signing.public_key}"
    if signing.key is None:
        return
    try:
        mode = os.stat(signing.key).st_mode
    except OSError as error:
        yield (
            "signing.key",
            f"{signing.key}: {error.strerror}; make one with `{typed('flightcache', 'keygen', signing.key)}`",
        )
        return
    if not stat.S_ISREG(mode):
        yield "signing.key", f"{signing.key} is not a regular file"
    elif mode & 0o077:
        yield (
            "signing.key",
            f"{signing.key} is readable by others (mode {mode & 0o777:04o}): `{typed('chmod', '600', signing.key)}`",
        )
