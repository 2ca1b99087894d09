"""What is fuzzed: for each parser of foreign input its seeds, and what may come out of it: a value or a typed Error.

A target is one entry of TARGETS. `read` gets the input's bytes and a directory of its own.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from provisioning.area.reading import read_area, read_mission
from provisioning.base.errors import Error
from provisioning.base.hashing import sha256_bytes
from provisioning.config import TileSource
from provisioning.config.parse import read_flight
from provisioning.delivery.bundle import rows
from provisioning.delivery.bundle.check import check_bundle
from provisioning.delivery.bundle.contents import Listed, listed
from provisioning.delivery.bundle.delta import BY_ROWS, Base, differences, opened_base, rebuilt
from provisioning.delivery.bundle.earlier import bases_in, generation_since
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.delivery.fleet import read_fleet
from provisioning.delivery.install import install_bundle, receive
from provisioning.delivery.stream import read_line, send_documents, send_needed
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight.trust import Recovery, Trust, read_trust, to_bytes, update
from provisioning.flight.verify import CounterFloor, verify
from provisioning.flight.verify.floor import read_floor
from provisioning.flight.verify.reasons import Refusal
from provisioning.quality.locate.photo import read_photo
from provisioning.sources.pixels.image import inspect_tile
from provisioning.sources.stores import open_container
from tests import delivery, tilesets
from tests.fuzzing import corpus as manifests
from tests.fuzzing import judge as judge_manifest
from tests.test_trust_file import FIRST, signed, version

SECONDS = 5.0
"""Longest that one small input may take."""


class Target(NamedTuple):
    """`seeds` are good inputs; `read` parses one and raises Error or Refusal for what it refuses."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]


@functools.cache
def _world() -> tuple[Path, delivery.Keys]:
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    keys = delivery.make_keys(root)
    files = {path: data[:200] for path, data in delivery.FILES.items()}
    delivery.publish_cache(root / "cache", keys, counter=3, files=files)
    return root, keys


def _verdict():
    root, keys = _world()
    return verify(root / "cache", delivery.trust_anything_by(keys.public))


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return run


# delivery


def _bundles() -> list[bytes]:
    root, _ = _world()
    made = []
    for name in ("b.tar", "b.tar.zst"):
        with _verdict() as verdict:
            pack(verdict, documents_of(verdict), root / name)
        made.append((root / name).read_bytes())
    return made


def _read_bundle(path: Path) -> object:
    _, keys = _world()
    return check_bundle(path, trusting(delivery.trust_anything_by(keys.public), path.parent))


def _sent() -> list[bytes]:
    stream = io.BytesIO()
    with _verdict() as verdict:
        manifest = verdict.require()
        send_documents(stream, documents_of(verdict))
        reply = {"need": [[file.sha256, 0] for file in dict.fromkeys(listed(manifest))]}
        send_needed(stream, reply, manifest, lambda file: verdict.open(file.path))
    return [stream.getvalue()]


def _receive(data: bytes, folder: Path) -> object:
    _, keys = _world()
    expect = delivery.trust_anything_by(keys.public)
    (folder / "vehicle").mkdir()
    return receive(
        io.BytesIO(data), io.BytesIO(), folder / "vehicle", trust=trusting(expect, folder), verify=verifying(expect)
    )


def _replies() -> list[bytes]:
    with _verdict() as verdict:
        files = verdict.require().files
    good = {"need": [[file.sha256, 0] for file in files]}
    held = {**good, "bases": {files[0].sha256: files[1].sha256}}
    return [json.dumps(line).encode() + b"\n" for line in (good, held, {"need": []}, {"error": "x", "exit_code": 10})]


def _reply(data: bytes, _folder: Path) -> object:
    root, _ = _world()
    with _verdict() as verdict:
        manifest = verdict.require()
        reply = read_line(io.BytesIO(data))
        return send_needed(
            io.BytesIO(), reply, manifest, lambda file: verdict.open(file.path), bases=bases_in(root / "cache")
        )


OLD = delivery.noise(3000, "old")
NEW = OLD[:700] + b"new" * 100 + OLD[900:]


def _deltas() -> list[bytes]:
    """Return what gives NEW: from OLD, from nothing, and from OLD with rows in both that are written row by row."""
    made = []
    for old in (OLD, b""):
        with tempfile.TemporaryFile() as file:
            file.write(old)
            file.flush()
            pieces = differences(io.BytesIO(NEW), Base(file.fileno(), len(old)), _new())
            made.append(b"".join(piece for _, piece in pieces))
    where = rows.Where(0, 5, 16, 8, 100, 90, 32), rows.Where(100, 5, 16, 8, 0, 90, 32)
    said = rows.to_bytes(*where, (3, 5))
    return [*made, struct.pack("<QII", 0, BY_ROWS, len(said)) + said + made[0]]


