"""The Manifest's one byte form and its digests."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import ManifestError
from provisioning.flight.manifest import (
    BBox,
    FileEntry,
    GateEntry,
    Manifest,
    Waiver,
    coverage_lines,
    coverage_sha256,
    manifest_hash,
    manifest_preimage,
    parse,
    to_bytes,
    with_hash,
)
from provisioning.flight.manifest import coverage as coverage_module
from provisioning.flight.manifest.formula import field, line
from tests.caches import ENGINE, FILES, manifest_of, sha
from tests.properties import examples

# --- bytes --------------------------------------------------------------------------------------------------------------


def test_parse_and_to_bytes_are_inverse() -> None:
    m = manifest_of()
    assert parse(to_bytes(m)) == m
    assert to_bytes(parse(to_bytes(m))) == to_bytes(m)


def test_bytes_are_sorted_indented_json_with_a_final_newline() -> None:
    data = to_bytes(manifest_of())
    assert data == (json.dumps(json.loads(data), indent=2, sort_keys=True) + "\n").encode()


def test_document_has_the_keys_of_the_schema() -> None:
    document = json.loads(to_bytes(manifest_of()))
    assert set(document) == {
        "schema", "build", "flight", "area", "host", "artifacts", "tiles", "gates", "waivers"
    }  # fmt: skip
    assert document["schema"] == "flight-cache-manifest/1"
    assert document["build"]["tool"] == {"name": "flightcache", "version": "0.1.0"}
    assert set(document["artifacts"]) == {"engines", "descriptor_index", "calibration", "other"}
    assert document["tiles"]["per_zoom"]["17"] == {"present": 8, "expected": 9, "largest_hole_mm": 305000}


def test_absent_parts_are_absent_keys() -> None:
    m = manifest_of()
    bare = m._replace(
        flight=m.flight._replace(flight_id=None, aircraft_id=None, takeoff_origin=None),
        engines=(m.engines[0]._replace(input=None),),
        tiles=m.tiles._replace(oldest_capture=None),
        gates={"freshness": GateEntry(None, None, "pass", "no limit")},
    )
    document = json.loads(to_bytes(bare))
    assert set(document["flight"]) == {"sector_class"}
    assert "input" not in document["artifacts"]["engines"][0]
    assert set(document["gates"]["freshness"]) == {"verdict", "detail"}
    assert parse(to_bytes(bare)) == bare


def test_order_of_files_in_the_builder_changes_no_byte() -> None:
    m = manifest_of()
    assert len(m.other) == 2
    assert to_bytes(m._replace(other=m.other[::-1])) == to_bytes(m)


LISTS = {
    "engines": lambda m: m._replace(engines=m.engines[::-1]),
    "calibration": lambda m: m._replace(calibration=m.calibration[::-1]),
    "other": lambda m: m._replace(other=m.other[::-1]),
    "waivers": lambda m: m._replace(waivers=m.waivers[::-1]),
    "zoom_levels": lambda m: m._replace(area=m.area._replace(zoom_levels=m.area.zoom_levels[::-1])),
}


@pytest.mark.parametrize("key", LISTS)
def test_a_list_has_one_order_whatever_the_builder_had_and_is_read_in_no_other(key: str) -> None:
    m = manifest_of()
    twos = m._replace(
        engines=(m.engines[0], m.engines[0]._replace(path="z.engine", model="z")),
        calibration=(m.calibration[0], m.calibration[0]._replace(path="calibration/z")),
        waivers=(Waiver("a", "me", "because"), Waiver("b", "me", "because")),
    )
    data = to_bytes(twos)
    assert to_bytes(LISTS[key](twos)) == data
    document = json.loads(data)
    holder = next(part for part in (document["artifacts"], document["area"], document) if key in part)
    holder[key] = holder[key][::-1]
    with pytest.raises(ManifestError, match="not in canonical form"):
        parse((json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def test_no_float_can_enter() -> None:
    m = manifest_of()
    with pytest.raises(ManifestError):
        to_bytes(m._replace(gates={"fidelity": GateEntry(0.99, "0.9", "pass", "")}))  # type: ignore[arg-type]


def test_every_issue_is_told_at_once() -> None:
    document = json.loads(to_bytes(manifest_of()))
    document["build"]["counter"] = 0
    document["flight"]["flight_id"] = "two words"
    document["artifacts"]["descriptor_index"]["bytes"] = -1
    with pytest.raises(ManifestError) as caught:
        parse(json.dumps(document).encode())
    said = str(caught.value)
    assert "build.counter" in said
    assert "flight.flight_id" in said
    assert "artifacts.descriptor_index.bytes" in said


def issues_after(change: Callable[[dict], object]) -> list[str]:
    """What `parse` says of the sample Manifest after a change to its document."""
    document = json.loads(to_bytes(manifest_of()))
    change(document)
    with pytest.raises(ManifestError) as caught:
        parse(json.dumps(document).encode())
    assert caught.value.what == "Manifest.json is malformed"
    assert caught.value.file == "Manifest.json"
    return list(caught.value.facts.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("gates"), "gates: missing"),
        (lambda d: d.update(extra=1), "extra: unknown"),
        (lambda d: d.update({"größe": 1}), "größe: unknown"),
        (lambda d: d.update({"\x1b[2J": 1}), "'\\x1b[2J: unknown'"),
        (lambda d: d["build"].pop("counter"), "build.counter: missing"),
        (lambda d: d["build"]["tool"].update(name=""), "build.tool.name: printable ASCII without spaces expected"),
        (lambda d: d["build"].update(counter=10**16), "build.counter: a whole number in 1..9007199254740991 expected"),
        (lambda d: d["build"].update(counter=2**53), "build.counter: a whole number in 1..9007199254740991 expected"),
        (
            lambda d: d["artifacts"]["other"][1].update(sha256="0"),
            "artifacts.other[1].sha256: 64 lower-case hex digits expected",
        ),
        (
            lambda d: d["artifacts"]["other"][0].update(path="../x"),
            "artifacts.other[0].path: a relative path of letters, digits and _+.=,@- expected",
        ),
        (lambda d: d["artifacts"].update(engines=[]), "artifacts.engines: a list of 1 to 512 items expected"),
        (lambda d: d["tiles"].update(per_zoom={"x": {}}), "tiles.per_zoom key: a zoom level in 0..24 expected"),
        (lambda d: d["tiles"]["per_zoom"].update({"17": 1}), "tiles.per_zoom.17: an object expected"),
        (lambda d: d.update(gates=[]), "gates: an object of at most 64 keys expected"),
        (
            lambda d: d["gates"]["fidelity"].update(verdict="fail"),
            "gates.fidelity.verdict: pass or warn or waived expected",
        ),
    ],
)
def test_an_issue_says_where_it_is(change: Callable[[dict], object], said: str) -> None:
    assert issues_after(change)[0] == said


def test_no_more_than_twenty_issues_of_200_characters_are_told() -> None:
    issues = issues_after(lambda document: document.update({f"{n:02}{'x' * 300}": 1 for n in range(30)}))
    assert issues == [f"{n:02}{'x' * 198}" for n in range(20)]


def test_a_manifest_of_another_schema_is_told_apart() -> None:
    document = json.loads(to_bytes(manifest_of())) | {"schema": "flight-cache-manifest/3"}
    with pytest.raises(ManifestError) as caught:
        parse(json.dumps(document).encode())
    assert str(caught.value) == (
        "Manifest.json is not a Manifest of this schema\n"
        "  file:    Manifest.json\n"
        "  key:     schema\n"
        "  issue 1: schema: flight-cache-manifest/1 or flight-cache-manifest/2 expected"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b" " * (1 << 20) + b"{}", "larger than 1048576 bytes"),
        (b'{"a": 1, "a": 1}', "a key is there twice"),
        (b'{"a": ' + b"7" * 18 + b"}", "too many digits"),
        (b'{"a": 1.5}', "1.5 is no whole number"),
        (b'{"a": 1.' + b"5" * 99 + b"}", " 1.555555555555555555 is no whole number"),
        (b" " * (1 << 20), "not JSON"),
        (b"[]", " the document: an object expected"),
        (b'{"a": Infinity}', "Infinity is no whole number"),
    ],
)
def test_what_the_canonical_form_would_catch_too_is_told_by_its_name(data: bytes, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(data)
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [[], "x", 1, None, True, {"k": 1}, {str(n): 1 for n in range(100)}])
@pytest.mark.parametrize("key", ["gates", "tiles", "area", "artifacts", "host"])
def test_another_kind_of_value_in_place_of_a_part_is_refused(key: str, value: object) -> None:
    document = json.loads(to_bytes(manifest_of()))
    document[key] = value
    raw = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    assert refuses(raw)


def test_as_much_as_the_format_allows_is_read_back() -> None:
    m = manifest_of()
    most = m._replace(
        waivers=tuple(Waiver(f"gate-{n:02}", "me", "x" * 4096) for n in range(64)),
        gates={f"gate-{n:02}": GateEntry(None, None, "pass", "") for n in range(64)},
        area=m.area._replace(zoom_levels=tuple(range(25))),
        tiles=m.tiles._replace(sources=tuple(f"source-{n:02}" for n in range(64))),
        other=tuple(FileEntry(f"other/{n}", 1, sha(b"")) for n in range(512 - 3)),
    )
    assert len(most.files) == 512
    assert parse(to_bytes(most)) == most._replace(other=tuple(sorted(most.other)))


BROKEN = {
    "index made by an engine that is not listed": lambda m: m._replace(
        descriptor_index=m.descriptor_index._replace(engine="other.engine")
    ),
    "empty box": lambda m: m._replace(area=m.area._replace(bbox_e7=BBox(0, 10, 10, 10))),
    "zoom level twice": lambda m: m._replace(area=m.area._replace(zoom_levels=(16, 16))),
    "count that is not the sum": lambda m: m._replace(tiles=m.tiles._replace(count=13)),
    "source twice": lambda m: m._replace(tiles=m.tiles._replace(sources=("a", "a"))),
    "unknown verdict": lambda m: m._replace(gates={"fidelity": GateEntry("1", "1", "fail", "")}),
    "no engine": lambda m: m._replace(engines=()),
    "date that is none": lambda m: m._replace(tiles=m.tiles._replace(oldest_capture="2024-13-01")),
    "empty flight id": lambda m: m._replace(flight=m.flight._replace(flight_id="")),
    "engine listed twice": lambda m: m._replace(engines=(m.engines[0], m.engines[0]._replace(input=None))),
    "text that UTF-8 cannot carry": lambda m: m._replace(waivers=(Waiver("freshness", "me", "\ud800"),)),
    "file that is a directory of another": lambda m: m._replace(
        other=(m.other[0]._replace(path="x/y"), m.other[1]._replace(path="x/y/z"))
    ),
    "path outside": lambda m: m._replace(other=(m.other[0]._replace(path="../x"),)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_manifest_that_could_not_be_read_is_not_written(what: str) -> None:
    with pytest.raises(ManifestError):
        to_bytes(BROKEN[what](manifest_of()))


# --- manifest_hash --------------------------------------------------------------------------------------------------------


def test_preimage_is_a_tag_line_and_byte_sorted_lines() -> None:
    tag, *lines = manifest_preimage(manifest_of()).split(b"\n")
    assert tag == b"flight-cache-manifest-hash/1"
    assert lines.pop() == b""
    assert lines == sorted(lines)
    assert b"bbox-e7 1512093000 -338688000 1513000001 -338000000" in lines
    assert b"host onnxruntime 1.32.0 x86_64 AVX2 linux fp32" in lines


def test_hash_is_the_sha256_of_the_preimage() -> None:
    m = manifest_of()
    assert m.build.manifest_hash == hashlib.sha256(manifest_preimage(m)).hexdigest() == manifest_hash(m)


# What a flight depends on moves the hash; what only describes the run does not.
MOVES = {
    "flight id": lambda m: m._replace(flight=m.flight._replace(flight_id="F-2")),
    "aircraft id": lambda m: m._replace(flight=m.flight._replace(aircraft_id="AC-2")),
    "no flight id": lambda m: m._replace(flight=m.flight._replace(flight_id=None)),
    "origin": lambda m: m._replace(
        flight=m.flight._replace(takeoff_origin=m.flight.takeoff_origin._replace(lat_e7=-338400001))
    ),
    "origin without height": lambda m: m._replace(
        flight=m.flight._replace(takeoff_origin=m.flight.takeoff_origin._replace(alt_mm=None))
    ),
    "sector class": lambda m: m._replace(flight=m.flight._replace(sector_class="urban")),
    "bbox": lambda m: m._replace(area=m.area._replace(bbox_e7=m.area.bbox_e7._replace(west=1512093001))),
    "zooms": lambda m: m._replace(area=m.area._replace(zoom_levels=(16,))),
    "host runtime": lambda m: m._replace(host=m.host._replace(runtime="1.33.0")),
    "precision": lambda m: m._replace(engines=(m.engines[0]._replace(precision="fp16"),)),
    "engine bytes": lambda m: m._replace(engines=(m.engines[0]._replace(sha256="1" * 64),)),
    "onnx": lambda m: m._replace(engines=(m.engines[0]._replace(onnx_sha256="1" * 64),)),
    "engine input": lambda m: m._replace(engines=(m.engines[0]._replace(input=None),)),
    "index bytes": lambda m: m._replace(descriptor_index=m.descriptor_index._replace(sha256="1" * 64)),
    "index metric": lambda m: m._replace(descriptor_index=m.descriptor_index._replace(metric="l2")),
    "calibration bytes": lambda m: m._replace(calibration=(m.calibration[0]._replace(sha256="1" * 64),)),
    "tiles": lambda m: m._replace(tiles=m.tiles._replace(coverage_sha256="1" * 64)),
    "source order": lambda m: m._replace(tiles=m.tiles._replace(sources=("base", "b"))),
}
KEEPS = {
    "counter": lambda m: m._replace(build=m.build._replace(counter=99)),
    "tool": lambda m: m._replace(build=m.build._replace(tool_version="9")),
    "gates": lambda m: m._replace(gates={}),
    "waivers": lambda m: m._replace(waivers=(Waiver("freshness", "me", "because"),)),
    "report": lambda m: m._replace(other=()),
    "recorded hash": lambda m: m._replace(build=m.build._replace(manifest_hash="1" * 64)),
}


@pytest.mark.parametrize("what", MOVES)
def test_hash_moves_with(what: str) -> None:
    assert manifest_hash(MOVES[what](manifest_of())) != manifest_hash(manifest_of())


@pytest.mark.parametrize("what", KEEPS)
def test_hash_keeps_with_another(what: str) -> None:
    assert manifest_hash(KEEPS[what](manifest_of())) == manifest_hash(manifest_of())


def test_two_like_lines_are_refused() -> None:
    m = manifest_of()
    with pytest.raises(ManifestError, match="two parts of the Manifest are the same") as caught:
        manifest_hash(m._replace(engines=m.engines * 2))
    assert caught.value.key == manifest_line(b"engine ")


def manifest_line(start: bytes) -> str:
    """The one line of the sample's preimage that begins with `start`."""
    (found,) = (row for row in manifest_preimage(manifest_of()).splitlines() if row.startswith(start))
    return found.decode()


FIELDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4)


@given(FIELDS, FIELDS)
def test_different_fields_never_give_the_same_line(one: list[str], other: list[str]) -> None:
    assert (line(*one) == line(*other)) == (one == other)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_field_is_printable_ascii_without_space(text: str) -> None:
    assert all(0x21 <= byte <= 0x7E for byte in field(text))


def test_an_empty_field_is_refused() -> None:
    with pytest.raises(ManifestError, match="an empty text"):
        field("")


# --- coverage_sha256 ------------------------------------------------------------------------------------------------------

TILES = [
    (z, x, y, s, sha(f"{z}/{x}/{y}/{s}".encode())) for z in (9, 10) for x in range(12) for y in range(12) for s in "ab"
]


def test_coverage_is_the_sha256_of_sorted_lines() -> None:
    lines = sorted(f"{z} {x} {y} {s} {d}\n".encode() for z, x, y, s, d in TILES)
    assert coverage_sha256(TILES) == hashlib.sha256(b"flight-cache-tile-coverage/1\n" + b"".join(lines)).hexdigest()


def test_order_of_a_store_changes_nothing_even_through_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = coverage_sha256(TILES)
    monkeypatch.setattr(coverage_module, "RUN_LINES", 7)
    for seed in range(5):
        shuffled = random.Random(seed).sample(TILES, len(TILES))
        assert coverage_sha256(shuffled) == whole
        assert list(coverage_lines(shuffled)) == sorted(coverage_lines(TILES))


