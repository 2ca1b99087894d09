"""Write the test vectors: `python -m tests.vectors.make`. The same bytes each time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provisioning.base.geometry.geo import CUTS, PackedId, pack_id
from provisioning.flight.manifest import (
    SCHEMA_2,
    Accepted,
    BBox,
    CalibrationEntry,
    Camera,
    Distortion,
    GateEntry,
    Host,
    Manifest,
    Mounting,
    Origin,
    Waiver,
    ZoomCount,
    coverage_lines,
    coverage_sha256,
    manifest_hash,
    manifest_preimage,
    to_bytes,
    with_hash,
)
from provisioning.flight.manifest.coverage import COVERAGE_TAG
from provisioning.flight.manifest.formula import field
from tests import trust_vectors as trusts
from tests.caches import ENGINE, FILES, HOST, KEY, OTHER_KEY, manifest_of, public, sha

HERE = Path(__file__).parent
GENERATION = "generations/000007"
WEAK = [0, 1, 2**255 - 20, 2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
        2**255 - 19, 2**255 - 18, 2**255 - 1]  # fmt: skip


def files() -> Iterator[tuple[str, bytes]]:
    """Every file of the vectors: its name and its bytes."""
    for name, key in (("public.pem", KEY), ("other.pem", OTHER_KEY)):
        yield name, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "fields.json", as_json({text: field(text).decode() for text in TEXTS})
    for name, manifest in manifests().items():
        data = to_bytes(manifest)
        yield f"manifests/{name}.json", data
        yield f"manifests/{name}.preimage", manifest_preimage(manifest)
        yield f"manifests/{name}.sha256", f"{manifest_hash(manifest)}\n".encode()
        yield f"manifests/{name}.sig", KEY.sign(data)
    yield "malformed.json", as_json([vector(name, data) for name, data in malformed().items()])
    yield "ids.tsv", "".join("\t".join(map(str, row)) + "\n" for row in (COLUMNS, *ids())).encode()
    yield "coverage.json", as_json([coverage(rows) for rows in ROWS])
    yield (
        "weak_keys.json",
        as_json([(y | top << 255).to_bytes(32, "little").hex() for y in WEAK for top in (0, 1)] + ["00" * 31, ""]),
    )
    yield "trust.json", as_json(trusts.files())
    yield "caches.json", as_json({"files": base_files(), "expect": EXPECT, "cases": cases()})


def as_json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()


# --- fields, Manifests, coverage --------------------------------------------------------------------------------------

TEXTS = ["plain", "Orin (nvgpu)", "100%", "%25", "é", "e\u0301", "🛰", "a\tb\n", "~!", " ", "\x7f", "0", "-1"]


def manifests() -> dict[str, Manifest]:
    m = manifest_of()
    flight, area, tiles = m.flight, m.area, m.tiles
    bare = m._replace(
        flight=flight._replace(flight_id=None, aircraft_id=None, takeoff_origin=None),
        engines=(m.engines[0]._replace(input=None),),
        calibration=(),
        other=(),
        tiles=tiles._replace(count=0, per_zoom={}, sources=(), oldest_capture=None),
        gates={},
    )
    second = m.engines[0]._replace(path="trt/landing+v2.engine", model="landing", role="landing", input=None)
    large = m._replace(
        build=m.build._replace(counter=2**53 - 1),
        flight=flight._replace(takeoff_origin=Origin(-175_000_000, 1_799_999_999)),
        area=area._replace(bbox_e7=BBox(1_790_000_000, -180_000_000, -1_790_000_000, -170_000_000), zoom_levels=(9, 17, 24)),
        host=Host("tensorrt", "10.3.0.30", "sm87", "Orin (nvgpu) 100%", "l4t36.4.3", "fp16"),
        engines=(m.engines[0], second),
        calibration=tuple(CalibrationEntry(f"calibration/{n}.yml", n, sha(b"%d" % n), "imu") for n in range(10, 0, -1)),
        tiles=tiles._replace(
            count=6, per_zoom={9: ZoomCount(1, 1, 0), 17: ZoomCount(2, 9, 1), 24: ZoomCount(3, 3, 2**53 - 1)},
            sources=("sentinel 2", "drone=1", "base"), skipped=3, oldest_capture="1999-12-31",
        ),
        gates={
            "fidelity": GateEntry("0.99987", "0.999", "pass", 'quote " backslash \\ slash / é 🛰'),
            "freshness": GateEntry(None, None, "waived", ""),
            "self_localisation": GateEntry("-1", "0.5", "warn", "50 samples"),
        },
        waivers=(Waiver("freshness", "B. Owner", "old but the only one"), Waiver("freshness", "A. Pilot", "Überflug")),
    )  # fmt: skip
    return {"full": m, "bare": with_hash(bare), "large": with_hash(large), **second_schema(m, bare)}


def second_schema(m: Manifest, bare: Manifest) -> dict[str, Manifest]:
    """Manifests of flight-cache-manifest/2: with everything that it adds, and with none of it."""
    camera = Camera(
        4056, 3040, 3_124_117, 3_124_002, 2_028_000, -1, Distortion("opencv-5", ("-0.28", "0.071", "0", "-0.0001", "1")),
        Mounting(-1_800_000_000, 900_000_000, 1),
    )  # fmt: skip
    flight = m.flight._replace(
        takeoff_origin=Origin(-338400000, 1512500000, 58000, "amsl"), not_after="2027-02-28T23:59:59Z"
    )
    accepted = (Accepted("freshness", "tiles of 2019"), Accepted("coverage", "17 of 20 tiles: é"))
    whole = m._replace(schema=SCHEMA_2, flight=flight, camera=camera, accepted=accepted)
    plain = camera._replace(distortion=None, mounting=None)
    return {
        "second": with_hash(whole),
        "second-bare": with_hash(bare._replace(schema=SCHEMA_2)),
        "second-two-looks": with_hash(
            whole._replace(tiles=m.tiles._replace(count=m.tiles.count + 1, sources=(*m.tiles.sources, "other-look")))
        ),
        "second-pinhole": with_hash(whole._replace(camera=plain, accepted=())),
        "second-most-sources": with_hash(with_sources(whole, 256)),
        "second-cuts": with_hash(
            whole._replace(descriptor_index=m.descriptor_index._replace(rotations=16, overlap=2, vectors=400))
        ),
        "second-field-of-view": with_hash(
            whole._replace(camera=Camera(fov_e7=695_000_000, angles_of="body", height_mm=120_000, ground_mm=-3_500))
        ),
    }


PLACES = [
    (0, 0, 0),
    (1, 1, 0),
    (6, 63, 62),
    (6, 0, 31),
    (17, 70000, 45000),
    (24, 2**24 - 1, 2**24 - 2),
    (24, 1, 2**24 - 1),
]


COLUMNS = ("id", "rotations", "z", "x", "y", "source", "heading", "cut", "lat_e7", "lon_e7")


def ids() -> Iterator[tuple[int, ...]]:
    """Index ids with what they say; `rotations` as in the Manifest."""
    for overlap, rotations in ((1, 1), (1, 36), (2, 1), (2, 5), (2, 16)):
        for place in PLACES:
            for cut in range(overlap**2):
                source, heading = (place[0] * 7) % 256, (place[1] + cut) % rotations
                if place[2] + CUTS[cut][1] < 1 << place[0]:
                    said = PackedId(*place, source, heading, cut)
                    packed = pack_id(*place, source, heading, cut=cut, rotations=rotations)
                    yield packed, rotations, *said, said.centre.lat_e7, said.centre.lon_e7


def with_sources(m: Manifest, count: int) -> Manifest:
    return m._replace(tiles=m.tiles._replace(sources=tuple(f"s{n:03}" for n in range(count))))


def malformed() -> dict[str, tuple[str, bytes]]:
    """Signed or not, these bytes are no Manifest: name to (code, bytes)."""
    text = to_bytes(manifest_of()).decode()

    def change(old: str, new: str) -> bytes:
        assert text.count(old) == 1
        return text.replace(old, new).encode("utf-8", "surrogatepass")

    counter = '"counter": 7,'
    found = {
        "empty": b"",
        "byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "invalid UTF-8": text.encode().replace(b"F-118", b"F-\xff18"),
        "overlong UTF-8": text.encode().replace(b'"detail": ""', b'"detail": "\xc0\xaf"'),
        "surrogate in UTF-8": change('"detail": ""', '"detail": "\ud800"'),
        "trailing newline": text.encode() + b"\n",
        "trailing NUL": text.encode() + b"\0",
        "no final newline": text.encode()[:-1],
        "carriage returns": text.replace("\n", "\r\n").encode(),
        "compact": json.dumps(json.loads(text), separators=(",", ":"), sort_keys=True).encode(),
        "keys out of order": json.dumps(dict(reversed(json.loads(text).items())), indent=2).encode() + b"\n",
        "needless escape": change('"F-118"', '"F\\u002d118"'),
        "escaped slash": change("calibration/camera.yml", "calibration\\/camera.yml"),
        "duplicate key": change(counter, '"counter": 7,\n    "counter": 7,'),
        "float": change(counter, '"counter": 7.0,'),
        "exponent": change(counter, '"counter": 7e0,'),
        "minus zero": change('"skipped": 0', '"skipped": -0'),
        "leading zero": change(counter, '"counter": 07,'),
        "NaN": change(counter, '"counter": NaN,'),
        "true": change(counter, '"counter": true,'),
        "null": change(counter, '"counter": null,'),
        "text for a number": change(counter, '"counter": "7",'),
        "counter 0": change(counter, '"counter": 0,'),
        "counter 2^53": change(counter, f'"counter": {2**53},'),
        "many digits": change(counter, f'"counter": {"9" * 5000},'),
        "deep": b"[" * 5000 + b"]" * 5000,
        "deep object": b'{"a":' * 2000 + b"1" + b"}" * 2000,
        "array": b"[]\n",
        "unknown key": change(counter, '"counter": 7,\n    "countersign": 7,'),
        "missing key": change(f"{counter}\n    ", ""),
        "space in a flight id": change('"F-118"', '"F 118"'),
        "newline in a detail": change('"detail": ""', '"detail": "a\\nb"'),
        "right-to-left override": change('"detail": ""', '"detail": "\u202e"'),
        "Arabic letter mark": change('"detail": ""', '"detail": "\u061c"'),
        "digest in capitals": change(sha(FILES["report.html"]), sha(FILES["report.html"]).upper()),
        "parent path": change('"report.html"', '"../report.html"'),
        "absolute path": change('"report.html"', '"/report.html"'),
        "dot segment": change('"report.html"', '"./report.html"'),
        "empty segment": change('"report.html"', '"x//report.html"'),
        "backslash": change('"report.html"', '"x\\\\report.html"'),
        "non-ASCII path": change('"report.html"', '"re\u0301port.html"'),
        "reserved path": change('"report.html"', '"manifest.JSON.sig"'),
        "sidecar path": change('"report.html"', '"report.html.SHA256"'),
        "file listed twice": change('"report.html"', '"coverage.geojson"'),
        "same path without case": change('"report.html"', '"corpus.INDEX"'),
        "file and directory": change('"report.html"', '"corpus.index/x"'),
        "files out of order": change('"coverage.geojson"', '"zzz"'),
        "zooms out of order": change("16,\n      17", "17,\n      16"),
        "empty box": change('"south": -338688000', '"south": -338000000'),
        "latitude beyond the pole": change('"south": -338688000', '"south": -900000001'),
        "index of no engine": change(f'"engine": "{ENGINE}"', '"engine": "other.engine"'),
        "1: an overlap": change('"metric": "ip",', '"metric": "ip",\n      "overlap": 2,'),
        "count is not the sum": change('"count": 12', '"count": 13'),
        "zoom key with zero": change('"17": {', '"017": {'),
        "month 13": change('"2024-05-01"', '"2024-13-01"'),
        "verdict fail": change('"verdict": "pass"', '"verdict": "fail"'),
        "figure that is a number": change('"measured": "0.9999"', '"measured": 0.9999'),
    }
    found |= malformed_second()
    schemas = {
        "future schema": change("flight-cache-manifest/1", "flight-cache-manifest/3"),
        "no schema": b"{}\n",
        "schema of another kind": change('"flight-cache-manifest/1"', "1"),
    }
    return {**{n: ("malformed", d) for n, d in found.items()}, **{n: ("schema", d) for n, d in schemas.items()}}


def malformed_second() -> dict[str, bytes]:
    m = manifests()["second"]
    text = to_bytes(m).decode()

    def change(old: str, new: str) -> bytes:
        assert text.count(old) == 1, old
        return text.replace(old, new).encode()

    return {
        "2: keys of 2 in 1": change("flight-cache-manifest/2", "flight-cache-manifest/1"),
        "2: 2 without accepted": to_bytes(manifest_of()).replace(b"manifest/1", b"manifest/2"),
        "2: height without datum": change('"alt_datum": "amsl",\n      ', ""),
        "2: datum without height": change(',\n      "alt_mm": 58000', ""),
        "2: unknown datum": change('"amsl"', '"msl"'),
        "2: not_after as a date": change("2027-02-28T23:59:59Z", "2027-02-28"),
        "2: not_after with an offset": change("23:59:59Z", "23:59:59+01:00"),
        "2: not_after with hour 24": change("T23:59:59Z", "T24:00:00Z"),
        "2: not_after with a leap second": change("T23:59:59Z", "T23:59:60Z"),
        "2: not_after in small letters": change("T23:59:59Z", "t23:59:59z"),
        "2: focal length 0": change('"focal_x_mpx": 3124117', '"focal_x_mpx": 0'),
        "2: focal length as text": change('"focal_x_mpx": 3124117', '"focal_x_mpx": "3124.117"'),
        "2: coefficient as a number": change('"0.071"', "0.071"),
        "2: coefficient with an exponent": change('"0.071"', '"7.1e-2"'),
        "2: camera with half a size": change('"height": 3040,\n    ', ""),
        "2: lens and field of view": change('"focal_x_mpx"', '"fov_e7": 695000000,\n    "focal_x_mpx"'),
        "2: camera that declares nothing": re.sub(
            rb'"camera": \{.*?\n  \}', b'"camera": {}', text.encode(), flags=re.DOTALL
        ),
        "2: camera without size": change('"width": 4056', '"wide": 4056'),
        "2: mounting beyond half a turn": change('"yaw_e7": -1800000000', '"yaw_e7": -1800000001'),
        "2: an overlap of one": change('"metric": "ip",', '"metric": "ip",\n      "overlap": 1,'),
        "2: an overlap of three": change('"metric": "ip",', '"metric": "ip",\n      "overlap": 3,'),
        "2: more headings than ids have room for": to_bytes(manifests()["second-cuts"]).replace(
            b'"rotations": 16', b'"rotations": 17'
        ),
        "2: more tiles than places and sources allow": change(f'"count": {m.tiles.count}', '"count": 999'),
        "2: fewer tiles than places": change(f'"count": {m.tiles.count}', '"count": 1'),
        "2: more than 256 sources": to_bytes(with_sources(m, 256)).replace(b'"s255"', b'"s255",\n      "s256"'),
        "2: accepted out of order": change('"what": "coverage"', '"what": "zz"'),
        "2: camera null": text.encode().replace(b'"camera": {', b'"camera": null, "x": {'),
    }


def vector(name: str, vector_of: tuple[str, bytes]) -> dict[str, str]:
    code, data = vector_of
    try:
        return {"name": name, "code": code, "text": data.decode("ascii")}
    except UnicodeDecodeError:
        return {"name": name, "code": code, "hex": data.hex()}


Row = tuple[int, int, int, str, str]
ROWS: list[list[Row]] = [
    [],
    [
        (z, x, y, s, sha(f"{z}/{x}/{y}{s}".encode()))
        for s in ("base", "2 é")
        for z in (9, 10)
        for x in (9, 10)
        for y in (1, 2)
    ],
]


def coverage(rows: list[Row]) -> dict[str, object]:
    preimage = COVERAGE_TAG + b"".join(coverage_lines(rows))
    assert hashlib.sha256(preimage).hexdigest() == coverage_sha256(rows)
    return {"rows": rows, "preimage": preimage.decode(), "sha256": coverage_sha256(rows)}


# --- caches ---------------------------------------------------------------------------------------------------------------

EXPECT = {
    "keys": [public(KEY).raw.hex()],
    "fingerprints": "any",
    "revoked": [],
    "flight_id": "F-118",
    "aircraft_id": "AC-7",
    "host": HOST._asdict(),
    "counter_floor": 7,
    "now_s": 1800000000,
    "trust": None,
    "floor": None,
}


def signed(data: bytes, *, key: object = KEY) -> dict[str, bytes]:
    return {
        "Manifest.json": data,
        "Manifest.json.sha256": f"{sha(data)}\n".encode(),
        "Manifest.json.sig": key.sign(data),  # type: ignore[attr-defined]
    }


def spki(encoding: Encoding) -> bytes:
    return KEY.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def base_files() -> dict[str, str]:
    """The content of a cache that passes, as hex."""
    listed = {**FILES, **{path + ".sha256": f"{sha(data)}\n".encode() for path, data in FILES.items()}}
    return {f"{GENERATION}/{path}": data.hex() for path, data in {**listed, **signed(to_bytes(manifest_of()))}.items()}


def at(path: str) -> str:
    return f"{GENERATION}/{path}"


def resign(manifest: Manifest, *, key: object = KEY) -> list[list[object]]:
    return [["write_hex", at(path), data.hex()] for path, data in signed(to_bytes(manifest), key=key).items()]


def trusted(old: bytes) -> list[dict[str, object]]:
    """Caches verified by a trust file in place of keys, with further signatures beside the first."""
    a, b, sig, sigs = trusts.A, trusts.B, "Manifest.json.sig", "Manifest.json.sigs"
    two, stranger = trusts.one(a, b, must=(1, 2)), trusts.ROOTS[1]
    end = "2027-01-15T08:00:00Z"  # the time of EXPECT

    def case(name: str, trust: str, reasons: list, *more: object, **expect: object) -> dict[str, object]:
        signatures = b"".join(key.sign(old) for key in more)  # type: ignore[attr-defined]
        steps = [["write_hex", at(sigs), signatures.hex()]] if more else []
        return {"name": name, "steps": steps, "expect": {"keys": [], "trust": trust, **expect}, "reasons": reasons}

    return [
        case("trust: one of two", trusts.one(a, b), []),
        case("trust: another key", trusts.one(b), [["signature", sig]]),
        case("trust: two must sign, one did", two, [["threshold", sig]]),
        case("trust: two signed", two, [], OTHER_KEY),
        case("trust: two signed, and a stranger", two, [], stranger, OTHER_KEY),
        case("trust: one key signed twice", two, [["threshold", sig]], KEY, KEY),
        case("trust: a stranger signed too", two, [["threshold", sig]], stranger),
        case("trust: the second is revoked by the caller", two, [["threshold", sig]], OTHER_KEY, revoked=[public(OTHER_KEY).fingerprint]),
        case("trust: the second is not allowed", two, [["threshold", sig]], OTHER_KEY, fingerprints=[public(KEY).fingerprint]),
        case("trust: in its last second", trusts.one(a, not_after=end), []),
        case("trust: a second later", trusts.one(a, not_after=end), [["trust", ""]], now_s=1800000001),
        case("trust: key in its last second", trusts.one(a._replace(not_after=end)), []),
        case("trust: key a second later", trusts.one(a._replace(not_after=end)), [["key-expired", sig]], now_s=1800000001),
        case("trust: no clock", trusts.one(a._replace(not_after=end), not_after=end), [], now_s="any"),
        case("trust: keys beside it", trusts.one(a), [["trust", ""]], keys=[public(KEY).raw.hex()]),
        {"name": "further signatures of 63 bytes", "steps": [["write_hex", at(sigs), "00" * 63]], "expect": {}, "reasons": [["size", sigs]]},
        {"name": "further signatures, none", "steps": [["write", at(sigs), ""]], "expect": {}, "reasons": [["size", sigs]]},
        {"name": "further signatures, 17", "steps": [["write_hex", at(sigs), "00" * 1088]], "expect": {}, "reasons": [["size", sigs]]},
        {"name": "further signatures by nobody", "steps": [["write_hex", at(sigs), "00" * 64]], "expect": {}, "reasons": []},
        {"name": "further signatures as a link", "steps": [["symlink", at(sigs), sig]], "expect": {}, "reasons": [["symlink", sigs]]},
    ]  # fmt: skip


def floors() -> list[dict[str, object]]:
    """Caches verified with a floor file, which a PASS raises: the files before, and after."""
    found = []
    this, other, before = sha(to_bytes(manifest_of())), "a" * 64, "b" * 64

    def case(name: str, files: dict[str, str], reasons: list, after: dict[str, str] | None = None) -> None:
        floor = {"before": files, "after": {**files, **(after or {})}}
        found.append({"name": f"floor: {name}", "steps": [], "expect": {"floor": floor}, "reasons": reasons})

    counter, refused = [["counter", "Manifest.json"]], [["floor", ""]]
    case("below, nothing known", {"floor": "6\n"}, [], {"floor": "7\n", "floor.manifest": f"7 {this}\n"})
    case(
        "below, raised by another set",
        {"floor": "6", "floor.manifest": f"6 {before}"},
        [],
        {"floor": "7\n", "floor.manifest": f"7 {this}\n", "floor.previous": f"6 {before}\n"},
    )
    case(
        "cut while it was raised",
        {"floor": "6\n", "floor.manifest": f"7 {this}\n", "floor.previous": f"6 {before}\n"},
        [],
        {"floor": "7\n"},
    )
    case("equal, of this set", {"floor": "7\n", "floor.manifest": f"7 {this}\n"}, [])
    case("equal, of another set", {"floor": "7\n", "floor.manifest": f"7 {other}\n"}, counter)
    case("equal, unknown", {"floor": "7\n", "floor.manifest": f"5 {other}\n"}, [], {"floor.manifest": f"7 {this}\n"})
    case("above", {"floor": "8\n"}, counter)
    case("above, and this is the fallback", {"floor": "8\n", "floor.fallback": f"8 7 {this}\n"}, [])
    case("above, another set is the fallback", {"floor": "8\n", "floor.fallback": f"8 7 {other}\n"}, counter)
    case("above, the fallback is of an older floor", {"floor": "9\n", "floor.fallback": f"8 7 {this}\n"}, counter)
    case(
        "raised from a fallback",
        {"floor": "6\n", "floor.manifest": f"6 {other}\n", "floor.fallback": f"6 5 {before}\n"},
        [],
        {"floor": "7\n", "floor.manifest": f"7 {this}\n", "floor.previous": f"5 {before}\n"},
    )
    case("missing", {}, refused)
    for text in ("", "seven", "-1", "07", "7 ", "7\n\n", "9" * 17):
        case(f"of {text!r}", {"floor": text}, refused)
    for text in ("", "7", f"7 {this[:-1]}", f"7  {this}", f"07 {this}", f"7 {this.upper()}"):
        case(f"beside {text[:12]!r}", {"floor": "7\n", "floor.manifest": text}, refused)
    case("a fallback without its floor", {"floor": "8\n", "floor.fallback": f"7 {this}\n"}, refused)
    return found


def cases() -> list[dict[str, object]]:
    """Every tampered cache: name, steps, what differs in the expectations, exact reasons."""
    m = manifest_of()
    old = to_bytes(m)
    flight = m.flight
    engine = bytearray(FILES[ENGINE])
    engine[3333] ^= 1
    sidecar = at("report.html.sha256")
    manifest, signature, own = "Manifest.json", "Manifest.json.sig", "Manifest.json.sha256"
    outside = flight.takeoff_origin._replace(lat_e7=-337999999)  # type: ignore[union-attr]
    weak = bytes([1] + [0] * 31)
    fingerprint = public(KEY).fingerprint
    second = manifests()["second"]

    def case(name: str, steps: list, reasons: list, **expect: object) -> dict[str, object]:
        return {"name": name, "steps": steps, "expect": expect, "reasons": reasons}

    return [
        case("untouched", [], []),
        case("nothing expected but the key", [], [], flight_id="any", aircraft_id="any", host={}, counter_floor="any"),
        case("one of two keys", [], [], keys=[public(OTHER_KEY).raw.hex(), public(KEY).raw.hex()]),
        case("hard link from outside", [["hardlink", "store", at("corpus.index")]], []),
        case("no key", [], [["signature", signature]], keys=[]),
        case("another key", [], [["signature", signature]], keys=[public(OTHER_KEY).raw.hex()]),
        case("revoked key", [], [["key-revoked", signature]], revoked=[public(KEY).fingerprint]),
        case("revoked key in capitals", [], [["key-revoked", signature]], revoked=[fingerprint.upper()]),
        case("revoked key with colons", [], [["key-revoked", signature]], revoked=[":".join(fingerprint[i : i + 2] for i in range(0, 64, 2))]),
        case("revoked key with a prefix", [], [["key-revoked", signature]], revoked=["SHA256:" + fingerprint]),
        case("revoked key with blanks", [], [["key-revoked", signature]], revoked=[f" {fingerprint[:32]} {fingerprint[32:]}\n"]),
        case("revoked key in a list", [], [["key-revoked", signature]], revoked=["0" * 64 + ", " + fingerprint]),
        case("revoked key by its raw bytes", [], [["key-revoked", signature]], revoked=[public(KEY).raw.hex()]),
        case("revoked key by the digest of its DER form", [], [["key-revoked", signature]], revoked=[sha(spki(Encoding.DER))]),
        case("revoked key by the digest of its PEM form", [], [["key-revoked", signature]], revoked=[sha(spki(Encoding.PEM)).upper()]),
        case("another key revoked by its raw bytes", [], [], revoked=[public(OTHER_KEY).raw.hex()]),
        case("key allowed by its raw bytes", [], [["key-not-allowed", signature]], fingerprints=[public(KEY).raw.hex()]),
        case("part of a fingerprint", [], [["key-revoked", ""]], revoked=[fingerprint[:16]]),
        case("no fingerprint at all", [], [["key-revoked", ""]], revoked=[""]),
        case("key allowed in capitals", [], [], fingerprints=[fingerprint.upper()]),
        case("allowed key that is no fingerprint", [], [["key-not-allowed", ""]], fingerprints=["operator.pub.pem"]),
        case("key not allowed", [], [["key-not-allowed", signature]], fingerprints=[public(OTHER_KEY).fingerprint]),
        case("weak key", [["write_hex", at(signature), (weak + bytes(32)).hex()]], [["key-weak", ""]], keys=[weak.hex()]),
        case("weak key beside a good one", [], [["key-weak", ""]], keys=[public(KEY).raw.hex(), bytes(32).hex()]),
        *trusted(old),
        *floors(),
        case("signature missing", [["remove", at(signature)]], [["missing", signature]]),
        case("signature of 63 bytes", [["write_hex", at(signature), KEY.sign(old)[:63].hex()]], [["size", signature]]),
        case("signature of 65 bytes", [["write_hex", at(signature), KEY.sign(old).hex() + "0a"]], [["size", signature]]),
        case("signature of zeros", [["write_hex", at(signature), "00" * 64]], [["signature", signature]]),
        case("signature plus group order", [["write_hex", at(signature), malleable(KEY.sign(old)).hex()]], [["signature", signature]]),
        case("whitespace added", [["write_hex", at(manifest), (old + b" ").hex()]], [["sidecar", own], ["signature", signature]]),
        case("sidecar of other bytes", [["write", at(own), "0" * 64 + "\n"]], [["sidecar", own]]),
        case("sidecar without newline", [["write", at(own), sha(old)]], [["sidecar", own]]),
        case("sidecar missing", [["remove", at(own)]], [["missing", own]]),
        case("Manifest and signature missing", [["remove", at(manifest)], ["remove", at(signature)]], [["missing", manifest], ["missing", signature]]),
        case("Manifest of a TiB", [["truncate", at(manifest), 1 << 40]], [["size", manifest]]),
        case("signed garbage", [["write_hex", at(p), d.hex()] for p, d in signed(b"garbage").items()], [["malformed", manifest]]),
        case("signed future schema", [["write_hex", at(p), d.hex()] for p, d in signed(old.replace(b"manifest/1", b"manifest/3")).items()], [["schema", manifest]]),
        case("wrong manifest_hash", resign(m._replace(build=m.build._replace(manifest_hash="f" * 64))), [["manifest-hash", manifest]]),
        case("origin outside", resign(with_hash(m._replace(flight=flight._replace(takeoff_origin=outside)))), [["origin", manifest]]),
        case("schema 2", resign(second), []),
        case("schema 2 in its last second", resign(second), [], now_s=1803859199),
        case("schema 2 a second later", resign(second), [["expired", manifest]], now_s=1803859200),
        case("schema 2 in the year 10000", resign(second), [["expired", manifest]], now_s=253402300800),
        case("schema 2 with the hash of 1", resign(second._replace(build=m.build)), [["manifest-hash", manifest]]),
        case("counter below the floor", [], [["counter", manifest]], counter_floor=8),
        case("another flight", [], [["flight", manifest]], flight_id="F-119"),
        case("flight where none is expected", [], [["flight", manifest]], flight_id=None),
        case("no flight where one is expected", resign(with_hash(m._replace(flight=flight._replace(flight_id=None)))), [["flight", manifest]]),
        case("another aircraft", [], [["aircraft", manifest]], aircraft_id="AC-8"),
        case("another host", [], [["host", manifest]], host={**HOST._asdict(), "runtime": "1.33.0"}),
        case("symlinked file", [["move", at("corpus.index"), "store"], ["symlink", at("corpus.index"), "../../store"]], [["symlink", "corpus.index"]]),
        case("symlinked directory", [["move", at("calibration"), "store"], ["symlink", at("calibration"), "../../store"]],
             [["symlink", "calibration"], ["not-a-file", "calibration/camera.yml"], ["missing", "calibration/camera.yml"], ["missing", "calibration/camera.yml.sha256"]]),
        case("symlinked Manifest", [["move", at(manifest), "store"], ["symlink", at(manifest), "../../store"]], [["symlink", manifest]]),
        case("orphan", [["write", at("notes.txt"), ""]], [["unlisted", "notes.txt"]]),
        case("orphan with a sidecar", [["write", at("x"), ""], ["write", at("x.sha256"), sha(b"") + "\n"]], [["unlisted", "x"], ["unlisted", "x.sha256"]]),
        case("orphan below", [["write", at("calibration/x"), ""]], [["unlisted", "calibration/x"]]),
        case("empty directory", [["mkdir", at(".git")]], [["unlisted", ".git"]]),
        case("dangling link", [["symlink", at("x"), "nowhere"]], [["unlisted", "x"]]),
        case("second hard link", [["hardlink", at("x"), at("corpus.index")]], [["unlisted", "x"]]),
        case("file missing", [["remove", at("report.html")]], [["missing", "report.html"]]),
        case("file sidecar missing", [["remove", sidecar]], [["missing", "report.html.sha256"]]),
        case("file sidecar of another", [["write", sidecar, sha(FILES["corpus.index"]) + "\n"]], [["sidecar", "report.html.sha256"]]),
        case("file sidecar too long", [["write", sidecar, sha(FILES["report.html"]) + "\n\n"]], [["size", "report.html.sha256"]]),
        case("swap of the same size", [["write", at("corpus.index"), "INDEX " * 1500]], [["digest", "corpus.index"]]),
        case("flipped bit", [["write_hex", at(ENGINE), engine.hex()]], [["digest", ENGINE]]),
        case("truncated", [["truncate", at("corpus.index"), 8999]], [["size", "corpus.index"]]),
        case("grown", [["truncate", at("corpus.index"), 9001]], [["size", "corpus.index"]]),
        case("sparse TiB", [["truncate", at("corpus.index"), 1 << 40]], [["size", "corpus.index"]]),
        case("FIFO for a file", [["remove", at("corpus.index")], ["fifo", at("corpus.index")]], [["not-a-file", "corpus.index"]]),
        case("FIFO for the Manifest", [["remove", at(manifest)], ["fifo", at(manifest)]], [["not-a-file", manifest]]),
        case("orphan FIFO", [["fifo", at("x")]], [["unlisted", "x"]]),
        case("directory for a file", [["remove", at("corpus.index")], ["mkdir", at("corpus.index")]], [["not-a-file", "corpus.index"]]),
        case("file for a directory", [["move", at("calibration"), "store"], ["write", at("calibration"), ""]],
             [["unlisted", "calibration"], ["not-a-file", "calibration/camera.yml"], ["missing", "calibration/camera.yml"], ["missing", "calibration/camera.yml.sha256"]]),
        case("no current", [["remove", "current"]], [["cache-unreadable", ""]]),
        case("current inside the generation", [["symlink", at("current"), "generations/1"]], [["unlisted", "current"]]),
        case("good set nested in a forged one",
             [["mkdir", at(d)] for d in ("generations", "generations/1", "generations/1/calibration")]
             + [["write_hex", at(f"generations/1/{p.removeprefix(GENERATION + '/')}"), d] for p, d in base_files().items()]
             + [["symlink", at("current"), "generations/1"], ["write_hex", at(ENGINE), engine.hex()]],
             [["digest", ENGINE], ["unlisted", "current"], ["unlisted", "generations"]]),
        case("Manifest.json beside current", [["write", manifest, "{}"]], [["missing", signature], ["missing", own]]),
        case("current elsewhere", [["remove", "current"], ["symlink", "current", ".."]], [["current-invalid", "current"]]),
        case("current to nothing", [["remove", "current"], ["symlink", "current", "generations/000008"]], [["current-invalid", "current"]]),
        case("current is a directory", [["remove", "current"], ["move", GENERATION, "current"]], [["current-invalid", "current"]]),
        case("generations is a link", [["move", "generations", "store"], ["symlink", "generations", "store"]], [["current-invalid", "current"]]),
        case("generation is a link", [["move", GENERATION, "store"], ["symlink", GENERATION, "../store"]], [["current-invalid", "current"]]),
        case("everything at once",
             [*resign(manifest_of(counter=2)), ["write", at(own), "0" * 64 + "\n"], ["write", at("corpus.index"), "INDEX " * 1500], ["remove", at("report.html")], ["write", at("x"), ""]],
             [["counter", manifest], ["aircraft", manifest], ["digest", "corpus.index"], ["missing", "report.html"], ["unlisted", "x"], ["sidecar", own]],
             aircraft_id="AC-8"),
    ]  # fmt: skip


def malleable(signature: bytes) -> bytes:
    """The signature with the group order added to S: the same equation, refused by RFC 8032."""
    order = 2**252 + 27742317777372353535851937790883648493
    return signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")


def main() -> None:
    for name, data in files():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
