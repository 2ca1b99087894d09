"""The catalogue: what is unchanged is not read again, what changed is found, and nothing half-written is believed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from provisioning.base.errors import EmptyCorpusError, FilesystemError
from provisioning.catalogue import (
    corpus_table,
    count_changed,
    iter_placed,
    iter_tiles,
    last_corpus,
    scan,
    states,
    summing,
)
from provisioning.catalogue import database as catalogue
from provisioning.catalogue.scanning import directories
from provisioning.catalogue.scanning import scan as scan_module
from provisioning.catalogue.scanning.writer import Writer
from provisioning.config import TileSource
from provisioning.flight.manifest import coverage_sha256
from provisioning.sources import fingerprint
from tests import looked
from tests.tilesets import (
    X,
    Y,
    Z,
    bbox_of,
    block,
    flight,
    image,
    scanned,
    write_mbtiles,
    write_reference_pmtiles,
    write_xyz,
)

SETTLE_S = 0.06


@pytest.fixture
def tiles():
    return block(4, 3)


@pytest.fixture
def read(monkeypatch):
    """Count the tiles that are read."""
    return looked.Looks(monkeypatch).asked


def settled_scan(asked):
    time.sleep(SETTLE_S)
    return scan(asked.selection, asked.build_dir)


@pytest.mark.parametrize("mode", ["stat", "dirs"])
def test_an_unchanged_directory_is_not_read(tmp_path, tiles, read, mode):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles), scan=mode)
    first = settled_scan(asked)
    read.clear()
    second = settled_scan(asked)
    assert read == []
    assert (second.added, second.removed, second.changed) == (0, 0, 0)
    assert replace(second, added=first.added) == first


@pytest.mark.parametrize("write", [write_mbtiles, write_reference_pmtiles])
def test_an_unchanged_container_is_not_opened(tmp_path, tiles, read, write, monkeypatch):
    asked = flight(tmp_path, write(tmp_path / "sat.container", tiles), bbox=bbox_of(tiles))
    settled_scan(asked)
    read.clear()
    monkeypatch.setattr("provisioning.sources.processes.listing.Lister", lambda *_: pytest.fail("opened"))
    assert scan(asked.selection, asked.build_dir).count == 12
    assert read == []


def test_full_mode_reads_every_tile_and_inspects_none(tmp_path, tiles, monkeypatch):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles), scan="full")
    settled_scan(asked)
    looks = looked.Looks(monkeypatch)
    assert settled_scan(asked).changed == 0
    assert (sorted(looks.asked), looks.inspected) == (sorted(tiles), [])


@pytest.mark.parametrize("pattern", ["{z}/{x}/{y}", "{z}_{x}_{y}"])
def test_a_large_directory_is_looked_at_by_several_processes_with_the_same_result(
    tmp_path, tiles, read, pattern, monkeypatch
):
    monkeypatch.setattr(directories, "MANY_TILES", 1)
    store = write_xyz(tmp_path / "sät\n", tiles, pattern=pattern)
    asked = flight(tmp_path, TileSource(path=store, name="sat", pattern=pattern), bbox=bbox_of(tiles))
    settled_scan(asked)
    read.clear()
    monkeypatch.setattr(directories, "_listed", lambda *_: pytest.fail("looked at here"))
    assert settled_scan(asked).changed == 0
    monkeypatch.undo()
    monkeypatch.setattr(directories, "MANY_TILES", 1)
    write_xyz(store, {next(iter(tiles)): image(888)}, pattern=pattern)
    os.unlink(store / (pattern.format(z=Z, x=X + 3, y=Y) + ".png"))
    corpus = settled_scan(asked)
    assert (corpus.added, corpus.removed, corpus.changed) == (0, 1, 1)


@pytest.mark.parametrize(("columns", "hashed"), [((0,), 1), ((1, 2), 2), ((3,), 1)])
def test_the_digest_is_found_while_the_scan_looks_on_and_again_if_more_changes(
    tmp_path, tiles, monkeypatch, columns, hashed
):
    monkeypatch.setattr(directories, "MANY_TILES", 1)
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    settled_scan(asked)
    asked_for, digest = [], summing.coverage_digest
    monkeypatch.setattr(summing, "coverage_digest", lambda db: asked_for.append(1) or digest(db))
    write_xyz(tmp_path / "sat", {(Z, X + column, Y + 1): image(900 + column) for column in columns})
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.changed, len(asked_for)) == (len(columns), hashed)
    assert corpus.coverage_sha256 == coverage_sha256(iter_tiles(asked.build_dir))


def test_many_folders_that_moved_cost_one_digest_and_two_commits(tmp_path, tiles, monkeypatch):
    monkeypatch.setattr(directories, "MANY_TILES", 1)
    box = bbox_of(block(4, 4))
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=box)
    settled_scan(asked)
    hashed, commits, digest, flush = [], [], summing.coverage_digest, Writer.flush
    monkeypatch.setattr(summing, "coverage_digest", lambda db: hashed.append(1) or digest(db))
    monkeypatch.setattr(Writer, "flush", lambda writer: commits.append(1) or flush(writer))
    write_xyz(tmp_path / "sat", {(Z, X + column, Y + 3): image(950 + column) for column in (0, 2, 3)})
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.added, len(hashed), len(commits)) == (3, 1, 2)
    assert corpus.coverage_sha256 == coverage_sha256(iter_tiles(asked.build_dir))


def test_a_scan_that_stops_early_leaves_no_process_looking_ahead(tmp_path, monkeypatch):
    started, start = [], fingerprint._listing_process
    monkeypatch.setattr(fingerprint, "_listing_process", lambda *given: started.append(start(*given)) or started[-1])
    (tmp_path / "there").mkdir()
    gone, there = str(tmp_path / "gone"), str(tmp_path / "there")
    with closing(fingerprint.ahead([gone, there] * 1000)) as ahead:
        assert [next(ahead), next(ahead)] == [None, fingerprint.digest([])]
    assert started
    assert all(process.returncode is not None for process in started)


def test_what_a_process_that_dies_had_taken_is_told_as_unseen(tmp_path, monkeypatch, capfd):
    dying = tmp_path / "dying.py"
    dying.write_text("import os, sys\nos.read(0, 2 * int(sys.argv[1]))\nraise KeyboardInterrupt\n")
    started, start, scripts = [], fingerprint._listing_process, [str(dying), fingerprint.__file__]

    def one_after_the_other(*given):
        monkeypatch.setattr(fingerprint, "__file__", scripts[len(started)])
        started.append(start(*given))
        return started[0] if started[0].wait() else started[-1]

    monkeypatch.setattr(fingerprint, "MOST_PROCESSES", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(fingerprint, "_listing_process", one_after_the_other)
    (tmp_path / "there").mkdir()
    seen = list(fingerprint.ahead([str(tmp_path / "there")] * 5))
    assert seen == [None] * 2 + [fingerprint.digest([])] * 3
    assert capfd.readouterr().err == ""


def test_folders_whose_times_moved_are_looked_at_first(tmp_path, tiles, monkeypatch):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    settled_scan(asked)
    (tmp_path / "sat" / f"{Z}/{X + 3}/{Y}.png").unlink()
    visited, visit = [], directories.DirectoryUpdate._visit
    monkeypatch.setattr(
        directories.DirectoryUpdate,
        "_visit",
        lambda self, a_visit, seen: visited.append(a_visit.folder.path) or visit(self, a_visit, seen),
    )
    assert scan(asked.selection, asked.build_dir).removed == 1
    assert visited == [f"{Z}/{X + column}" for column in (3, 0, 1, 2)]


def test_where_no_process_is_to_be_had_folders_are_looked_at_one_by_one(tmp_path, tiles, monkeypatch):
    monkeypatch.setattr(directories, "MANY_TILES", 1)
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    settled_scan(asked)
    monkeypatch.setattr(fingerprint.sys, "executable", str(tmp_path / "gone"))
    assert settled_scan(asked).changed == 0


def test_a_folder_that_is_mostly_outside_the_area_is_fingerprinted_by_its_tiles(tmp_path, read):
    column = block(1, 40)
    store = write_xyz(tmp_path / "sat", column)
    asked = flight(tmp_path, store, bbox=bbox_of(block(1, 5)))
    settled_scan(asked)
    write_xyz(store, {(Z, X, Y + 30): image(777)})
    read.clear()
    assert settled_scan(asked).changed == 0
    assert read == []
    write_xyz(store, {(Z, X, Y + 3): image(778)})
    assert settled_scan(asked).changed == 1


@pytest.mark.parametrize("mode", ["stat", "dirs", "full"])
def test_added_removed_and_changed_tiles_are_found(tmp_path, tiles, read, mode):
    store = write_xyz(tmp_path / "sat", tiles)
    box = bbox_of(block(4, 4))
    asked = flight(tmp_path, store, bbox=box, scan=mode)
    settled_scan(asked)
    gone, changed = next(iter(tiles)), list(tiles)[5]
    new = (Z, X, Y + 3)
    os.unlink(store / "{}/{}/{}.png".format(*gone))
    other = tmp_path / "other.png"
    other.write_bytes(image(321))
    os.replace(other, store / "{}/{}/{}.png".format(*changed))
    write_xyz(store, {new: image(322)})
    read.clear()
    corpus = settled_scan(asked)
    assert (corpus.added, corpus.removed, corpus.changed) == (1, 1, 1)
    assert mode == "full" or sorted(read) == sorted([changed, new])
    clean = flight(tmp_path / "clean", store, bbox=box)
    assert scan(clean.selection, clean.build_dir).coverage_sha256 == corpus.coverage_sha256


def test_stat_mode_sees_a_rewrite_in_place_with_its_old_times(tmp_path, tiles):
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    settled_scan(asked)
    path = store / "{}/{}/{}.png".format(*next(iter(tiles)))
    before = os.stat(path)
    other = next(data for seed in range(1000, 9000) if len(data := image(seed)) == before.st_size)
    with open(path, "r+b") as stream:
        stream.write(other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert settled_scan(asked).changed == 1


def test_dirs_mode_is_honest_about_what_it_cannot_see_and_full_sees_it(tmp_path, tiles):
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles), scan="dirs")
    settled_scan(asked)
    (store / "{}/{}/{}.png".format(*next(iter(tiles)))).write_bytes(image(321))
    assert settled_scan(asked).changed == 0
    assert settled_scan(replace(asked, tiles=replace(asked.tiles, scan="full"))).changed == 1


def test_a_tile_written_while_the_clock_stood_still_is_looked_at_again(tmp_path, tiles, monkeypatch):
    """Racily clean: a file changed twice within one tick of the file clock has one time for both."""
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    path = store / "{}/{}/{}.png".format(*next(iter(tiles)))
    moment = os.stat(path)
    monkeypatch.setattr(time, "time_ns", lambda: max(moment.st_mtime_ns, moment.st_ctime_ns) + 1_000_000)
    scan(asked.selection, asked.build_dir)
    db = sqlite3.connect(catalogue.catalogue_path(asked.build_dir))
    assert {c for (c,) in db.execute("SELECT ctime_ns FROM tile")} == {0}
    assert {listing for (listing,) in db.execute("SELECT listing FROM folder")} == {None}
    db.close()


def test_a_touched_tile_is_read_once_and_changes_nothing(tmp_path, tiles, read):
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    digest = settled_scan(asked).coverage_sha256
    touched = list(tiles)[3]
    os.utime(store / "{}/{}/{}.png".format(*touched))
    read.clear()
    for _ in range(2):
        corpus = settled_scan(asked)
    assert (corpus.coverage_sha256, corpus.changed) == (digest, 0)
    assert read == [touched]


def test_a_removed_column_is_found(tmp_path, tiles):
    store = write_xyz(tmp_path / "sat", tiles)
    for mode in ("stat", "dirs"):
        asked = flight(tmp_path / mode, store, bbox=bbox_of(tiles), scan=mode)
        settled_scan(asked)
    shutil.rmtree(store / str(Z) / str(X))
    for mode in ("stat", "dirs"):
        asked = flight(tmp_path / mode, store, bbox=bbox_of(tiles), scan=mode)
        assert settled_scan(asked).removed == 3


def test_a_row_removed_from_row_folders_is_found(tmp_path, tiles):
    pattern = "{z}/{y}/{x}"
    store = write_xyz(tmp_path / "sat", tiles, pattern=pattern, tms=True)
    source = TileSource(path=store, name="sat", pattern=pattern, scheme="tms")
    asked = flight(tmp_path, source, bbox=bbox_of(tiles))
    settled_scan(asked)
    shutil.rmtree(store / str(Z) / str((1 << Z) - 1 - Y))
    os.unlink(store / str(Z) / str((1 << Z) - 2 - Y) / f"{X}.png")
    assert settled_scan(asked).removed == 5


def test_an_area_that_shrinks_and_grows_again_reads_nothing(tmp_path, tiles, read):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    whole = settled_scan(asked)
    read.clear()
    small = flight(tmp_path, asked.tiles.source[0], bbox=bbox_of(block(1, 3)))
    assert (settled_scan(small).count, last_corpus(asked.selection, asked.build_dir)) == (3, None)
    assert settled_scan(asked).coverage_sha256 == whole.coverage_sha256
    assert read == []


@pytest.mark.parametrize("pattern", ["{z}/{x}/{y}", "{z}_{x}_{y}"])
@pytest.mark.parametrize("mode", ["stat", "dirs"])
def test_an_area_that_grows_within_a_directory_finds_the_tiles_that_it_gained(tmp_path, tiles, mode, pattern):
    store = write_xyz(tmp_path / "sat", tiles)
    if pattern == "{z}_{x}_{y}":
        for path in [*store.rglob("*.png")]:
            path.rename(store / "_".join(path.relative_to(store).parts))
    source = TileSource(path=store, name="sat", pattern=pattern)
    part, whole = block(4, 2), block(4, 3)
    assert settled_scan(flight(tmp_path, source, bbox=bbox_of(part), scan=mode)).count == 8
    grown = settled_scan(flight(tmp_path, source, bbox=bbox_of(whole), scan=mode))
    assert (grown.count, grown.added) == (12, 4)
    assert settled_scan(flight(tmp_path, source, bbox=bbox_of(part), scan=mode)).removed == 4


def test_tiles_come_back_under_another_store_of_the_same_name(tmp_path, tiles):
    one, two = write_xyz(tmp_path / "1", tiles), write_xyz(tmp_path / "2", block(4, 3, seed=500))
    scanned(flight(tmp_path, one, bbox=bbox_of(tiles)))
    corpus = scanned(flight(tmp_path, two, bbox=bbox_of(tiles)))
    assert (corpus.changed, corpus.added, corpus.removed) == (12, 0, 0)


def test_a_source_that_is_configured_no_longer_leaves_the_corpus(tmp_path, tiles):
    one = TileSource(path=write_xyz(tmp_path / "1", tiles), name="one")
    two = TileSource(path=write_xyz(tmp_path / "2", tiles), name="two")
    assert scanned(flight(tmp_path, one, two, bbox=bbox_of(tiles))).count == 24
    corpus = scanned(flight(tmp_path, two, bbox=bbox_of(tiles)))
    assert (corpus.count, corpus.removed, corpus.sources) == (12, 12, ("two",))


def test_a_state_of_the_corpus_tells_what_changed_after_it(tmp_path, tiles):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    first = settled_scan(asked)
    ((one, _),) = states(asked.build_dir)
    assert settled_scan(asked).coverage_sha256 == first.coverage_sha256
    assert [state for state, _ in states(asked.build_dir)] == [one]
    write_xyz(tmp_path / "sat", {(Z, X + 1, Y): image(700), (Z, X + 3, Y + 2): image(701)})
    second = settled_scan(asked)
    assert states(asked.build_dir) == [(one + 1, second.coverage_sha256), (one, first.coverage_sha256)]
    assert {row[1] for row in iter_placed(asked.build_dir, since=one)} == {X + 1, X + 3}
    assert len(list(iter_placed(asked.build_dir, since=one))) == count_changed(asked.build_dir, since=one) == 6
    assert len(list(iter_placed(asked.build_dir))) == count_changed(asked.build_dir, since=0) == 12
    wider = replace(asked, tiles=replace(asked.tiles, max_pixels=1 << 21))
    scan(wider.selection, wider.build_dir)
    assert [state for state, _ in states(wider.build_dir)] == [one + 1, one]  # inspected again, with the same result


def test_only_the_last_states_are_remembered(tmp_path, tiles, monkeypatch):
    monkeypatch.setattr(scan_module, "REMEMBERED", 3)
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    for n in range(5):
        write_xyz(store, {(Z, X, Y): image(800 + n)})
        settled_scan(asked)
    assert [state for state, _ in states(asked.build_dir)] == [5, 4, 3]


def test_a_source_added_later_numbers_ids_by_name(tmp_path, tiles):
    late = TileSource(path=write_xyz(tmp_path / "1", tiles), name="b")
    early = TileSource(path=write_xyz(tmp_path / "2", tiles), name="a")
    scanned(flight(tmp_path / "x", late, bbox=bbox_of(tiles)))
    grown, clean = (flight(tmp_path / n, late, early, bbox=bbox_of(tiles)) for n in ("x", "y"))
    scan(grown.selection, grown.build_dir)
    scan(clean.selection, clean.build_dir)
    assert (corpus_table(grown.build_dir)[0] == corpus_table(clean.build_dir)[0]).all()
    assert list(iter_tiles(grown.build_dir)) == list(iter_tiles(clean.build_dir))


def test_a_commit_that_stays_in_the_log_of_an_mbtiles_file_is_seen(tmp_path, tiles):
    path = write_mbtiles(tmp_path / "sat.mbtiles", tiles)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
    db.close()
    asked = flight(tmp_path, path, bbox=bbox_of(tiles))
    settled_scan(asked)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    main = os.stat(path)
    writer.execute("DELETE FROM tiles WHERE tile_column = ?", (X,))
    assert os.stat(path).st_mtime_ns == main.st_mtime_ns
    assert settled_scan(asked).removed == 3
    writer.close()


def test_a_cache_directory_that_moves_with_its_tiles_reads_nothing(tmp_path, tiles, read):
    here, there = tmp_path / "here", tmp_path / "there"
    write_xyz(here / "cache" / "sat", tiles)
    before = settled_scan(flight(here, here / "cache" / "sat", bbox=bbox_of(tiles)))
    here.rename(there)
    moved = flight(there, there / "cache" / "sat", bbox=bbox_of(tiles))
    read.clear()
    assert last_corpus(moved.selection, moved.build_dir) == before
    assert scan(moved.selection, moved.build_dir).coverage_sha256 == before.coverage_sha256
    assert read == []


def test_a_damaged_catalogue_is_begun_anew(tmp_path, tiles):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    before = scan(asked.selection, asked.build_dir)
    path = catalogue.catalogue_path(asked.build_dir)
    for damage in (b"not a database at all", b"SQLite format 3\0" + b"\xff" * 5000, b""):
        for name in path.parent.glob("catalogue.sqlite*"):
            name.unlink()
        path.write_bytes(damage)
        assert last_corpus(asked.selection, asked.build_dir) is None
        assert scan(asked.selection, asked.build_dir).coverage_sha256 == before.coverage_sha256


def test_a_catalogue_that_rots_inside_is_begun_anew(tmp_path):
    tiles = block(15, 15)
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    before = scan(asked.selection, asked.build_dir)
    path = catalogue.catalogue_path(asked.build_dir)
    size = path.stat().st_size
    with open(path, "r+b") as stream:
        for page in range(3, size // 4096):
            stream.seek(page * 4096)
            stream.write(b"\x07" * 4096)
    assert scan(asked.selection, asked.build_dir).coverage_sha256 == before.coverage_sha256
    assert len(list(iter_tiles(asked.build_dir))) == 225


def test_a_full_disk_is_said_so(tmp_path, tiles, monkeypatch):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    scan(asked.selection, asked.build_dir)
    write_xyz(tmp_path / "sat", block(4, 3, seed=90))
    prepared = catalogue._prepared

    def small(path):
        db = prepared(path)
        db.execute("PRAGMA max_page_count = 1")
        return db

    monkeypatch.setattr(catalogue, "_prepared", small)
    big = flight(tmp_path, write_xyz(tmp_path / "big", block(20, 20)), bbox=bbox_of(block(20, 20)))
    with pytest.raises(FilesystemError, match="cannot write the tile catalogue"):
        scan(big.selection, big.build_dir)


def test_before_the_first_scan_there_is_no_corpus(tmp_path, tiles):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), bbox=bbox_of(tiles))
    assert last_corpus(asked.selection, asked.build_dir) is None
    with pytest.raises(EmptyCorpusError, match="not been scanned"):
        next(iter_tiles(asked.build_dir))
    assert not asked.build_dir.exists()


SCANNER = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from provisioning.catalogue.scanning import writer
from tests.tilesets import bbox_of, block, flight, scanned
writer.COMMIT_TILES = 20
print("go", flush=True)
scanned(flight(Path({root!r}), Path({store!r}), bbox=bbox_of(block(20, 20))))
print("done", flush=True)
"""


