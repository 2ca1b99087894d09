"""What scanning a container again costs: touched, changed, moving, or killed before; and what is never taken for it."""

import os
import shutil
import sqlite3
from dataclasses import replace
from random import Random

import pytest

from provisioning.catalogue import iter_tiles, open_reader, scan
from provisioning.catalogue.scanning import containers
from provisioning.catalogue.scanning import writer as writing
from provisioning.sources.processes import listing
from tests import looked
from tests.tilesets import Z, age, bbox_of, block, flight, image, write_mbtiles, write_reference_pmtiles, write_xyz

TILES = block(8, 8)
WRITERS = {"mbtiles": write_mbtiles, "pmtiles": write_reference_pmtiles}


class Counted:
    """Counts tiles that are inspected, files that are hashed whole, and rows that are written."""

    def __init__(self, monkeypatch):
        self.hashed = self.opened = 0
        self.rows = []
        for module, name in ((containers, "sha256_file"), (listing, "Lister")):
            monkeypatch.setattr(module, name, self.counting(name, getattr(module, name)))
        self.looks = looked.Looks(monkeypatch)
        tile = writing.Writer.tile
        monkeypatch.setattr(
            writing.Writer, "tile", lambda w, found, **k: self.rows.append(found.candidate[:3]) or tile(w, found, **k)
        )

    def counting(self, name, real):
        def call(*args, **more):
            field = {"sha256_file": "hashed", "Lister": "opened"}[name]
            setattr(self, field, getattr(self, field) + 1)
            return real(*args, **more)

        return call

    @property
    def inspected(self):
        return len(self.looks.inspected)


@pytest.fixture(params=WRITERS)
def scanned(tmp_path, request, monkeypatch):
    """A container that was scanned long after it was written."""
    path = WRITERS[request.param](tmp_path / f"sat.{request.param}", TILES)
    age(path)
    asked = flight(tmp_path, path, bbox=bbox_of(TILES))
    monkeypatch.setattr("provisioning.sources.source.RACY_NS", -(10**12))
    scan(asked.selection, asked.build_dir)
    return asked, path, request.param


def write_again(path, kind, tiles):
    path.unlink()
    WRITERS[kind](path, tiles)


def test_a_container_that_was_only_touched_is_hashed_and_not_opened(scanned, monkeypatch):
    asked, path, _ = scanned
    seen = Counted(monkeypatch)
    os.utime(path, (1, 1))
    before = scan(asked.selection, asked.build_dir)
    assert (before.added, seen.hashed, seen.opened, seen.inspected, seen.rows) == (0, 1, 0, 0, [])
    scan(asked.selection, asked.build_dir)
    assert seen.hashed == 1


def test_a_copy_of_the_container_is_the_container(scanned, monkeypatch):
    asked, path, _ = scanned
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)
    seen = Counted(monkeypatch)
    scan(asked.selection, asked.build_dir)
    assert (seen.hashed, seen.opened) == (1, 0)


def test_one_changed_tile_is_judged_and_written_and_no_other(scanned, monkeypatch):
    asked, path, kind = scanned
    at = (Z, 17_003, 11_004)
    write_again(path, kind, {**TILES, at: image(999)})
    seen = Counted(monkeypatch)
    found = scan(asked.selection, asked.build_dir)
    assert (found.changed, seen.inspected, seen.rows) == (1, 1, [at])
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        assert {t[:3]: reader.read(t) for t in iter_tiles(asked.build_dir)} == {**TILES, at: image(999)}


def test_the_same_tiles_in_another_order_or_format_of_the_file_write_nothing(scanned, monkeypatch):
    asked, path, kind = scanned
    if kind == "pmtiles":
        pytest.skip("a PMTiles archive has one order")
    write_again(path, kind, dict(reversed(TILES.items())))
    seen = Counted(monkeypatch)
    assert scan(asked.selection, asked.build_dir).changed == 0
    assert (seen.inspected, seen.rows) == (0, [])


