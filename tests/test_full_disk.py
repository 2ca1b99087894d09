"""A full disk: the message says what is full, bytes or inodes, where, and what can be removed; no signal ends `doit`."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from provisioning.base.disk import files, journal
from provisioning.base.errors import FilesystemError
from provisioning.build import preflight
from provisioning.build.request import read_request
from provisioning.catalogue import database
from provisioning.cli import main
from provisioning.descriptors.store.keymap import KeyMap
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
    assert "doit" not in error.next_step, "a vehicle, or a disk for bundles, has none of it"
    assert "clean" not in error.next_step
    (tmp_path / "flight.toml").touch()
    assert "flightcache clean --old" in refused(tmp_path).next_step


def test_a_full_vehicle_has_a_next_step_of_its_own(built_cache, tmp_path, monkeypatch, capsys):
    statvfs(monkeypatch, free_bytes=60_000)
    key = built_cache.parent / "key.pub.pem"
    assert main(["sync", str(tmp_path / "vehicle"), str(built_cache), "--public-key", str(key)]) == 24
    said = capsys.readouterr().err
    assert "bytes there, then run this again" in said
    assert "clean --old" not in said
    assert "doit" not in said


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


@pytest.fixture
def little(monkeypatch):
    monkeypatch.setattr(journal, "LITTLE_BYTES", 1 << 62)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(db: sqlite3.Connection) -> str:
    return db.execute("PRAGMA journal_mode").fetchone()[0]


def test_with_room_there_is_a_log_and_with_little_nothing_is_mapped(tmp_path, monkeypatch):
    for bound, expected in ((0, "wal"), (1 << 62, "delete"), (0, "wal")):
        monkeypatch.setattr(journal, "LITTLE_BYTES", bound)
        with database.opened(tmp_path) as db:
            assert mode(db) == expected
            with database.transaction(db):
                database.put(db, "x", expected)
            assert any(name.endswith("-shm") for name in names(tmp_path)) == (expected == "wal")
            with database.reading(tmp_path) as other:
                assert other is not None
                assert mode(other) == expected


@pytest.mark.usefixtures("little")
def test_a_log_that_a_killed_builder_left_is_read_without_mapping_it(tmp_path):
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        db.execute("INSERT INTO t VALUES (7)")
        for suffix in ("", "-wal"):  # as a kill leaves them
            shutil.copy(f"{path}{suffix}", tmp_path / f"killed.sqlite{suffix}")
    killed = tmp_path / "killed.sqlite"
    with closing(sqlite3.connect(killed, isolation_level=None)) as db:
        journal.begin(db, killed)
        assert db.execute("SELECT x FROM t").fetchall() == [(7,)]
        assert "killed.sqlite-shm" not in names(tmp_path)
        with closing(sqlite3.connect(killed, timeout=0)) as second:
            assert second.execute("SELECT x FROM t").fetchall() == [(7,)], "the lock was given up"


def test_a_database_with_a_log_is_read_without_mapping_where_there_is_little_room(tmp_path, monkeypatch):
    with database.opened(tmp_path):
        pass
    monkeypatch.setattr(journal, "LITTLE_BYTES", 1 << 62)
    with database.reading(tmp_path) as db:
        assert db is not None
        assert not any(name.endswith("-shm") for name in names(tmp_path))


@pytest.mark.usefixtures("little")
def test_two_writers_share_a_key_map_without_a_log(tmp_path):
    first, second = KeyMap(tmp_path / "map.sqlite"), KeyMap(tmp_path / "map.sqlite")
    first.adopt([(b"a" * 32, 0)], 1)
    second.adopt([(b"b" * 32, 1)], 2)
    assert first.rows([b"a" * 32, b"b" * 32]).tolist() == [0, 1]
    assert not any(name.endswith("-shm") for name in names(tmp_path))
    first.close()
    second.close()


@pytest.mark.usefixtures("little")
def test_a_build_with_little_room_publishes(tmp_path):
    cache = building.new_cache(tmp_path, side=2)
    assert building.build(cache).outcome == "SUCCESS"
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"


MOUNT = "import sys; from tests.test_full_disk import on_a_small_disk; on_a_small_disk(*sys.argv[1:])"
DISKS = {
    "tmpfs": ["mount -t tmpfs -o size=24m,nr_inodes=1k none {disk}"],
    "ext4": [
        "truncate -s 24M {place}/image",
        "mkfs.ext4 -q -m 0 -N 1024 {place}/image",
        "mount -o loop {place}/image {disk}",
    ],
}
DISKS["overlayfs"] = [
    *(step.replace("{disk}", "{place}/upper") for step in ["mkdir {disk} {place}/lower", *DISKS["ext4"]]),
    "mkdir {place}/upper/files {place}/upper/work",
    "mount -t overlay none -o lowerdir={place}/lower,upperdir={place}/upper/files,workdir={place}/upper/work {disk}",
]
"""How a disk of 24 MiB and 1,024 inodes is made, by kind of file system."""
SOME_KIB = (1024, 8192)
"""What may suffice for one build and not for another; the second is mapped (`journal.LITTLE_BYTES`)."""


def may_mount(kind: str) -> bool:
    """Whether this user may mount such a disk, in a name space of its own."""
    with tempfile.TemporaryDirectory() as place:
        os.mkdir(f"{place}/disk")
        steps = " && ".join(DISKS[kind]).format(place=place, disk=f"{place}/disk")
        command = ["unshare", "-m", "sh", "-c", steps]
        return (
            bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("kind", "what", "left"),
    [
        *(("tmpfs", "bytes", kib) for kib in (88, 96, 100, 104, 112)),
        *((kind, "bytes", kib) for kind in ("ext4", "overlayfs") for kib in (0, 60, 100)),
        *((kind, "bytes", kib) for kind in DISKS for kib in SOME_KIB),
        *((kind, "inodes", number) for kind in DISKS for number in (0, 3, 12)),
    ],
)
def test_a_disk_that_fills_ends_doit_with_an_error_and_never_a_signal(tmp_path, kind, what, left):
    if not may_mount(kind):
        pytest.skip(f"this user may not mount a small {kind}")
    words = ["unshare", "-m", sys.executable, "-c", MOUNT, str(tmp_path), kind, what, str(left)]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def on_a_small_disk(place: str, kind: str, what: str, left: str) -> None:
    """Build on a disk with `left` KiB or inodes left: first build, a new tile, new descriptors; then with room."""
    disk = Path(place) / "disk"
    disk.mkdir()
    for step in DISKS[kind]:
        subprocess.run(step.format(place=place, disk=disk).split(), check=True)
    cache = building.new_cache(disk, side=2, network=building.GIST)
    for change in (lambda: None, lambda: building.put_tile(disk / "tiles", building.WEST, building.NORTH, 77)):
        change()
        fill(disk, what, int(left))
        code, said = doit(cache)
        assert "Traceback" not in said, said
        if code == 0 and int(left) in SOME_KIB:
            assert "SUCCESS" in said, said
        else:
            assert code in (1, 3), (code, said)
            assert "next step" in said, said
            assert "flightcache clean --old" in said, said
            assert what in said, said
        shutil.rmtree(disk / "ballast")
        code, said = doit(cache)
        assert code == 0, said


def fill(disk: Path, what: str, left: int) -> None:
    """Use up all but `left` KiB, or all but `left` inodes, of a small disk."""
    ballast = disk / "ballast"
    ballast.mkdir()
    room = os.statvfs(disk)
    if what == "inodes":
        for number in range(room.f_favail - left):
            (ballast / str(number)).touch()
        return
    with open(ballast / "all", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):  # ext4 keeps blocks of its own for what describes the file
            pass
    os.truncate(ballast / "all", max(0, (ballast / "all").stat().st_size - left * 1024))
    os.sync()


def doit(cache: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "doit"], cwd=cache, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
