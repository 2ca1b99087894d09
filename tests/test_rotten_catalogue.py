"""A byte that rots in a catalogue that stays a valid database never decides what is signed, and is made again."""

import sqlite3

import pytest

from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import TileError
from provisioning.catalogue import (
    corpus_table,
    count_changed,
    dated_places,
    distinct_digests,
    iter_placed,
    iter_tiles,
    last_corpus,
    scan,
    source_rows,
)
from provisioning.catalogue.database import catalogue_path
from provisioning.config import TileSource
from tests import looked
from tests.tilesets import Z, age, bbox_of, block, flight, image, scanned, write_mbtiles, write_xyz


@pytest.fixture(params=["xyz", "mbtiles"])
def asked(tmp_path, request):
    tiles = block(4, 4)
    store = write_xyz(tmp_path / "sat", tiles) if request.param == "xyz" else write_mbtiles(tmp_path / "sat.db", tiles)
    age(store)
    source = TileSource(path=store, name="sat", captured="2024-05-06")
    asked = flight(tmp_path, source, bbox=bbox_of(tiles))
    scan(asked.selection, asked.build_dir)
    (tmp_path / "cache").mkdir(exist_ok=True)
    return asked


def spoil(asked, statement: str) -> None:
    with sqlite3.connect(catalogue_path(asked.build_dir)) as db:
        assert db.execute(statement).rowcount
    db.close()


def change_a_tile(asked) -> None:
    """Change a tile of the third column, so that the corpus is summed up again."""
    at, path = (Z, 17_002, 11_000), asked.tiles.source[0].path
    if path.is_dir():
        (path / f"{Z}/{at[1]}/{at[2]}.png").write_bytes(image(777))
        return
    with sqlite3.connect(path) as db:
        row = ((1 << Z) - 1 - at[2],)
        db.execute("UPDATE tiles SET tile_data = ? WHERE tile_column = 17002 AND tile_row = ?", (image(777), *row))
    db.close()


FIRST = "z = 15 AND x = 17000"
ROT = {
    "digest of a row": f"UPDATE tile SET sha256 = zeroblob(32) WHERE {FIRST} AND y = 11001",
    "one bit of a digest": f"UPDATE tile SET sha256 = CAST(x'ff' || substr(sha256, 2) AS BLOB) WHERE {FIRST} AND y = 11001",
    "no digest": f"UPDATE tile SET sha256 = NULL WHERE {FIRST} AND y = 11001",
    "emptiness": f"UPDATE tile SET empty_ppm = 999999 WHERE {FIRST} AND y = 11001",
    "fault": f"UPDATE tile SET fault = 'rotten' WHERE {FIRST} AND y = 11001",
    "date of a row": f"UPDATE tile SET day = day - 4000 WHERE {FIRST} AND y = 11001",
    "size": f"UPDATE tile SET bytes = bytes + 1 WHERE {FIRST} AND y = 11001",
    "check value": f"UPDATE tile SET chk = chk + 1 WHERE {FIRST} AND y = 11001",
    "row number": f"UPDATE tile SET y = 11009 WHERE {FIRST} AND y = 11001",
    "coverage lines": f"UPDATE col SET lines = CAST(replace(lines, 'a', 'b') AS BLOB) WHERE {FIRST}",
    "count": f"UPDATE col SET count = count + 1 WHERE {FIRST}",
    "age": f"UPDATE col SET oldest = oldest - 4000 WHERE {FIRST}",
    "runs": f"UPDATE col SET runs = zeroblob(8) WHERE {FIRST}",
    "packed column": f"UPDATE taken SET rows = zeroblob(length(rows)) WHERE {FIRST}",
    "a packed bit": f"UPDATE taken SET rows = CAST(x'00' || substr(rows, 2) AS BLOB) WHERE {FIRST}",
    "type of a column": f"UPDATE taken SET rows = x'ff' || substr(rows, 2) WHERE {FIRST}",
    "type of lines": f"UPDATE col SET lines = x'ff' || substr(lines, 2) WHERE {FIRST}",
    "type of a digest": f"UPDATE tile SET sha256 = x'ff' || substr(sha256, 2) WHERE {FIRST} AND y = 11001",
    "figures of the corpus": "UPDATE meta SET value = replace(value, '16', '17') WHERE name = 'corpus'",
    "area": "UPDATE meta SET value = replace(value, '17', '18') WHERE name = 'area'",
}


