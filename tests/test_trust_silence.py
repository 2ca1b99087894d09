"""A vehicle that says nothing, takes nothing, asks too often or talks without end costs an error, not an evening."""

from __future__ import annotations

import json
import time

import pytest

from provisioning.base.errors import DeliveryError, Error
from provisioning.cli import main
from provisioning.delivery.bundle.pack import documents_of
from provisioning.delivery.stream import send_needed
from provisioning.delivery.sync import sync_over
from provisioning.flight.signing import public_key_path
from provisioning.flight.verify import verify
from tests.delivery import FILES, make_keys, noise, publish_cache, trust_anything_by


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    keys = make_keys(root)
    publish_cache(root / "cache", keys, files={**FILES, "large.bin": noise(3 << 20, "large")})
    return root, keys, trust_anything_by(keys.public)


def need_everything(verdict) -> str:
    return json.dumps({"need": [[file.sha256, 0] for file in verdict.require().files]})


@pytest.mark.parametrize("stage", ["never answers", "takes nothing", "never confirms", "holds the pipe after it ended"])
def test_a_silent_vehicle_is_given_up(made, stage):
    root, _, expect = made
    with verify(root / "cache", expect) as verdict:
        script = {
            "never answers": "cat > /dev/null & exec sleep 60",
            "takes nothing": f"echo '{need_everything(verdict)}'; exec sleep 60",
            "never confirms": f"echo '{need_everything(verdict)}'; cat > /dev/null; sleep 60",
            "holds the pipe after it ended": "sleep 60 & exit 0",
        }[stage]
        begun = time.monotonic()
        with pytest.raises(DeliveryError, match=r"the vehicle (says|takes) nothing|was cut"):
            sync_over(["sh", "-c", script], verdict, documents_of(verdict), patience_s=0.3)
        assert time.monotonic() - begun < 50


def test_the_command_has_a_limit_and_says_so(made, tmp_path, capsys):
    root, keys, _ = made
    words = ["sync", "x:/y", str(root / "cache"), "--public-key", str(public_key_path(keys.signing.key))]
    assert main([*words, "--via", "sh -c 'sleep 60' --", "--timeout", "0.2"]) == DeliveryError.exit_code
    said = capsys.readouterr().err
    assert "the vehicle says nothing" in said
    assert "0.2 s" in said
    for wrong in ("0", "-1", "nan", "1e9"):
        assert main([*words, "--via", "true", f"--timeout={wrong}"]) == Error.exit_code


def test_a_file_is_sent_once_however_often_it_is_asked_for(made, tmp_path):
    root, _, expect = made
    with verify(root / "cache", expect) as verdict, (tmp_path / "out").open("wb") as out:
        manifest = verdict.require()
        need = {"need": [[manifest.descriptor_index.sha256, 0]] * 13_000}
        with pytest.raises(DeliveryError, match="more than once"):
            send_needed(out, need, manifest, lambda file: verdict.open(file.path))
    assert (tmp_path / "out").read_bytes() == b""


def test_a_line_without_end_is_not_read_for_ever(made):
    root, _, expect = made
    with verify(root / "cache", expect) as verdict, pytest.raises(DeliveryError):
        sync_over(["sh", "-c", "tr '\\0' x < /dev/zero"], verdict, documents_of(verdict), patience_s=5)


def test_what_a_vehicle_says_cannot_fake_a_line_of_ours(made):
    root, _, expect = made
    said = json.dumps({"error": "no\n\x1b[2K\rSUCCESS\nheron-1: counter 7 is current", "exit_code": 1})
    with verify(root / "cache", expect) as verdict, pytest.raises(DeliveryError) as caught:
        sync_over(["printf", "%s\\n", said], verdict, documents_of(verdict))
    lines = str(caught.value).split("\n")
    assert "\x1b" not in str(caught.value)
    assert not [line for line in lines if line.startswith(("SUCCESS", "heron-1"))]
