"""Artefacts and their artifact records."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from decimal import Decimal

import pytest

from provisioning.base.disk import artifacts
from provisioning.base.disk.artifacts import Target, atomic_output, is_intact, read_record
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import FilesystemError


@pytest.fixture
def target(tmp_path):
    """A target in the store of a cache directory."""
    return Target(tmp_path / ".build" / "store", "engine", "a.engine", {"precision": "fp16", "share": Decimal("0.50")})


def make(target: Target, data: bytes = b"engine") -> None:
    with atomic_output(target) as path:
        path.write_bytes(data)


def fail_half_way(target: Target) -> None:
    with contextlib.suppress(KeyError), atomic_output(target) as path:
        path.write_bytes(b"half")
        raise KeyError("x")


def test_a_made_target_is_intact_and_its_record_has_its_facts(target):
    make(target)
    assert is_intact(target)
    assert read_record(target).bytes == 6
    assert read_record(target).facts == {"precision": "fp16", "share": "0.50"}


def test_the_address_is_decided_by_kind_and_facts_only(target):
    other = dataclasses.replace(target, name="b.engine")
    assert other.key == target.key
    assert dataclasses.replace(target, kind="index").key != target.key
    assert dataclasses.replace(target, facts={"precision": "fp32", "share": Decimal("0.50")}).key != target.key
    assert dataclasses.replace(target, facts={"share": Decimal("0.5"), "precision": "fp16"}).key == target.key


def test_a_target_not_made_is_not_intact(target):
    assert not is_intact(target)
    assert read_record(target) is None


def test_a_block_that_raises_leaves_nothing(target):
    fail_half_way(target)
    assert list(target.path.parent.iterdir()) == []


def test_a_block_that_writes_nothing_is_an_error(target):
    with pytest.raises(FilesystemError, match=r"make engine a\.engine"), atomic_output(target):
        pass


def test_a_failed_remake_leaves_the_old_target_intact(target):
    make(target)
    fail_half_way(target)
    assert is_intact(target)
    assert target.path.read_bytes() == b"engine"


def test_a_finished_target_cannot_be_written_by_accident(target):
    make(target)
    assert target.path.stat().st_mode & 0o222 == 0


def test_flipped_bytes_are_not_intact_even_with_size_and_name_kept(target):
    make(target)
    target.path.chmod(0o644)
    target.path.write_bytes(b"enginE")
    os.utime(target.path, ns=(1, 1))
    assert not is_intact(target)


def test_a_touched_or_copied_target_is_read_once_and_its_record_renewed_under_the_lock(target, tmp_path, monkeypatch):
    make(target)
    shutil.copytree(tmp_path / ".build", tmp_path / "copy" / ".build", copy_function=shutil.copy)
    copied = dataclasses.replace(target, store=tmp_path / "copy" / ".build" / "store")
    with build_lock(tmp_path / "copy"):
        assert is_intact(copied)
    monkeypatch.setattr(artifacts, "sha256_file", lambda path: pytest.fail("read twice"))
    assert is_intact(copied)


def test_nothing_is_written_outside_the_lock(target):
    make(target)
    os.utime(target.path, ns=(1, 1))
    record = target.record.read_bytes()
    assert is_intact(target)
    assert target.record.read_bytes() == record


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"sha256": 1}',
        b"\xff\xfe",
        b'{"sha256": "a", "bytes": "x", "mtime_ns": 1, "inode": 1, "facts": {}}',
        b'{"sha256": "a", "bytes": 1e999, "mtime_ns": 1, "inode": 1, "facts": {}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_no_record(target, record):
    make(target)
    target.record.write_bytes(record)
    assert read_record(target) is None
    assert not is_intact(target)


@pytest.mark.parametrize("stand_in", ["directory", "link", "fifo", "nothing"])
def test_anything_but_the_file_itself_is_not_intact(target, stand_in):
    make(target)
    kept = target.path.rename(target.path.with_name("kept"))
    if stand_in == "directory":
        target.path.mkdir()
    elif stand_in == "link":
        target.path.symlink_to(kept)
    elif stand_in == "fifo":
        os.mkfifo(target.path)
    assert not is_intact(target)


def test_a_record_of_a_larger_file_does_not_read_it(target, monkeypatch):
    make(target)
    target.path.chmod(0o644)
    target.path.write_bytes(b"engine and more")
    monkeypatch.setattr(artifacts, "sha256_file", lambda path: pytest.fail("the size tells already"))
    assert not is_intact(target)


def test_removed_with_record_and_directory(target):
    make(target)
    artifacts.remove(target)
    artifacts.remove(target)
    assert not target.path.parent.exists()


def test_removing_one_target_keeps_its_neighbour(target):
    other = dataclasses.replace(target, name="b.engine")
    make(target)
    make(other)
    artifacts.remove(target)
    assert is_intact(other)


def test_the_record_is_text_that_a_person_can_read(target):
    make(target)
    assert json.loads(target.record.read_text())["bytes"] == 6
