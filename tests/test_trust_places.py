"""What an attacker lays beside a floor, a bundle, a stick or a cache without `current`: nothing is lost, nothing hangs."""

from __future__ import annotations

import base64
import os
import shutil
import threading
from pathlib import Path

import pytest

from provisioning.base import events
from provisioning.base.errors import DeliveryError, Error, SigningError
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.delivery.install import install_bundle
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight import publish
from provisioning.flight.verify import Code, CounterFloor, verify
from tests import caches
from tests.delivery import FILES, make_keys, publish_cache, trust_anything_by


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    keys = make_keys(root)
    expect = trust_anything_by(keys.public)
    for counter in (5, 7, 8):
        publish_cache(root / "cache", keys, counter=counter)
        with verify(root / "cache", expect) as verdict:
            pack(verdict, documents_of(verdict), root / f"{counter}.tar")
    return root, expect


def install(made, counter: int, target: Path):
    root, expect = made
    return install_bundle(root / f"{counter}.tar", target, trust=trusting(expect, target), verify=verifying(expect))


@pytest.mark.parametrize("also", [[], [".build"]])
@pytest.mark.parametrize("lost", ["removed", "dangling", "file"])
def test_a_refused_install_after_current_was_lost_removes_no_generation(made, tmp_path, lost, also):
    install(made, 7, tmp_path)
    (tmp_path / "current").unlink()
    if lost == "dangling":
        (tmp_path / "current").symlink_to("generations/000009")
    if lost == "file":
        (tmp_path / "current").write_text("generations/000007")
    for name in also:
        shutil.rmtree(tmp_path / name)
    with pytest.raises(DeliveryError, match="older or equal"):
        install(made, 5, tmp_path)
    with verify(tmp_path / "generations/000007", made[1]) as verdict:
        assert verdict.passed


@pytest.mark.parametrize("counter", [7, 8])
def test_an_install_after_current_was_lost_makes_it_again(made, tmp_path, counter):
    install(made, 7, tmp_path)
    (tmp_path / "current").unlink()
    install(made, counter, tmp_path)
    assert os.readlink(tmp_path / "current") == f"generations/00000{counter}"
    assert os.listdir(tmp_path / "generations") == [f"00000{counter}"]


@pytest.mark.parametrize("what", ["link", "dangling", "hard link", "fifo", "file"])
def test_what_waits_as_part_of_a_bundle_is_not_written_through(made, tmp_path, what):
    root, expect = made
    victim, part = tmp_path / "authorized_keys", tmp_path / "b.tar.part"
    victim.write_text("ssh-ed25519 operator\n")
    lay = {
        "link": lambda: part.symlink_to(victim),
        "dangling": lambda: part.symlink_to(tmp_path / "new"),
        "hard link": lambda: part.hardlink_to(victim),
        "fifo": lambda: os.mkfifo(part),
        "file": lambda: part.write_text("left behind"),
    }
    lay[what]()
    with verify(root / "cache", expect) as verdict:
        pack(verdict, documents_of(verdict), tmp_path / "b.tar")
    assert victim.read_text() == "ssh-ed25519 operator\n"
    assert sorted(os.listdir(tmp_path)) == ["authorized_keys", "b.tar"]
    assert (tmp_path / "b.tar").read_bytes() == (root / "8.tar").read_bytes()


def with_floor(cache: caches.Cache, path: Path):
    return cache.expect._replace(counter_floor=CounterFloor(path, raise_on_pass=True))


@pytest.mark.parametrize("name", [".floor.tmp", ".floor.manifest.tmp"])
@pytest.mark.parametrize("what", ["hard link", "fifo"])
def test_what_waits_beside_the_floor_is_not_opened(tmp_path, name, what):
    cache = caches.publish(tmp_path / "cache")
    (tmp_path / "floor").write_text("0\n")
    (tmp_path / "victim").write_text("precious")
    if what == "fifo":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).hardlink_to(tmp_path / "victim")
    verdicts: list[bool] = []
    flight = threading.Thread(
        target=lambda: verdicts.append(bool(verify(cache.root, with_floor(cache, tmp_path / "floor")))), daemon=True
    )
    flight.start()
    flight.join(10)
    assert verdicts == [True]
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "floor").read_text() == "7\n"