def test_a_tile_that_came_and_one_that_went_are_found(scanned):
    asked, path, kind = scanned
    fewer = dict(list(TILES.items())[1:])
    write_again(path, kind, fewer)
    assert (scan(asked.selection, asked.build_dir).removed, scan(asked.selection, asked.build_dir).count) == (1, 63)
    write_again(path, kind, TILES)
    assert (scan(asked.selection, asked.build_dir).added, scan(asked.selection, asked.build_dir).count) == (1, 64)


def test_a_byte_changed_in_place_is_found_though_header_and_size_are_as_they_were(scanned):
    asked, path, _ = scanned
    data = path.read_bytes()
    old, new = TILES[Z, 17_000, 11_000], image(5)
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new[: len(old)].ljust(len(old), b"\0")))
    changed = replace(asked, tiles=replace(asked.tiles, on_error="skip"))
    before = {t[:3]: t.sha256 for t in iter_tiles(asked.build_dir)}
    scan(changed.selection, changed.build_dir)
    assert {t[:3]: t.sha256 for t in iter_tiles(changed.build_dir)} != before


def test_a_larger_area_lists_a_container_again_whose_digest_is_known(tmp_path, scanned):
    asked, _, _ = scanned
    small = {at: data for at, data in TILES.items() if at[1] < 17_004}
    smaller = replace(asked, area=replace(asked.area, bbox=bbox_of(small)))
    scan(smaller.selection, smaller.build_dir)
    assert scan(asked.selection, asked.build_dir).count == 64


def test_a_source_that_moves_while_it_is_read_is_said_and_the_next_scan_converges(scanned, monkeypatch, caplog):
    asked, path, kind = scanned
    at = (Z, 17_003, 11_004)
    write_again(path, kind, {**TILES, at: image(1)})

    def moves():
        (path.parent / "next").mkdir()
        WRITERS[kind](path.parent / "next" / path.name, {**TILES, at: image(2)}).replace(path)

    looked.before_inspection(monkeypatch, looked.once(moves))
    scan(asked.selection, asked.build_dir)
    said = [record for record in caplog.records if "tiles.moving" in str(record.__dict__)]
    assert len(said) == 1
    assert "changed while it was read" in str(said[0].__dict__)
    scan(asked.selection, asked.build_dir)
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        assert {t[:3]: reader.read(t) for t in iter_tiles(asked.build_dir)} == {**TILES, at: image(2)}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", ["xyz", *WRITERS])
def test_what_a_killed_first_scan_committed_is_not_judged_again(tmp_path, kind, monkeypatch):
    path = write_xyz(tmp_path / "sat", TILES) if kind == "xyz" else WRITERS[kind](tmp_path / f"sat.{kind}", TILES)
    age(path)
    asked = flight(tmp_path, path, bbox=bbox_of(TILES))
    monkeypatch.setattr(writing, "COMMIT_TILES", 10)
    monkeypatch.setattr("provisioning.catalogue.scanning.directories.RACY_NS", -(10**12))
    seen = []

    def kill(tiles):
        seen.extend(tiles)
        if len(seen) > 45:
            raise Killed

    with monkeypatch.context() as patched:
        looked.before_inspection(patched, kill)
        with pytest.raises(Killed):
            scan(asked.selection, asked.build_dir)
    with sqlite3.connect(asked.build_dir / "catalogue.sqlite") as db:
        (kept,) = db.execute("SELECT count(*) FROM tile").fetchone()
    db.close()
    assert kept >= 30
    looks = looked.Looks(monkeypatch)
    assert scan(asked.selection, asked.build_dir).count == 64
    assert len(looks.inspected) == 64 - kept
    if kind == "xyz":
        assert len(looks.asked) == 64 - kept  # a file's stat tells that it is the one that was inspected


def test_a_new_address_among_thousands_has_the_place_checked(tmp_path, monkeypatch):
    monkeypatch.setattr("provisioning.sources.source.RACY_NS", -(10**12))
    tiles = dict.fromkeys(block(48, 48), image(1)) | {(Z, 17_000 + n, 11_000 + 7 * n % 48): image(n) for n in range(48)}
    new = (Z, 17_020, 11_020)
    path = write_reference_pmtiles(tmp_path / "sat.pmtiles", {at: tiles[at] for at in tiles if at != new})
    asked = flight(tmp_path, path, bbox=bbox_of(tiles), blank="keep")
    scan(asked.selection, asked.build_dir)
    checked = []
    monkeypatch.setattr("provisioning.catalogue.scanning.place.check_place", checked.append)
    write_again(path, "pmtiles", tiles)
    assert (scan(asked.selection, asked.build_dir).added, len(checked)) == (1, 1)


