"""What the tool has always promised, seen as its user sees it: through `doit` and through `rules.build`."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import rules
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import BuildLockHeldError, EmptyCorpusError, ManifestCoverageError
from provisioning.build.generation import contents
from provisioning.flight.manifest import manifest_hash
from provisioning.flight.publish import current_generation
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import ANY, Expectations, verify
from tests.building import NORTH, WEST, ZOOM, build, copy_site, doit_here, edit, new_cache, put_tile

FIELDS = {
    "outcome", "engines_built", "engines_reused", "descriptors_generated",
    "manifest_hash", "manifest_path", "failure_reason", "elapsed_s",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that is built once and left as it is by every test of this module."""
    parent = tmp_path_factory.mktemp("contract")
    cache = new_cache(parent)
    assert build(cache).outcome == "SUCCESS"
    return parent


def doit(cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "doit", *words], cwd=cache, capture_output=True, text=True, check=False
    )


def tree(cache: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in cache.rglob("*")}


def without_tiles(site: Path) -> Path:
    """Return a cache directory whose area holds no tile."""
    cache = site / "empty"
    if not cache.exists():
        cache.mkdir()
        for name in ("flight.toml", "dodo.py", "doit.cfg"):
            (cache / name).write_bytes((site / "cache" / name).read_bytes())
        line = next(line for line in (cache / "flight.toml").read_text().splitlines() if line.startswith("bbox = "))
        edit(cache, line, "bbox = [0.0, 0.0, 0.1, 0.1]")
    return cache