@pytest.mark.parametrize("begins", ["0\n", "7\n"])
def test_of_two_sets_with_one_counter_only_the_first_is_flown(tmp_path, begins):
    first = caches.publish(tmp_path / "first")
    second = caches.publish(tmp_path / "second", files={**caches.FILES, "report.html": b"another\n"})
    (tmp_path / "floor").write_text(begins)
    for _ in range(2):
        assert verify(first.root, with_floor(first, tmp_path / "floor"))
    with verify(second.root, with_floor(second, tmp_path / "floor")) as verdict:
        assert [reason.code for reason in verdict.reasons] == [Code.COUNTER]
        assert "another set with counter 7" in verdict.reasons[0].detail


@pytest.mark.parametrize("content", [b"", b"7", b"7 abc\n", b"7 " + b"a" * 64 + b" x", "fifo"])
def test_a_floor_whose_memory_is_garbled_refuses(tmp_path, content):
    cache = caches.publish(tmp_path / "cache")
    (tmp_path / "floor").write_text("7\n")
    if content == "fifo":
        os.mkfifo(tmp_path / "floor.manifest")
    else:
        (tmp_path / "floor.manifest").write_bytes(content)
    with verify(cache.root, with_floor(cache, tmp_path / "floor")) as verdict:
        assert [reason.code for reason in verdict.reasons] == [Code.FLOOR]


def private_keys(tmp_path: Path) -> list[bytes]:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    def pem(key, form=s.PrivateFormat.PKCS8, seal=None, encoding=s.Encoding.PEM) -> bytes:
        return key.private_bytes(encoding, form, seal or s.NoEncryption())

    elliptic, old = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    return [
        pem(caches.KEY),
        pem(caches.KEY, seal=s.BestAvailableEncryption(b"x")),
        pem(caches.KEY, encoding=s.Encoding.DER),
        pem(caches.KEY, form=s.PrivateFormat.OpenSSH),
        pem(elliptic, form=s.PrivateFormat.TraditionalOpenSSL),
        pem(old, form=s.PrivateFormat.TraditionalOpenSSL),
        b"# the key\n\n" + pem(caches.KEY),
        bytes((2 << 20) - 20) + pem(caches.KEY),
        bytes(3 << 20) + pem(caches.KEY, encoding=s.Encoding.DER),
        pem(caches.KEY).decode().encode("utf-16"),
        b'{"key": "' + base64.b64encode(pem(caches.KEY, encoding=s.Encoding.DER)) + b'"}',
    ]


def test_a_private_key_is_never_published_as_calibration(tmp_path):
    keys = make_keys(tmp_path)
    for number, data in enumerate(private_keys(tmp_path)):
        with pytest.raises(SigningError, match="a private key would be published") as caught:
            publish_cache(tmp_path / "cache", keys, files={**FILES, f"calibration/{number}.pem": data})
        assert caught.value.file is not None
        assert publish.current_generation(tmp_path / "cache") is None
    public = caches.public(caches.KEY).raw
    publish_cache(tmp_path / "cache", keys, files={**FILES, "calibration/bytes": public * 3})


HOSTILE = "\x1b[2K\rSUCCESS\nSUCCESS manifest_hash \x9b31m\u202egnp.exe\x07\ud800"


def test_no_error_steers_a_terminal_or_fakes_a_line():
    error = Error(HOSTILE, file=HOSTILE, key=HOSTILE, facts={HOSTILE: HOSTILE, "n": 1}, next_step=HOSTILE)
    for text in (str(error), error.what, str(error.args[0])):
        assert all(line.isprintable() for line in text.split("\n"))
        assert not [line for line in text.split("\n")[1:] if line.lstrip() != line and line.startswith("SUCCESS")]
        assert not any(line.startswith("SUCCESS") for line in text.split("\n"))
        assert text.encode()


def test_no_event_steers_a_terminal(caplog):
    with caplog.at_level("INFO", logger="c10.provision"):
        events.event("published", generation=HOSTILE, counter=7, other=None)
    fields = caplog.records[-1].kv
    assert fields["generation"].isprintable()
    assert (fields["counter"], fields["other"]) == (7, None)


def test_names_in_other_languages_stay_as_they_are():
    assert str(Error("façade 東京", file="été/🛰.tif")) == "façade 東京\n  file: été/🛰.tif"


def test_fewer_threads_than_asked_for_hash_all_the_same(tmp_path, monkeypatch):
    cache = caches.publish(tmp_path, files={**caches.FILES, "report.html": b"x" * (5 << 20)})

    def none_left(self) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with verify(tmp_path, cache.expect) as verdict:
        assert verdict.passed
