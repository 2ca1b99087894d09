"""Attacks by what stands where a user names a file: a pipe, a device, a directory, a loop of links, a file nobody may read."""

from __future__ import annotations

import errno
import importlib
import os
import signal
from pathlib import Path

import pytest

from provisioning.base.errors import FilesystemError
from provisioning.cli import COMMANDS, main
from provisioning.cli.measure import bench_engine
from provisioning.cli.running import _module as module_of
from tests import building, delivery


@pytest.fixture
def in_time():
    """A wait that never ends is a failure of the test, not of the run."""

    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A cache to be built, one that is published, and its keys."""
    root = tmp_path_factory.mktemp("site")
    built = building.build(building.new_cache(root, side=2, samples=1))
    assert built.outcome == "SUCCESS"
    keys = delivery.make_keys(root / "keys")
    delivery.publish_cache(root / "published", keys, counter=1)
    return root


def lay(what: str, path: Path) -> None:
    """Put a thing that is no regular file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "directory":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "unreadable":
        path.write_bytes(b"something")
        path.chmod(0)


NO_CACHE = {"init", "demo", "export", "keygen", "key", "completion", "trust", "info"}
WHAT = ["pipe", "endless", "directory", "loop"]

SETTINGS = {
    "mission": ("bbox = [", 'mission = "{}"\n# ['),
    "polygon": ("bbox = [", 'geojson = "{}"\n# ['),
    "model": ('onnx = "', 'onnx = "{}"\n# "'),
    "custom_ops": ("# custom_ops = …", 'custom_ops = "{}"'),
    "calibration": ("camera.yaml", "{}"),
    "camera": ("# calibration = …", 'calibration = "{}"'),
    "key": ('key = "', 'key = "{}"\n# "'),
    "public_key": ("# public_key = …", 'public_key = "{}"'),
    "captured": ('# captured = ""', 'captured = "{}"'),
    **{
        kind: ('path = "', f'kind = "{kind}"\npath = "{{}}"\n# "')
        for kind in ("auto", "mbtiles", "geopackage", "sqlitedb", "pmtiles", "geotiff")
    },
}
"""What of flight.toml names a file, as an edit of it."""


ALIKE = ("geopackage", "sqlitedb")
"""Opened as MBTiles are."""


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        pytest.param(
            setting,
            what,
            marks=[pytest.mark.slow] if (what == "loop" and setting != "mission") or setting in ALIKE else [],
        )
        for setting in SETTINGS
        for what in WHAT
    ],
)  # no open follows a loop: one of them by day
def test_what_flight_toml_names_is_a_file_or_an_error_at_once(site, tmp_path, in_time, setting, what):
    if (setting, what) == ("auto", "directory"):
        pytest.skip("a directory may be a tile source")
    cache = building.copy_site(site, tmp_path / "site")
    old, new = SETTINGS[setting]
    place = tmp_path / "site" / "it.csv"
    building.edit(cache, old, new.format(place))
    lay(what, place)
    built = building.build(cache)
    assert built.outcome == "FAILURE"
    assert str(place) in str(built.failure)


FILES = {
    "bundle to install": [
        "install",
        "{}",
        "{new}/target",
        "--any-flight",
        "--any-aircraft",
        "--any-host",
        "--public-key",
        "{own}",
    ],
    "bundle to look at": ["info", "{}"],
    "public key": ["verify", "{published}", "--ground", "--public-key", "{}"],
    "key to look at": ["key", "fingerprint", "{}"],
    "trust file": ["verify", "{published}", "--ground", "--trust", "{}"],
    "trust file to show": ["trust", "show", "{}"],
    "trust file to sign": ["trust", "sign", "{}", "--key", "{private}"],
    "root key": ["trust", "init", "{new}/trust.json", "--root", "{}", "--signing", "{own}", "--not-after", "never"],
    "revoked keys": ["verify", "{published}", "--ground", "--public-key", "{own}", "--revoked-file", "{}"],
    "floor": [
        "verify",
        "{published}",
        "--any-flight",
        "--any-aircraft",
        "--any-host",
        "--public-key",
        "{own}",
        "--counter-floor-file",
        "{}",
    ],
    "co-signature": ["cosign", "{published}", "--signature", "{}", "--by", "{own}", "--public-key", "{own}"],
    "co-signing key": ["cosign", "{published}", "--key", "{}", "--public-key", "{own}"],
    "fleet": ["fleet", "{}"],
    "photo": ["locate", "{}", "--cache", "{cache}", "--public-key", "{key}"],
    "photos": ["evaluate", "{}", "{cache}", "--public-key", "{key}"],
    "custom operators": ["bench-engine", "{cache}", "--custom-ops", "{}"],
    "engine": ["bench-engine", "{}"],
    "tiles": ["init", "{new}/cache", "--tiles", "{}", "--area", "8,47,8.1,47.1", "--key", "{private}"],
    "mission": ["init", "{new}/cache", "--tiles", "{tiles}", "--mission", "{}", "--key", "{private}"],
    "area": ["init", "{new}/cache", "--tiles", "{tiles}", "--area", "{}", "--key", "{private}"],
    "model": ["init", "{new}/cache", "--tiles", "{tiles}", "--backbone", "{}", "--key", "{private}"],
    "key of a new cache": ["init", "{new}/cache", "--tiles", "{tiles}", "--key", "{}"],
}
"""Commands by what of theirs names a file, `{}`."""


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("of", FILES)
def test_what_a_command_names_is_a_file_or_an_error_at_once(site, tmp_path, in_time, capfd, of, what):
    place = tmp_path / "it.tar"
    lay(what, place)
    names = {"new": tmp_path, "published": site / "published", "tiles": site / "tiles",
             "private": site / "key.pem", "key": site / "key.pub.pem",
             "cache": site / "cache", "own": site / "keys/operator.pub.pem"}  # fmt: skip
    code = run(*(word.format(place, **names) for word in FILES[of]))
    said = capfd.readouterr()
    assert code == 2 or code >= 10
    assert "Traceback" not in said.err
    assert "it.tar" in said.err + said.out


