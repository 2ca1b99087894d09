"""A vehicle falls back to exactly one generation, for a reason, on the record; its receipts are proven."""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from provisioning.base.errors import DeliveryError
from provisioning.cli.deliver import fallback as fallback_command
from provisioning.cli.deliver import install as install_command
from provisioning.flight.receipt import read_receipt
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from provisioning.quality.locate.search import Locator
from provisioning.quality.locate.self_test import SelfTest, apart, self_test
from tests import building, faults
from tests.delivery import trust_anything_by
from tests.vehicles import World, new_world

NONCE = "5" * 64


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """What the self-test says of each counter: the engines here are plain bytes."""
    said: dict[int, str] = {}

    def tested(verdict) -> str:
        return said.get(verdict.require().build.counter, "passed: as set")

    monkeypatch.setattr(fallback_command, "tested", tested)
    monkeypatch.setattr(install_command, "tested", tested)
    return said


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: dict[int, str]) -> World:
    """A vehicle that flies 6 and has accepted 7."""
    made = new_world(tmp_path, monkeypatch)
    made.self_test = True  # answered by `runs`
    made.begin()
    made.commission()
    for counter in (6, 7):
        made.install(made.bundle(counter))
    return made


def spoil(generation: Path) -> None:
    """Put another index there: the file itself may be shared with the generation before."""
    generation.chmod(0o755)
    (generation / "corpus.index").unlink()
    (generation / "corpus.index").write_bytes(b"index" * 5001)


def log_of(world: World) -> list[dict]:
    return [json.loads(line) for line in (world.vehicle.path / "log.jsonl").read_text().splitlines()]


def test_the_generation_before_is_kept(world: World) -> None:
    assert sorted(os.listdir(world.target / "generations")) == ["000006", "000007"]


def test_no_reason_no_fallback(world: World, capsys) -> None:
    world.run("fallback", world.target, rc=26)
    assert "there is no reason to fall back" in capsys.readouterr().err
    assert world.current() == "000007"


def test_a_generation_that_does_not_verify_is_fallen_back_from(world: World, capsys) -> None:
    spoil(world.target / "generations/000007")
    world.verify(rc=22)
    world.run("fallback", world.target)
    assert world.current() == "000006"
    assert "size: corpus.index" in capsys.readouterr().out
    world.verify()
    entry = next(each for each in log_of(world) if each["what"] == "fallback")
    assert (entry["source"], entry["to"]) == (7, 6)
    assert any("corpus.index" in reason for reason in entry["reasons"])


def test_an_engine_that_does_not_run_is_fallen_back_from(world: World, runs: dict[int, str]) -> None:
    runs[7] = "failed: another driver"
    world.run("fallback", world.target)
    world.verify()
    assert "self-test failed: another driver" in str(log_of(world))


def test_the_floor_lets_exactly_that_one_pass(world: World) -> None:
    faults.remove(world.cache)
    five = world.bundle(5)
    spoil(world.target / "generations/000007")
    world.run("fallback", world.target)
    world.install(five, rc=22)
    (world.vehicle.path / "floor.fallback").unlink()
    world.verify(rc=22)
    assert (world.vehicle.path / "floor").read_text() == "7\n"


def test_another_set_with_that_counter_is_not_fallen_back_to(world: World, capsys) -> None:
    world.build(6, flight="F-666")
    other, here = (root / "generations/000006" for root in (world.cache, world.target))
    faults.remove(here)
    shutil.copytree(other, here)
    spoil(world.target / "generations/000007")
    world.run("fallback", world.target, rc=22)
    assert "another set than the one that was accepted before" in capsys.readouterr().err
    assert world.current() == "000007"


def test_nothing_is_fallen_back_to_that_is_refused_itself(world: World, runs: dict[int, str], capsys) -> None:
    spoil(world.target / "generations/000007")
    runs[6] = "failed: no GPU"
    world.run("fallback", world.target, rc=22)
    spoil(world.target / "generations/000006")
    world.run("fallback", world.target, rc=22)
    assert "the generation before is refused too" in capsys.readouterr().err
    assert world.current() == "000007"
    assert not (world.vehicle.path / "floor.fallback").exists()


def test_a_newer_generation_ends_the_fallback_and_the_good_one_is_kept(world: World) -> None:
    spoil(world.target / "generations/000007")
    world.run("fallback", world.target)
    world.install(world.bundle(8))
    world.verify()
    assert sorted(os.listdir(world.target / "generations")) == ["000006", "000008"]
    spoil(world.target / "generations/000008")
    world.run("fallback", world.target)
    world.verify()
    assert world.current() == "000006"


def test_the_same_generation_installed_again_ends_the_fallback(world: World) -> None:
    spoil(world.target / "generations/000007")
    world.run("fallback", world.target)
    world.install(world.root / "7.tar")
    assert world.current() == "000007"
    world.verify()
    assert not (world.vehicle.path / "floor.fallback").exists()


def test_a_damaged_manifest_is_repaired_by_installing_again(world: World) -> None:
    manifest = world.target / "generations/000007/Manifest.json"
    manifest.parent.chmod(0o755)
    manifest.unlink()
    world.install(world.root / "7.tar")
    world.verify()


