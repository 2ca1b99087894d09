"""No option is given in vain: one that would have no effect, or that another takes back, is wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.cli import COMMANDS, main
from provisioning.cli.deliver import fleet_status
from provisioning.cli.running import command_parser
from provisioning.config.parse import read_flight
from provisioning.delivery.fleet import Vehicle
from provisioning.flight.signing import load_public_key, public_key_path
from tests import building
from tests.delivery import make_keys, publish_cache
from tests.vehicles import World, new_world

ONE_VALUE = [
    (name, option)
    for name in COMMANDS
    for action in command_parser(name)._actions
    for option in action.option_strings
    if type(action).__name__ == "_Once"
]


def test_most_options_have_one_value():
    assert len(ONE_VALUE) > 60


@pytest.mark.parametrize(("name", "option"), ONE_VALUE)
def test_an_option_with_one_value_is_not_given_twice(name: str, option: str, capsys):
    parser = command_parser(name)
    action = next(each for each in parser._actions if option in each.option_strings)
    action.type, action.choices = str, None
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([option, "one", option, "two"])
    assert ended.value.code == 2
    assert f"{option} is given twice" in capsys.readouterr().err


def test_a_parser_that_is_used_again_has_forgotten_the_first_time():
    parser = command_parser("install")
    for _ in range(2):
        assert parser.parse_args(["--keep", "3", "a", "b"]).keep == 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    keys = make_keys(root)
    publish_cache(root / "cache", keys, counter=1)
    return root / "cache", public_key_path(keys.signing.key)


@pytest.mark.parametrize(
    "words",
    [
        ["--host", "backend=a", "--host", "backend=onnxruntime"],
        ["--host", "backend=a", "--any-host"],
    ],
)
def test_what_is_expected_of_the_host_is_not_taken_back(made, words, capsys):
    cache, key = made
    assert main(["verify", str(cache), "--public-key", str(key), "--ground", *words]) == 10
    assert "PASS" not in capsys.readouterr().out


def test_one_part_of_the_host_said_twice_alike_is_fine(made):
    cache, key = made
    same = ["--host", "backend=onnxruntime"]
    assert main(["verify", str(cache), "--public-key", str(key), "--ground", *same, *same]) in {0, 22}


@pytest.mark.parametrize(
    "words",
    [["--public-key", "k.pem"], ["--flight", "F-1"], ["--revoked", "0" * 64], ["--deep"], ["--counter-floor", "3"]],
)
def test_doctor_of_the_computer_takes_no_option_about_a_cache(tmp_path, words, capsys):
    assert main(["doctor", "--self", str(tmp_path), *words]) == 10
    said = capsys.readouterr()
    assert "no effect" in said.err
    assert not said.out


@pytest.mark.parametrize(
    "words",
    [
        ["locate", "photo.jpg", "--own"],
        ["locate", "photo.jpg", "--rotate", "8", "--heading-sigma", "5"],
        ["evaluate", "photos", "--own"],
        ["evaluate", "photos", "--odometry", "0.1"],
        ["evaluate", "photos", "--seed", "0"],
        ["evaluate", "photos", "--geojson", "a.geojson"],
        ["fleet", "--compile", "--only", "heron-1"],
        ["fleet", "FLEET.toml", "--compile"],
    ],
)
def test_an_option_without_what_it_acts_on_is_refused_before_anything_is_read(tmp_path, monkeypatch, words, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 10
    assert "effect" in capsys.readouterr().err


# --- trust that is said in one place counts in every other ------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return new_world(tmp_path, monkeypatch)


def test_a_vehicle_is_asked_with_the_keys_that_the_fleet_revokes(monkeypatch):
    asked: list[list[str]] = []

    def ask(words: list[str], **_: object) -> None:
        asked.append(words)
        raise OSError("nobody is there")

    monkeypatch.setattr(fleet_status, "ask", ask)
    vehicle = Vehicle(name="a", target="a:/cache")
    fleet_status.asked(vehicle, frozenset({"b" * 64, "a" * 64}))
    fleet_status.asked(vehicle)
    assert f"--revoked {'a' * 64},{'b' * 64}" in asked[0][-1]
    assert "--revoked" not in asked[1][-1]


def test_an_older_trust_file_that_is_named_does_not_bring_back_a_revoked_key(world: World) -> None:
    world.begin()
    older = world.root / "older.json"
    older.write_bytes(world.trust.read_bytes())
    world.run("trust", "next", world.trust, "--signing", world.public("two"), "--revoke", world.fingerprint("one"))
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.commission()
    bundle = world.bundle(1, "one")
    world.run("install", bundle, world.target, "--no-self-test", "--trust", older, rc=22)
    world.run("verify", world.cache, "--ground", "--trust", older)  # on the ground nothing is revoked
    world.install(world.bundle(2, "two"))
    world.verify("--trust", str(older), rc=22)


def test_a_fleet_builds_nothing_with_a_key_that_it_revokes(tmp_path, monkeypatch, capsys):
    root = building.new_cache(tmp_path / "cache")
    monkeypatch.chdir(root)
    public = public_key_path(read_flight(root).signing.key)
    raw = load_public_key(public).raw.hex()
    (root / "FLEET.toml").write_text(f'revoked = ["{raw}"]\n[[vehicle]]\nname = "heron-1"\n')
    assert main(["fleet", "FLEET.toml"]) == 25
    assert "revoked" in capsys.readouterr().err
    assert not (root / "vehicles").exists()
