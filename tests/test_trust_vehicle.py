"""A vehicle's life: commissioned once, then keys rotate and are revoked, and floors recover, by what is delivered."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from provisioning.flight.signing.private import load_private_key
from provisioning.flight.vehicle import vehicle_of
from tests import faults
from tests.shell import quote
from tests.vehicles import World, new_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return new_world(tmp_path, monkeypatch)


def test_a_vehicle_is_commissioned_once_and_keys_rotate_with_what_is_delivered(world: World, capsys) -> None:
    world.begin()
    world.commission()
    world.install(world.bundle(1))
    world.verify()
    by_one = world.bundle(2)
    world.run("trust", "next", world.trust, "--signing", world.public("two"), "--revoke", world.fingerprint("one"))
    capsys.readouterr()
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.install(world.bundle(3, by="two"))
    assert world.vehicle.read_trust().newest.version == 2
    world.verify()
    world.install(by_one, rc=22)
    assert world.current() == "000003"
    assert "signature" in capsys.readouterr().err


def test_an_unsigned_draft_travels_nowhere(world: World, capsys) -> None:
    world.begin()
    world.run("trust", "next", world.trust, "--threshold", "1")
    world.build(1)
    world.run("bundle", world.cache, "-o", world.root / "b.tar", "--public-key", world.public("one"), rc=29)
    assert "not signed by enough root keys" in capsys.readouterr().err
    world.run("trust", "install", world.trust, world.target, rc=29)
    assert not (world.vehicle.path / "trust.json").exists()


def test_a_delivered_trust_file_of_another_root_changes_nothing(world: World) -> None:
    world.begin()
    world.commission()
    before = (world.vehicle.path / "trust.json").read_bytes()
    world.trust.unlink()
    world.run(
        "trust", "init", world.trust, "--root", world.public("root2"), "--signing", world.public("two"), "--not-after",
        "never",
    )  # fmt: skip
    world.run("trust", "sign", world.trust, "--key", world.private("root2"))
    world.run("trust", "next", world.trust)
    world.run("trust", "sign", world.trust, "--key", world.private("root2"))
    world.install(world.bundle(9, by="two"), rc=29)
    assert (world.vehicle.path / "trust.json").read_bytes() == before
    assert not os.path.lexists(world.target / "current")


def test_two_keys_sign_before_a_vehicle_accepts(world: World, capsys) -> None:
    world.begin("--signing", world.public("two"), "--threshold", "2")
    world.commission()
    world.install(world.bundle(1), rc=22)
    assert "2 trusted keys must sign, 1 did" in capsys.readouterr().err
    world.run("cosign", world.cache, "--key", world.private("two"), "--public-key", world.public("one"))
    world.run("cosign", world.cache, "--key", world.private("two"), "--public-key", world.public("one"), rc=25)
    again = world.root / "again.tar"
    world.run("bundle", world.cache, "-o", again, "--public-key", world.public("one"))
    world.install(again)
    world.verify()
    world.run("verify", world.cache, "--trust", world.trust, "--ground")
    (world.target / "current/..").resolve().chmod(0o755)
    sigs = (world.target / "current").resolve() / "Manifest.json.sigs"
    sigs.parent.chmod(0o755)
    sigs.unlink()
    world.verify(rc=22)


def test_a_trust_file_beside_a_cache_that_nobody_installed_here_is_not_believed(
    world: World, monkeypatch, capsys
) -> None:
    world.begin()
    world.commission()
    world.install(world.bundle(1))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(world.root / "other"))
    world.verify(rc=29)
    assert "was not installed on this computer" in capsys.readouterr().err
    world.run("trust", "install", world.trust, world.target)
    world.verify()


def test_a_key_that_is_named_does_not_bring_back_a_revoked_one(world: World) -> None:
    world.begin()
    world.run("trust", "next", world.trust, "--signing", world.public("two"), "--revoke", world.fingerprint("one"))
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.commission()
    world.build(1)
    bundle = world.root / "b.tar"
    world.run("bundle", world.cache, "-o", bundle, "--public-key", world.public("one"))
    world.run("install", bundle, world.target, "--public-key", world.public("one"), rc=22)


# --- the floor by default -------------------------------------------------------------------------------------------------


def install_by_key(world: World, bundle: Path, rc: int = 0) -> None:
    world.run("install", bundle, world.target, "--public-key", world.public("one"), rc=rc)


def test_the_floor_is_kept_without_an_option(world: World, capsys) -> None:
    one, two = world.bundle(1), world.bundle(2)
    install_by_key(world, one)
    assert (world.vehicle.path / "floor").read_text() == "1\n"
    shutil.copytree(world.target, world.root / "saved", symlinks=True)
    install_by_key(world, two)
    assert (world.vehicle.path / "floor").read_text() == "2\n"
    faults.remove(world.target)
    (world.root / "saved").rename(world.target)  # an older medium in place of the newer one
    world.verify("--public-key", world.public("one"), rc=22)
    assert "counter 1 is below the floor 2" in capsys.readouterr().out
    install_by_key(world, one, rc=22)


def test_verify_raises_the_floor_of_a_cache_that_came_without_install(world: World) -> None:
    install_by_key(world, world.bundle(1))
    world.build(5)
    faults.remove(world.target)
    shutil.copytree(world.cache, world.target, symlinks=True)
    world.verify("--public-key", world.public("one"))
    assert (world.vehicle.path / "floor").read_text() == "5\n"


def test_without_a_floor_only_when_it_is_said(world: World) -> None:
    bundle = world.bundle(1)
    world.run("install", bundle, world.target, "--public-key", world.public("one"), "--any-counter")
    assert not world.vehicle.path.exists()


def test_a_lost_floor_is_recovered_by_a_signed_statement_and_by_nothing_else(world: World) -> None:
    world.begin()
    world.commission()
    world.install(world.bundle(3))
    (world.vehicle.path / "floor").unlink()
    world.verify(rc=22)
    world.install(world.bundle(4), rc=22)
    world.run("trust", "next", world.trust, "--recover", "10", "3")
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.install(world.bundle(5))
    assert (world.vehicle.path / "floor").read_text() == "5\n"
    world.verify()


def test_the_highest_counter_of_a_stolen_key_is_recovered_from(world: World) -> None:
    world.begin()
    world.commission()
    world.install(world.bundle(3))
    shutil.copytree(world.cache, world.root / "kept", symlinks=True)
    world.install(world.bundle(2**53 - 1, name="stolen"))
    faults.remove(world.cache / "generations")
    faults.remove(world.cache / ".build")
    (world.cache / "current").unlink()
    world.install(world.bundle(4), rc=22)
    world.run(
        "trust", "next", world.trust, "--signing", world.public("two"), "--revoke", world.fingerprint("one"),
        "--recover", "1000", "3",
    )  # fmt: skip
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.install(world.bundle(5, by="two"))
    assert world.current() == "000005"
    assert (world.vehicle.path / "floor").read_text() == "5\n"
    assert os.listdir(world.target / "generations") == ["000005"]
    world.verify()
    world.install(world.bundle(6, by="two"))


def test_a_directory_that_others_may_write_to_sets_no_floor(world: World, capsys) -> None:
    install_by_key(world, world.bundle(1))
    world.vehicle.path.chmod(0o777)
    world.verify("--public-key", world.public("one"), rc=24)
    assert "others may write to it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cache", "mounts", "expected"),
    [
        ("/var/lib/flightcache", {"/"}, "/var/lib/flightcache.vehicle"),
        ("/var/lib/flightcache/generations/000007", {"/"}, "/var/lib/flightcache.vehicle"),
        ("/home/me/cache", {"/", "/home"}, "/home/me/cache.vehicle"),
        ("/media/me/STICK/a/cache", {"/", "/media/me/STICK"}, "/media/me/STICK.vehicle/a/cache"),
        ("/mnt", {"/", "/mnt"}, "/mnt.vehicle"),
    ],
)
def test_the_floor_is_never_on_a_medium_that_can_be_swapped(monkeypatch, cache, mounts, expected) -> None:
    monkeypatch.setattr(os.path, "realpath", str)
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in mounts)
    assert str(vehicle_of(Path(cache), {}).path) == expected
    assert vehicle_of(Path(cache), {"FLIGHTCACHE_VEHICLE": "/v"}).path == Path("/v")


def test_a_floor_that_is_made_late_begins_with_what_is_installed(world: World) -> None:
    """A vehicle from before floors were kept: 2 flies, and neither 1 nor another 2 comes in by the new floor."""
    one, two = world.bundle(1), world.bundle(2)
    install = ["--public-key", world.public("one")]
    world.run("install", two, world.target, *install, "--any-counter")
    install_by_key(world, one, rc=26)
    assert world.current() == "000002"
    assert (world.vehicle.path / "floor").read_text() == "2\n"
    install_by_key(world, world.bundle(3))
    assert (world.vehicle.path / "floor.previous").read_text().startswith("2 ")
    install_by_key(world, one, rc=22)


def test_a_late_floor_does_not_follow_a_generation_that_does_not_verify(world: World) -> None:
    one, two = world.bundle(1), world.bundle(2)
    world.run("install", two, world.target, "--public-key", world.public("one"), "--any-counter")
    generation = world.target / "generations/000002"
    generation.chmod(0o755)
    (generation / "corpus.index").unlink()
    install_by_key(world, one, rc=26)
    install_by_key(world, two)
    assert (world.vehicle.path / "floor").read_text() == "2\n"


@pytest.mark.parametrize(
    "cut", [pytest.param(cut, marks=() if cut % 9 == 1 else pytest.mark.slow) for cut in range(1, 60)]
)
def test_whenever_an_install_is_cut_the_old_or_the_new_one_verifies(world: World, monkeypatch, cut: int) -> None:
    """Cut at a change of names: then the floor lets a whole generation pass, and the rest can be done again."""
    world.begin()
    world.commission()
    world.install(world.bundle(1))
    two, count = world.bundle(2), 0

    class CutError(BaseException):
        pass

    def cutting(real):
        def call(*args, **more):
            nonlocal count
            count += 1
            if count == cut:
                raise CutError
            return real(*args, **more)

        return call

    with monkeypatch.context() as patched:
        for name in ("rename", "unlink", "replace", "link", "symlink", "mkdir", "rmdir"):
            patched.setattr(os, name, cutting(getattr(os, name)))
        with contextlib.suppress(CutError):
            world.install(two)
    if count >= cut:
        world.verify()
    world.install(two)
    world.verify()
    assert world.current() == "000002"
    assert (world.vehicle.path / "floor").read_text() == "2\n"


def test_a_root_key_that_is_only_named_vouches_for_nothing(world: World, capsys) -> None:
    """Whoever makes a trust file can name anybody's key beside an own one: what counts is who signed."""
    world.begin("--root", world.public("root2"))
    world.run("trust", "install", world.trust, world.target, "--root-fingerprint", world.fingerprint("root2"), rc=29)
    assert "not signed by that root key" in capsys.readouterr().err
    assert not world.vehicle.path.exists()
    world.run("trust", "sign", world.trust, "--key", world.private("root2"))
    world.run("trust", "install", world.trust, world.target, "--root-fingerprint", world.fingerprint("root2"))


