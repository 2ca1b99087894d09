"""Durable files, directories and their errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from provisioning.base.disk import directories, files
from provisioning.base.errors import FilesystemError

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /mnt/net rw,relatime shared:1 - nfs4 server:/export rw
41 27 8:1 / /media/my\\040stick rw - vfat /dev/sda1 rw
42 27 8:2 / /mnt rw - xfs /dev/sdb rw
43 27 8:3 / /over rw - exfat /dev/sdc1 rw
44 43 8:4 / /over rw - btrfs /dev/sdd rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/cache", "ext4"),
        ("/mnt/net", "nfs4"),
        ("/mnt/net/deep/cache", "nfs4"),
        ("/mnt/network", "xfs"),
        ("/media/my stick/cache", "vfat"),
        ("/over/cache", "btrfs"),
        ("/", "ext4"),
    ],
)
def test_the_file_system_is_that_of_the_longest_and_latest_mount(path, kind):
    assert files.filesystem_type(Path(path), MOUNTS) == kind


def on(monkeypatch, kind: str) -> None:
    monkeypatch.setattr(files, "filesystem_type", lambda path, text: kind)


@pytest.mark.parametrize(("kind", "name"), [("nfs4", "NFS"), ("nfs", "NFS"), ("vfat", "FAT"), ("exfat", "exFAT")])
def test_a_file_system_that_cannot_keep_a_cache_is_refused_by_name(tmp_path, monkeypatch, kind, name):
    on(monkeypatch, kind)
    with pytest.raises(FilesystemError) as caught:
        files.require_local_filesystem(tmp_path)
    assert caught.value.what == f"a cache cannot be built on {name}"
    assert caught.value.facts["file system"] == kind
    assert "flightcache bundle" in caught.value.next_step


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "zfs"])
def test_local_file_systems_are_accepted(tmp_path, monkeypatch, kind):
    on(monkeypatch, kind)
    files.require_local_filesystem(tmp_path)


def test_the_file_system_of_a_directory_that_is_a_link_is_that_of_its_target(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(files, "filesystem_type", lambda path, text: asked.append(path) or "ext4")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    files.require_local_filesystem(tmp_path / "link")
    assert asked == [(tmp_path / "real").resolve()]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "remount"),
        (errno.EACCES, "permission"),
        (errno.EIO, "dmesg"),
        (errno.EMFILE, "ulimit"),
    ],
)
def test_each_refusal_of_the_system_has_its_next_step(code, advice):
    with pytest.raises(FilesystemError) as caught, files.wrap_os_errors("write the thing", "/somewhere"):
        raise OSError(code, os.strerror(code), "/elsewhere")
    assert caught.value.what == f"cannot write the thing: {os.strerror(code)}"
    assert caught.value.file == "/somewhere"
    assert caught.value.facts["refused"] == "/elsewhere"
    assert advice in caught.value.next_step


def test_a_full_disk_under_a_database_is_a_file_system_error(tmp_path):
    database = sqlite3.connect(tmp_path / "db.sqlite")
    database.execute("PRAGMA max_page_count = 1")
    with (
        pytest.raises(FilesystemError, match="SQLite: database or disk is full") as caught,
        files.wrap_os_errors("keep it"),
    ):
        database.execute("CREATE TABLE t (x)")
    database.close()
    assert "free space" in caught.value.next_step


def test_what_sqlite_cannot_open_is_said_as_the_system_says_it(tmp_path):
    """SQLite says "unable to open database file" of each refusal."""
    with (
        pytest.raises(FilesystemError, match="unable to open") as caught,
        files.wrap_os_errors("read it", tmp_path),
        closing(sqlite3.connect(tmp_path)),
    ):
        pass
    assert "a directory stands" in caught.value.next_step


def test_a_mistake_in_sql_stays_what_it_is(tmp_path):
    with (
        closing(sqlite3.connect(":memory:")) as database,
        pytest.raises(sqlite3.ProgrammingError),
        files.wrap_os_errors("ask"),
    ):
        database.execute("SELECT ?")


def test_other_errors_pass_unchanged():
    with pytest.raises(KeyError), files.wrap_os_errors("look"):
        raise KeyError("x")


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_durably(path, b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FilesystemError, match="No space left"):
        files.write_durably(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


def test_a_system_that_takes_one_byte_at_a_time_gets_them_all(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:1]))
    files.write_durably(tmp_path / "file", b"0123456789")
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_link_planted_in_place_of_a_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"keep")
    (tmp_path / "trap").symlink_to("victim")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "trap", b"lost")
    assert (tmp_path / "victim").read_bytes() == b"keep"


def test_parents_are_made_and_made_durable_from_the_top(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "fsync_dir", synced.append)
    files.make_dirs(tmp_path / "a" / "b" / "c")
    files.make_dirs(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_file_where_a_directory_should_be_is_reported(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FilesystemError, match="Not a directory"):
        files.make_dirs(tmp_path / "a" / "b")


def test_a_read_only_tree_is_removed_and_links_out_of_it_are_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "keep").write_bytes(b"")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_bytes(b"")
    (tree / "link").symlink_to(tmp_path / "outside")
    for path in (tree / "deep", tree):
        path.chmod(0o555)
    directories.remove(tree.parent, tree.name)
    assert not tree.exists()
    assert (tmp_path / "outside" / "keep").exists()


def test_work_that_cannot_fit_is_refused_with_both_figures(tmp_path):
    free = files.free_bytes(tmp_path / "not" / "yet")
    files.require_free_bytes(tmp_path, free // 2, what="an index")
    with pytest.raises(FilesystemError, match="not enough space for an index") as caught:
        files.require_free_bytes(tmp_path, free * 2, what="an index")
    assert caught.value.facts["needed"] == f"{free * 2:,} bytes"
    assert caught.value.facts["free"].endswith("bytes")


def test_two_temporary_names_never_meet(tmp_path):
    names = {files.temporary_beside(tmp_path / "file") for _ in range(100)}
    assert len(names) == 100
    assert all(name.parent == tmp_path and files.temporary_writer(name.name) for name in names)