def at_random(tiles, random):
    """Change some tiles: to others, to one of the others, to nearly that, to no image; or remove them, or add some."""
    changed = dict(tiles)
    for at in random.sample(sorted(TILES), 12):
        like = random.choice(sorted(tiles)[:2])
        made = random.choice(
            [image(random.randrange(10**6)), tiles[like], tiles[like] + b"\0", image(1, colour=9), b"no image", None]
        )
        changed.pop(at, None)
        if made:
            changed[at] = made
    return changed


def all_found(asked):
    """Return what a scan finds of the corpus and of each tile."""
    corpus = scan(asked.selection, asked.build_dir)
    with sqlite3.connect(asked.build_dir / "catalogue.sqlite") as db:
        rows = db.execute(
            "SELECT z, x, y, sha256, bytes, day, empty_ppm, texture_centi, fault, look, state FROM tile"
        ).fetchall()
        repeated = db.execute("SELECT value FROM meta WHERE name = 'repeated'").fetchall()
    db.close()
    return replace(corpus, added=0, removed=0, changed=0), rows, repeated


@pytest.mark.parametrize("seed", range(3))
def test_after_any_changes_all_is_found_that_a_first_scan_finds(scanned, tmp_path, seed):
    asked, path, kind = scanned
    asked = replace(asked, tiles=replace(asked.tiles, on_error="skip", blank="hole"))
    random, tiles = Random(seed), TILES
    for n in range(4):
        tiles = at_random(tiles, random)
        write_again(path, kind, tiles)
        found = all_found(asked)
        assert found == all_found(replace(asked, root=tmp_path / f"clean-{n}" / "cache"))
    assert found[0].skipped
    assert found[2], "no picture repeats: this shows less than it should"


@pytest.mark.parametrize(("kept", "scattered", "listed"), [(0, 0, 7), (1 << 18, 0, 20), (0, 1 << 10, 1024)])
def test_what_is_held_of_the_corpus_decides_nothing(scanned, tmp_path, monkeypatch, kept, scattered, listed):
    asked, path, kind = scanned
    monkeypatch.setattr(containers, "MOST_KEPT", kept)
    monkeypatch.setattr(containers, "SCATTERED", scattered)
    monkeypatch.setattr(containers, "WINDOW_BITS", 2)
    monkeypatch.setattr(listing, "MOST_LISTED", listed)
    asked = replace(asked, tiles=replace(asked.tiles, on_error="skip", blank="hole"))
    tiles = at_random(TILES, Random(4))
    write_again(path, kind, tiles)
    assert all_found(asked) == all_found(replace(asked, root=tmp_path / "clean" / "cache"))


def test_a_column_that_was_recorded_and_not_chosen_again_is_not_taken_for_the_corpus(scanned, monkeypatch):
    asked, path, kind = scanned
    first, at = path.read_bytes(), (Z, 17_003, 11_004)
    write_again(path, kind, {**TILES, at: image(999)})
    with monkeypatch.context() as patched:
        patched.setattr("provisioning.catalogue.scanning.scan._concluded", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            scan(asked.selection, asked.build_dir)
    path.write_bytes(first)
    scan(asked.selection, asked.build_dir)
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        assert {t[:3]: reader.read(t) for t in iter_tiles(asked.build_dir)} == TILES


def test_only_the_bytes_of_changed_tiles_are_asked_for(scanned, monkeypatch):
    asked, path, kind = scanned
    at = (Z, 17_003, 11_004)
    write_again(path, kind, {**TILES, at: image(999)})
    asked_for = []
    real = listing.Lister._with_bytes
    monkeypatch.setattr(listing.Lister, "_with_bytes", lambda *a: (asked_for.append(len(a[2])), real(*a))[1])
    scan(asked.selection, asked.build_dir)
    assert sum(asked_for) == 1
