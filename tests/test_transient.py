"""A moment's failure leaves no mark: a verdict about a tile is made of its bytes alone, and what was done stays done."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provisioning import catalogue
from provisioning.base.errors import FilesystemError, PhotoError, TileError
from provisioning.catalogue.scanning import inspecting
from provisioning.config.parse import read_flight
from provisioning.quality.locate.photo import read_photo
from provisioning.sources.pixels import image as decoding
from provisioning.sources.processes import inspection
from tests import building, hostile_looking, looked
from tests.tilesets import scanned

MACHINE = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.EINTR,
    errno.ETIMEDOUT,
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(inspecting, "RETRY_AFTER_S", (0, 0))


@pytest.fixture
def cache(tmp_path):
    return building.new_cache(tmp_path, side=2)


def failing(monkeypatch, error, *, times, name="read_file", module=inspecting):
    """Let the first `times` calls of a function fail; return how often it was called."""
    real, calls = getattr(module, name), []

    def fails(*args, **kwargs):
        calls.append(args)
        if len(calls) <= times:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, fails)
    return calls


def clean(tmp_path):
    return scanned(read_flight(building.new_cache(tmp_path / "clean", side=2))).coverage_sha256


@pytest.mark.parametrize("number", MACHINE)
@pytest.mark.parametrize("policy", ["skip", "fail"])
def test_an_error_of_the_machine_is_never_a_tile_that_cannot_be_decoded(cache, tmp_path, monkeypatch, number, policy):
    building.edit(cache, '# on_error = "fail"', f'on_error = "{policy}"')
    flight = read_flight(cache)
    with monkeypatch.context() as patched:
        patched.setattr(inspection, "InspectTiles", hostile_looking.Blind)
        failing(patched, OSError(number, os.strerror(number)), times=99)
        with pytest.raises(FilesystemError, match="this computer could not look at a tile") as caught:
            catalogue.scan(flight.selection, flight.build_dir)
        assert os.strerror(number) in caught.value.what
        assert caught.value.next_step
    corpus = catalogue.scan(flight.selection, flight.build_dir)
    assert (corpus.count, corpus.skipped) == (4, ())


@pytest.mark.parametrize("number", MACHINE)
def test_a_moment_that_passes_is_not_even_told(cache, monkeypatch, number):
    monkeypatch.setattr(inspection, "InspectTiles", hostile_looking.Blind)
    calls = failing(monkeypatch, OSError(number, os.strerror(number)), times=2)
    assert scanned(read_flight(cache)).count == 4
    assert len(calls) == 6


@pytest.mark.parametrize("error", hostile_looking.ERRORS)
def test_what_is_no_word_of_a_parser_is_no_fault_of_the_tile(cache, monkeypatch, error):
    """Each was seen where memory ran out, or a library was loaded half-way."""
    building.edit(cache, '# on_error = "fail"', 'on_error = "skip"')
    flight = read_flight(cache)
    with monkeypatch.context() as patched:
        patched.setattr(inspection, "InspectTiles", getattr(hostile_looking, error))
        with pytest.raises(FilesystemError, match="this computer failed"):
            catalogue.scan(flight.selection, flight.build_dir)
    corpus = catalogue.scan(flight.selection, flight.build_dir)
    assert (corpus.count, corpus.skipped) == (4, ())


def test_a_decoder_that_only_says_it_failed_is_asked_again_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(decoding, "ROOM_BYTES", 1 << 62)
    with pytest.raises(MemoryError):
        decoding.inspect_tile(b"\xff\xd8\xff broken", max_pixels=1 << 20, nodata=())


def test_bytes_that_are_no_image_stay_a_fault_of_the_tile(cache):
    next((cache.parent / "tiles").rglob("*.jpg")).write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(TileError, match="1 tile cannot be used"):
        scanned(read_flight(cache))


def test_a_scan_under_a_limit_of_memory_leaves_no_mark(cache):
    """A real limit of the system: whatever the first scan says, the next one has every tile."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import numpy, simplejpeg, provisioning.sources.pixels.image\n"
        "from provisioning import catalogue\n"
        "from provisioning.base.errors import Error\n"
        "from provisioning.config.parse import read_flight\n"
        "from provisioning.catalogue.scanning import scan, directories, containers\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "flight = read_flight(Path(sys.argv[1]))\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), -1))\n"
        "try:\n    catalogue.scan(flight.selection, flight.build_dir)\nexcept (Error, MemoryError) as error:\n    print(type(error).__name__)\n"
    )
    for spare in (0, 100_000, 400_000, 1_000_000, 4_000_000):
        subprocess.run(
            [sys.executable, "-c", code, str(cache), str(spare)],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            check=False,
        )
        if (cache / ".build/catalogue.sqlite").exists():
            assert scanned(read_flight(cache)).skipped == ()
    assert scanned(read_flight(cache)).count == 4