def test_changes_that_make_no_trust_file_are_refused_and_nothing_is_written(world: World, capsys) -> None:
    world.begin()
    before = world.trust.read_bytes()
    for words in (
        ["--revoke", world.fingerprint("one")],
        ["--threshold", "2"],
        ["--remove", world.fingerprint("root")],
    ):
        world.run("trust", "next", world.trust, *words, rc=29)
        assert "no valid trust file" in capsys.readouterr().err
    world.run("trust", "next", world.trust, "--remove", "0" * 64, rc=29)
    world.run("trust", "init", world.trust, rc=29)
    world.run("trust", "sign", world.trust, "--key", world.private("root2"), rc=29)
    assert world.trust.read_bytes() == before


def test_a_root_key_in_a_token_signs_by_a_command(world: World) -> None:
    world.begin()
    world.run("trust", "next", world.trust)
    sign = f"openssl pkeyutl -sign -rawin -inkey {quote(world.private('root'))} -in /dev/stdin"
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    script, data = world.root / "token.sh", quote(world.root / "data")
    script.write_text(f"#!/bin/sh\ncat > {data}\n{sign.replace('/dev/stdin', data)}\n")
    script.chmod(0o755)
    words = ["--by-command", quote(script), "--public-key"]
    world.run("trust", "sign", world.trust, *words, world.public("root2"), rc=25)
    world.run("trust", "sign", world.trust, *words, world.public("root"))
    world.commission()
    assert world.vehicle.read_trust().newest.version == 2


