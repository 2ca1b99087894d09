"""A bit that rots, with size and time as they were: never copied into something that is signed, and made anew by itself."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.base.disk import artifacts
from provisioning.base.disk.lock import build_lock
from provisioning.build import recheck, steps
from provisioning.build.reasons import expectations
from provisioning.build.request import Request, read_request
from provisioning.cli import main
from provisioning.config import Flight
from provisioning.flight.publish import current_generation
from provisioning.flight.signing import generate_key
from provisioning.flight.verify import verify
from rules import run
from tests.building import build, edit
from tests.crashing import put_tile


@pytest.fixture
def cache(built_cache: Path) -> Path:
    """A published cache whose records know the inodes of the copy: each file is known by its stat."""
    assert build(built_cache).outcome == "IDEMPOTENT_NO_OP"
    return built_cache


def flip(path: Path, at: int | None = None) -> None:
    """Flip one bit in the middle of a file; its size, time and inode stay."""
    status = path.stat()
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(status.st_size // 2 if at is None else at)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def shard_of(request: Request) -> Path:
    (path,) = (request.flight.build_dir / "descriptors").glob("*/g*/*.rows")
    return path


REUSED: dict[str, Callable[[Request], Path]] = {
    "engine": lambda r: r.networks[0].engine.path,
    "index": lambda r: r.index.path,
    "what the index is": lambda r: r.index_info.path,
    "gates": lambda r: r.gates.path,
    "map": lambda r: r.extras[1].path,
    "report": lambda r: r.report.path,
}


def verifies(cache: Path) -> None:
    with verify(cache, expectations(read_request(cache))) as verdict:
        verdict.require()


def damage_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [os.path.basename(r.kv["file"]) for r in caplog.records if r.getMessage().endswith("artifact.damaged")]


@pytest.mark.parametrize("what", REUSED)
def test_what_rotted_is_made_anew_before_it_is_signed(cache: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """With work to do: another key, which by itself would link every file as it is."""
    path = REUSED[what](read_request(cache))
    flip(path)
    generate_key(cache.parent / "other.pem", password=None)
    edit(cache, f"{cache.parent}/key.pem", f"{cache.parent}/other.pem")
    with caplog.at_level(logging.WARNING, "c10.provision"):
        done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    verifies(cache)
    assert damage_of(caplog) == [path.name]
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"


@pytest.mark.parametrize("lost", ["engine and record", "engine", "bytes and time of the engine"])
def test_a_rotten_typed_onnx_is_not_compiled(cache: Path, lost: str) -> None:
    """Also where nothing else is to be published: what is compiled from rot would be the reason to publish."""
    network = read_request(cache).networks[0]
    whole = network.typed.path.read_bytes()
    with build_lock(cache):
        assert artifacts.is_intact(network.typed)  # a no-op does not look at it: only now its record knows the copy
    flip(network.typed.path)
    assert artifacts.is_intact(network.typed)
    if lost == "engine and record":
        artifacts.remove(network.engine)
    elif lost == "engine":
        network.engine.path.unlink()
    else:
        os.utime(network.engine.path, (1, 1))
        flip(network.engine.path)
    done = build(cache)
    assert ("onnx:net" in done.ran, done.outcome) == (True, "SUCCESS"), done.failure
    assert network.typed.path.read_bytes() == whole
    verifies(cache)


def test_a_rotten_row_of_the_descriptor_store_is_computed_anew_in_the_same_build(cache: Path) -> None:
    request = read_request(cache)
    index = request.index.path.read_bytes()
    flip(shard_of(request), at=64 + 32 + 8)
    artifacts.remove(request.index)
    done = build(cache)
    assert (done.outcome, done.report.descriptors_generated) == ("SUCCESS", 1), done.failure
    assert request.index.path.read_bytes() == index
    verifies(cache)


def test_a_rotten_row_does_not_reach_the_index_of_an_added_tile(cache: Path) -> None:
    flip(shard_of(read_request(cache)), at=64 + 32 + 8)
    put_tile(cache.parent / "tiles", 1, 1, seed=999)
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    assert done.report.descriptors_generated in (1, 2)  # one if the rotten row was that of the tile that was replaced
    index = read_request(cache).index.path.read_bytes()
    shutil.rmtree(cache / ".build" / "descriptors")
    artifacts.remove(read_request(cache).index)
    assert build(cache).failure is None
    assert read_request(cache).index.path.read_bytes() == index
    verifies(cache)


def test_a_rotten_shape_is_learned_again(cache: Path) -> None:
    (path,) = cache.glob(".build/store/*/shape.json")
    data = path.read_bytes()
    flip(path, at=data.index(b"7}"))
    assert path.read_bytes() != data
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    assert path.read_bytes() == data


@pytest.mark.parametrize("how", ["unreadable", "damaged"])
def test_no_manifest_is_signed_whose_image_size_is_lost_during_the_build(
    cache: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The scan has seen it whole. The next build learns it again and goes on."""
    (path,) = cache.glob(".build/store/*/shape.json")
    survey, read = steps.survey, Path.read_bytes

    def read_all_but_it(self: Path) -> bytes:
        if self == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return read(self)

    def survey_and_lose(flight: Flight) -> None:
        survey(flight)
        if how == "damaged":
            flip(path)
        else:
            during.setattr(Path, "read_bytes", read_all_but_it)

    put_tile(cache.parent / "tiles", 1, 1, seed=9)
    with monkeypatch.context() as during:
        during.setattr(steps, "survey", survey_and_lose)
        assert build(cache).outcome == "FAILURE"
    assert os.readlink(cache / "current") == "generations/000001"
    assert build(cache).outcome == "SUCCESS"
    (engine,) = json.loads((cache / "current" / "Manifest.json").read_bytes())["artifacts"]["engines"]
    assert engine["input"]["height"] > 0
    verifies(cache)