# resumed


@pytest.mark.parametrize(("limit", "value"), [("COMMIT_TILES", 1), ("COMMIT_S", 0.0)])
def test_a_killed_first_scan_goes_on_where_it_was(tmp_path, monkeypatch, limit, value):
    """Counted: no tile that was committed before the scan was cut off is read again."""
    cache = building.new_cache(tmp_path, side=4)
    for path in (tmp_path / "tiles").rglob("*"):
        os.utime(path, (1, 1))
    later = time.time_ns() + 60_000_000_000
    monkeypatch.setattr("provisioning.catalogue.scanning.scan.time.time_ns", lambda: later)
    monkeypatch.setattr(f"provisioning.catalogue.scanning.writer.{limit}", value)
    flight = read_flight(cache)
    first = []

    class Cut(BaseException):
        pass

    def cut_off(tiles):
        if len(first) == 8:
            raise Cut
        first.extend(tiles)

    with monkeypatch.context() as patched:
        looked.before_inspection(patched, cut_off)
        with pytest.raises(Cut):
            catalogue.scan(flight.selection, flight.build_dir)
    second = looked.Looks(monkeypatch).asked
    assert catalogue.scan(flight.selection, flight.build_dir).count == 16
    assert sorted(first + second) == sorted({*first, *second})
    assert len(first + second) == 16


def test_a_new_decoder_sees_every_tile_again_also_after_it_was_cut_off(cache, monkeypatch):
    flight = read_flight(cache)
    before = catalogue.scan(flight.selection, flight.build_dir)
    building.edit(cache, "# max_pixels = ", "max_pixels = 1000000 #")
    calls = looked.Looks(monkeypatch).inspected
    assert scanned(read_flight(cache)).coverage_sha256 == before.coverage_sha256
    assert len(calls) == 4
    assert scanned(read_flight(cache)).coverage_sha256 == before.coverage_sha256


# photos


@pytest.mark.parametrize(
    "head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"%PDF-1.4\n", b"BM" + bytes(60)]
)
def test_a_photo_reaches_no_parser_that_starts_programs(tmp_path, monkeypatch, head):
    monkeypatch.setattr("subprocess.Popen", lambda *_a, **_k: pytest.fail("a program was started"))
    (tmp_path / "photo.jpg").write_bytes(head)
    with pytest.raises(PhotoError, match="not an image in a format that is known"):
        read_photo(tmp_path / "photo.jpg")


def test_what_a_second_decode_does_not_meet_is_no_fault_of_the_tile(monkeypatch):
    failing(monkeypatch, ValueError("bad"), times=1, name="_jpeg", module=decoding)
    data = building.tile_image(1, side=64)
    assert decoding.inspect_tile(data, max_pixels=1 << 20, nodata=()).fault is None
    monkeypatch.undo()
    cut = decoding.inspect_tile(b"\xff\xd8\xff" + bytes(50), max_pixels=1 << 20, nodata=())
    assert "cannot be decoded" in cut.fault


@pytest.mark.parametrize(
    "error",
    [ImportError("numpy.lib"), SystemError("error return without exception set"), AttributeError("no 'matrix'"),
     RuntimeError("can't start new thread")],
)  # fmt: skip
def test_a_decoder_that_cannot_be_loaded_or_called_says_nothing_of_the_tile(monkeypatch, error):
    failing(monkeypatch, error, times=100, name="_jpeg", module=decoding)
    with pytest.raises(type(error)):
        decoding.inspect_tile(building.tile_image(1, side=64), max_pixels=1 << 20, nodata=())
