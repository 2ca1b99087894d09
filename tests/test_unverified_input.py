"""What parses foreign input has no password, and ends in time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from provisioning.base.errors import BackboneError
from provisioning.base.process.confined import bare_environment
from provisioning.config import Signing
from provisioning.engines import compile as compile_module
from provisioning.flight.signing import generate_key, hand_over_password, public_key_of, sign
from provisioning.network.backbone import trial as trial_module
from tests import building
from tests.test_fleet_returned import looping


def test_the_password_leaves_the_environment_before_anything_is_parsed(tmp_path, monkeypatch):
    monkeypatch.setenv("PW", "secret")
    monkeypatch.delenv("PW_FD", raising=False)
    generate_key(tmp_path / "k.pem", password=b"secret")
    signing = Signing(key=tmp_path / "k.pem", password_env="PW")
    hand_over_password(signing)
    try:
        assert "PW" not in os.environ
        child = subprocess.run(["env"], capture_output=True, text=True, check=True)
        assert "secret" not in child.stdout
        for _ in range(2):  # a build may sign twice
            assert public_key_of(signing).verifies(sign(signing, b"bytes"), b"bytes")
    finally:
        os.environ.pop("PW_FD")


def test_the_environment_that_others_can_read_is_wiped():
    code = (
        "import os; from provisioning.config import Signing; from provisioning.flight.signing import hand_over_password;"
        "assert b'hush' in open('/proc/self/environ', 'rb').read(); hand_over_password(Signing(password_env='PW'));"
        "assert b'hush' not in open('/proc/self/environ', 'rb').read(); assert 'PW' not in os.environ"
    )
    environment = {**os.environ, "PW": "hush"}
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], env=environment, check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_apart")
def test_a_build_signs_with_an_encrypted_key_and_its_compiler_sees_no_password(tmp_path, monkeypatch):
    generate_key(tmp_path / "locked.pem", password=b"secret")
    cache = building.new_cache(tmp_path, side=2)
    building.edit(cache, str(tmp_path / "key.pem"), str(tmp_path / "locked.pem"))
    monkeypatch.setenv("FLIGHTCACHE_KEY_PASSWORD", "secret")
    seen = []
    real = subprocess.Popen

    def noting(*args, **kwargs):
        seen.append(kwargs.get("env") or dict(os.environ))
        return real(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", noting)
    assert building.build(cache).outcome == "SUCCESS"
    assert seen
    assert not any("secret" in environment.values() for environment in seen)
    os.environ.pop("FLIGHTCACHE_KEY_PASSWORD_FD")


def test_a_compiler_sees_no_token_of_the_environment_and_finds_its_gpu(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "FLIGHTCACHE_KEY_PASSWORD_FD"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    environment = compile_module._environment()
    assert "hush" not in environment.values()
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_reader_of_foreign_input_imports_nothing_from_where_it_starts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for said in ("", ":", f":{tmp_path}::", "relative:"):
        monkeypatch.setenv("PYTHONPATH", said)
        entries = bare_environment()["PYTHONPATH"].split(os.pathsep)
        assert all(os.path.isabs(entry) for entry in entries)
    assert str(tmp_path / "relative") in entries


def test_a_reader_of_foreign_input_writes_bytecode_only_where_its_parent_would(monkeypatch):
    """Found on a fresh checkout: `python -B` in the environment, and a reader wrote `__pycache__` beside the modules."""
    said = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/elsewhere"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert said.items() <= bare_environment().items()


def test_a_model_that_loops_for_ever_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(trial_module, "TRIAL_S", 0.5)
    with pytest.raises(BackboneError, match="had not finished"):
        trial_module.trial(onnx.load_model_from_string(looping()), "loop.onnx", None, None)
