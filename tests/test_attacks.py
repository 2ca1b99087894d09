"""Every attack on a cache that we know: one tampering each, its exact reasons, and the counter floor unmoved.

`@refused(...)` runs the tampering on a cache that would pass, verifies with a floor file that a PASS would raise, and
holds the verdict against exactly the (code, file) pairs given. Every one of them must be decided within a second.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.base.errors import VerificationError
from provisioning.flight.manifest import CalibrationEntry, FileEntry, Manifest, to_bytes, with_hash
from provisioning.flight.signing import PublicKey
from provisioning.flight.verify import Code, CounterFloor, Expectations, Reason, verify, walk
from provisioning.flight.verify.opening import open_file, refuse_special
from provisioning.flight.verify.reasons import Refusal
from tests.caches import ENGINE, FILES, HOST, KEY, OTHER_KEY, Cache, manifest_of, public, publish, sha
from tests.shell import quote

MANIFEST, SIDECAR, SIGNATURE = "Manifest.json", "Manifest.json.sha256", "Manifest.json.sig"
FLOOR_BEFORE = b"3\n"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache that passes, with a floor file beside it that a PASS would raise from 3 to 7."""
    made = publish(tmp_path / "cache")
    (tmp_path / "floor").write_bytes(FLOOR_BEFORE)
    expect = made.expect._replace(counter_floor=CounterFloor(tmp_path / "floor", raise_on_pass=True))
    return Cache(made.root, made.generation, expect)


def refused(*reasons: tuple[Code, str]) -> Callable:
    """Expect exactly `reasons` after the decorated tampering, which may return other Expectations."""

    def decorate(tamper: Callable[[Cache], Expectations | None]) -> Callable:
        @functools.wraps(tamper)
        def test(cache: Cache) -> None:
            expect = tamper(cache) or cache.expect
            start = time.perf_counter()
            with verify(cache.root, expect) as verdict:
                elapsed_s = time.perf_counter() - start
                assert sorted((str(r.code), r.file) for r in verdict.reasons) == sorted(
                    (str(code), file) for code, file in reasons
                )
                assert not verdict.passed
                assert all(r.detail not in ("", "None") and r.detail.isprintable() for r in verdict.reasons)
                for give in (verdict.read, verdict.open):
                    with pytest.raises(VerificationError):
                        give("corpus.index")
            assert elapsed_s < 20  # whatever an attacker left, the answer comes before the aircraft is given up
            assert (cache.root.parent / "floor").read_bytes() == FLOOR_BEFORE

        return test

    return decorate