ROTS = ["corpus.index", "engine", "report.html"]


def published_file(cache: Path, what: str) -> Path:
    generation = current_generation(cache)
    assert generation is not None
    return next(path for path in generation.iterdir() if path.name.endswith(what))


@pytest.mark.parametrize("what", ROTS)
def test_a_no_op_reads_what_is_published_every_so_often(cache: Path, what: str) -> None:
    """Nothing to do: nothing is signed; when the time has come the rot is found, and healed in the same build."""
    flip(published_file(cache, what))
    signature = (cache / "current" / "Manifest.json.sig").read_bytes()
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    assert (cache / "current" / "Manifest.json.sig").read_bytes() == signature
    eight_days_ago = os.stat(cache / ".build" / recheck.FILE).st_mtime - 8 * 86_400
    os.utime(cache / ".build" / recheck.FILE, (eight_days_ago, eight_days_ago))
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    verifies(cache)
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"


def test_a_recheck_that_finds_nothing_is_not_repeated(cache: Path) -> None:
    noted = cache / ".build" / recheck.FILE
    noted.unlink()
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    first = noted.stat().st_mtime_ns
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    assert noted.stat().st_mtime_ns == first


@pytest.mark.parametrize(
    ("days", "age_days", "due"),
    [(7, 6.9, False), (7, 7.1, True), (0, 9999, False), (1, -0.5, False), (1, -2, True), (3650, 100, False)],
)
def test_the_age_decides_and_a_clock_that_was_wrong_does_not_hide_it(
    tmp_path: Path, days: int, age_days: float, due: bool
) -> None:
    recheck.note(tmp_path)
    at = os.stat(tmp_path / recheck.FILE).st_mtime - age_days * 86_400
    os.utime(tmp_path / recheck.FILE, (at, at))
    assert recheck.is_due(tmp_path, days) is due


def test_deep_reads_everything_now(cache: Path) -> None:
    flip(published_file(cache, "corpus.index"))
    assert run(cache)[1].outcome == "IDEMPOTENT_NO_OP"
    assert run(cache, ["--deep"])[1].outcome == "SUCCESS"
    verifies(cache)
    assert run(cache, ["--deep"])[1].outcome == "IDEMPOTENT_NO_OP"


def test_a_deep_build_that_is_killed_is_deep_the_next_time(cache: Path) -> None:
    flip(published_file(cache, "corpus.index"))
    recheck.ask(cache / ".build")
    assert build(cache).outcome == "SUCCESS"


def test_doctor_deep_names_what_rotted_in_the_store(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = ["--public-key", str(cache.parent / "key.pub.pem")]
    assert main(["doctor", str(cache), *key, "--deep"]) == 0
    assert "artefacts" in capsys.readouterr().out
    typed = read_request(cache).networks[0].typed.path
    flip(typed)
    flip(shard_of(read_request(cache)), at=64 + 32 + 8)
    assert main(["doctor", str(cache), *key]) == 0
    capsys.readouterr()
    assert main(["doctor", str(cache), *key, "--deep"]) == 0
    said = capsys.readouterr().out
    assert typed.name in said
    assert "1 of 4 descriptors" in said
    assert "run `doit`" in said


@pytest.mark.slow
def test_the_real_doit_knows_deep(cache: Path) -> None:
    flip(published_file(cache, "corpus.index"))
    words = [sys.executable, "-m", "doit", "--deep"]
    done = subprocess.run(words, cwd=cache, capture_output=True, text=True, check=False)
    assert (done.returncode, "artifact.damaged" in done.stderr) == (0, True), done.stderr