@pytest.mark.parametrize("cut", ["permit_fallback", "return_to"])
def test_a_cut_fallback_can_be_done_again(world: World, monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    spoil(world.target / "generations/000007")
    place = fallback_command if cut == "permit_fallback" else fallback_command.publish

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(place, cut, stop)
        world.run("fallback", world.target, rc=130)
    assert world.current() == "000007"
    world.run("fallback", world.target)
    world.verify()


# --- receipts ---------------------------------------------------------------------------------------------------------------


def key_of(world: World):
    return load_public_key(world.vehicle.path / "key.pub.pem")


def test_what_was_installed_is_signed_by_the_vehicle(world: World, runs: dict[int, str]) -> None:
    runs[8] = "failed: no GPU"
    world.install(world.bundle(8))
    receipt = read_receipt((world.vehicle.path / "receipt.json").read_bytes(), key_of(world))
    assert (receipt.counter, receipt.flight_id, receipt.verified) == (8, "F-1", "PASS")
    assert receipt.self_test == "failed: no GPU"
    assert receipt.trust_version == 1


def test_a_receipt_answers_who_asks_now(world: World, capsysbinary) -> None:
    capsysbinary.readouterr()
    world.run("receipt", world.target, "--nonce", NONCE)
    data = capsysbinary.readouterr().out
    receipt = read_receipt(data, key_of(world), nonce=NONCE)
    assert (receipt.counter, receipt.verified, receipt.self_test) == (7, "PASS", "passed: as set")
    with pytest.raises(DeliveryError, match="may be an old one"):
        read_receipt(data, key_of(world), nonce="6" * 64)
    with pytest.raises(DeliveryError, match="another key"):
        read_receipt(data, load_public_key(Path(world.public("one"))))
    with pytest.raises(DeliveryError, match="signature of the receipt is wrong"):
        read_receipt(data.replace(b'"counter": 7', b'"counter": 8'), key_of(world), nonce=NONCE)


def test_a_receipt_of_a_damaged_cache_says_so_and_one_of_a_fallback_too(world: World, capsysbinary) -> None:
    spoil(world.target / "generations/000007")
    capsysbinary.readouterr()
    world.run("receipt", world.target)
    assert "corpus.index" in read_receipt(capsysbinary.readouterr().out, key_of(world)).verified
    world.run("fallback", world.target)
    capsysbinary.readouterr()
    world.run("receipt", world.target)
    receipt = read_receipt(capsysbinary.readouterr().out, key_of(world))
    assert (receipt.counter, receipt.fallback_from, receipt.verified) == (6, 7, "PASS")


# --- the self-test's process --------------------------------------------------------------------------------------------------


def crash() -> SelfTest:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


def test_an_engine_that_kills_or_hangs_its_process_has_not_passed() -> None:
    assert apart(lambda: SelfTest(passed=True, said="well"), within_s=120) == (True, "well")
    assert apart(crash, within_s=120) == (False, "the process that ran the engine ended with code -11")
    assert apart(lambda: time.sleep(60), within_s=0.1) == (False, "not finished after 0.1 s")  # type: ignore[arg-type,return-value]
    assert apart(lambda: 1 / 0, within_s=120) == (False, "ZeroDivisionError: division by zero")  # type: ignore[arg-type,return-value]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with imagery on board and one without, both real."""
    root = tmp_path_factory.mktemp("built")
    for name in ("with", "without"):
        (root / name).mkdir()
        cache = building.new_cache(root / name, side=3, network=building.GIST)
        if name == "with":
            building.edit(cache, "[tiles]\n", '[tiles]\non_board = "pmtiles"\n')
        assert building.build(cache).outcome == "SUCCESS"
    return root


def passed_by(built: Path, name: str):
    key = load_public_key(built / name / "key.pub.pem")
    return verify(built / name / "cache", trust_anything_by(key))


@pytest.mark.slow
def test_golden_tiles_find_themselves_by_the_real_engine(built: Path) -> None:
    with passed_by(built, "with") as verdict:
        result = self_test(verdict)
    assert result.passed, result.said
    assert result.said.startswith("5 of 5 golden tiles find themselves")


@pytest.mark.slow
def test_without_imagery_the_engine_is_run_on_noise(built: Path) -> None:
    with passed_by(built, "without") as verdict:
        assert self_test(verdict) == (True, "engine and index load and answer; no golden tile is on board")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("with", lambda n: np.random.default_rng(n).standard_normal, "0 of 5 golden tiles"),
        ("without", lambda _: np.zeros, "the same for all images"),
        ("without", lambda _: lambda size: np.full(size, np.nan), "not finite"),
    ],
)
def test_an_engine_that_computes_something_else_has_not_passed(built: Path, monkeypatch, name, answer, said) -> None:
    count = itertools.count()

    def describe(self, pixels, headings):
        vectors = np.array([answer(next(count))(self.network.dimension) for _ in headings], np.float32)
        return vectors / max(1.0, float(np.abs(np.linalg.norm(vectors))))

    monkeypatch.setattr(Locator, "describe", describe)
    with passed_by(built, name) as verdict:
        result = self_test(verdict)
    assert not result.passed
    assert said in result.said
