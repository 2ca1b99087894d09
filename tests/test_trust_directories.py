"""A hostile cache directory, drive or stick: nothing outside it is emptied, removed, renamed or loses a permission."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.base.disk import directories
from provisioning.base.errors import FilesystemError
from provisioning.build.steps import housekeeping
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.delivery.install import install_bundle
from provisioning.delivery.sync import sync_here
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight import publish
from provisioning.flight.verify import verify
from tests.delivery import make_keys, publish_cache, trust_anything_by


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    keys = make_keys(root)
    expect = trust_anything_by(keys.public)
    publish_cache(root / "cache", keys, counter=7)
    with verify(root / "cache", expect) as verdict:
        pack(verdict, documents_of(verdict), root / "7.tar")
    return root, expect


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A user's directory with names that a cache has too."""
    directory = tmp_path / "victim"
    for name in ("sub", "stage", "incoming", "generations"):
        (directory / name).mkdir(parents=True)
        (directory / name / "mine").write_text("years of work\n")
    (directory / ".tmp-0-1-mine").write_text("years of work\n")
    return directory


def state(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of everything in a directory, itself too."""
    return {
        str(path): (stat.S_IMODE(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
        for path in (directory, *directory.rglob("*"))
    }


PLACES = [
    ".build",
    ".build/incoming",
    ".build/stage",
    ".build/store",
    ".build/index",
    "generations",
    "generations/000003",
]


@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("by", ["install", "sync", "recover"])
def test_a_link_in_place_of_a_directory_of_the_cache_leads_nowhere(made, victim, tmp_path, place, by, current):
    (root, expect), drive = made, tmp_path / "drive"
    (drive / place).parent.mkdir(parents=True)
    (drive / place).symlink_to(victim)
    if current:
        (drive / "current").symlink_to("generations/000003")
    before = state(victim)

    def install() -> object:
        return install_bundle(root / "7.tar", drive, trust=trusting(expect, drive), verify=verifying(expect))

    def sync() -> object:
        with verify(root / "cache", expect) as verdict:
            return sync_here(drive, verdict, documents_of(verdict), verify=verifying(expect))

    act: dict[str, Callable[[], object]] = {
        "install": install,
        "sync": sync,
        "recover": lambda: publish.recover(drive, keep=1),
    }
    with pytest.raises(FilesystemError, match="a symbolic link stands") as caught:
        act[by]()
    assert caught.value.file == str(drive / place)
    assert state(victim) == before


@pytest.mark.parametrize("place", PLACES)
def test_clean_removes_links_and_never_what_they_name(victim, tmp_path, place):
    cache = tmp_path / "cache"
    (cache / place).parent.mkdir(parents=True)
    (cache / place).symlink_to(victim)
    before = state(victim)
    with pytest.raises(FilesystemError) if place == ".build" else contextlib.nullcontext():
        housekeeping.reset(cache, log=lambda _: None, dryrun=False)
    assert os.path.lexists(cache / place) is (place == ".build")
    assert state(victim) == before


def test_a_directory_swapped_for_a_link_while_it_is_emptied_is_not_followed(victim, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "file").touch()
    real, before = os.stat, state(victim)

    def swap(path, *args, **kwargs):
        status = real(path, *args, **kwargs)
        if path == "a" and (tree / "a").is_dir() and not (tree / "a").is_symlink():
            (tree / "a").rename(tmp_path / "gone")
            (tree / "a").symlink_to(victim)
        return status

    monkeypatch.setattr(os, "stat", swap)
    with pytest.raises(FilesystemError, match="a symbolic link stands"):
        directories.remove(tmp_path, "tree")
    monkeypatch.undo()
    assert state(victim) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_what_is_mounted_inside_a_cache_is_not_emptied(tmp_path):
    import subprocess

    mount = tmp_path / "cache" / ".build" / "stage" / "000003"
    mount.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        (mount / "precious").write_bytes(b"1")
        with pytest.raises(FilesystemError, match="another file system"):
            directories.remove(tmp_path / "cache", ".build/stage/000003")
        assert (mount / "precious").exists()
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_tree_deeper_than_any_cache_is_an_error_and_no_traceback(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    with pytest.raises(FilesystemError, match="nested more than"):
        directories.remove(tmp_path, "d")


def test_a_generation_is_read_only_file_by_file(made, tmp_path):
    root, expect = made
    install_bundle(root / "7.tar", tmp_path / "t", trust=trusting(expect, tmp_path / "t"), verify=verifying(expect))
    modes = {p.lstat().st_mode & 0o222 for p in (tmp_path / "t/generations").rglob("*")}
    assert modes == {0}


def test_a_directory_with_another_spelling_of_a_number_is_nobodys_generation(made, tmp_path):
    root, expect = made
    other = tmp_path / "t" / "generations" / "0000001"
    other.mkdir(parents=True)
    install_bundle(root / "7.tar", tmp_path / "t", trust=trusting(expect, tmp_path / "t"), verify=verifying(expect))
    assert other.is_dir()
    assert os.readlink(tmp_path / "t/current") == "generations/000007"


@pytest.mark.parametrize("what", ["hard link", "fifo", "device", "socket"])
@pytest.mark.parametrize("by", ["install", "sync"])
def test_the_lock_file_of_a_hostile_cache_is_not_written_through(made, victim, tmp_path, what, by):
    root, expect = made
    cache, lock = tmp_path / "drive", tmp_path / "drive/.c10.lock"
    cache.mkdir()
    if what == "hard link":
        lock.hardlink_to(victim / "sub/mine")
    elif what == "fifo":
        os.mkfifo(lock)
    elif what == "device":
        try:
            os.mknod(lock, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("an ordinary user makes no device")
    else:
        os.mknod(lock, stat.S_IFSOCK | 0o600)  # bind() takes no path above 107 bytes
    before = state(victim)
    with contextlib.suppress(FilesystemError), verify(root / "cache", expect) as verdict:
        if by == "sync":
            sync_here(cache, verdict, documents_of(verdict), verify=verifying(expect))
        else:
            install_bundle(root / "7.tar", cache, trust=trusting(expect, cache), verify=verifying(expect))
    assert state(victim) == before
    assert (cache / "current").is_symlink() == (what == "hard link")  # whose file is locked, and stays as it was