@pytest.mark.parametrize("rot", ROT)
def test_what_rots_is_not_in_the_next_corpus(asked, rot, tmp_path, caplog):
    spoil(asked, ROT[rot])
    in_a_row = ROT[rot].startswith("UPDATE tile")
    if in_a_row:
        spoil(asked, f"UPDATE col SET dirty = 1 WHERE {FIRST}")  # the row is used again
        spoil(asked, "DELETE FROM meta WHERE name = 'corpus'")
    change_a_tile(asked)
    found = scan(asked.selection, asked.build_dir)
    clean = scanned(flight(tmp_path / "clean", asked.tiles.source[0], bbox=asked.area.bbox))
    assert (found.coverage_sha256, found.count, found.bytes, found.oldest_capture, dict(found.per_zoom)) == (
        clean.coverage_sha256, clean.count, clean.bytes, clean.oldest_capture, dict(clean.per_zoom),
    )  # fmt: skip
    said = sum("catalogue.damaged" in str(record.__dict__) for record in caplog.records)
    assert said == 1
    caplog.clear()
    assert scan(asked.selection, asked.build_dir).coverage_sha256 == clean.coverage_sha256
    assert not [record for record in caplog.records if "catalogue.damaged" in str(record.__dict__)]


def test_a_damaged_row_is_read_again_and_no_other_is(asked, monkeypatch):
    looks = looked.Looks(monkeypatch)
    spoil(asked, ROT["digest of a row"])
    spoil(asked, f"UPDATE col SET dirty = 1 WHERE {FIRST}")
    spoil(asked, "DELETE FROM meta WHERE name = 'corpus'")
    assert scan(asked.selection, asked.build_dir).count == 16
    assert looks.inspected == [(Z, 17_000, 11_001)]


READERS = {
    "corpus_table": lambda asked: corpus_table(asked.build_dir),
    "iter_placed": lambda asked: list(iter_placed(asked.build_dir)),
    "iter_tiles": lambda asked: list(iter_tiles(asked.build_dir)),
    "distinct_digests": lambda asked: list(distinct_digests(asked.build_dir)),
    "dated_places": lambda asked: list(dated_places(asked.build_dir, Z)),
    "source_rows": lambda asked: list(source_rows(asked.build_dir)),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_gives_a_rotten_column_and_the_next_scan_makes_it_again(asked, reader):
    expected = READERS[reader](asked)
    spoil(asked, ROT["a packed bit"])
    with build_lock(asked.root), pytest.raises(TileError, match="catalogue is damaged: column 15/17000"):
        READERS[reader](asked)
    assert last_corpus(asked.selection, asked.build_dir) is None
    scan(asked.selection, asked.build_dir)
    assert str(READERS[reader](asked)) == str(expected)


def test_who_does_not_hold_the_lock_writes_nothing(asked):
    spoil(asked, ROT["a packed bit"])
    with pytest.raises(TileError, match="damaged"):
        corpus_table(asked.build_dir)
    assert last_corpus(asked.selection, asked.build_dir) is not None
    assert count_changed(asked.build_dir, since=0) == 16


def test_dates_that_are_set_anew_do_not_make_a_rotten_row_right(asked, tmp_path):
    from dataclasses import replace

    spoil(asked, ROT["digest of a row"])
    source = replace(asked.tiles.source[0], captured="2025-01-01")
    again = replace(asked, tiles=replace(asked.tiles, source=(source,)))
    assert (
        scan(again.selection, again.build_dir).coverage_sha256
        == scanned(flight(tmp_path / "clean", source, bbox=asked.area.bbox)).coverage_sha256
    )
