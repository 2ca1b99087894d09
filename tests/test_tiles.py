"""The corpus: which tiles of the stores it has, in which order, and under which digest."""

import io
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from provisioning.base.errors import EmptyCorpusError, TileError
from provisioning.base.geometry import geo
from provisioning.catalogue import corpus_table, flat_ids, iter_tiles, last_corpus, open_reader, scan
from provisioning.catalogue.inventory import take_inventory
from provisioning.catalogue.packing import pack_ids
from provisioning.catalogue.scanning.inspecting import Inspector
from provisioning.config import Area, AreaPart, TileSource
from provisioning.flight.manifest import coverage_sha256
from provisioning.sources.pixels.image import inspect_tile
from tests.properties import examples
from tests.tilesets import (
    HALF,
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


@pytest.fixture
def tiles():
    return block()


def test_the_corpus_is_what_lies_in_the_area(tmp_path, tiles):
    inside = {at: data for at, data in tiles.items() if at[1] <= X + 1}
    store = write_xyz(tmp_path / "sat", tiles | block(1, 1, z=Z - 1, x=X // 2, y=Y // 2, seed=50))
    corpus = scanned(flight(tmp_path, store, bbox=bbox_of(inside)))
    assert (corpus.count, corpus.per_zoom[Z].present, corpus.per_zoom[Z].expected) == (6, 6, 6)
    assert corpus.bytes == sum(map(len, inside.values()))
    assert corpus.added == 6


def test_tiles_come_by_zoom_latitude_longitude_source(tmp_path, tiles):
    coarse = block(2, 2, z=Z - 1, x=X // 2, y=Y // 2, seed=50)
    stores = [TileSource(path=write_xyz(tmp_path / n, tiles | coarse), name=n) for n in ("b", "a")]
    asked = flight(tmp_path, *stores, bbox=bbox_of(tiles), zooms=(Z, Z - 1))
    scan(asked.selection, asked.build_dir)
    found = list(iter_tiles(asked.build_dir))
    south_first = [(t.z, -t.y, t.x, t.source) for t in found]
    assert south_first == sorted(south_first)
    assert Counter(t.source for t in found) == {"a": 13, "b": 13}


def test_the_digest_is_the_manifests_formula(tmp_path, tiles):
    store = TileSource(path=write_xyz(tmp_path / "x", tiles), name="100%sat")
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    assert scan(asked.selection, asked.build_dir).coverage_sha256 == coverage_sha256(iter_tiles(asked.build_dir))


def test_tiles_of_one_column_may_end_differently(tmp_path, tiles):
    store = write_xyz(tmp_path / "x", tiles)
    for path in sorted(store.rglob("*.png"))[::2]:
        path.rename(path.with_suffix(".PNG"))
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    scan(asked.selection, asked.build_dir)
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        assert {(t.z, t.x, t.y): reader.read(t) for t in iter_tiles(asked.build_dir)} == tiles


def test_ids_decode_to_the_tiles_in_ascending_order(tmp_path, tiles):
    stores = [TileSource(path=write_xyz(tmp_path / n, tiles), name=n) for n in ("b", "a")]
    asked = flight(tmp_path, *stores, bbox=bbox_of(tiles))
    corpus = scan(asked.selection, asked.build_dir)
    ids, digests = corpus_table(asked.build_dir)
    assert (np.diff(ids) > 0).all()
    decoded = {(*geo.unpack_id(int(i))[:3], corpus.sources[geo.unpack_id(int(i)).source]): d.tobytes().hex()
               for i, d in zip(ids, digests, strict=True)}  # fmt: skip
    assert decoded == {(t.z, t.x, t.y, t.source): t.sha256 for t in iter_tiles(asked.build_dir)}


def test_one_set_in_any_store_gives_one_digest(tmp_path, tiles):
    stores = [
        write_xyz(tmp_path / "xyz", tiles),
        write_xyz(tmp_path / "jpg", tiles, suffix=".jpg"),
        write_mbtiles(tmp_path / "a.mbtiles", tiles),
        write_reference_pmtiles(tmp_path / "a.pmtiles", tiles),
        TileSource(path=write_xyz(tmp_path / "tms", tiles, tms=True), name="sat", scheme="tms"),
        TileSource(path=write_xyz(tmp_path / "zyx", tiles, pattern="{z}/{y}/{x}"), name="sat", pattern="{z}/{y}/{x}"),
        TileSource(path=write_xyz(tmp_path / "flat", tiles, pattern="L{z}_C{x}_R{y}"), name="sat",
                   pattern="L{z}_C{x}_R{y}"),
        TileSource(path=write_xyz(tmp_path / "tms2", tiles, pattern="{z}/{y}/{x}", tms=True), name="sat", scheme="tms",
                   pattern="{z}/{y}/{x}"),
    ]  # fmt: skip
    digests = {scanned(flight(tmp_path / str(n), s, bbox=bbox_of(tiles))).coverage_sha256 for n, s in enumerate(stores)}
    assert len(digests) == 1


@examples(0.15)
@given(st.randoms(use_true_random=False), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_order_of_a_store_changes_nothing(tmp_path_factory, rng: random.Random, places):
    tmp_path = tmp_path_factory.mktemp("order")
    tiles = {(Z, X + i, Y + j): image(7 * i + j) for i, j in places}
    shuffled = list(tiles.items())
    rng.shuffle(shuffled)
    one = write_mbtiles(tmp_path / "1.mbtiles", tiles)
    two = write_mbtiles(tmp_path / "2.mbtiles", dict(shuffled), index=False)
    box = bbox_of(tiles)
    first, second = scanned(flight(tmp_path / "1", one, bbox=box)), scanned(flight(tmp_path / "2", two, bbox=box))
    assert first.coverage_sha256 == second.coverage_sha256
    assert first.per_zoom == second.per_zoom


def test_where_sources_overlap_the_highest_priority_is_taken(tmp_path, tiles):
    fine = {at: image(90 + n) for n, at in enumerate(list(tiles)[:4])}
    low = TileSource(path=write_xyz(tmp_path / "low", tiles), name="low")
    high = TileSource(path=write_xyz(tmp_path / "high", fine), name="high", priority=5)
    asked = flight(tmp_path, low, high, bbox=bbox_of(tiles))
    assert scan(asked.selection, asked.build_dir).count == 9
    assert Counter(t.source for t in iter_tiles(asked.build_dir)) == {"high": 4, "low": 5}


def test_priority_may_differ_at_single_zooms(tmp_path, tiles):
    coarse = block(2, 2, z=Z - 1, x=X // 2, y=Y // 2, seed=50)
    both = tiles | coarse
    low = TileSource(path=write_xyz(tmp_path / "low", both), name="low", zoom_priority={Z - 1: 9})
    high = TileSource(path=write_xyz(tmp_path / "high", both), name="high", priority=5)
    asked = flight(tmp_path, low, high, bbox=bbox_of(tiles), zooms=(Z - 1, Z))
    scan(asked.selection, asked.build_dir)
    assert {(t.z, t.source) for t in iter_tiles(asked.build_dir)} == {(Z - 1, "low"), (Z, "high")}


def test_a_source_gives_only_the_zooms_asked_of_it(tmp_path, tiles):
    coarse = block(2, 2, z=Z - 1, x=X // 2, y=Y // 2, seed=50)
    source = TileSource(path=write_xyz(tmp_path / "a", tiles | coarse), name="a", zooms=(Z,))
    corpus = scanned(flight(tmp_path, source, bbox=bbox_of(tiles), zooms=(Z - 1, Z)))
    assert (corpus.per_zoom[Z - 1].present, corpus.per_zoom[Z].present) == (0, 9)


@pytest.mark.parametrize("empty", [image(1, alpha=0), image(1, colour=(0, 0, 0))])
def test_an_empty_tile_is_no_tile_and_the_next_source_has_its_turn(tmp_path, tiles, empty):
    first = next(iter(tiles))
    high = TileSource(path=write_xyz(tmp_path / "high", tiles | {first: empty}), name="high", priority=1)
    low = TileSource(path=write_xyz(tmp_path / "low", {first: image(77)}), name="low")
    asked = flight(tmp_path, high, low, bbox=bbox_of(tiles), nodata=(0,), max_empty=HALF)
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.count, corpus.skipped) == (9, ())
    assert [t.source for t in iter_tiles(asked.build_dir) if t[:3] == first] == ["low"]
    assert {(s.source, s.taken, s.empty) for s in take_inventory(asked.selection, asked.build_dir).sources} == {
        ("high", 8, 1),
        ("low", 1, 0),
    }


def test_the_allowed_share_of_emptiness_is_changed_without_reading_a_tile(tmp_path, tiles, monkeypatch):
    half = np.dstack((np.random.default_rng(7).integers(0, 256, (8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)))
    half[:, :3, 3] = 255
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(half).save(out, "PNG")
    store = write_xyz(tmp_path / "sat", tiles | {next(iter(tiles)): out.getvalue()})
    asked = flight(tmp_path, store, bbox=bbox_of(tiles), max_empty=HALF)
    import time

    time.sleep(0.05)
    assert scan(asked.selection, asked.build_dir).count == 8
    monkeypatch.setattr(Inspector, "_some", lambda *_: pytest.fail("a tile was read"))
    more = replace(asked, tiles=replace(asked.tiles, max_empty=HALF + HALF / 2))
    assert (scan(more.selection, more.build_dir).count, scan(asked.selection, asked.build_dir).count) == (9, 8)


def test_a_bad_tile_fails_the_build_by_name(tmp_path, tiles):
    broken = list(tiles)[4]
    store = write_xyz(tmp_path / "sat", tiles | {broken: b"\x89PNG\r\n\x1a\nnothing"})
    with pytest.raises(TileError, match="1 tile cannot be used") as caught:
        scanned(flight(tmp_path, store, bbox=bbox_of(tiles)))
    assert "sat {}/{}/{}".format(*broken) in caught.value.facts


def test_a_bad_tile_is_skipped_and_listed_when_asked(tmp_path, tiles):
    broken = list(tiles)[4]
    store = write_xyz(tmp_path / "sat", tiles | {broken: b"<html>404</html>"})
    asked = flight(tmp_path, store, bbox=bbox_of(tiles), on_error="skip")
    for _ in range(2):
        corpus = scan(asked.selection, asked.build_dir)
        assert corpus.count == 8
        assert [(s[:3], s.source) for s in corpus.skipped] == [(broken, "sat")]
        assert "text" in corpus.skipped[0].reason
    assert last_corpus(asked.selection, asked.build_dir).skipped == corpus.skipped


def test_a_bad_tile_fails_again_and_passes_once_it_is_replaced(tmp_path, tiles):
    broken = list(tiles)[4]
    store = write_xyz(tmp_path / "sat", tiles | {broken: b"nothing"})
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    for _ in range(2):
        with pytest.raises(TileError):
            scan(asked.selection, asked.build_dir)
    write_xyz(tmp_path / "sat", {broken: tiles[broken]})
    assert scan(asked.selection, asked.build_dir).count == 9


def test_no_tile_in_the_area_says_what_to_do(tmp_path, tiles):
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(block(x=5)))
    with pytest.raises(EmptyCorpusError) as caught:
        scan(asked.selection, asked.build_dir)
    assert "add tiles" in caught.value.next_step


def test_parts_have_their_own_zooms(tmp_path, tiles):
    coarse = block(4, 4, z=Z - 1, x=X // 2, y=Y // 2, seed=50)
    store = write_xyz(tmp_path / "sat", tiles | coarse)
    wide = AreaPart(bbox=bbox_of(coarse), zooms=(Z - 1,))
    area = Area(bbox=bbox_of(tiles), zooms=(Z,), part=(wide,))
    corpus = scanned(flight(tmp_path, store, area=area))
    assert {z: tuple(c[:2]) for z, c in corpus.per_zoom.items()} == {Z - 1: (16, 16), Z: (9, 9)}
    assert corpus.bbox == bbox_of(coarse)


def test_an_area_over_the_antimeridian_is_two_columns_of_tiles(tmp_path):
    top = (1 << Z) - 1
    tiles = {(Z, top, Y): image(1), (Z, 0, Y): image(2), (Z, 5, Y): image(3)}
    store = write_xyz(tmp_path / "sat", tiles)
    west, east = geo.tile_bounds_e7(Z, top, Y), geo.tile_bounds_e7(Z, 0, Y)
    box = geo.BBox(west.west, west.south, east.east, east.north)
    corpus = scanned(flight(tmp_path, store, bbox=box))
    assert (corpus.count, corpus.per_zoom[Z].expected, corpus.bbox) == (2, 2, box)


def test_tiles_are_read_from_many_threads_as_they_were_catalogued(tmp_path, tiles):
    for n, store in enumerate((write_xyz(tmp_path / "x", tiles), write_mbtiles(tmp_path / "m.mbtiles", tiles),
                               write_reference_pmtiles(tmp_path / "p.pmtiles", tiles))):  # fmt: skip
        asked = flight(tmp_path / str(n), store, bbox=bbox_of(tiles))
        scan(asked.selection, asked.build_dir)
        with open_reader(asked.tiles.source, asked.build_dir) as reader, ThreadPoolExecutor(4) as pool:
            wanted = list(iter_tiles(asked.build_dir)) * 10
            assert list(pool.map(reader.read, wanted)) == [tiles[t[:3]] for t in wanted]


def test_a_tile_that_changed_since_the_scan_is_not_read(tmp_path, tiles):
    store = write_xyz(tmp_path / "sat", tiles)
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    scan(asked.selection, asked.build_dir)
    first, second, *_ = iter_tiles(asked.build_dir)
    (store / f"{first.z}/{first.x}/{first.y}.png").write_bytes(image(999))
    os.unlink(store / f"{second.z}/{second.x}/{second.y}.png")
    with open_reader(asked.tiles.source, asked.build_dir) as reader:
        with pytest.raises(TileError, match="has changed"):
            reader.read(first)
        with pytest.raises(TileError, match="is gone"):
            reader.read(second)


@pytest.mark.parametrize(
    ("name", "count"), [("oam_banepa", 63), pytest.param("oam_kampala", 147, marks=pytest.mark.slow)]
)
def test_real_imagery_is_a_corpus(tmp_path, shared_data, name, count):
    """One tile of Banepa is white to 58 percent: the edge of the survey."""
    from provisioning.catalogue.surveying import survey

    held = survey(shared_data / "tiles" / name)
    corpus = scanned(flight(tmp_path, shared_data / "tiles" / name, bbox=held.bbox, zooms=tuple(held.per_zoom)))
    assert (corpus.count, corpus.skipped) == (count, ())
    assert {z: c[:2] for z, c in corpus.per_zoom.items()} == {z: c[:2] for z, c in held.per_zoom.items()}


def png(pixels):
    stored = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stored, "PNG")
    return stored.getvalue()


def test_texture_is_the_spread_of_the_grey_levels_of_what_is_seen():
    rng = np.random.default_rng(0)
    opaque = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    seen = rng.integers(0, 2, (8, 8), dtype=bool)
    half = np.dstack([opaque, np.where(seen, 255, 0).astype(np.uint8)])
    grey = opaque[::2, ::2].mean(axis=2)
    for pixels, expected in (
        (opaque, grey.std()),
        (half, grey[seen[::2, ::2]].std()),
        (np.full((8, 8, 3), 90, np.uint8), 0),
        (np.zeros((8, 8, 4), np.uint8), 0),
    ):
        assert inspect_tile(png(pixels), max_pixels=64, nodata=()).texture_centi == int(100 * expected)


def test_tiles_without_texture_are_remembered_with_the_corpus(tmp_path):
    column = block(2, 2)
    column[Z, X, Y] = png(np.full((8, 8, 3), 90, np.uint8))
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", column), bbox=bbox_of(column), blank="keep")
    scan(asked.selection, asked.build_dir)
    assert flat_ids(asked.build_dir, 4.0).tolist() == [geo.pack_id(Z, X, Y, 0, 0)]


@given(
    st.lists(st.tuples(st.integers(0, 24), st.integers(0, 2**24 - 1), st.integers(0, 2**24 - 1), st.integers(0, 255)))
)
def test_many_ids_are_those_of_one_by_one(tiles):
    tiles = [(z, x >> 24 - z, y >> 24 - z, source) for z, x, y, source in tiles]
    columns = np.array(tiles, np.int64).reshape(-1, 4).T
    assert pack_ids(*columns).tolist() == [geo.pack_id(*tile, 0) for tile in tiles]
