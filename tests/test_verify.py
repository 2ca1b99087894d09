"""The verifier on caches that are as they should be: moved, rotated, rolled forward, large, and fast to start."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from provisioning.cli import main
from provisioning.flight.manifest import SCHEMA_2, to_bytes, with_hash
from provisioning.flight.signing import PublicKey
from provisioning.flight.verify import (
    ANY,
    Code,
    CounterFloor,
    Expectations,
    ExpectedHost,
    KnownFile,
    Reason,
    verify,
    walk,
)
from provisioning.flight.verify.digests import CHUNK_BYTES, SERIAL_BYTES, OpenFile, sha256_all
from tests.caches import ENGINE, FILES, HOST, KEY, OTHER_KEY, Cache, manifest_of, public, publish, sha
from tests.shell import quote

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return publish(tmp_path / "cache")


# --- what passes ------------------------------------------------------------------------------------------------------


def test_moved_cache_still_verifies(cache: Cache, tmp_path: Path) -> None:
    moved = shutil.move(cache.root, tmp_path / "elsewhere")
    with verify(moved, cache.expect) as verdict:
        assert verdict.passed


def test_one_generation_alone_verifies(cache: Cache, tmp_path: Path) -> None:
    shutil.copytree(cache.generation, tmp_path / "usb")
    with verify(tmp_path / "usb", cache.expect) as verdict:
        assert verdict.passed
        assert verdict.manifest == manifest_of()


def test_files_in_directories_below_directories_verify(tmp_path: Path) -> None:
    cache = publish(tmp_path / "cache", files={**FILES, "calibration/left/front/camera.yml": b"fx: 1\n"})
    with verify(cache.root, cache.expect) as verdict:
        assert verdict.passed


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"flight_id": "F-1"}, "for flight F-118, expected F-1"),
        ({"flight_id": None}, "for flight F-118, expected none"),
        ({"aircraft_id": "AC-8"}, "for aircraft AC-7, expected AC-8"),
        ({"host": HOST._replace(arch="sm87")}, "arch is x86_64, expected sm87"),
        ({"counter_floor": 8}, "counter 7 is below the floor 8"),
    ],
)
def test_refusal_says_what_is_there_and_what_was_expected(cache: Cache, expected: dict, said: str) -> None:
    verdict = verify(cache.root, cache.expect._replace(**expected))
    assert [reason.detail for reason in verdict.reasons] == [said]


def test_refusal_of_a_cache_of_no_flight_says_so(tmp_path: Path) -> None:
    m = manifest_of()
    bare = publish(tmp_path / "bare", manifest=with_hash(m._replace(flight=m.flight._replace(flight_id=None))))
    assert [r.detail for r in verify(bare.root, bare.expect).reasons] == ["for flight none, expected F-118"]


def test_every_expectation_can_be_left_open_by_saying_so(cache: Cache) -> None:
    open_ended = Expectations(keys=(public(KEY),), flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY)
    with verify(cache.root, open_ended) as verdict:
        assert verdict.passed


def test_expectations_have_no_silent_default() -> None:
    with pytest.raises(TypeError, match=r"flight_id.*aircraft_id.*host.*counter_floor"):
        Expectations(keys=(public(KEY),))  # type: ignore[call-arg]


def test_host_may_be_expected_in_part(cache: Cache) -> None:
    here = ExpectedHost(*HOST[:5], precision=ANY)
    with verify(cache.root, cache.expect._replace(host=here)) as verdict:
        assert verdict.passed
    verdict = verify(cache.root, cache.expect._replace(host=here._replace(runtime="1.99", device="AVX-512")))
    assert [reason.code for reason in verdict.reasons] == [Code.HOST, Code.HOST]


def test_cache_without_flight_aircraft_and_origin_passes_where_none_is_expected(tmp_path: Path) -> None:
    m = manifest_of()
    bare = m._replace(flight=m.flight._replace(flight_id=None, aircraft_id=None, takeoff_origin=None))
    cache = publish(tmp_path / "cache", manifest=with_hash(bare))
    with verify(cache.root, cache.expect._replace(flight_id=None, aircraft_id=None)) as verdict:
        assert verdict.passed


def test_area_across_the_antimeridian_holds_an_origin_on_either_side() -> None:
    from provisioning.flight.manifest import BBox, Origin

    fiji = BBox(1_770_000_000, -200_000_000, -1_780_000_000, -160_000_000)
    assert fiji.holds(Origin(-180_000_000, 1_799_999_999))
    assert fiji.holds(Origin(-180_000_000, -1_799_999_999))
    assert not fiji.holds(Origin(-180_000_000, 0))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_while_keys_rotate_both_are_accepted_and_the_signer_is_told(cache: Cache) -> None:
    both = cache.expect._replace(keys=(public(OTHER_KEY), public(KEY)))
    for signer in (KEY, OTHER_KEY):
        cache.sign((cache.generation / "Manifest.json").read_bytes(), key=signer)
        with verify(cache.root, both) as verdict:
            assert verdict.passed
            assert verdict.fingerprint == public(signer).fingerprint


def test_after_rotation_the_old_key_is_refused(cache: Cache) -> None:
    verdict = verify(cache.root, cache.expect._replace(keys=(public(OTHER_KEY),)))
    assert [reason.code for reason in verdict.reasons] == [Code.SIGNATURE]


def test_revocation_wins_over_trust(cache: Cache) -> None:
    fingerprint = public(KEY).fingerprint
    both = cache.expect._replace(fingerprints=frozenset([fingerprint]), revoked=frozenset([fingerprint]))
    assert [reason.code for reason in verify(cache.root, both).reasons] == [Code.KEY_REVOKED]


# --- the counter floor ------------------------------------------------------------------------------------------------


def floor_at(cache: Cache, number: int, *, raise_on_pass: bool) -> Expectations:
    path = cache.root.parent / "floor"
    path.write_text(f"{number}\n")
    return cache.expect._replace(counter_floor=CounterFloor(path, raise_on_pass=raise_on_pass))


def test_floor_is_raised_by_a_pass_that_asks_for_it(cache: Cache) -> None:
    with verify(cache.root, floor_at(cache, 0, raise_on_pass=True)):
        assert (cache.root.parent / "floor").read_text() == "7\n"


def test_floor_is_left_alone_by_a_pass_that_does_not_ask(cache: Cache) -> None:
    with verify(cache.root, floor_at(cache, 0, raise_on_pass=False)) as verdict:
        assert verdict.passed
        assert (cache.root.parent / "floor").read_text() == "0\n"


def test_equal_counter_passes_again_after_the_floor_was_raised(cache: Cache) -> None:
    expect = floor_at(cache, 7, raise_on_pass=True)
    for _ in range(2):
        with verify(cache.root, expect) as verdict:
            assert verdict.passed


def test_older_generation_is_refused_once_a_newer_one_has_passed(tmp_path: Path) -> None:
    old = publish(tmp_path / "old", manifest=manifest_of(counter=7))
    new = publish(tmp_path / "new", manifest=manifest_of(counter=8))
    (tmp_path / "floor").write_text("0\n")
    floor = CounterFloor(tmp_path / "floor", raise_on_pass=True)
    with verify(new.root, new.expect._replace(counter_floor=floor)) as verdict:
        assert verdict.passed
    verdict = verify(old.root, old.expect._replace(counter_floor=floor))
    assert [reason.code for reason in verdict.reasons] == [Code.COUNTER]
    assert (tmp_path / "floor").read_text() == "8\n"


def test_floor_behind_a_link_is_raised_where_it_is_kept(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "floor").write_text("0\n")
    (tmp_path / "link").symlink_to("kept/floor")
    floor = CounterFloor(tmp_path / "link", raise_on_pass=True)
    with verify(cache.root, cache.expect._replace(counter_floor=floor)) as verdict:
        assert verdict.passed
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept" / "floor").read_text() == "7\n"


def test_floor_is_raised_through_what_a_killed_verifier_left(cache: Cache) -> None:
    expect = floor_at(cache, 0, raise_on_pass=True)
    (cache.root.parent / ".floor.tmp").write_text("123456789\n")
    with verify(cache.root, expect) as verdict:
        assert verdict.passed
    assert (cache.root.parent / "floor").read_text() == "7\n"


def test_floor_is_never_raised_through_a_link_that_somebody_put_in_its_way(cache: Cache, tmp_path: Path) -> None:
    expect = floor_at(cache, 0, raise_on_pass=True)
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".floor.tmp").symlink_to("precious")
    verdict = verify(cache.root, expect)
    assert [reason.code for reason in verdict.reasons] == [Code.FLOOR]
    assert (tmp_path / "precious").read_text() == "precious"


def test_raised_floor_is_an_ordinary_file(cache: Cache) -> None:
    expect = floor_at(cache, 0, raise_on_pass=True)
    before = os.umask(0)
    try:
        verify(cache.root, expect).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(cache.root.parent / "floor").st_mode) == 0o644


def test_a_pass_at_the_floor_writes_nothing(cache: Cache) -> None:
    expect = floor_at(cache, 7, raise_on_pass=True)
    before = os.stat(cache.root.parent / "floor").st_ino
    with verify(cache.root, expect) as verdict:
        assert verdict.passed
    assert os.stat(cache.root.parent / "floor").st_ino == before


def test_floor_that_cannot_be_raised_refuses_the_cache(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    expect = floor_at(cache, 0, raise_on_pass=True)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("provisioning.flight.verify.floor.os.rename", full)
    verdict = verify(cache.root, expect)
    floor = cache.root.parent / "floor"
    assert verdict.reasons == (Reason(Code.FLOOR, "", f"{floor}: cannot be raised: No space left on device"),)
    assert verdict.manifest == manifest_of()
    assert verdict.fingerprint == public(KEY).fingerprint
    assert floor.read_text() == "0\n"


def test_verifiers_at_the_same_time_never_lower_the_floor(tmp_path: Path) -> None:
    (tmp_path / "floor").write_text("0\n")
    floor = CounterFloor(tmp_path / "floor", raise_on_pass=True)
    caches = [publish(tmp_path / str(n), manifest=manifest_of(counter=n)) for n in range(1, 9)]
    seen: list[int] = []

    def fly(cache: Cache) -> None:
        verify(cache.root, cache.expect._replace(counter_floor=floor)).close()
        seen.append(int((tmp_path / "floor").read_text()))

    threads = [threading.Thread(target=fly, args=(cache,)) for cache in reversed(caches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int((tmp_path / "floor").read_text()) == 8
    assert len(seen) == 8


# --- what a PASS hands over ---------------------------------------------------------------------------------------------


def test_every_listed_file_is_handed_over_as_bytes_and_as_a_stream(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        for path, data in FILES.items():
            assert verdict.read(path) == data
            with verdict.open(path) as file:
                assert file.read() == data
                assert file.seek(-2, os.SEEK_END) == len(data) - 2
                assert file.read() == data[-2:]


def test_two_streams_of_one_file_have_their_own_positions(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        with verdict.open("corpus.index") as one, verdict.open("corpus.index") as two:
            assert one.read(100) == two.read(100)
        assert verdict.read("corpus.index") == FILES["corpus.index"]


def test_stream_outlives_the_verdict(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        file = verdict.open("corpus.index")
    with file:
        assert file.read() == FILES["corpus.index"]


def test_stream_ends_where_the_verified_bytes_end(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict, verdict.open("corpus.index") as file:
        with open(cache.generation / "corpus.index", "ab") as writer:
            writer.write(b"more")
        assert file.read(8000) == FILES["corpus.index"][:8000]
        assert file.read(8000) == FILES["corpus.index"][8000:]
        assert file.read(1) == b""
        assert file.seek(0) == 0
        assert file.read() == FILES["corpus.index"]
        assert file.seek(10_000) == 10_000
        assert file.read() == b""


def test_closed_stream_leaves_no_descriptor_open(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        before = len(os.listdir("/proc/self/fd"))
        verdict.open("corpus.index").close()
        assert len(os.listdir("/proc/self/fd")) == before


def test_stream_can_be_closed_twice_and_not_moved_before_its_start(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        file = verdict.open("corpus.index").detach()
    with pytest.raises(ValueError, match="before the start"):
        file.seek(-1)
    file.close()
    file.close()


def test_closed_verdict_gives_nothing_more(cache: Cache) -> None:
    from provisioning.base.errors import VerificationError

    verdict = verify(cache.root, cache.expect)
    verdict.close()
    with pytest.raises(VerificationError) as caught:
        verdict.read("corpus.index")
    assert str(caught.value) == (
        "not a file of this cache, or the verdict is closed\n"
        "  file: corpus.index"
    )  # fmt: skip


@pytest.mark.parametrize("give", ["read", "open"])
def test_file_that_changed_after_it_was_verified_is_told_with_its_reason(cache: Cache, give: str) -> None:
    from provisioning.base.errors import VerificationError

    with verify(cache.root, cache.expect) as verdict:
        cache.write("corpus.index", b"INDEX " * 1500)
        with pytest.raises(VerificationError) as caught:
            getattr(verdict, give)("corpus.index")
    assert str(caught.value) == (
        "a verified file has changed\n"
        "  file:     corpus.index\n"
        "  reason 1: changed: corpus.index: changed after it was verified"
    )


def test_verdict_shows_what_it_is(cache: Cache) -> None:
    with verify(cache.root, cache.expect) as verdict:
        assert repr(verdict) == "<Verdict PASS>"
    (cache.generation / "report.html").unlink()
    cache.write("x", b"")
    assert repr(verify(cache.root, cache.expect)) == (
        "<Verdict unlisted: x: not listed in the Manifest, missing: report.html: there is no such file>"
    )
    assert str(Reason(Code.FLOOR, "", "gone")) == "floor: gone"


def test_require_raises_with_every_reason(cache: Cache) -> None:
    from provisioning.base.errors import VerificationError

    (cache.generation / "report.html").unlink()
    cache.write("x", b"")
    with pytest.raises(VerificationError) as caught:
        verify(cache.root, cache.expect).require()
    assert str(caught.value) == (
        "the cache is refused\n"
        "  reason 1:  unlisted: x: not listed in the Manifest\n"
        "  reason 2:  missing: report.html: there is no such file\n"
        "  next step: remove it; find out who put it there"
    )


# --- what a builder knows already ---------------------------------------------------------------------------------------


def known(cache: Cache) -> dict[str, KnownFile]:
    stats = {path: os.stat(cache.generation / path) for path in FILES}
    return {p: KnownFile(s.st_size, s.st_mtime_ns, s.st_ino, sha(FILES[p])) for p, s in stats.items()}


def test_no_op_hashes_no_file_whose_stat_is_known(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(
        "provisioning.flight.verify.steps.sha256_all",
        lambda files: hashed.extend(f.path for f in files) or sha256_all(files),
    )
    facts = known(cache)
    with verify(cache.root, cache.expect, known=facts) as verdict:
        assert verdict.passed
    assert hashed == []
    os.utime(cache.generation / "corpus.index", ns=(1, 1))
    with verify(cache.root, cache.expect, known=facts) as verdict:
        assert verdict.passed
    assert hashed == ["corpus.index"]


def test_known_file_with_another_digest_than_the_manifest_is_hashed(cache: Cache) -> None:
    facts = known(cache)
    cache.write("corpus.index", b"INDEX " * 1500)
    status = os.stat(cache.generation / "corpus.index")
    facts["corpus.index"] = KnownFile(status.st_size, status.st_mtime_ns, status.st_ino, sha(b"INDEX " * 1500))
    verdict = verify(cache.root, cache.expect, known=facts)
    assert [reason.code for reason in verdict.reasons] == [Code.DIGEST]


def test_walk_alone_reads_no_file(cache: Cache) -> None:
    assert walk(cache.generation, manifest_of()) == ()
    cache.write("corpus.index", b"other")
    cache.write("x", b"")
    (cache.generation / "report.html").unlink()
    assert [(r.code, r.file) for r in walk(cache.generation, manifest_of())] == [
        (Code.UNLISTED, "x"),
        (Code.MISSING, "report.html"),
    ]


# --- speed and size -----------------------------------------------------------------------------------------------------


def test_any_number_of_threads_gives_the_same_digests(tmp_path: Path) -> None:
    contents = {f"f{n}": os.urandom(n * 200_001) for n in range(9)}
    handles = []
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        handles.append(OpenFile(name, os.open(tmp_path / name, os.O_RDONLY), len(data)))
    try:
        for threads in (None, 1, 2, 7):
            assert sha256_all(handles, threads=threads) == {n: sha(d) for n, d in contents.items()}
    finally:
        for handle in handles:
            os.close(handle.fd)


@pytest.mark.parametrize(
    ("size_bytes", "threads", "helpers"),
    [(SERIAL_BYTES, 4, 0), (SERIAL_BYTES + 3, 1, 0), (SERIAL_BYTES + 3, 2, 1), (SERIAL_BYTES + 3, 9, 2)],
)
def test_no_more_threads_hash_than_asked_for_or_than_there_are_files_and_none_for_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int, threads: int, helpers: int
) -> None:
    started: list[threading.Thread] = []

    class Noted(threading.Thread):
        def start(self) -> None:
            started.append(self)
            super().start()

    monkeypatch.setattr("provisioning.flight.verify.digests.Thread", Noted)
    with open(tmp_path / "zeros", "wb+") as file:
        file.truncate(size_bytes)
        parts = [OpenFile(str(n), file.fileno(), size_bytes // 3 + (n < size_bytes % 3)) for n in range(3)]
        assert sha256_all(parts, threads=threads) == {part.path: sha(bytes(part.bytes)) for part in parts}
    assert len(started) == helpers
    assert all(thread.daemon for thread in started), "a medium that hangs must not keep the process from ending"


def test_file_that_grows_while_it_is_hashed_is_read_to_the_size_it_had(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_BYTES + 500)
    (tmp_path / "grown").write_bytes(data)
    with open(tmp_path / "grown", "rb") as file:
        had = OpenFile("grown", file.fileno(), CHUNK_BYTES + 100)
        assert sha256_all([had]) == {"grown": sha(data[: CHUNK_BYTES + 100])}


def test_file_that_is_cut_while_it_is_hashed_neither_hangs_nor_keeps_its_digest(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(b"x" * 1000)
    fd = os.open(tmp_path / "cut", os.O_RDONLY)
    try:
        assert sha256_all([OpenFile("cut", fd, 5000)]) == {"cut": sha(b"x" * 1000)}
        assert sha256_all([OpenFile("cut", fd, 100)]) == {"cut": sha(b"x" * 100)}
    finally:
        os.close(fd)


FLY = """
import sys
from provisioning.flight.verify import ANY, Expectations, verify
from provisioning.flight.signing import PublicKey
key = PublicKey(bytes.fromhex(sys.argv[2]))
with verify(sys.argv[1], Expectations((key,), flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY)) as verdict:
    assert verdict.passed, verdict