def test_no_tiles_is_a_failure_with_counts_zero_and_what_to_do(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = doit_here(without_tiles(site), capsys=capsys)
    report = json.loads((without_tiles(site) / ".build" / "build-report.json").read_text())
    assert done.returncode == 1
    assert report["outcome"] == "FAILURE"
    assert (report["engines_built"], report["engines_reused"], report["descriptors_generated"]) == (0, 0, 0)
    assert "add tiles" in report["failure_reason"]
    assert "Traceback" not in done.stderr
    assert not (without_tiles(site) / ".build" / "store").exists()


def test_build_raises_the_typed_error_with_the_report(site: Path) -> None:
    with pytest.raises(EmptyCorpusError) as caught:
        rules.build(without_tiles(site))
    assert caught.value.report.outcome == "FAILURE"


def test_build_returns_a_frozen_report_of_eight_fields(site: Path) -> None:
    report = rules.build(site / "cache")
    assert set(vars(report)) == FIELDS
    with pytest.raises(AttributeError):
        report.outcome = "SUCCESS"


def test_last_line_and_file_tell_the_same(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = doit_here(site / "cache", capsys=capsys)
    report = json.loads((site / "cache" / ".build" / "build-report.json").read_text())
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(f"IDEMPOTENT_NO_OP manifest_hash {report['manifest_hash']}")
    assert set(report) == FIELDS


def test_no_op_says_so_in_two_lines(site: Path) -> None:
    done = doit(site / "cache")
    assert len((done.stdout + done.stderr).splitlines()) == 2


def test_no_op_imports_nothing_that_computes(site: Path) -> None:
    script = (
        "import sys, runpy; sys.argv = ['doit']\n"
        "try: runpy.run_module('doit', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'faiss', 'PIL', 'rich', 'simplejpeg') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=site / "cache", capture_output=True, text=True, check=True
    )
    assert "IDEMPOTENT_NO_OP" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_lock_held_is_refused_with_path_and_pid_and_nothing_is_written(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = site / "cache"
    with build_lock(cache):
        before = tree(cache)
        done = doit_here(cache, capsys=capsys)
        assert tree(cache) == before
    assert done.returncode == 3
    assert str(cache / ".c10.lock") in done.stderr
    assert str(os.getpid()) in done.stderr


def test_lock_held_raises_its_own_error_with_the_pid(site: Path) -> None:
    holder = "import sys, time; from provisioning.base.disk.lock import build_lock; from pathlib import Path\nwith build_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holder, str(site / "cache")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            with pytest.raises(BuildLockHeldError) as caught:
                rules.build(site / "cache")
        finally:
            process.kill()
    assert caught.value.pid == process.pid


def test_one_formula_for_builder_verifier_and_no_op(site: Path) -> None:
    published = contents.published(site / "cache")
    assert published is not None
    assert manifest_hash(published.manifest) == published.manifest_hash == rules.build(site / "cache").manifest_hash
    keys = (load_public_key(site / "key.pub.pem"),)
    expected = Expectations(keys=keys, flight_id="F-1", aircraft_id=None, host=ANY, counter_floor=ANY)
    with verify(site / "cache", expected) as verdict:
        assert verdict.require().build.manifest_hash == published.manifest_hash


def test_a_store_of_another_order_and_kind_gives_the_same_hash(site: Path, tmp_path: Path) -> None:
    files = sorted((site / "tiles").rglob("*.jpg"), reverse=True)
    with sqlite3.connect(tmp_path / "tiles") as db:
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        for file in files:
            y, x, z = int(file.stem), int(file.parent.name), int(file.parent.parent.name)
            db.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (z, x, 2**z - 1 - y, file.read_bytes()))
    db.close()
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("flight.toml", "dodo.py", "doit.cfg"):
        (cache / name).write_bytes((site / "cache" / name).read_bytes())
    edit(cache, f'path = "{site}/tiles"', f'path = "{tmp_path}/tiles"')
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    published = contents.published(site / "cache")
    assert published is not None
    assert done.report.manifest_hash == published.manifest_hash


def test_events_keep_their_kinds_and_tell_no_key(site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = copy_site(site, tmp_path / "site")
    edit(cache, 'id = "F-1"', 'id = "F-2"')
    with caplog.at_level(logging.INFO, logger="c10.provision"):
        build(cache)
        build(cache)
        build(without_tiles(site))
    kinds = {record.kind for record in caplog.records}
    prefix = "c10.provision."
    assert kinds >= {
        prefix + kind for kind in ("lock.acquired", "published", "build.success", "idempotent.no_op", "empty.corpus")
    }
    private = "".join((cache.parent / "key.pem").read_text().splitlines()[1:-1])
    assert private not in " ".join(str(vars(record)) for record in caplog.records)


def test_json_log_is_one_object_a_line(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = doit_here(site / "cache", "run", "--log", "json", capsys=capsys)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert "c10.provision.idempotent.no_op" in json.dumps(lines)


def test_parallel_doit_is_refused_with_the_reason(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = doit_here(site / "cache", "-n", "4", capsys=capsys)
    assert done.returncode == 3
    assert "uses all cores by itself" in done.stderr


def test_mistake_in_flight_toml_is_reported_without_a_traceback(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("dodo.py", "doit.cfg"):
        (tmp_path / name).write_bytes((site / "cache" / name).read_bytes())
    (tmp_path / "flight.toml").write_text("[area]\nzoms = [3]\n")
    for words in ((), ("list",), ("clean",), ("info", "corpus")):
        done = doit_here(tmp_path, *words, capsys=capsys)
        assert done.returncode == 3
        assert "area.zoms" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr + done.stdout


def test_clean_resets_and_the_counter_goes_on(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = copy_site(site, tmp_path / "site")
    cleaned = doit_here(cache, "clean", "-n", capsys=capsys)
    assert current_generation(cache) is not None, "-n only tells"
    assert "generations" in cleaned.stdout
    assert doit_here(cache, "clean", capsys=capsys).returncode == 0
    assert current_generation(cache) is None
    assert [name for name in os.listdir(cache / ".build") if name != "counter"] == []
    again = build(cache)
    assert again.report.descriptors_generated == 16
    published = contents.published(cache)
    assert published is not None
    assert published.manifest.build.counter == 2


def test_list_and_info_keep_their_meaning(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"onnx", "engine", "descriptors", "corpus", "gates", "report", "manifest", "coverage"} <= {
        line.split()[0] for line in doit_here(site / "cache", "list", capsys=capsys).stdout.splitlines()
    }
    assert "corpus.index" in doit_here(site / "cache", "info", "corpus", capsys=capsys).stdout


def test_sigterm_stops_in_order(tmp_path: Path) -> None:
    cache = new_cache(tmp_path, side=5)
    with subprocess.Popen([sys.executable, "-m", "doit"], cwd=cache, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.match(r"onnx|engine", line):
                break
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert build(cache).outcome == "SUCCESS"


def test_failed_strict_walk_keeps_the_previous_generation(site: Path, tmp_path: Path) -> None:
    cache = copy_site(site, tmp_path / "site")
    before = current_generation(cache)
    assert before is not None
    before.chmod(0o755)
    (before / "stranger").write_text("")
    with pytest.raises(ManifestCoverageError, match="unlisted"):
        rules.build(cache)
    assert current_generation(cache) == before


@pytest.mark.parametrize("action", ["fail", "skip"])
def test_a_corrupt_tile_is_named_and_fails_or_is_skipped_and_counted(site: Path, tmp_path: Path, action: str) -> None:
    cache = copy_site(site, tmp_path / "site")
    edit(cache, '# on_error = "fail"', f'on_error = "{action}"')
    edit(cache, "# min_coverage = {}", 'min_coverage = {"14" = 0.9}')
    tile = put_tile(cache.parent / "tiles", WEST, NORTH, seed=0)
    tile.write_bytes(tile.read_bytes()[:2000])
    done = build(cache)
    if action == "fail":
        assert f"{ZOOM}/{WEST}/{NORTH}" in str(done.failure)
        return
    published = contents.published(cache)
    assert done.outcome == "SUCCESS", done.failure
    assert published is not None
    assert (published.manifest.tiles.count, published.manifest.tiles.skipped) == (15, 1)
    assert f"{ZOOM}/{WEST}/{NORTH}" in (published.path / "report.html").read_text()