def test_a_tile_that_is_there_twice_is_refused() -> None:
    z, x, y, source, _ = TILES[0]
    with pytest.raises(ManifestError, match="a tile is in the corpus twice") as caught:
        coverage_sha256([*TILES, (z, x, y, source, "0" * 64)])
    assert caught.value.key == f"{z} {x} {y} {source}"


def test_what_does_not_fit_in_memory_is_sorted_where_the_caller_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    places: list[object] = []
    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **where: places.append(where["dir"]) or real(**where))
    coverage_sha256(TILES, scratch=tmp_path)
    assert places == [tmp_path]


def test_no_tile_has_a_coverage_of_its_own() -> None:
    assert coverage_sha256([]) == hashlib.sha256(b"flight-cache-tile-coverage/1\n").hexdigest()


@pytest.mark.parametrize(
    ("tiles", "run_lines", "most_bytes"),
    [(50_000, 10_000, 3_000_000), pytest.param(250_000, 100_000, 20_000_000, marks=pytest.mark.slow)],
)
def test_coverage_of_many_tiles_stays_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, tiles: int, run_lines: int, most_bytes: int
) -> None:
    """In one run they would take more than twice as much as is allowed here, or half as much again in the full form."""
    import tracemalloc

    monkeypatch.setattr(coverage_module, "RUN_LINES", run_lines)
    rows = ((18, n % 1000, n // 1000, "base", "0" * 64) for n in range(tiles))
    tracemalloc.start()
    try:
        coverage_sha256(rows)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < most_bytes


# --- hostile input --------------------------------------------------------------------------------------------------------


def refuses(data: bytes) -> bool:
    """Whether parse refuses `data` as it should: ManifestError, and nothing else."""
    try:
        parse(data)
    except ManifestError:
        return True
    return False


def test_no_file_of_the_json_test_suite_is_a_manifest(shared_data: Path) -> None:
    files = sorted((shared_data / "broken" / "jsontestsuite").rglob("*.json"))
    assert len(files) > 300
    assert [file.name for file in files if not refuses(file.read_bytes())] == []


def test_no_broken_json_is_taken_inside_a_manifest(shared_data: Path) -> None:
    """Each `n_` file in place of a value that may be any text: what surrounds it is all right, so it alone decides."""
    before, after = to_bytes(manifest_of()).split(b'"detail": ""')
    files = sorted((shared_data / "broken" / "jsontestsuite").rglob("n_*.json"))
    assert len(files) > 150
    taken = [file.name for file in files if not refuses(before + b'"detail": ' + file.read_bytes() + after)]
    assert taken == []


@examples(1, nightly=3)
@given(st.binary(max_size=2000))
def test_any_bytes_are_refused_without_another_error(data: bytes) -> None:
    assert refuses(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def paths_of(document: object, at: tuple = ()) -> list[tuple]:
    """Every place in a JSON document."""
    below = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [at, *(path for key, part in below for path in paths_of(part, (*at, key)))]


@examples(1, nightly=5)
@given(st.data())
def test_any_value_anywhere_is_refused_or_read_back_as_it_is(data: st.DataObject) -> None:
    document = json.loads(to_bytes(manifest_of()))
    *parents, last = data.draw(st.sampled_from([path for path in paths_of(document) if path]))
    target = document
    for key in parents:
        target = target[key]
    target[last] = data.draw(JSON)
    raw = (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
    if not refuses(raw):
        m: Manifest = parse(raw)
        assert to_bytes(m) == raw
        manifest_hash(m)


@examples(1, nightly=5)
@given(st.data())
def test_any_splice_of_the_bytes_is_refused_or_read_back_as_it_is(data: st.DataObject) -> None:
    whole = to_bytes(manifest_of())
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    raw = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    if not refuses(raw):
        assert to_bytes(parse(raw)) == raw


def test_engine_file_of_the_sample_is_listed() -> None:
    assert {entry.path for entry in with_hash(manifest_of()).files} == set(FILES)
    assert manifest_of().descriptor_index.engine == ENGINE
