"""No option is given in vain: one that would have no effect, or that another takes back, is wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.cli import COMMANDS, main
from provisioning.cli.deliver import fleet_status
from provisioning.cli.parsing import options
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


WITHOUT_OBJECT = {
    "cosign --by": ["cosign", "--key", "k.pem", "--by", "k.pub.pem"],
    "cosign --signature": ["cosign", "--signature", "s"],
    "doctor --at": ["doctor", "--self", "--at", "2026-05-01"],
    "doctor --counter-floor": ["doctor", "--self", "--counter-floor", "3"],
    "doctor --deep": ["doctor", "--self", "--deep"],
    "doctor --flight": ["doctor", "--self", "--flight", "F-1"],
    "doctor --public-key": ["doctor", "--self", "--public-key", "k.pem"],
    "evaluate --frame-step": ["evaluate", "photos", "--frame-step", "3"],
    "evaluate --geojson": ["evaluate", "photos", "--geojson", "a.geojson"],
    "evaluate --odometry": ["evaluate", "photos", "--odometry", "0.1"],
    "evaluate --own": ["evaluate", "photos", "--own"],
    "evaluate --rerank": ["evaluate", "photos", "--rerank", "3"],
    "evaluate --seed": ["evaluate", "photos", "--seed", "0"],
    "evaluate --heading-sigma": ["evaluate", "photos", "--rotate", "8", "--heading-sigma", "5"],
    "fleet --compile": ["fleet", "FLEET.toml", "--compile"],
    "fleet --only": ["fleet", "--compile", "--only", "heron-1"],
    "fleet --json": ["fleet", "FLEET.toml", "--json"],
    "init --pattern": ["init", "new", "--pattern", "{z}/{y}/{x}"],
    "init --source-scheme": ["init", "new", "--source-scheme", "tms"],
    "init --table": ["init", "new", "--table", "t"],
    "locate --heading-sigma": ["locate", "photo.jpg", "--rotate", "8", "--heading-sigma", "5"],
    "locate --own": ["locate", "photo.jpg", "--own"],
    "locate --radius": ["locate", "photo.jpg", "--radius", "100"],
    "locate --rerank": ["locate", "photo.jpg", "--rerank", "3"],
    "sync --remote": ["sync", "drive", "cache", "--public-key", "k.pub.pem", "--remote", "x"],
    "sync --remote-key": ["sync", "drive", "cache", "--public-key", "k.pub.pem", "--remote-key", "x"],
    "sync --this-host": ["sync", "drive", "cache", "--public-key", "k.pub.pem", "--this-host"],
    "sync --timeout": ["sync", "drive", "cache", "--public-key", "k.pub.pem", "--timeout", "3"],
    "sync --whole": ["sync", "drive", "cache", "--public-key", "k.pub.pem", "--whole"],
    "trust --by-command": ["trust", "sign", "t.json", "--by-command", "x"],
    "trust --public-key": ["trust", "sign", "t.json", "--key", "k.pem", "--public-key", "k.pub.pem"],
    "verify --raise-floor": ["verify", ".", "--public-key", "k.pub.pem", "--ground", "--raise-floor"],
}
"""Options by a use of them that lacks what they act on."""
TRUST = "--fingerprint --public-key --revoked --revoked-file --trust"
FOR_WHOM = "--aircraft --flight --host --no-aircraft --no-flight --this-host"
AT_WHAT_TIME = "--at --no-clock"
FLOOR = "--any-counter --counter-floor --counter-floor-file"
VIEW = "--heading --rotate --patches --second-stage --height-sigma --pitch-sigma --custom-ops"
ANYBODY = "--any-aircraft --any-flight --any-host"
WITH_EFFECT = {
    "init": "--area --backbone --key --mission --tiles",
    "export": "--output --tiles --weights",
    "keygen": "--encrypt --password-env --password-fd",
    "plan": "--json",
    "why": "--json",
    "status": "--json --metrics",
    "tiles": "--json --scan",
    "host": "--json",
    "verify": f"{TRUST} {FOR_WHOM} {ANYBODY} {FLOOR} {AT_WHAT_TIME} --ground --json --verbose",
    "doctor": f"{TRUST} {FOR_WHOM} {FLOOR} {AT_WHAT_TIME} --json --self",
    "clean": "--dry-run --old --yes",
    "locate": f"{TRUST} {VIEW} --cache --contact-sheet --fov --geojson --height --json --near --pitch",
    "evaluate": f"{TRUST} {VIEW} --csv --json --plot --radius --track --try --within",
    "bench-engine": "--batch --custom-ops --seconds",
    "bundle": f"{TRUST} --output --since",
    "install": f"{TRUST} {FOR_WHOM} {ANYBODY} {FLOOR} {AT_WHAT_TIME} --keep --no-self-test --stream",
    "trust": "--key --not-after --recover --remove --revoke --revoke-file --root --root-fingerprint --root-threshold "
    "--signing --system --threshold",
    "cosign": f"{TRUST} --key",
    "fallback": f"{TRUST} {FOR_WHOM} {AT_WHAT_TIME}",
    "receipt": f"{TRUST} {FOR_WHOM} {AT_WHAT_TIME} --nonce",
    "info": f"{TRUST} --json",
    "sync": f"{TRUST} {FOR_WHOM} --keep --via",
    "rollback": "--public-key --to",
}
"""Options that always do something, by command; they may stand above too, for what takes their effect away."""


def test_of_every_option_of_every_command_it_is_known_what_it_acts_on():
    for name in COMMANDS:
        known = {key.partition(" ")[2] for key in WITHOUT_OBJECT if key.startswith(f"{name} ")}
        known |= set(WITH_EFFECT.get(name, "").split())
        assert known == set(options(command_parser(name))) - {"--help"}, name


@pytest.mark.parametrize("words", WITHOUT_OBJECT.values(), ids=WITHOUT_OBJECT)
def test_an_option_without_what_it_acts_on_is_refused_before_anything_is_done(
    made, tmp_path, monkeypatch, words, capsys
):
    monkeypatch.chdir(tmp_path)
    cache, key = made
    (tmp_path / "cache").symlink_to(cache)
    (tmp_path / "k.pub.pem").symlink_to(key)
    (tmp_path / "drive").mkdir()
    (tmp_path / "FLEET.toml").write_text('[[vehicle]]\nname = "heron-1"\n')
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    said = capsys.readouterr()
    assert "effect" in said.err
    assert "leave" in said.err
    assert not said.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "needed"),
    [(["--pattern", "{z}/{x}/{y}"], "a directory of tiles"), (["--table", "t"], "a GeoPackage")],
)
def test_how_tiles_are_read_is_not_said_of_another_kind_of_source(tmp_path, capsys, words, needed):
    source = tmp_path / "tiles.pmtiles"
    source.write_bytes(b"PMTiles\x03" + bytes(200))
    assert main(["init", str(tmp_path / "new"), "--tiles", str(source), *words]) == 2
    assert f"no effect without {needed}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


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