def foreign(world: World) -> Path:
    """A bundle by a stranger's key, with a trust file of the stranger's root that says that this is well."""
    world.trust.unlink()
    world.run(
        "trust", "init", world.trust, "--root", world.public("root2"), "--signing", world.public("two"), "--not-after",
        "never",
    )  # fmt: skip
    world.run("trust", "sign", world.trust, "--key", world.private("root2"))
    return world.bundle(9, by="two", name="foreign")


@pytest.mark.parametrize("trusted_by", ["--trust", "--public-key"])
def test_no_trust_file_that_arrives_is_the_first_one(world: World, trusted_by: str) -> None:
    world.begin()
    mine = shutil.copy(world.trust, world.root / "mine.json")
    by = {"--trust": str(mine), "--public-key": world.public("one")}[trusted_by]
    first = world.bundle(1)
    bundle = foreign(world)
    world.run("install", bundle, world.target, trusted_by, by, "--no-self-test", rc=22)
    world.run("install", first, world.target, trusted_by, by, "--no-self-test")
    world.run("install", bundle, world.target, trusted_by, by, "--no-self-test", rc=22)
    assert not (world.vehicle.path / "trust.json").exists()


def test_what_arrives_revokes_a_key_that_is_named(world: World) -> None:
    """`sync --remote-key` names a key: the trust file that comes along is installed, and its word counts, all the same."""
    world.begin()
    world.commission()
    world.run("trust", "next", world.trust, "--signing", world.public("two"), "--revoke", world.fingerprint("one"))
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.run("install", world.bundle(1), world.target, "--public-key", world.public("one"), rc=22)
    assert world.vehicle.read_trust().newest.version == 2


