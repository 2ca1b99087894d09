"""What a bundle says without being installed; media that are not there; who asks for what in a fleet."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from provisioning.base.errors import ConfigError, DeliveryError
from provisioning.cli import main
from provisioning.delivery import media
from provisioning.delivery.fleet import read_fleet
from provisioning.delivery.media import require_mounted
from tests.vehicles import World, new_world

PROGRAM = f"{shlex.quote(sys.executable)} -m provisioning.cli"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return new_world(tmp_path, monkeypatch)


# --- info -------------------------------------------------------------------------------------------------------------


def test_info_says_what_is_in_a_bundle(world: World, capsys) -> None:
    world.begin()
    bundle = world.bundle(7)
    capsys.readouterr()
    world.run("info", bundle, "--public-key", world.public("one"))
    said = " ".join(capsys.readouterr().out.split())
    for part in (
        "verified: whole",
        "F-1",
        "counter 7",
        "10 of 10 places",
        "version 1, signed by its root",
    ):
        assert part in said
    assert sorted(os.listdir(world.root)) == ["7.tar", "cache", "one", "root", "root2", "two"]


def test_info_without_a_key_believes_nothing(world: World, capsys) -> None:
    bundle = world.bundle(7)
    world.run("info", bundle, "--json", rc=22)
    said = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert said["state"].startswith("NOT VERIFIED: no key to trust")
    world.run("info", bundle, "--public-key", world.public("two"), rc=22)
    assert "NOT VERIFIED: signature" in capsys.readouterr().out


def test_info_of_a_damaged_bundle_is_an_error(world: World, capsys) -> None:
    bundle = world.bundle(7)
    data = bytearray(bundle.read_bytes())
    data[20_000] ^= 1
    bundle.write_bytes(data)
    world.run("info", bundle, "--public-key", world.public("one"), rc=26)
    assert "not the one its Manifest lists" in capsys.readouterr().err


# --- media that are not there -----------------------------------------------------------------------------------------


def test_a_bundle_is_not_written_to_a_directory_that_is_not_there(world: World, capsys) -> None:
    world.build(1)
    for output in ("stick", "stick/cache.tar", "stick/"):
        key = ["--public-key", world.public("one")]
        world.run("bundle", world.cache, "-o", f"{world.root}/{output}", *key, rc=26)
    assert "mount the medium" in capsys.readouterr().err
    assert not (world.root / "stick").exists()


def test_nothing_is_installed_or_sent_below_a_directory_that_is_not_there(world: World) -> None:
    bundle = world.bundle(1)
    world.run("install", bundle, world.root / "stick/cache", "--public-key", world.public("one"), rc=26)
    world.run("sync", world.root / "stick/cache", world.cache, "--public-key", world.public("one"), rc=26)
    assert not (world.root / "stick").exists()


@pytest.mark.parametrize(
    ("path", "mounts", "refused"),
    [
        ("/media/me/STICK", {"/"}, True),
        ("/media/me/STICK/cache", {"/", "/media/me/STICK"}, False),
        ("/mnt", {"/"}, True),
        ("/mnt", {"/", "/mnt"}, False),
        ("/media/me/STICK", {"/", "/media"}, False),
        ("/home/me/media", {"/"}, False),
    ],
)
def test_a_stick_that_is_not_mounted_is_refused(monkeypatch, path: str, mounts: set[str], refused: bool) -> None:
    monkeypatch.setattr(os.path, "realpath", str)
    monkeypatch.setattr(os.path, "ismount", lambda each: str(each) in mounts)
    if refused:
        with pytest.raises(DeliveryError, match="no medium is mounted there"):
            require_mounted(Path(path))
    else:
        require_mounted(Path(path))


def test_a_place_that_holds_a_cache_is_the_place(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(media, "REMOVABLE", (f"{tmp_path}/",))
    with pytest.raises(DeliveryError, match="no medium"):
        media.require_place(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/current").symlink_to("generations/000001")
    media.require_place(tmp_path / "cache")


# --- sync and the fleet -----------------------------------------------------------------------------------------------------


def sync(world: World, *more: str, rc: int = 0) -> None:
    world.run(
        "sync", world.target, world.cache, "--via", "sh -c", "--remote", PROGRAM, "--public-key", world.public("one"),
        *more, rc=rc,
    )  # fmt: skip


def test_sync_asks_the_vehicle_for_flight_aircraft_and_host(world: World, capsys) -> None:
    world.begin()
    world.commission()
    world.build(1)
    sync(world, "--flight", "F-2", rc=22)
    sync(world, "--this-host", rc=26)
    assert "host: Manifest.json" in capsys.readouterr().err
    sync(world, "--flight", "F-1", "--no-aircraft", "--host", "arch=x86_64")
    assert "self-test there failed" in capsys.readouterr().out  # the engines here are plain bytes
    world.verify()


def test_sync_to_a_drive_cannot_ask_for_this_host(world: World, capsys) -> None:
    world.build(1)
    world.run("sync", world.target, world.cache, "--public-key", world.public("one"), "--this-host", rc=2)
    assert "--this-host has no effect" in capsys.readouterr().err


def fleet_of(world: World, **more: str) -> Path:
    file = world.root / "FLEET.toml"
    table = {"name": "heron-1", "command": "sh -c", "program": PROGRAM, "target": str(world.target), **more}
    file.write_text("[[vehicle]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))
    return file


def test_fleet_status_believes_what_a_vehicle_proves(world: World, capsys) -> None:
    world.begin()
    world.commission()
    world.install(world.bundle(1))
    capsys.readouterr()
    world.run("fleet", "status", fleet_of(world), rc=22)
    assert "unproven" in capsys.readouterr().out
    fleet = fleet_of(world, receipt_key="vehicle.vehicle/key.pub.pem")
    world.run("fleet", "status", fleet)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["heron-1", "PASS", "1", "F-1"]
    index = world.target / "generations/000001/corpus.index"
    index.chmod(0o644)
    index.write_bytes(b"x")
    world.run("fleet", "status", fleet, "--json", rc=22)
    (answer,) = json.loads(capsys.readouterr().out)["vehicles"]
    assert answer["proven"]
    assert "corpus.index" in answer["receipt"]["verified"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"receipt_key": "one/operator.pub.pem"}, "another key"),
        ({"command": "false"}, "no receipt"),
        ({"command": "yes"}, "does not answer"),
        ({"command": "/nowhere/ssh"}, "does not answer"),
        ({"command": "sh -c true"}, "not a receipt"),
        ({"target": ""}, "how to ask"),
    ],
)
def test_fleet_status_says_why_a_vehicle_is_unknown(world: World, capsys, more: dict[str, str], reason: str) -> None:
    world.begin()
    world.commission()
    world.install(world.bundle(1))
    capsys.readouterr()
    world.run("fleet", "status", fleet_of(world, **more), rc=22)
    said = capsys.readouterr().out
    assert "UNKNOWN" in said
    assert reason in said


def test_a_vehicle_that_is_misspelt_is_an_error(world: World, capsys) -> None:
    world.run("fleet", fleet_of(world), "--only", "heron-2", rc=10)
    assert "did you mean 'heron-1'?" in capsys.readouterr().err


def test_keys_revoked_in_a_fleet_are_read_or_refused(world: World) -> None:
    file = fleet_of(world)
    file.write_text(f'revoked = ["{world.fingerprint("one").upper()}"]\n' + file.read_text())
    assert read_fleet(file).revoked == {world.fingerprint("one")}
    file.write_text(file.read_text().replace("revoked = [", 'revoked = ["abc", '))
    with pytest.raises(ConfigError, match="fingerprint"):
        read_fleet(file)


def test_main_knows_every_command() -> None:
    for command in ("trust", "cosign", "fallback", "receipt", "info"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0


def test_a_drive_of_a_vehicle_keeps_its_floor_and_gets_its_trust_file(world: World, capsys) -> None:
    """The cache directory of the vehicle, with what it keeps beside it, on a drive mounted on the ground."""
    world.begin()
    world.commission()
    key = ["--public-key", world.public("one")]
    for counter in (1, 2):
        world.build(counter)
        world.run("sync", world.target, world.cache, *key)
    assert (world.vehicle.path / "floor").read_text() == "2\n"
    world.verify()
    world.run("trust", "next", world.trust, "--signing", world.public("two"), "--revoke", world.fingerprint("one"))
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.build(3)
    capsys.readouterr()
    world.run("sync", world.target, world.cache, *key, rc=22)
    assert "signature" in capsys.readouterr().err
    assert world.vehicle.read_trust().newest.version == 2
    world.build(4, by="two")
    world.run("sync", world.target, world.cache, "--public-key", world.public("two"))
    world.verify()


def test_status_says_floor_trust_file_and_fallback(world: World, capsys) -> None:
    world.begin()
    world.commission()
    for counter in (1, 2):
        world.install(world.bundle(counter))
    (world.vehicle.path / "floor.fallback").write_text(f"2 1 {'0' * 64}\n")
    capsys.readouterr()
    world.run("status", world.target)
    said = capsys.readouterr().out
    assert "floor       2, fell back to 1" in said
    assert "trust file  version 1" in said