@pytest.mark.parametrize(
    "delays", [(0.0, 0.05, 0.15), pytest.param((0.0, 0.02, 0.05, 0.1, 0.15, 0.2), marks=pytest.mark.slow)], ids=len
)
def test_a_scan_killed_at_any_time_leaves_a_true_catalogue_and_its_work(tmp_path, delays):
    tiles = block(20, 20)
    store = write_xyz(tmp_path / "sat", tiles)
    clean = scanned(flight(tmp_path / "clean", store, bbox=bbox_of(tiles)))
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    code = SCANNER.format(path=sys.path, root=str(tmp_path), store=str(store))
    kept = 0
    for delay in delays:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
        assert child.stdout.readline() == b"go\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL)
        child.stdout.close()
        last = last_corpus(asked.selection, asked.build_dir)
        assert last is None or last.coverage_sha256 == clean.coverage_sha256
        with catalogue.reading(asked.build_dir) as db:
            now = db.execute("SELECT count(*) FROM tile").fetchone()[0] if db else 0
        assert now >= kept, "finished work was lost"
        kept = now
    assert scan(asked.selection, asked.build_dir).coverage_sha256 == clean.coverage_sha256
    assert list(iter_tiles(asked.build_dir)) == list(
        iter_tiles(flight(tmp_path / "clean", store, bbox=bbox_of(tiles)).build_dir)
    )


def test_a_no_op_imports_neither_numpy_nor_pillow(tmp_path, tiles):
    store = write_xyz(tmp_path / "sat", tiles)
    settled_scan(flight(tmp_path, store, bbox=bbox_of(tiles)))
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from provisioning.base.geometry.angles import BBox
from provisioning.config import Area, Flight, Tiles, TileSource
from provisioning.catalogue import scan
flight = Flight(root=Path({str(tmp_path / "cache")!r}), area=Area(bbox=BBox(*{tuple(bbox_of(tiles))!r}), zooms=({Z},)),
                tiles=Tiles(source=(TileSource(path=Path({str(store)!r}), name="sat"),)))
assert scan(flight.selection, flight.build_dir).count == 12
print(sorted({{"numpy", "PIL", "simplejpeg", "rasterio", "geographiclib", "concurrent.futures"}} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert out.stdout.strip() == "[]"