# Not getrusage: its peak includes that of the process that started this one.
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def fly(cache: Cache, tmp_path: Path) -> int:
    """Verify in a fresh process; return its peak RSS, MiB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(tmp_path / "pyc")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", FLY, str(cache.root), public(KEY).raw.hex()]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("size", [80_000_000, pytest.param(200_000_000, marks=pytest.mark.slow)])
def test_peak_memory_stays_under_64_mib_however_large_the_cache(tmp_path: Path, size: int) -> None:
    files = {**FILES, "corpus.index": bytes(size), "tiles.pmtiles": bytes(size // 2)}
    peak_mib = fly(publish(tmp_path / "cache", files=files), tmp_path)
    assert peak_mib < 64


def processor_s() -> float:
    """Return the processor time of the processes that have ended so far: other work on the machine does not count."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.usefixtures("unmeasured")
def test_start_up_takes_less_than_three_times_a_bare_python(tmp_path: Path) -> None:
    """Import and verification of a 1 MB cache against `import hashlib, json`: processor time, the least of several."""
    cache = publish(tmp_path / "cache", files={**FILES, "corpus.index": bytes(1_000_000)})
    fly(cache, tmp_path)
    bare_s = fly_s = 9.0
    for _ in range(10):
        before = processor_s()
        subprocess.run([sys.executable, "-c", "import hashlib, json"], check=True)
        middle = processor_s()
        fly(cache, tmp_path)
        bare_s, fly_s = min(bare_s, middle - before), min(fly_s, processor_s() - middle)
        if fly_s < 2.8 * bare_s:
            break
    assert fly_s < 3 * bare_s


