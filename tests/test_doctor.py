"""`flightcache doctor`: what is wrong with a cache on its vehicle, and what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.cli import main
from provisioning.config import Engine
from provisioning.engines import select
from provisioning.flight.manifest import GateEntry, Host, Manifest, with_hash
from provisioning.flight.verify import NEXT_STEP, Code
from tests.caches import Cache, manifest_of, publish

PEM = str(Path(__file__).parent / "vectors" / "public.pem")
OTHER_PEM = str(Path(__file__).parent / "vectors" / "other.pem")
ROOT = Path(__file__).resolve().parents[1]


def for_this_host(m: Manifest) -> Manifest:
    here = select(Engine(backend="onnxruntime")).probe()
    return with_hash(m._replace(host=Host(*here, precision="fp32")))


@pytest.fixture(autouse=True)
def no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of who runs the tests are none of theirs."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FLIGHTCACHE_PUBLIC_KEY", raising=False)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return publish(tmp_path / "cache", manifest=for_this_host(manifest_of()))


def examined(cache: Cache, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code and the findings by what they are about."""
    code = main(["doctor", str(cache.root), "--json", *options])
    document = json.loads(capsys.readouterr().out)
    return code, {finding["what"]: finding for finding in document["findings"]}


def test_a_good_cache_on_its_host_has_no_problem(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = examined(cache, capsys, "--public-key", PEM, "--flight", "F-118", "--counter-floor", "7")
    assert code == 0
    assert found["verdict"]["said"].startswith("complete, intact, signed")
    assert {finding["state"] for finding in found.values()} == {"ok"}


def test_every_problem_comes_with_what_to_do(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    (cache.generation / "corpus.index").unlink()
    cache.write("x", b"")
    code, found = examined(cache, capsys, "--public-key", PEM, "--flight", "F-119", "--counter-floor", "9")
    assert code == 22
    bad = {what: finding["todo"] for what, finding in found.items() if finding["state"] == "bad"}
    assert set(bad) == {"verdict: missing", "verdict: unlisted", "verdict: flight", "verdict: counter"}
    assert all(bad.values())


def test_every_reason_code_has_a_next_step() -> None:
    assert set(NEXT_STEP) == set(Code)
    assert all(step.isprintable() and step for step in NEXT_STEP.values())


def test_without_a_key_nothing_is_called_verified(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = examined(cache, capsys)
    assert code == 22
    assert found["key"]["state"] == "bad"
    assert "verdict" not in found
    assert "(unverified)" in found["flight"]["said"]


def test_it_finds_the_key_where_verify_does(
    cache: Cache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLIGHTCACHE_PUBLIC_KEY", str(PEM))
    assert examined(cache, capsys)[1]["key"]["state"] == "ok"
    monkeypatch.setenv("FLIGHTCACHE_PUBLIC_KEY", str(tmp_path / "nowhere.pem"))
    assert main(["doctor", str(cache.root)]) == 25  # a key that was named and is not there is no missing key
    monkeypatch.delenv("FLIGHTCACHE_PUBLIC_KEY")
    made = tmp_path / "config/flightcache/operator.pub.pem"
    made.parent.mkdir(parents=True)
    made.write_bytes(Path(PEM).read_bytes())
    assert examined(cache, capsys)[1]["key"]["state"] == "ok"


def test_with_another_key_the_content_is_shown_as_unverified(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = examined(cache, capsys, "--public-key", OTHER_PEM)
    assert code == 22
    assert "verdict: signature" in found
    assert "(unverified)" in found["flight"]["said"]


def test_engines_for_another_host_are_reported_part_by_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = for_this_host(manifest_of())
    other = with_hash(m._replace(host=m.host._replace(runtime="0.1", arch="sm87")))
    code, found = examined(publish(tmp_path / "cache", manifest=other), capsys, "--public-key", PEM)
    assert code == 22
    assert found["host: runtime"]["todo"] == "pip install onnxruntime==0.1, or compile here: doit engine"
    assert found["host: arch"]["said"].endswith("the engines are for sm87")
    assert "host" not in found


def test_missing_runtime_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioning.cli.check.doctor.importlib.util.find_spec", lambda _name: None)
    code, found = examined(publish(tmp_path / "cache", manifest=manifest_of()), capsys, "--public-key", PEM)
    assert code == 22
    assert found["runtime"]["state"] == "bad"


def test_gate_that_was_waived_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = for_this_host(manifest_of())
    waived = m._replace(gates={**m.gates, "freshness": GateEntry("900", "365", "waived", "")})
    code, found = examined(publish(tmp_path / "cache", manifest=waived), capsys, "--public-key", PEM)
    assert code == 0
    assert found["gates"] == {
        "what": "gates", "state": "warn", "said": "freshness waived", "todo": "read report.html before take-off"
    }  # fmt: skip


def test_unpinned_counter_is_a_warning(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = examined(cache, capsys, "--public-key", PEM)
    assert found["counter"]["state"] == "warn"


def test_doctor_never_moves_the_floor(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "floor").write_text("0\n")
    code, _ = examined(cache, capsys, "--public-key", PEM, "--counter-floor-file", str(tmp_path / "floor"))
    assert code == 0
    assert (tmp_path / "floor").read_text() == "0\n"


def test_no_cache_is_one_screen_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "nowhere"), "--public-key", PEM]) == 22
    said = capsys.readouterr().out
    assert "cache-unreadable" in said
    assert "-> check the path" in said


def test_full_disk_is_a_warning(
    cache: Cache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(cache.root)
    full = os.statvfs_result([*real[:4], 0, *real[5:]])
    monkeypatch.setattr("provisioning.cli.check.doctor.os.statvfs", lambda _: full)
    code, found = examined(cache, capsys, "--public-key", PEM)
    assert code == 0
    assert found["disk"]["state"] == "warn"


def test_screen_fits_24_lines_of_a_terminal(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", str(cache.root), "--public-key", PEM])
    assert len(capsys.readouterr().out.splitlines()) <= 24


def test_doctor_imports_no_engine_and_no_array_library(cache: Cache) -> None:
    code = (
        "import sys; from provisioning.cli import main; main(sys.argv[1:]);"
        "heavy = {'numpy', 'onnxruntime', 'onnx', 'faiss', 'tensorrt', 'PIL'} & set(sys.modules); assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, "doctor", str(cache.root), "--public-key", PEM]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