def _new() -> Listed:
    return Listed("corpus.index", len(NEW), sha256_bytes(NEW))


def _rebuild(data: bytes, folder: Path) -> object:
    (folder / "old").write_bytes(OLD)
    with opened_base(folder, "old") as base:
        given = b"".join(rebuilt(io.BytesIO(data), base, _new()))
    assert len(given) == len(NEW)
    return given


@functools.cache
def _changing() -> tuple[Path, delivery.Keys]:
    """Return a cache with two generations, and a vehicle that holds the first."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    keys = delivery.make_keys(root)
    small = {path: data[:200] for path, data in delivery.FILES.items()}
    for counter, data in ((1, OLD * 2), (2, NEW * 2)):
        for cache in ("cache", "vehicle")[: 3 - counter]:
            delivery.publish_cache(root / cache, keys, counter=counter, files={**small, "corpus.index": data})
    return root, keys


def _bundles_since() -> list[bytes]:
    root, keys = _changing()
    with verify(root / "cache", delivery.trust_anything_by(keys.public)) as verdict:
        pack(verdict, documents_of(verdict), root / "b.tar", since=generation_since(root / "cache", 1))
    return [(root / "b.tar").read_bytes()]


def _install_since(data: bytes, folder: Path) -> object:
    root, keys = _changing()
    expect = delivery.trust_anything_by(keys.public)
    (folder / "b.tar").write_bytes(data)
    shutil.copytree(root / "vehicle", folder / "vehicle", symlinks=True)
    return install_bundle(
        folder / "b.tar", folder / "vehicle", trust=trusting(expect, folder), verify=verifying(expect)
    )


def _trust_files() -> list[bytes]:
    """Return one of a rotation, a revocation and a recovery, and one of a threshold."""
    second = signed(version(2, (1, 2), root=2, revoked=("a" * 64,), not_after="2030-01-01T00:00:00Z"), 0, 1, 2)
    third = signed(version(3, (1, 2), root=2, recovery=Recovery(9, 4)), 1, 2)
    return [to_bytes(Trust((FIRST, second, third))), to_bytes(Trust((FIRST,)))]


def _read_trust(data: bytes, folder: Path) -> object:
    """Take it for the trust file of a vehicle, and for one that arrives where the first version is installed."""
    (folder / "trust.json").write_bytes(data)
    offered = read_trust(folder / "trust.json")
    return update(Trust((FIRST,)), offered), offered.newest, to_bytes(offered)


def _read_floor(data: bytes, folder: Path) -> object:
    (folder / "floor").write_bytes(data)
    (folder / "floor.manifest").write_bytes(data)
    return read_floor(CounterFloor(folder / "floor", raise_on_pass=False), folder / "cache")


# what a user writes

FLIGHT = b"""\
[flight]
id = "F-1"
[area]
bbox = [7.4, 46.9, 7.5, 47.0]
zooms = [14, 15]
[[tiles.source]]
path = "tiles"
[[backbone]]
name = "m"
onnx = "builtin:gist-color"
role = "descriptor"
[signing]
key = "key.pem"
"""


def _read_flight(data: bytes, folder: Path) -> object:
    (folder / "key.pem").touch(mode=0o600)
    (folder / "flight.toml").write_bytes(data)
    return read_flight(folder)


FLEET = b"""\
cache = "."
[[vehicle]]
name = "heron-1"
flight = "F-1"
command = "ssh heron-1"
target = "heron-1:/cache"
"""

SQUARE = [[7.4, 46.9], [7.5, 46.9], [7.5, 46.98], [7.4, 46.98], [7.4, 46.9]]
GEOJSON = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {"name": "a", "radius_m": 50}, "geometry": geometry}
            for geometry in (
                {"type": "Polygon", "coordinates": [SQUARE]},
                {"type": "LineString", "coordinates": SQUARE[:3]},
                {"type": "Point", "coordinates": [7.4, 46.9]},
            )
        ],
    }
).encode()
KML = (
    b'<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document><Placemark><Polygon><outerBoundaryIs>'
    b"<LinearRing><coordinates>7.4,46.9,0 7.5,46.9,0 7.5,46.98,0 7.4,46.9,0</coordinates></LinearRing>"
    b"</outerBoundaryIs></Polygon></Placemark></Document></kml>"
)
GPX = (
    b'<?xml version="1.0"?><gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
    b'<trkpt lat="46.9" lon="7.4"/><trkpt lat="46.95" lon="7.45"/></trkseg></trk></gpx>'
)
WPL = (
    b"QGC WPL 110\n0\t1\t0\t16\t0\t0\t0\t0\t46.9\t7.4\t500\t1\n1\t0\t3\t22\t15\t0\t0\t0\t46.9\t7.4\t50\t1\n"
    b"2\t0\t3\t16\t0\t0\t0\t0\t46.95\t7.45\t80\t1\n3\t0\t3\t18\t2\t0\t60\t0\t46.96\t7.46\t80\t1\n4\t0\t0\t177\t2\t1\t0\t0\t0\t0\t0\t1\n"
    b"5\t0\t3\t20\t0\t0\t0\t0\t0\t0\t0\t1\n"
)
PLAN = json.dumps(
    {
        "fileType": "Plan",
        "version": 1,
        "groundStation": "QGroundControl",
        "geoFence": {"circles": [], "polygons": [], "version": 2},
        "rallyPoints": {"points": [], "version": 2},
        "mission": {
            "version": 2, "firmwareType": 12, "vehicleType": 2, "cruiseSpeed": 15, "hoverSpeed": 5,
            "plannedHomePosition": [46.9, 7.4, 500],
            "items": [
                {"type": "SimpleItem", "command": command, "frame": 3, "doJumpId": n, "autoContinue": True,
                 "params": [0, 0, 0, None, 46.9 + n / 100, 7.4, 50]}
                for n, command in enumerate((22, 16, 16, 20), 1)
            ],
        },
    }
).encode()  # fmt: skip
LITCHI = b"latitude,longitude,altitude(m),heading(deg),curvesize(m)\n46.9,7.4,50,0,0\n46.95,7.45,60,90,5\n"
INAV = (
    b'<?xml version="1.0"?><mission><missionitem no="1" action="WAYPOINT" lat="46.9" lon="7.4" alt="50"/>'
    b'<missionitem no="2" action="RTH" lat="0" lon="0" alt="0" flag="165"/></mission>'
)


def _zipped(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return out.getvalue()


def drawn(path: Path) -> object:
    refused = []
    for read in (read_area, read_mission):
        try:
            return read(path)
        except Error as error:  # noqa: PERF203 - two
            refused.append(error)
    raise refused[-1]


# tiles


def _pmtiles() -> list[bytes]:
    with tempfile.TemporaryDirectory() as made:
        path = tilesets.write_reference_pmtiles(Path(made, "a.pmtiles"), tilesets.block())
        return [path.read_bytes()]


def _mbtiles() -> list[bytes]:
    with tempfile.TemporaryDirectory() as made:
        return [tilesets.write_mbtiles(Path(made, "a.mbtiles"), tilesets.block(2, 2)).read_bytes()]


def _read_container(path: Path) -> object:
    container = open_container(TileSource(path=path, name="sat"))
    try:
        found = list(islice(container.addresses(), 2000))
        return [container.metadata(), container.statements(), *(container.read(*at) for at in found[:20])]
    finally:
        container.close()


def _images() -> list[bytes]:
    return [tilesets.image(1, kind=kind, side=16) for kind in ("PNG", "JPEG", "WEBP")]


TARGETS = {
    "manifest": Target(manifests, lambda data, _: judge_manifest(data)),
    "bundle": Target(_bundles, _in_file("b.tar", _read_bundle)),
    "sync-to-vehicle": Target(_sent, _receive),
    "sync-from-vehicle": Target(_replies, _reply),
    "delta": Target(_deltas, _rebuild),
    "bundle-since": Target(_bundles_since, _install_since),
    "trust": Target(_trust_files, _read_trust),
    "floor": Target(lambda: [b"7\n", b"7 " + b"a" * 64], _read_floor),
    "flight.toml": Target(lambda: [FLIGHT], _read_flight),
    "FLEET.toml": Target(lambda: [FLEET], _in_file("FLEET.toml", read_fleet)),
    "mission": Target(lambda: [WPL, PLAN, LITCHI, INAV, GPX], _in_file("m.plan", drawn)),
    "area": Target(lambda: [GEOJSON, KML, _zipped("doc.kml", KML)], _in_file("a.geojson", drawn)),
    "pmtiles": Target(_pmtiles, _in_file("a.pmtiles", _read_container)),
    "mbtiles": Target(_mbtiles, _in_file("a.mbtiles", _read_container)),
    "image": Target(_images, lambda data, _: inspect_tile(data, max_pixels=1 << 20, nodata=())),
    "photo": Target(_images, _in_file("a.jpg", read_photo)),
}


def run(name: str, data: bytes) -> str:
    """Read `data` as the target `name` does; return what was said of it. Whatever is raised is a bug."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            TARGETS[name].read(data, Path(folder))
        except (Error, Refusal) as error:
            return type(error).__name__ + ": " + str(getattr(error, "what", error))
    return "accepted"
