"""`flightcache rollback` signs what was verified and nothing else; a generation is verified by the files in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from provisioning.base.errors import FilesystemError, VerificationError
from provisioning.cli import main
from provisioning.flight import publish
from provisioning.flight.signing import public_key_path, sign
from provisioning.flight.verify import Code, verify
from tests import caches, crashing
from tests.delivery import trust_anything_by


@pytest.fixture
def flight(tmp_path):
    """A cache directory with generations 1 and 2, signed by its own key."""
    return crashing.world_of_two_generations(tmp_path / "world")


def nest_a_good_set(generation: Path) -> None:
    """Put the good set below itself, let `current` name it, and forge the engine outside."""
    generation.chmod(0o755)
    good = generation.parent / "good"
    shutil.copytree(generation, good)
    (generation / "generations").mkdir()
    good.rename(generation / "generations" / "1")
    (generation / "current").symlink_to("generations/1")
    (generation / caches.ENGINE).chmod(0o644)
    (generation / caches.ENGINE).write_bytes(b"forged")


def test_a_good_set_nested_in_a_forged_one_gets_nothing_signed(flight):
    nest_a_good_set(flight.root / "generations/000001")
    assert main(["rollback", str(flight.root)]) == VerificationError.exit_code
    assert os.readlink(flight.root / "current") == "generations/000002"
    assert not list((flight.root / ".build/stage").glob("[0-9]*"))


def test_what_is_signed_is_the_manifest_that_was_verified(flight, monkeypatch):
    """The attacker changes Manifest and engine between the verdict and the signature: nobody reads them again."""
    from provisioning.cli.deliver import rollback as command

    source = flight.root / "generations/000001"
    real, signed = publish.rollback, []

    def attacked(*args, **kwargs):
        for name in ("Manifest.json", caches.ENGINE):
            (source / name).chmod(0o644)
            (source / name).write_bytes(b"forged")
        return real(*args, **kwargs)

    monkeypatch.setattr(command.publish, "rollback", attacked)
    monkeypatch.setattr(command, "sign", lambda signing, data, **_: signed.append(data) or sign(signing, data))
    with pytest.raises(FilesystemError, match="changed after it was made"):
        command.roll_back(flight, to=None)
    assert [b"forged" in data for data in signed] == [False]
    assert os.readlink(flight.root / "current") == "generations/000002"


@pytest.mark.parametrize("target", ["generations/1", "nowhere", "../000002"])
def test_current_inside_a_generation_is_an_unlisted_file(tmp_path, target):
    cache = caches.publish(tmp_path)
    (cache.generation / "current").symlink_to(target)
    for where in (tmp_path, cache.generation):
        with verify(where, cache.expect) as verdict:
            assert [reason[:2] for reason in verdict.reasons] == [(Code.UNLISTED, "current")]


def test_a_refusal_is_false(tmp_path):
    cache = caches.publish(tmp_path)
    with verify(tmp_path, cache.expect) as verdict:
        assert verdict
    (cache.generation / "report.html").write_bytes(b"")
    assert not verify(tmp_path, cache.expect)


def test_rollback_after_an_honest_publish_still_verifies(flight):
    assert main(["rollback", str(flight.root)]) == 0
    from provisioning.flight.signing import load_public_key

    key = load_public_key(public_key_path(flight.signing.key))
    with verify(flight.root, trust_anything_by(key)) as verdict:
        assert verdict.require().build.counter == 3