@pytest.mark.parametrize(
    "words",
    [
        ["next", "t.json", "--revoke", "abc"],
        ["next", "t.json", "--revoke-file", "nowhere"],
        ["next", "t.json", "--remove", ""],
        ["next", "t.json", "--not-after", "2027-02-30"],
        ["next", "t.json", "--signing", "key.pem=tomorrow"],
        ["next", "t.json", "--recover", "1", "-1"],
        ["next", "t.json", "--threshold", "many"],
        ["next", "t.json", "--threshold", "0"],
        ["next", "t.json", "--root-threshold", "65"],
        ["install", "t.json", "cache", "--root-fingerprint", "abc"],
    ],
)
def test_words_that_cannot_be_read_are_wrong_usage(world: World, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        world.run("trust", *words)
    assert ended.value.code == 2


@pytest.mark.parametrize("words", [["next"], ["sign", "--key", "root/operator.pem"], ["show"], ["install"]])
@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"\xff", b"[" * 5000])
def test_a_file_that_is_no_trust_file_is_named(world: World, monkeypatch, capsys, words, content) -> None:
    monkeypatch.chdir(world.root)
    if content is not None:
        Path("t.json").write_bytes(content)
    after = [str(world.target)] if words == ["install"] else []
    world.run("trust", words[0], "t.json", *words[1:], *after, rc=29)
    assert "t.json" in capsys.readouterr().err
    assert not world.vehicle.path.exists()


def test_a_second_signature_made_elsewhere(world: World, capsys) -> None:
    """On a computer that never sees the cache: only Manifest.json goes there, and 64 bytes come back."""
    world.begin("--signing", world.public("two"), "--threshold", "2")
    world.commission()
    world.build(1)
    manifest, signature = world.cache / "current/Manifest.json", world.root / "second.sig"
    key = load_private_key(Path(world.private("two")), lambda: b"")
    words = ["cosign", world.cache, "--public-key", world.public("one"), "--signature", signature]
    for data, by, rc in (
        (key.sign(b"something else"), ["--by", world.public("two")], 25),
        (key.sign(manifest.read_bytes())[:63], ["--by", world.public("two")], 25),
        (key.sign(manifest.read_bytes()), [], 2),
        (key.sign(manifest.read_bytes()), ["--by", world.public("root")], 25),
        (key.sign(manifest.read_bytes()), ["--by", world.public("two")], 0),
    ):
        signature.write_bytes(data)
        world.run(*words, *by, rc=rc)
    assert oct((world.cache / "current/Manifest.json.sigs").stat().st_mode & 0o777) == "0o444"
    world.run("bundle", world.cache, "-o", world.root / "b.tar", "--trust", world.trust)
    world.install(world.root / "b.tar")
    world.verify()


def test_a_key_that_ends_is_shown_and_ends(world: World, capsys) -> None:
    world.run(
        "trust", "init", world.trust, "--root", world.public("root"), "--signing", f"{world.public('one')}=2027-03-01",
        "--not-after", "2028-01-01",
    )  # fmt: skip
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    world.run(
        "trust", "next", world.trust, "--recover", "9", "3", "--signing", world.public("two"), "--not-after", "never"
    )
    world.run("trust", "sign", world.trust, "--key", world.private("root"))
    capsys.readouterr()
    world.run("trust", "show", world.trust)
    said = capsys.readouterr().out
    for part in (
        "version 2, no end",
        "until 2027-03-01T23:59:59Z",
        "floors lost or above 9 become 3",
        "signed      complete",
    ):
        assert part in said
    world.build(1)
    words = ["verify", world.cache, "--trust", world.trust, "--ground"]
    world.run(*words, "--at", "2027-03-01T23:59:59Z")
    world.run(*words, "--at", "2027-03-02", rc=22)
    assert "key-expired" in capsys.readouterr().out
    world.run(*words, "--no-clock")
    world.run(*words, "--public-key", world.public("one"), rc=10)
