"""What the machine refuses while a tile source or foreign input is read is said of the machine, never of what was read."""

from __future__ import annotations

import errno
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from provisioning.base.errors import BackboneError, FilesystemError, TileError
from provisioning.base.process import confined
from provisioning.base.process.workers import Items, Workers
from provisioning.catalogue import iter_tiles, open_reader, reading
from provisioning.config import TileSource
from provisioning.sources import source
from provisioning.sources.containers import geotiff, pmtiles
from provisioning.sources.stores import kind_of, open_tiles
from tests import confining, tilesets, working

MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EAGAIN)
OF_A_FILE = (errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)


def refusing(number):
    def refuse(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [*MACHINE, *OF_A_FILE])
@pytest.mark.parametrize("read", [lambda path: source.file_stamp(path, now_ns=0), lambda path: source.head_of(path, 64),
                                  lambda path: kind_of(TileSource(path=path))])  # fmt: skip
def test_an_error_that_is_not_the_file_s_is_the_machine_s(tmp_path, monkeypatch, read, number):
    (tmp_path / "a.mbtiles").write_bytes(b"SQLite")
    for name in ("open", "stat"):
        monkeypatch.setattr(os, name, refusing(number))
    kind = FilesystemError if number in MACHINE else TileError
    with pytest.raises(kind) as caught:
        read(tmp_path / "a.mbtiles")
    assert type(caught.value) is kind
    assert os.strerror(number) in caught.value.what
    assert caught.value.next_step
    assert ("tiles.source.path" in caught.value.next_step) == (kind is TileError)


@pytest.mark.parametrize("number", MACHINE)
def test_a_pmtiles_archive_on_a_disk_that_fails_is_not_to_be_made_anew(tmp_path, monkeypatch, number):
    tiles = tilesets.block()
    path = tilesets.write_reference_pmtiles(tmp_path / "a.pmtiles", tiles)
    store = open_tiles(TileSource(path=path, kind="pmtiles"), ())
    monkeypatch.setattr(pmtiles.os, "pread", refusing(number))
    with pytest.raises(FilesystemError) as caught:
        store.read(*next(iter(tiles)))
    assert "anew" not in caught.value.next_step
    monkeypatch.undo()
    assert store.read(*next(iter(tiles)))
    store.close()


def test_a_database_that_no_descriptor_is_left_for_is_not_damaged(tmp_path):
    """SQLite says "unable to open database file" to a thread that has no connection yet."""
    tiles = tilesets.block()
    path = tilesets.write_mbtiles(tmp_path / "a.mbtiles", tiles)
    store = open_tiles(TileSource(path=path, kind="mbtiles"), ())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest_free := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with ThreadPoolExecutor(1) as thread, pytest.raises(FilesystemError, match="Too many open files") as caught:
            thread.submit(store.read, *next(iter(tiles))).result()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit -n" in caught.value.next_step
    assert store.read(*next(iter(tiles)))
    store.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE])
def test_what_gdal_says_of_the_machine_is_told_from_what_it_says_of_the_file(number):
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        geotiff._raise_of_the_machine(f"a.tif: {os.strerror(number)}")
    assert caught.value.errno == number
    geotiff._raise_of_the_machine("a.tif: TIFFReadEncodedTile() failed.")


@pytest.mark.parametrize("number", MACHINE)
def test_a_tile_that_the_machine_cannot_read_for_its_description_is_not_at_fault(tmp_path, monkeypatch, number):
    tiles = tilesets.block()
    flight = tilesets.flight(tmp_path, tilesets.write_xyz(tmp_path / "tiles", tiles), bbox=tilesets.bbox_of(tiles))
    tilesets.scanned(flight)
    with open_reader(flight.tiles.source, flight.build_dir) as reader:
        tile = next(iter(iter_tiles(flight.build_dir)))
        monkeypatch.setattr(reading, "read_file", refusing(number))
        with pytest.raises(FilesystemError, match="cannot read a tile") as caught:
            reader.read(tile)
        assert caught.value.next_step
        monkeypatch.undo()
        assert reader.read(tile)


@pytest.mark.parametrize(
    ("function", "arguments", "said", "step"),
    [
        (confining.killed, ("SIGKILL",), "SIGKILL ended the process that read m", "dmesg"),
        (confining.killed, ("SIGBUS",), "SIGBUS ended the process that read m", "dmesg"),
        (confining.lacks, (errno.EMFILE,), "Too many open files", "ulimit -n"),
        (confining.lacks, (errno.EAGAIN,), "Resource temporarily unavailable", "ulimit -u"),
    ],
)
def test_a_helper_that_the_machine_ends_or_starves_says_nothing_of_what_it_read(function, arguments, said, step):
    subject = confined.Subject("m", "m.onnx", BackboneError)
    with confined.apart():
        with pytest.raises(FilesystemError, match=said) as caught:
            confined.call(function, *arguments, subject=subject)
        assert step in caught.value.next_step
        assert confined.call(confining.add, 1, 1, subject=subject) == 2


def test_a_worker_that_lacks_memory_for_its_request_does_not_blame_the_item():
    items = Items("the tile", lambda _: "1/2/3")
    with Workers(working.make, items=items) as owner:
        worker = owner.worker()
        with pytest.raises(FilesystemError, match="this computer failed"):
            worker.read([("fill", working.NoMemory())])
        assert worker.read([("fill", 1)]) == [b"filled"]