@pytest.mark.usefixtures("unmeasured")
def test_flight_needs_nothing_but_the_standard_library_and_cryptography() -> None:
    """Everything else is made impossible to import before the verifier is imported and used."""
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {"provisioning", "cryptography", "_cffi_backend", "typing_extensions"}:
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Blocked())
from provisioning.flight.verify import ANY, Expectations, verify
print([reason.code.value for reason in verify("/nowhere", Expectations((), ANY, ANY, ANY, ANY)).reasons])
heavy = {"provisioning.config", "logging", "dataclasses", "tempfile", "subprocess", "asyncio"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "['cache-unreadable']\n"


# --- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pem(tmp_path: Path) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    path = tmp_path / "operator.pub.pem"
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(path)


def test_command_exits_0_on_pass_and_says_what_was_not_checked(
    cache: Cache, pem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(cache.root), "--public-key", pem, "--flight", "F-118", "--ground"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("PASS, counter 7, flight F-118, 1 tile missing, ")
    assert f"{cache.root}: 5 files" in said
    assert "not checked: aircraft, host, counter" in said


def test_command_verifies_nothing_until_every_expectation_is_said(
    cache: Cache, pem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(cache.root), "--public-key", pem, "--aircraft", "AC-7"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "not said what is expected of flight, host, counter; nothing was verified" in said.err
    assert f"flightcache verify {quote(cache.root)} --public-key {quote(pem)} --aircraft AC-7 --ground\n" in said.err
    left = ["--any-flight", "--any-host", "--any-counter"]
    assert main(["verify", str(cache.root), "--public-key", pem, "--aircraft", "AC-7", *left]) == 0


def test_command_compares_dates_with_the_time_that_is_given(
    tmp_path: Path, pem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    m = manifest_of()._replace(schema=SCHEMA_2)
    m = m._replace(flight=m.flight._replace(takeoff_origin=None))
    cache = publish(
        tmp_path / "dated", manifest=with_hash(m._replace(flight=m.flight._replace(not_after="2027-03-01T00:00:00Z")))
    )
    base = ["verify", str(cache.root), "--public-key", pem, "--ground"]
    assert main([*base, "--at", "2027-03-01"]) == 0
    assert main([*base, "--at", "2027-03-01T00:00:01Z"]) == 22
    capsys.readouterr()
    assert main([*base, "--no-clock"]) == 0
    assert "not checked: flight, aircraft, host, counter, time" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*base, "--at", "tomorrow"])


def test_command_exits_22_and_says_every_reason(cache: Cache, pem: str, capsys: pytest.CaptureFixture[str]) -> None:
    cache.write("x", b"")
    (cache.generation / "report.html").unlink()
    assert main(["verify", str(cache.root), "--public-key", pem, "--ground"]) == 22
    said = capsys.readouterr().out
    assert "REFUSED" in said
    assert "unlisted: x" in said
    assert "missing: report.html" in said


def test_command_as_json_has_stable_keys(cache: Cache, pem: str, capsys: pytest.CaptureFixture[str]) -> None:
    cache.write("x", b"")
    assert main(["verify", str(cache.root), "--public-key", pem, "--ground", "--json"]) == 22
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "REFUSED"
    assert document["reasons"] == [{"code": "unlisted", "file": "x", "detail": "not listed in the Manifest"}]
    assert document["key"] == public(KEY).fingerprint
    assert document["manifest_hash"] == manifest_of().build.manifest_hash
    assert document["host"] == HOST._asdict()
    assert {file["path"] for file in document["files"]} == set(FILES)


def test_command_verbose_shows_files_sizes_digests_and_reasons(
    cache: Cache, pem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write("corpus.index", b"INDEX " * 1500)
    main(["verify", str(cache.root), "--public-key", pem, "--ground", "-v"])
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[:6]}
    assert rows["corpus.index"] == ["9,000", sha(FILES["corpus.index"]), "digest"]
    assert rows[ENGINE] == ["7,000", sha(FILES[ENGINE]), "ok"]


def test_command_can_expect_a_cache_of_no_flight(tmp_path: Path, cache: Cache, pem: str) -> None:
    m = manifest_of()
    bare = with_hash(m._replace(flight=m.flight._replace(flight_id=None)))
    assert main(["verify", str(cache.root), "--public-key", pem, "--no-flight", "--ground"]) == 22
    free = publish(tmp_path / "free", manifest=bare)
    assert main(["verify", str(free.root), "--public-key", pem, "--no-flight", "--aircraft", "AC-7", "--ground"]) == 0


def test_command_checks_host_counter_and_floor(cache: Cache, pem: str, tmp_path: Path) -> None:
    base = ["verify", str(cache.root), "--public-key", pem, "--ground"]
    assert main([*base, "--host", "arch=x86_64", "--host", "runtime=1.32.0", "--counter-floor", "7"]) == 0
    assert main([*base, "--host", "arch=sm87"]) == 22
    assert main([*base, "--counter-floor", "8"]) == 22
    (tmp_path / "floor").write_text("0\n")
    assert main([*base, "--counter-floor-file", str(tmp_path / "floor"), "--raise-floor"]) == 0
    assert (tmp_path / "floor").read_text() == "7\n"


def test_command_revokes_and_allows_by_fingerprint(cache: Cache, pem: str) -> None:
    base = ["verify", str(cache.root), "--public-key", pem, "--ground"]
    fingerprint = public(KEY).fingerprint
    assert main([*base, "--fingerprint", fingerprint]) == 0
    assert main([*base, "--fingerprint", "0" * 64]) == 22
    assert main([*base, "--revoked", fingerprint]) == 22


def test_command_with_a_key_file_that_is_no_key_exits_25(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no key")
    assert main(["verify", str(cache.root), "--public-key", str(tmp_path / "x.pem")]) == 25


# --- other tools --------------------------------------------------------------------------------------------------------


def openssl_accepts(cache: Cache, pem: str) -> bool:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    manifest, signature = cache.generation / "Manifest.json", cache.generation / "Manifest.json.sig"
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        pem,
        "-rawin",
        "-in",
        manifest,
        "-sigfile",
        signature,
    ]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_openssl_accepts_our_signature_and_refuses_a_changed_byte(cache: Cache, pem: str) -> None:
    assert openssl_accepts(cache, pem)
    data = bytearray((cache.generation / "Manifest.json").read_bytes())
    data[100] ^= 1
    cache.write("Manifest.json", bytes(data))
    assert not openssl_accepts(cache, pem)


def test_sha256sum_accepts_our_sidecars(cache: Cache) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    for path in [*FILES, "Manifest.json"]:
        digest = (cache.generation / f"{path}.sha256").read_text().strip()
        check = subprocess.run(
            ["sha256sum", "--check", "--status"],
            input=f"{digest}  {path}\n",
            cwd=cache.generation,
            text=True,
            check=False,
        )
        assert check.returncode == 0
        assert hashlib.sha256((cache.generation / path).read_bytes()).hexdigest() == digest


def test_weak_key_is_refused_even_beside_a_good_one(cache: Cache) -> None:
    verdict = verify(cache.root, cache.expect._replace(keys=(public(KEY), PublicKey(bytes(32)))))
    assert [reason.code for reason in verdict.reasons] == [Code.KEY_WEAK]


def test_manifest_bytes_are_the_golden_form(cache: Cache) -> None:
    assert (cache.generation / "Manifest.json").read_bytes() == to_bytes(manifest_of())