def run(*words: str) -> int:
    """Return the exit code of a command, wrong usage included."""
    try:
        return main(list(words))
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize("what", ["pipe", "endless", "loop"])
@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_CACHE])
def test_what_stands_in_place_of_a_cache_is_an_error_at_once(tmp_path, monkeypatch, in_time, capfd, command, what):
    monkeypatch.chdir(tmp_path)
    lay(what, tmp_path / "it")
    before = {"locate": ["photo.jpg", "--cache"], "evaluate": ["photos"], "why": ["corpus"], "install": ["b.tar"],
              "sync": ["host:/cache"], "fleet": []}  # fmt: skip
    after = {"verify": ["--ground"], "clean": ["--old"], "rollback": ["--to", "1"]}
    code = run(command, *before.get(command, []), "it", *after.get(command, []))
    said = capfd.readouterr()
    assert code == 2 or code >= 10
    assert "Traceback" not in said.err


def link(key: Path, place: Path) -> None:
    place.symlink_to(key)


def inside(key: Path, place: Path) -> None:
    place.write_bytes(b"a: 1\n" * 300_000 + key.read_bytes())


@pytest.mark.parametrize("lay_key", [link, os.link, inside], ids=["link", "hard link", "inside a larger file"])
def test_a_build_publishes_no_private_key_whatever_its_name(site, tmp_path, lay_key):
    cache = building.copy_site(site, tmp_path / "site")
    place = tmp_path / "site" / "lens.yaml"
    lay_key(tmp_path / "site" / "key.pem", place)
    building.edit(cache, "camera.yaml", "lens.yaml")
    before = os.readlink(cache / "current")
    built = building.build(cache)
    assert built.outcome == "FAILURE"
    assert "a private key would be published" in str(built.failure)
    assert os.readlink(cache / "current") == before


def refusing(error: OSError):
    def refuse(*_: object, **__: object) -> bytes:
        raise error

    return refuse


def test_an_engine_that_may_not_be_read_is_named(site, monkeypatch, capsys):
    engine = next((site / "cache/current/").glob("*.engine"))
    monkeypatch.setattr(bench_engine, "read_input", refusing(PermissionError(errno.EACCES, "Permission denied")))
    assert main(["bench-engine", str(engine)]) == FilesystemError.exit_code
    said = capsys.readouterr().err
    assert str(engine) in said
    assert "Permission denied" in said


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_what_no_command_foresees_of_the_system_is_an_error_and_no_traceback(name, code, monkeypatch, capsys):
    words = {
        "export": ["netvlad", "--weights", "w", "-o", "o"], "keygen": ["k.pem"], "key": ["fingerprint", "k"],
        "completion": ["bash"], "why": ["corpus"], "clean": ["--old"], "locate": ["p"], "evaluate": ["p"],
        "bench-engine": ["e"], "install": ["b", "t"], "trust": ["show", "t"], "cosign": ["--key", "k"],
        "info": ["b"], "sync": ["t"], "init": ["d"], "demo": ["d"],
    }  # fmt: skip
    module = importlib.import_module(module_of(name))
    monkeypatch.setattr(module, "run", refusing(OSError(code, os.strerror(code), 7)))
    assert main([name, *words.get(name, [])]) == FilesystemError.exit_code
    said = capsys.readouterr().err
    assert os.strerror(code) in said
    assert "next step" in said
    assert "  file: " not in said  # the system named a handle, which says nothing
