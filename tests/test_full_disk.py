"""A full disk: the message says what is full, bytes or inodes, where, and what can be removed; no signal ends `doit`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from provisioning.base import files
from provisioning.base.errors import FilesystemError
from provisioning.build import preflight
from provisioning.build.request import read_request
from tests import building


def statvfs(monkeypatch, *, free_bytes=1 << 30, free_inodes=1000, inodes=5000):
    real = os.statvfs("/")

    def answer(_path):
        values = list(real)
        values[1], values[4], values[5], values[7] = 1, free_bytes, inodes, free_inodes
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", answer)


def refused(tmp_path, code=errno.ENOSPC):
    with pytest.raises(FilesystemError) as caught, files.wrap_os_errors("write", tmp_path / "not" / "yet"):
        raise OSError(code, os.strerror(code))
    return caught.value


@pytest.mark.parametrize(
    ("free", "full", "step"),
    [
        ({"free_bytes": 0}, "bytes", "free space"),
        ({"free_inodes": 0}, "inodes (files)", "df -i"),
        ({"free_inodes": 1}, "inodes (files)", "df -i"),
        ({"free_bytes": 4096, "free_inodes": 0}, "inodes (files) and bytes", "df -i"),
        ({}, "a quota or limit", "free space"),
        ({"free_bytes": 0, "inodes": 0, "free_inodes": 0}, "bytes", "free space"),
    ],
)
def test_the_message_names_what_is_full_and_where(tmp_path, monkeypatch, free, full, step):
    statvfs(monkeypatch, **free)
    error = refused(tmp_path)
    assert error.facts["full"] == full
    assert error.facts["on"] == tmp_path
    assert step in error.next_step
    assert "flightcache clean --old" in error.next_step


def test_a_quota_names_itself(tmp_path):
    assert "quota" in refused(tmp_path, errno.EDQUOT).next_step


def test_other_errors_do_not_speak_of_space(tmp_path):
    assert refused(tmp_path, errno.EIO).facts == {}


def test_where_the_system_does_not_answer_the_first_error_is_what_is_said(tmp_path, monkeypatch):
    def fails(_path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fails)
    error = refused(tmp_path)
    assert "No space left" in error.what
    assert "free space" in error.next_step


def test_work_that_needs_more_inodes_than_there_are_is_refused_before_it_begins(tmp_path, monkeypatch):
    cache = building.new_cache(tmp_path, side=2)
    assert building.build(cache, "preflight").failure is None
    request = read_request(cache)
    statvfs(monkeypatch, free_inodes=20)
    with pytest.raises(FilesystemError, match="not enough inodes") as caught:
        preflight.require_room(request)
    assert caught.value.facts["free"] == "20 inodes"
    assert "df -i" in caught.value.next_step
    statvfs(monkeypatch, free_inodes=0, inodes=0)  # btrfs: no such limit
    preflight.require_room(request)


def test_the_estimate_of_inodes_is_near_what_a_build_makes(tmp_path):
    cache = building.new_cache(tmp_path, side=2)
    building.build(cache, "preflight")
    estimate = preflight._inodes_to_make(read_request(cache))
    made = count(cache)
    assert building.build(cache).outcome == "SUCCESS"
    made = count(cache) - made
    assert estimate <= made + preflight.INODES_OF_GENERATION, "never so many that a disk that suffices is refused"
    assert estimate >= made / 2


def count(cache: Path) -> int:
    return len({os.lstat(path).st_ino for path in cache.rglob("*")})
