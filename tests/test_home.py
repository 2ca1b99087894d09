"""A user without a home, or with one that cannot be written, reads where a key can go instead."""

import os
from pathlib import Path

import pytest

from provisioning.base.errors import SigningError
from provisioning.cli import main
from provisioning.cli.begin import init


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


def _refused(name: str = "operator") -> SigningError:
    with pytest.raises(SigningError, match="no directory for a new key") as caught:
        init.new_key(name)
    assert "XDG_CONFIG_HOME" in caught.value.next_step
    return caught.value


def test_a_user_whom_the_system_does_not_know_gets_no_folder_called_tilde(monkeypatch, tmp_path):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it does for a uid without an entry
    assert "no home directory" in _refused().what
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_a_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _refused().file == str(tmp_path / "home/.config/flightcache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_is_refused(monkeypatch, tmp_path):
    (tmp_path / "home").mkdir(mode=0o500)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _refused()


def test_the_next_step_works(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["init", "cache"]) == SigningError.exit_code
    assert main(["keygen", "key.pem"]) == 0
    assert main(["init", "cache", "--key", "key.pem"]) == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    assert main(["init", "other"]) == 0
    assert Path("own/flightcache/other.pem").exists()


def test_a_relative_xdg_directory_does_not_count(monkeypatch, tmp_path):
    """The XDG base directory specification: all paths must be absolute, else they are to be ignored."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "keys")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert init.new_key("operator") == tmp_path / "home/.config/flightcache/operator.pem"