def test_untouched_cache_passes_and_raises_the_floor(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        assert verdict.reasons == ()
    assert (cache.root.parent / "floor").read_bytes() == b"7\n"


# --- signature ------------------------------------------------------------------------------------------------------


@refused((Code.MISSING, SIGNATURE))
def test_missing_signature(cache: Cache) -> None:
    (cache.generation / SIGNATURE).unlink()


@refused((Code.SIGNATURE, SIGNATURE))
def test_signature_by_a_key_that_is_not_trusted(cache: Cache) -> None:
    cache.sign((cache.generation / MANIFEST).read_bytes(), key=OTHER_KEY)


@refused((Code.SIGNATURE, SIGNATURE))
def test_signature_of_other_bytes(cache: Cache) -> None:
    cache.write(SIGNATURE, KEY.sign(b"other bytes"))


@refused((Code.SIZE, SIGNATURE))
def test_signature_of_63_bytes(cache: Cache) -> None:
    cache.write(SIGNATURE, (cache.generation / SIGNATURE).read_bytes()[:63])


@refused((Code.SIZE, SIGNATURE))
def test_signature_of_65_bytes(cache: Cache) -> None:
    cache.write(SIGNATURE, (cache.generation / SIGNATURE).read_bytes() + b"\n")


@refused((Code.SIGNATURE, SIGNATURE))
def test_signature_of_zeros(cache: Cache) -> None:
    cache.write(SIGNATURE, bytes(64))


@refused((Code.SIGNATURE, SIGNATURE))
def test_signature_with_the_group_order_added(cache: Cache) -> None:
    """The malleable twin of a good signature: S + L. RFC 8032 refuses it."""
    good = (cache.generation / SIGNATURE).read_bytes()
    order = 2**252 + 27742317777372353535851937790883648493
    twin = (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    cache.write(SIGNATURE, good[:32] + twin)


@refused((Code.SIDECAR, SIDECAR), (Code.SIGNATURE, SIGNATURE))
def test_whitespace_added_to_the_manifest(cache: Cache) -> None:
    cache.write(MANIFEST, (cache.generation / MANIFEST).read_bytes() + b" ")


@refused((Code.SIDECAR, SIDECAR))
def test_manifest_sidecar_of_other_bytes(cache: Cache) -> None:
    cache.write(SIDECAR, b"0" * 64 + b"\n")


@refused((Code.SIDECAR, SIDECAR))
def test_manifest_sidecar_without_newline(cache: Cache) -> None:
    cache.write(SIDECAR, (cache.generation / SIDECAR).read_bytes()[:64])


@refused((Code.MISSING, SIDECAR))
def test_missing_manifest_sidecar(cache: Cache) -> None:
    (cache.generation / SIDECAR).unlink()


@refused((Code.MISSING, MANIFEST), (Code.MISSING, SIGNATURE))
def test_missing_manifest_and_signature_are_both_told(cache: Cache) -> None:
    (cache.generation / MANIFEST).unlink()
    (cache.generation / SIGNATURE).unlink()


@refused((Code.SIGNATURE, SIGNATURE))
def test_no_trusted_key_trusts_nobody(cache: Cache) -> Expectations:
    return cache.expect._replace(keys=())


@refused((Code.KEY_REVOKED, SIGNATURE))
def test_revoked_key(cache: Cache) -> Expectations:
    return cache.expect._replace(keys=(public(OTHER_KEY), public(KEY)), revoked=frozenset([public(KEY).fingerprint]))


@refused((Code.KEY_NOT_ALLOWED, SIGNATURE))
def test_key_outside_the_allowed_fingerprints(cache: Cache) -> Expectations:
    return cache.expect._replace(fingerprints=frozenset([public(OTHER_KEY).fingerprint]))


@refused((Code.KEY_WEAK, ""))
def test_small_order_key_that_verifies_what_nobody_signed(cache: Cache) -> Expectations:
    weak = bytes([1] + [0] * 31)
    cache.write(SIGNATURE, weak + bytes(32))  # R = the identity, S = 0: a textbook verifier accepts it for any message
    return cache.expect._replace(keys=(PublicKey(weak),))


# --- JSON, signed by the trusted key: the parser must hold even then ------------------------------------------------


def resigned(cache: Cache, old: str, new: str) -> None:
    """Replace the one occurrence of `old` in the Manifest and sign the result."""
    text = (cache.generation / MANIFEST).read_text()
    assert text.count(old) == 1
    cache.sign(text.replace(old, new).encode("utf-8", "surrogatepass"))


@refused((Code.MALFORMED, MANIFEST))
def test_duplicate_key(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": 7, "counter": 8,')


@refused((Code.MALFORMED, MANIFEST))
def test_nan(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": NaN,')


@refused((Code.MALFORMED, MANIFEST))
def test_1e999(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": 1e999,')


@refused((Code.MALFORMED, MANIFEST))
def test_float_counter(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": 7.0,')


@refused((Code.MALFORMED, MANIFEST))
def test_bool_counter(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": true,')


@refused((Code.MALFORMED, MANIFEST))
def test_text_counter(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": "7",')


@refused((Code.MALFORMED, MANIFEST))
def test_negative_counter(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": -7,')


@refused((Code.MALFORMED, MANIFEST))
def test_integer_of_5000_digits(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', f'"counter": {"7" * 5000},')


@refused((Code.MALFORMED, MANIFEST))
def test_nesting_of_100_000_levels(cache: Cache) -> None:
    cache.sign(b"[" * 100_000 + b"]" * 100_000)


@refused((Code.MALFORMED, MANIFEST))
def test_nesting_inside_a_known_key(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', f'"counter": {"[" * 20_000}{"]" * 20_000},')


@refused((Code.SIZE, MANIFEST))
def test_manifest_of_2_mib(cache: Cache) -> None:
    cache.sign((cache.generation / MANIFEST).read_bytes() + b" " * (2 << 20))


@refused((Code.MALFORMED, MANIFEST))
def test_manifest_of_1_mib_of_quotes(cache: Cache) -> None:
    cache.sign(b'\\"' * (1 << 19))


@refused((Code.MALFORMED, MANIFEST))
def test_utf_16(cache: Cache) -> None:
    cache.sign((cache.generation / MANIFEST).read_text().encode("utf-16"))


@refused((Code.MALFORMED, MANIFEST))
def test_byte_order_mark(cache: Cache) -> None:
    cache.sign(b"\xef\xbb\xbf" + (cache.generation / MANIFEST).read_bytes())


@refused((Code.MALFORMED, MANIFEST))
def test_invalid_utf_8(cache: Cache) -> None:
    cache.sign((cache.generation / MANIFEST).read_bytes().replace(b"F-118", b"F-\xff18"))


@refused((Code.MALFORMED, MANIFEST))
def test_lone_surrogate(cache: Cache) -> None:
    resigned(cache, '"detail": ""', '"detail": "\\ud800"')


@refused((Code.MALFORMED, MANIFEST))
def test_terminal_escape_in_a_text(cache: Cache) -> None:
    resigned(cache, '"detail": ""', '"detail": "\\u001b[2J"')


@refused((Code.MALFORMED, MANIFEST))
def test_unknown_field(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', '"counter": 7, "countersign": 1,')


@refused((Code.MALFORMED, MANIFEST))
def test_missing_field(cache: Cache) -> None:
    resigned(cache, '"counter": 7,', "")


@refused((Code.MALFORMED, MANIFEST))
def test_null_in_place_of_an_absent_field(cache: Cache) -> None:
    resigned(cache, '"flight_id": "F-118"', '"flight_id": null')


@refused((Code.SCHEMA, MANIFEST))
def test_future_schema(cache: Cache) -> None:
    resigned(cache, "flight-cache-manifest/1", "flight-cache-manifest/3")


@refused((Code.MALFORMED, MANIFEST))
def test_json_that_is_not_canonical(cache: Cache) -> None:
    cache.sign(json.dumps(json.loads((cache.generation / MANIFEST).read_text())).encode())


@refused((Code.MALFORMED, MANIFEST))
def test_a_word_with_a_space_that_would_split_a_line_of_the_hash(cache: Cache) -> None:
    resigned(cache, '"flight_id": "F-118"', '"flight_id": "F-118 x"')


@refused((Code.MANIFEST_HASH, MANIFEST))
def test_manifest_hash_of_other_content(cache: Cache) -> None:
    m = manifest_of()
    cache.sign(to_bytes(m._replace(build=m.build._replace(manifest_hash="f" * 64))))


@refused((Code.ORIGIN, MANIFEST))
def test_take_off_point_outside_the_area(cache: Cache) -> None:
    m = manifest_of()
    origin = m.flight.takeoff_origin._replace(lat_e7=-338000001 + 2)
    cache.sign(to_bytes(with_hash(m._replace(flight=m.flight._replace(takeoff_origin=origin)))))


# --- replay -------------------------------------------------------------------------------------------------------------


@refused((Code.COUNTER, MANIFEST))
def test_counter_below_the_floor(cache: Cache) -> None:
    cache.sign(to_bytes(manifest_of(counter=2)))


@refused((Code.FLIGHT, MANIFEST))
def test_cache_of_another_flight(cache: Cache) -> Expectations:
    return cache.expect._replace(flight_id="F-119")


@refused((Code.FLIGHT, MANIFEST))
def test_cache_of_a_flight_where_none_is_expected(cache: Cache) -> Expectations:
    return cache.expect._replace(flight_id=None)


@refused((Code.FLIGHT, MANIFEST))
def test_cache_without_flight_where_one_is_expected(cache: Cache) -> None:
    m = manifest_of()
    cache.sign(to_bytes(with_hash(m._replace(flight=m.flight._replace(flight_id=None)))))


@refused((Code.AIRCRAFT, MANIFEST))
def test_cache_of_another_aircraft(cache: Cache) -> Expectations:
    return cache.expect._replace(aircraft_id="AC-8")


@pytest.mark.parametrize("part", HOST._fields)
def test_cache_for_another_host(cache: Cache, part: str) -> None:
    @refused((Code.HOST, MANIFEST))
    def other_host(cache: Cache) -> Expectations:
        return cache.expect._replace(host=HOST._replace(**{part: "other"}))

    other_host(cache)


@refused((Code.FLOOR, ""))
def test_floor_file_deleted(cache: Cache) -> Expectations:
    return cache.expect._replace(counter_floor=CounterFloor(cache.root.parent / "gone", raise_on_pass=True))


@pytest.mark.parametrize("content", [b"", b"-1\n", b"0x7\n", b"7 \n", b"7\n7\n", b"\xff", b"9" * 30, b"07\n"])
def test_floor_file_that_is_not_a_number(cache: Cache, content: bytes) -> None:
    @refused((Code.FLOOR, ""))
    def damaged_floor(cache: Cache) -> Expectations:
        (cache.root.parent / "damaged").write_bytes(content)
        return cache.expect._replace(counter_floor=CounterFloor(cache.root.parent / "damaged", raise_on_pass=True))

    damaged_floor(cache)


@refused((Code.FLOOR, ""))
def test_floor_file_that_is_a_fifo_does_not_hang(cache: Cache) -> Expectations:
    os.mkfifo(cache.root.parent / "pipe")
    return cache.expect._replace(counter_floor=CounterFloor(cache.root.parent / "pipe", raise_on_pass=True))


def test_floor_file_that_is_huge_is_not_read_into_memory(cache: Cache) -> None:
    os.truncate(cache.root.parent / "floor", 1 << 26)
    tracemalloc.start()
    try:
        verdict = verify(cache.root, cache.expect)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(r.code, r.file) for r in verdict.reasons] == [(Code.FLOOR, "")]
    assert peak_bytes < 1 << 25


@refused((Code.FLOOR, ""))
def test_floor_file_inside_the_cache(cache: Cache) -> Expectations:
    (cache.root / "floor").write_bytes(b"0\n")
    return cache.expect._replace(counter_floor=CounterFloor(cache.root / "floor", raise_on_pass=True))


def test_floor_file_beside_the_generations_is_inside_the_cache(cache: Cache) -> None:
    (cache.root / "floor").write_bytes(b"0\n")
    floor = CounterFloor(cache.root / "floor", raise_on_pass=True)
    verdict = verify(cache.generation, cache.expect._replace(counter_floor=floor))
    assert [reason.code for reason in verdict.reasons] == [Code.FLOOR]


@refused((Code.FLOOR, ""))
def test_floor_file_that_links_into_the_cache(cache: Cache) -> Expectations:
    (cache.root / "floor").write_bytes(b"0\n")
    (cache.root.parent / "link").symlink_to(cache.root / "floor")
    return cache.expect._replace(counter_floor=CounterFloor(cache.root.parent / "link", raise_on_pass=True))


# --- names in a signed Manifest ---------------------------------------------------------------------------------------


def with_other(path: str) -> bytes:
    """The bytes of a Manifest with one more listed file, whatever its name; our own writer refuses most of these."""
    document = json.loads(to_bytes(manifest_of()))
    document["artifacts"]["other"].append({"path": path, "bytes": 1, "sha256": sha(b"x")})
    document["artifacts"]["other"].sort(key=lambda entry: entry["path"])
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


NAMES = {
    "parent": "../secret",
    "parent inside": "calibration/../../secret",
    "absolute": "/etc/passwd",
    "here": "./x",
    "here inside": "calibration/./x",
    "backslash": "calibration\\x",
    "drive": "C:x",
    "NUL": "x\0y",
    "newline": "x\ny",
    "decomposed accent": "re\u0301port",
    "composed accent": "r\u00e9port",
    "empty": "",
    "space": "a b",
    "double slash": "calibration//x",
    "trailing slash": "calibration/",
    "hidden": ".git/config",
    "option": "-rf",
    "manifest": "Manifest.json",
    "manifest in capitals": "MANIFEST.JSON",
    "signature": "Manifest.json.sig",
    "sidecar": "report.html.sha256",
    "listed twice": "report.html",
    "same without case": "REPORT.html",
    "file and directory": "report.html/x",
    "sidecar as directory": "report.html.sha256/x",
    "deep": "/".join("abcdefghi"),
    "long": "x" * 300,
    "surrogate": "x\udc80",
}


@pytest.mark.parametrize("name", NAMES)
def test_hostile_name_in_the_manifest(cache: Cache, name: str) -> None:
    @refused((Code.MALFORMED, MANIFEST))
    def hostile_name(cache: Cache) -> None:
        cache.sign(with_other(NAMES[name]))

    hostile_name(cache)
    (reason,) = verify(cache.root, cache.expect).reasons
    assert "canonical" not in reason.detail  # refused for its name, not for how our test wrote it


@refused((Code.MALFORMED, MANIFEST))
def test_digest_in_upper_case(cache: Cache) -> None:
    resigned(cache, sha(FILES["report.html"]), sha(FILES["report.html"]).upper())


# --- the file system -----------------------------------------------------------------------------------------------------


@refused((Code.SYMLINK, "corpus.index"))
def test_symlinked_file(cache: Cache) -> None:
    (cache.generation / "corpus.index").rename(cache.root / "elsewhere")
    (cache.generation / "corpus.index").symlink_to(cache.root / "elsewhere")


@refused(
    (Code.SYMLINK, "calibration"),
    (Code.MISSING, "calibration/camera.yml"),
    (Code.MISSING, "calibration/camera.yml.sha256"),
    (Code.NOT_A_FILE, "calibration/camera.yml"),
)
def test_symlinked_directory(cache: Cache) -> None:
    (cache.generation / "calibration").rename(cache.root / "elsewhere")
    (cache.generation / "calibration").symlink_to(cache.root / "elsewhere")


@refused((Code.SYMLINK, MANIFEST))
def test_symlinked_manifest(cache: Cache) -> None:
    (cache.generation / MANIFEST).rename(cache.root / "elsewhere")
    (cache.generation / MANIFEST).symlink_to(cache.root / "elsewhere")


@refused((Code.SYMLINK, "corpus.index.sha256"))
def test_symlinked_sidecar(cache: Cache) -> None:
    (cache.generation / "corpus.index.sha256").rename(cache.root / "elsewhere")
    (cache.generation / "corpus.index.sha256").symlink_to(cache.root / "elsewhere")


@refused((Code.UNLISTED, "second-name"))
def test_second_hard_link_inside_the_generation(cache: Cache) -> None:
    os.link(cache.generation / "corpus.index", cache.generation / "second-name")


def test_hard_link_from_outside_is_no_attack_because_generations_share_files(cache: Cache) -> None:
    os.link(cache.generation / "corpus.index", cache.root / "store")
    with verify(cache.root, cache.expect) as verdict:
        assert verdict.passed


@refused((Code.UNLISTED, "notes.txt"))
def test_orphan_file(cache: Cache) -> None:
    cache.write("notes.txt", b"")


@refused((Code.UNLISTED, "notes.txt"), (Code.UNLISTED, "notes.txt.sha256"))
def test_orphan_file_with_its_sidecar(cache: Cache) -> None:
    cache.write("notes.txt", b"")
    cache.write("notes.txt.sha256", sha(b"").encode() + b"\n")


@refused((Code.UNLISTED, "calibration/x"))
def test_orphan_file_in_a_known_directory(cache: Cache) -> None:
    cache.write("calibration/x", b"")


@refused((Code.UNLISTED, "empty"))
def test_empty_directory(cache: Cache) -> None:
    (cache.generation / "empty").mkdir()


@refused((Code.UNLISTED, ".git"))
def test_git_directory(cache: Cache) -> None:
    (cache.generation / ".git/objects").mkdir(parents=True)
    cache.write(".git/objects/x", b"payload")


@refused((Code.UNLISTED, ".corpus.index.tmp"))
def test_temporary_file_left_behind(cache: Cache) -> None:
    cache.write(".corpus.index.tmp", b"half")


@refused((Code.UNLISTED, "link"))
def test_dangling_symlink(cache: Cache) -> None:
    (cache.generation / "link").symlink_to("nowhere")


@refused((Code.UNLISTED, "bad\\x1b[2J\\udcff"))
def test_orphan_whose_name_would_steer_a_terminal(cache: Cache) -> None:
    with open(os.fsencode(cache.generation) + b"/bad\x1b[2J\xff", "wb"):
        pass


@refused((Code.UNLISTED, "größe.txt"))
def test_orphan_whose_name_is_in_another_language_is_told_as_it_is(cache: Cache) -> None:
    cache.write("größe.txt", b"")


@refused((Code.MISSING, "report.html"))
def test_missing_file(cache: Cache) -> None:
    (cache.generation / "report.html").unlink()


@refused((Code.MISSING, "calibration/camera.yml"), (Code.MISSING, "calibration/camera.yml.sha256"))
def test_missing_directory(cache: Cache) -> None:
    shutil.rmtree(cache.generation / "calibration")


def test_missing_directory_hides_nothing_in_those_after_it(tmp_path: Path) -> None:
    made = publish(tmp_path / "cache", files={**FILES, "more/deep/notes.txt": b"", "more/notes.txt": b""})
    shutil.rmtree(made.generation / "calibration")
    (made.generation / "more/deep/orphan").touch()
    assert sorted((str(r.code), r.file) for r in verify(made.root, made.expect).reasons) == [
        ("missing", "calibration/camera.yml"),
        ("missing", "calibration/camera.yml.sha256"),
        ("unlisted", "more/deep/orphan"),
    ]


@refused((Code.MISSING, "report.html.sha256"))
def test_missing_sidecar(cache: Cache) -> None:
    (cache.generation / "report.html.sha256").unlink()


@refused((Code.SIDECAR, "report.html.sha256"))
def test_sidecar_of_another_file(cache: Cache) -> None:
    cache.write("report.html.sha256", sha(FILES["corpus.index"]).encode() + b"\n")


@refused((Code.SIZE, "report.html.sha256"))
def test_sidecar_with_more_in_it(cache: Cache) -> None:
    cache.write("report.html.sha256", sha(FILES["report.html"]).encode() + b"\nrm -rf\n")


@refused((Code.DIGEST, "corpus.index"))
def test_swap_of_the_same_size(cache: Cache) -> None:
    cache.write("corpus.index", b"INDEX " * 1500)


@refused((Code.DIGEST, ENGINE))
def test_one_flipped_bit(cache: Cache) -> None:
    data = bytearray(FILES[ENGINE])
    data[3333] ^= 1
    cache.write(ENGINE, bytes(data))


@refused((Code.DIGEST, "report.html"), (Code.SIDECAR, "report.html.sha256"))
def test_file_and_its_sidecar_replaced_together(cache: Cache) -> None:
    other = b"<HTML></HTML>\n"
    cache.write("report.html", other)
    cache.write("report.html.sha256", sha(other).encode() + b"\n")


@refused((Code.SIZE, "corpus.index"))
def test_truncation(cache: Cache) -> None:
    cache.write("corpus.index", FILES["corpus.index"][:-1])


@refused((Code.SIZE, "corpus.index"))
def test_zero_length_file_as_after_a_power_cut(cache: Cache) -> None:
    cache.write("corpus.index", b"")


@refused((Code.SIZE, "corpus.index"))
def test_growth(cache: Cache) -> None:
    cache.write("corpus.index", FILES["corpus.index"] + b"\0")


@refused((Code.SIZE, "corpus.index"))
def test_sparse_file_of_1_tib(cache: Cache) -> None:
    os.truncate(cache.generation / "corpus.index", 1 << 40)


@refused((Code.SIZE, MANIFEST))
def test_sparse_manifest_of_1_tib(cache: Cache) -> None:
    os.truncate(cache.generation / MANIFEST, 1 << 40)


@refused((Code.SIZE, SIGNATURE), (Code.SIZE, SIDECAR))
def test_sparse_signature_and_sidecar_of_1_tib(cache: Cache) -> None:
    os.truncate(cache.generation / SIGNATURE, 1 << 40)
    os.truncate(cache.generation / SIDECAR, 1 << 40)


@pytest.mark.parametrize("path", ["corpus.index", "corpus.index.sha256", MANIFEST, SIGNATURE, SIDECAR])
def test_fifo_in_place_of_a_file(cache: Cache, path: str) -> None:
    @refused((Code.NOT_A_FILE, path))
    def fifo(cache: Cache) -> None:
        (cache.generation / path).unlink()
        os.mkfifo(cache.generation / path)

    fifo(cache)


@refused((Code.UNLISTED, "pipe"))
def test_orphan_fifo(cache: Cache) -> None:
    os.mkfifo(cache.generation / "pipe")


@pytest.mark.parametrize("device", [(1, 3), (1, 5), (1, 8)], ids=["null", "zero", "random"])
def test_device_in_place_of_a_file(cache: Cache, device: tuple[int, int]) -> None:
    @refused((Code.NOT_A_FILE, "corpus.index"))
    def device_node(cache: Cache) -> None:
        (cache.generation / "corpus.index").unlink()
        try:
            os.mknod(cache.generation / "corpus.index", stat.S_IFCHR | 0o600, os.makedev(*device))
        except PermissionError:
            pytest.skip("making a device node needs root")

    device_node(cache)


@refused((Code.NOT_A_FILE, "report.html"))
def test_socket_in_place_of_a_file(cache: Cache) -> None:
    (cache.generation / "report.html").unlink()
    here = os.getcwd()
    os.chdir(cache.generation)  # the path of a socket is limited to 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("report.html")
    finally:
        os.chdir(here)


@refused((Code.NOT_A_FILE, "corpus.index"))
def test_directory_in_place_of_a_file(cache: Cache) -> None:
    (cache.generation / "corpus.index").unlink()
    (cache.generation / "corpus.index").mkdir()


@refused(
    (Code.UNLISTED, "calibration"),
    (Code.NOT_A_FILE, "calibration/camera.yml"),
    (Code.MISSING, "calibration/camera.yml"),
    (Code.MISSING, "calibration/camera.yml.sha256"),
)
def test_file_in_place_of_a_directory(cache: Cache) -> None:
    for path in ("calibration/camera.yml", "calibration/camera.yml.sha256"):
        (cache.generation / path).unlink()
    (cache.generation / "calibration").rmdir()
    cache.write("calibration", b"")


MOUNTED = """
import sys
from provisioning.flight.verify import ANY, Expectations, verify
from provisioning.flight.signing import PublicKey
key = PublicKey(bytes.fromhex(sys.argv[2]))
for reason in verify(sys.argv[1], Expectations((key,), ANY, ANY, ANY, ANY)).reasons:
    print(reason.code, reason.file)
"""


def test_directory_mounted_from_another_file_system_with_the_same_files(cache: Cache) -> None:
    """A real mount, in a mount namespace of its own."""
    directory = cache.generation / "calibration"
    here, root = quote(directory), quote(cache.root)
    script = f"""cp -a {here} {root}/copy && mount -t tmpfs none {here} &&
        cp -a {root}/copy/. {here}/ && exec {sys.executable} -c "$0" {root} {public(KEY).raw.hex()}"""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mount namespaces need root")
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, MOUNTED], capture_output=True, text=True, check=False)
    if "mount:" in done.stderr:
        pytest.skip(f"tmpfs cannot be mounted here: {done.stderr.strip()}")
    assert sorted(done.stdout.splitlines()) == [
        f"other-file-system calibration/{name}" for name in ("camera.yml", "camera.yml.sha256")
    ], done.stderr


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (stat.S_IFDIR, "a directory, not a regular file"),
        (stat.S_IFIFO, "a FIFO, not a regular file"),
        (stat.S_IFSOCK, "a socket, not a regular file"),
        (stat.S_IFCHR, "a character device, not a regular file"),
        (stat.S_IFBLK, "a block device, not a regular file"),
        (0, "a special file, not a regular file"),
    ],
)
def test_what_stands_in_place_of_a_file_is_told_by_its_kind(mode: int, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        refuse_special(os.stat_result((mode, *(0,) * 9)), "x", here=True)
    assert caught.value.reason == Reason(Code.NOT_A_FILE, "x", said)


def test_file_of_another_file_system_is_told_as_such() -> None:
    with pytest.raises(Refusal) as caught:
        refuse_special(os.stat_result((stat.S_IFREG, *(0,) * 9)), "x", here=False)
    assert caught.value.reason == Reason(
        Code.OTHER_FILE_SYSTEM, "x", "on another file system than the generation"
    )  # fmt: skip


def test_fifo_put_in_place_of_a_file_between_the_look_and_the_opening(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular = os.stat(cache.generation / "corpus.index")
    (cache.generation / "corpus.index").unlink()
    os.mkfifo(cache.generation / "corpus.index")
    monkeypatch.setattr("provisioning.flight.verify.opening.os.stat", lambda *_, **__: regular)
    root = os.open(cache.generation, os.O_RDONLY)
    try:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Refusal) as caught:
            open_file(root, "corpus.index")
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(root)
    assert caught.value.reason == Reason(Code.NOT_A_FILE, "corpus.index", "a FIFO, not a regular file")


@refused((Code.UNREADABLE, "corpus.index"))
def test_file_that_cannot_be_read(cache: Cache) -> None:
    """Root reads everything, so an error stands in for EACCES; the real one is tested below where root can drop."""
    real_open = os.open

    def failing(path: str, flags: int, *args: object, **kwargs: object) -> int:
        if path == "corpus.index":
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    patch = pytest.MonkeyPatch()
    patch.setattr("provisioning.flight.verify.opening.os.open", failing)
    _UNDO.append(patch.undo)


_UNDO: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def _undo_patches():
    yield
    while _UNDO:
        _UNDO.pop()()


@refused((Code.UNREADABLE, "corpus.index"))
def test_medium_that_fails_while_a_file_is_hashed(cache: Cache) -> None:
    real_preadv, size = os.preadv, len(FILES["corpus.index"])

    def failing(fd: int, buffers: list, offset: int) -> int:
        if os.fstat(fd).st_size == size:
            raise OSError(5, "Input/output error")
        return real_preadv(fd, buffers, offset)

    patch = pytest.MonkeyPatch()
    patch.setattr("provisioning.flight.verify.digests.os.preadv", failing)
    _UNDO.append(patch.undo)


@refused((Code.UNREADABLE, ""))
def test_medium_that_fails_while_a_directory_is_listed(cache: Cache) -> None:
    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    patch = pytest.MonkeyPatch()
    patch.setattr("provisioning.flight.verify.walking.os.scandir", failing)
    _UNDO.append(patch.undo)


@refused((Code.UNREADABLE, SIGNATURE))
def test_medium_that_fails_while_the_signature_is_read(cache: Cache) -> None:
    real_pread = os.pread

    def failing(fd: int, size: int, at: int) -> bytes:
        if size == 65:
            raise OSError(5, "Input/output error")
        return real_pread(fd, size, at)

    patch = pytest.MonkeyPatch()
    patch.setattr("provisioning.flight.verify.opening.os.pread", failing)
    _UNDO.append(patch.undo)


@refused((Code.CHANGED, SIGNATURE))
def test_signature_that_is_cut_while_it_is_read(cache: Cache) -> None:
    real_pread = os.pread
    patch = pytest.MonkeyPatch()
    patch.setattr(
        "provisioning.flight.verify.opening.os.pread", lambda fd, n, at: real_pread(fd, n, at)[: 63 if n == 65 else n]
    )
    _UNDO.append(patch.undo)


def test_file_that_an_ordinary_user_may_not_read() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        made = publish(Path(directory) / "cache")
        (made.generation / "corpus.index").chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            if not os.access(made.root, os.R_OK, effective_ids=True):
                pytest.skip(f"an ordinary user does not get into {directory}")
            reasons = verify(made.root, made.expect).reasons
        finally:
            if root:
                os.seteuid(0)
    assert [(reason.code, reason.file) for reason in reasons] == [(Code.UNREADABLE, "corpus.index")]


@refused(*[(Code.UNLISTED, f"x{number:03}") for number in range(100)], (Code.UNLISTED, ""))
def test_a_hundred_thousand_orphans_are_not_all_told(cache: Cache) -> None:
    """Their order on disk is arbitrary, so scandir is replaced by one that yields them sorted."""
    real = os.scandir

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            return os.stat(cache.root / "current/Manifest.json")

    class Listing:
        def __init__(self, fd: int) -> None:
            with real(fd) as entries:
                self.entries = list(entries)

        def __enter__(self):
            return iter([*self.entries, *(Entry(f"x{n:03}") for n in range(100_000))])

        def __exit__(self, *_: object) -> None:
            pass

    patch = pytest.MonkeyPatch()
    patch.setattr("provisioning.flight.verify.walking.os.scandir", Listing)
    _UNDO.append(patch.undo)


# --- `current` ----------------------------------------------------------------------------------------------------------


def point(cache: Cache, target: str) -> None:
    (cache.root / "current").unlink()
    (cache.root / "current").symlink_to(target)


@pytest.mark.parametrize(
    "target", ["/tmp", "..", "generations", "generations/", "generations/../x", "generations/000007/", "x/000007",
               "generations/000007/calibration", "generations/999999", "generations/０００００７", "current"]
)  # fmt: skip
def test_current_that_points_anywhere_else(cache: Cache, target: str) -> None:
    @refused((Code.CURRENT_INVALID, "current"))
    def repointed(cache: Cache) -> None:
        point(cache, target)

    repointed(cache)


@refused((Code.CURRENT_INVALID, "current"))
def test_current_that_is_a_directory(cache: Cache) -> None:
    (cache.root / "current").unlink()
    cache.generation.rename(cache.root / "current")


@refused((Code.CURRENT_INVALID, "current"))
def test_symlinked_generations_directory(cache: Cache) -> None:
    (cache.root / "generations").rename(cache.root / "elsewhere")
    (cache.root / "generations").symlink_to("elsewhere")


@refused((Code.CURRENT_INVALID, "current"))
def test_symlinked_generation(cache: Cache) -> None:
    cache.generation.rename(cache.root / "generations/000001")
    cache.generation.symlink_to("000001")


@refused((Code.CACHE_UNREADABLE, ""))
def test_no_current_at_all(cache: Cache) -> None:
    (cache.root / "current").unlink()


@pytest.mark.parametrize("target", ["nowhere", "corpus.index"])
def test_manifest_of_a_lone_generation_that_is_a_link(cache: Cache, target: str) -> None:
    (cache.generation / MANIFEST).unlink()
    (cache.generation / MANIFEST).symlink_to(target)
    verdict = verify(cache.generation, cache.expect)
    assert [(r.code, r.file) for r in verdict.reasons] == [(Code.SYMLINK, MANIFEST)]


def test_current_switched_during_verification_changes_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """`current` is resolved once; a switch after that must not mix two generations."""
    import provisioning.flight.verify.steps as steps

    second = cache.root / "generations/000008"
    real = steps.read_signed

    def switching(root: int):
        second.mkdir()
        point(cache, "generations/000008")
        return real(root)

    monkeypatch.setattr(steps, "read_signed", switching)
    with verify(cache.root, cache.expect) as verdict:
        assert verdict.passed


# --- between verification and loading ---------------------------------------------------------------------------------


def test_file_replaced_after_verification_is_not_what_is_loaded(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        (cache.generation / "evil").write_bytes(b"EVIL! " * 1500)
        os.replace(cache.generation / "evil", cache.generation / "corpus.index")
        assert verdict.read("corpus.index") == FILES["corpus.index"]
        with verdict.open("corpus.index") as file:
            assert file.read() == FILES["corpus.index"]


def test_bytes_rewritten_in_place_after_verification_are_refused(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        cache.write("corpus.index", b"EVIL! " * 1500)
        with pytest.raises(VerificationError, match="changed"):
            verdict.read("corpus.index")
        with pytest.raises(VerificationError, match="changed"):
            verdict.open("corpus.index")


def test_bytes_rewritten_in_place_with_the_old_time_are_refused_by_read(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        before = os.stat(cache.generation / "corpus.index")
        cache.write("corpus.index", b"EVIL! " * 1500)
        os.utime(cache.generation / "corpus.index", ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(VerificationError, match="changed"):
            verdict.read("corpus.index")


def test_file_grown_to_a_tib_after_verification_is_not_read_into_memory(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        os.truncate(cache.generation / "corpus.index", 1 << 40)
        assert verdict.read("corpus.index") == FILES["corpus.index"]
        with pytest.raises(VerificationError, match="changed"):
            verdict.open("corpus.index")


def test_bytes_rewritten_while_they_are_hashed_are_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    import provisioning.flight.verify.steps as steps

    real = steps.sha256_all

    def hashing_then_write(files):
        results = real(files)
        cache.write("corpus.index", b"EVIL! " * 1500)
        return results

    monkeypatch.setattr(steps, "sha256_all", hashing_then_write)
    verdict = verify(cache.root, cache.expect)
    assert verdict.reasons == (Reason(Code.CHANGED, "corpus.index", "changed while it was hashed"),)


def test_unlisted_path_cannot_be_read_through_a_pass(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        for path in ("../../floor", "Manifest.json", "/etc/passwd"):
            with pytest.raises(VerificationError, match="not a file of this cache"):
                verdict.read(path)


# --- all reasons, and no exception -------------------------------------------------------------------------------------


@refused(
    (Code.COUNTER, MANIFEST),
    (Code.AIRCRAFT, MANIFEST),
    (Code.DIGEST, "corpus.index"),
    (Code.MISSING, "report.html"),
    (Code.UNLISTED, "x"),
    (Code.SIDECAR, SIDECAR),
)
def test_all_reasons_are_told_at_once(cache: Cache) -> Expectations:
    cache.sign(to_bytes(manifest_of(counter=2)))
    cache.write(SIDECAR, b"0" * 64 + b"\n")
    cache.write("corpus.index", b"INDEX " * 1500)
    (cache.generation / "report.html").unlink()
    cache.write("x", b"")
    return cache.expect._replace(aircraft_id="AC-8")


@refused((Code.MISSING, ENGINE), (Code.DIGEST, "corpus.index"), (Code.SIDECAR, "report.html.sha256"))
def test_a_file_that_is_missing_hides_nothing_wrong_with_those_after_it(cache: Cache) -> None:
    (cache.generation / ENGINE).unlink()
    cache.write("corpus.index", b"INDEX " * 1500)
    cache.write("report.html.sha256", b"0" * 64 + b"\n")


@refused((Code.INTERNAL, ""))
def test_an_unforeseen_error_is_a_refusal(cache: Cache) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr("provisioning.flight.verify.steps.walk_handle", lambda *_: 1 / 0)
    _UNDO.append(patch.undo)


@refused(*[(Code.INTERNAL, path) for path in FILES])
def test_a_file_that_no_thread_hashed_is_a_refusal(cache: Cache) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr("provisioning.flight.verify.steps.sha256_all", lambda _: {})
    _UNDO.append(patch.undo)


def test_a_hashing_thread_that_dies_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the size from which files are dealt to threads; one of them runs out of memory in the middle of a file."""
    import threading

    from provisioning.flight.verify import digests

    real = digests._sha256

    def dying(file: object, buffer: memoryview) -> object:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        time.sleep(0.05)  # so that the other threads get a file
        return real(file, buffer)

    monkeypatch.setattr(digests, "_sha256", dying)
    monkeypatch.setattr(digests.os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    made = publish(tmp_path / "big", files={**FILES, "tiles.pmtiles": bytes(6_000_000)})
    verdict = verify(made.root, made.expect)
    assert {reason.code for reason in verdict.reasons} == {Code.INTERNAL}


@pytest.mark.parametrize("where", ["", "\0", "no/such/place", b"\xff", None, 7.5, "/dev/null"])
def test_a_place_that_is_no_cache_is_refused(cache: Cache, where: object) -> None:
    verdict = verify(where, cache.expect)  # type: ignore[arg-type]
    (reason,) = verdict.reasons
    assert (reason.code, reason.file) == (Code.CACHE_UNREADABLE, "")
    assert reason.detail.startswith("not a directory that can be read: ")


def test_refused_caches_leave_no_descriptor_open(cache: Cache) -> None:
    cache.write("corpus.index", b"INDEX " * 1500)
    before = len(os.listdir("/proc/self/fd"))
    verdicts = [verify(cache.root, cache.expect) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert not any(verdict.passed for verdict in verdicts)


def test_no_way_out_of_a_verification_leaves_a_descriptor_open(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_now()
    walk(cache.generation, manifest_of())
    assert open_now() == before
    (cache.root.parent / "floor").unlink()  # refused after every file was opened
    kept = verify(cache.root, cache.expect)
    assert open_now() == before
    monkeypatch.setattr("provisioning.flight.verify.steps.sha256_all", lambda _: 1 / 0)
    assert verify(cache.root, cache.expect).reasons == (
        Reason(Code.INTERNAL, "", "ZeroDivisionError: division by zero"),
    )
    assert open_now() == before
    assert not kept.passed


def test_more_files_than_the_limit_are_refused() -> None:
    m: Manifest = manifest_of()
    many = tuple(CalibrationEntry(f"calibration/{n}", 1, sha(b""), "camera") for n in range(300))
    more = tuple(FileEntry(f"other/{n}", 1, sha(b"")) for n in range(300))
    with pytest.raises(Exception, match="malformed") as caught:
        to_bytes(with_hash(m._replace(calibration=many, other=more)))
    assert "more than 512 files" in str(caught.value)
