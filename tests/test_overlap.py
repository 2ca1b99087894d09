"""Promises of index.overlap: cuts half a tile apart, from pixels that are there, incremental as tiles are."""

from __future__ import annotations

import io
from dataclasses import replace

import mercantile
import numpy as np
import pytest
from PIL import Image

from provisioning.base.errors import IndexingError
from provisioning.base.geometry import geo
from provisioning.catalogue import last_corpus, open_reader, pieces, pieces_table, scan, tile_of
from provisioning.config import Index, TileSource
from provisioning.config.schema import BBox
from provisioning.descriptors import is_described
from provisioning.descriptors.dask import remote
from provisioning.descriptors.pipeline.loader import TileLoader, Unit
from provisioning.descriptors.store.lookup import count_lacking
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.index import choose, index_facts, overlap_of
from provisioning.index.ids import Rows, rows_of
from provisioning.quality.gates import Requirements
from provisioning.quality.gates.recognition import around
from provisioning.quality.gates.subject import Subject
from provisioning.quality.locate.places import Places
from provisioning.sources.pixels.cutting import cut
from tests.describing import describe, scanned_flight

KEYS = tuple(f"{n:064x}" for n in range(4))
WORLD = BBox(-1_800_000_000, -850_000_000, 1_800_000_000, 850_000_000)
SIDE = 16


def picture(seed, side=SIDE):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def write_tile(root, z, x, y, *, source="sat", seed=None, side=SIDE):
    path = root / source / str(z) / str(x) / f"{y}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture((z, x, y) if seed is None else seed, side).save(path)


def scanned(root, *sources, zooms=(6,)):
    """Return a flight over what lies in `root`, just scanned."""
    return scanned_flight(root, [TileSource(path=root / n, name=n) for n in sources or ("sat",)], WORLD, zooms)


class Whole:
    """A backend whose descriptor is the picture itself: what was described can be read from the store."""

    name, size, dimension = "onnxruntime", (SIDE, SIDE), SIDE * SIDE * 3

    def load(self, data, *, custom_ops=None):
        return self

    def clone(self):
        return self

    def __call__(self, images):
        return images.reshape(len(images), -1).astype(np.float32)


def described(flight, *, overlap=2, keys=KEYS[:1]):
    return describe(flight, engine=b"", backend=Whole(), keys=keys, overlap=overlap)


def addresses(flight):
    """Return z, x, y and number of the cut of everything that is described."""
    ids, _ = pieces_table(flight.build_dir, overlap=2)
    assert (np.diff(ids) > 0).all()
    return {(found.z, found.x, found.y, found.cut) for found in (geo.unpack_id(int(each), 1) for each in ids)}


def stored(flight, key=KEYS[0]):
    """Return the pictures that were described by z, x, y and cut."""
    ids, keys = pieces_table(flight.build_dir, overlap=2)
    with DescriptorStore(flight.descriptor_store, key, "float32") as store:
        rows = store.gather([each.tobytes() for each in keys])
    found = (geo.unpack_id(int(each), 1) for each in ids)
    return {(f.z, f.x, f.y, f.cut): row.reshape(SIDE, SIDE, 3) for f, row in zip(found, rows, strict=True)}


# Which cuts there are


def test_a_square_of_tiles_has_the_cuts_between_its_tiles_and_none_beyond_its_rim(tmp_path):
    for x in range(3):
        for y in range(3):
            write_tile(tmp_path, 6, 30 + x, 20 + y)
    found = addresses(scanned(tmp_path))
    assert found == {(6, 30 + x, 20 + y, n) for n, (e, s) in enumerate(geo.CUTS)
                     for x in range(3 - e) for y in range(3 - s)}  # fmt: skip
    assert len(found) == 9 + 6 + 6 + 4


def test_a_missing_tile_takes_its_eight_cuts_along(tmp_path):
    for x in range(3):
        for y in range(3):
            if (x, y) != (1, 1):
                write_tile(tmp_path, 6, 30 + x, 20 + y)
    assert len(addresses(scanned(tmp_path))) == 25 - 9


def test_nothing_is_cut_across_two_sources_or_two_zooms(tmp_path):
    write_tile(tmp_path, 6, 30, 20)
    write_tile(tmp_path, 6, 31, 20, source="drone")
    write_tile(tmp_path, 5, 15, 10)
    write_tile(tmp_path, 5, 16, 10)
    found = addresses(scanned(tmp_path, "sat", "drone", zooms=(5, 6)))
    assert found == {(6, 30, 20, 0), (6, 31, 20, 0), (5, 15, 10, 0), (5, 16, 10, 0), (5, 15, 10, 1)}


def test_two_sources_of_one_place_are_cut_each_by_itself(tmp_path):
    for source in ("sat", "drone"):
        for x in (30, 31):
            write_tile(tmp_path, 6, x, 20, source=source, seed=len(source) * 100 + x)
    ids, _ = pieces_table(scanned(tmp_path, "sat", "drone").build_dir, overlap=2)
    assert [geo.unpack_id(int(each), 1)[3:] for each in ids] == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1), (0, 0, 0), (1, 0, 0)]  # fmt: skip


def test_the_world_goes_on_across_the_antimeridian_and_ends_at_the_last_row(tmp_path):
    for x, y in ((63, 62), (0, 62), (63, 63), (0, 63), (31, 0)):
        write_tile(tmp_path, 6, x, y)
    assert addresses(scanned(tmp_path)) == {
        *((6, x, y, 0) for x, y in ((63, 62), (0, 62), (63, 63), (0, 63), (31, 0))),
        (6, 63, 62, 1), (6, 63, 63, 1), (6, 63, 62, 2), (6, 0, 62, 2), (6, 63, 62, 3),
    }  # fmt: skip


def test_the_one_tile_of_zoom_0_goes_around_the_world(tmp_path):
    write_tile(tmp_path, 0, 0, 0)
    flight = scanned(tmp_path, zooms=(0,))
    described(flight)
    tile, around = (stored(flight)[0, 0, 0, number] for number in (0, 1))
    np.testing.assert_array_equal(around, np.roll(tile, SIDE // 2, axis=1))


# Where they lie


@pytest.mark.parametrize(
    ("z", "x", "y"), [(6, 30, 20), (14, 9000, 5000), (6, 63, 1), (1, 1, 0), (19, 300_000, 262_143)]
)
@pytest.mark.parametrize("number", range(4))
def test_the_centre_of_a_cut_is_the_corner_of_mercantiles_tile(z, x, y, number):
    """The tile one zoom deeper to the south-east of the centre has its north-western corner there."""
    east, south = geo.CUTS[number]
    halves = 2 << z
    corner = mercantile.ul((2 * x + 1 + east) % halves, 2 * y + 1 + south, z + 1)
    centre = geo.PackedId(z, x, y, 0, 0, number).centre
    assert (centre.lat_e7, centre.lon_e7) == (pytest.approx(corner.lat * 1e7, abs=0.51), pytest.approx(corner.lng * 1e7, abs=0.51))  # fmt: skip
    places = Places(np.array([geo.pack_id(z, x, y, 3, 2, cut=number, rotations=5)], np.int64), 5)
    assert places.lat_deg[0] == pytest.approx(corner.lat, abs=1e-9)
    assert places.lon_deg[0] == pytest.approx(corner.lng, abs=1e-9)


def test_each_cut_is_indexed_at_every_heading(tmp_path):
    write_tile(tmp_path, 6, 30, 20)
    write_tile(tmp_path, 6, 31, 20)
    ids, keys = pieces_table(scanned(tmp_path).build_dir, overlap=2)
    rows = rows_of(ids, keys, rotations=16)
    found = [geo.unpack_id(int(each), 16) for each in rows.ids]
    assert [(each.x, each.cut, each.heading) for each in found] == [
        (x, number, heading) for x, number in ((30, 0), (30, 1), (31, 0)) for heading in range(16)
    ]
    assert rows.headings.tolist() == 3 * list(range(16))
    assert Places(rows.ids, 16).upright.sum() == 3


# What they show


@pytest.mark.parametrize("sides", [(256, 256, 256, 256), (255, 255, 255, 255), (512, 256, 512, 256)])
@pytest.mark.parametrize("number", range(4))
def test_a_cut_is_what_pillow_cuts_out_of_the_mosaic(number, sides):
    east, south = geo.CUTS[number]
    tiles = [picture(n, side) for n, side in enumerate(sides)][: (east + 1) * (south + 1)]
    side = max(tile.width for tile in tiles)
    mosaic = Image.new("RGB", (side * (east + 1), side * (south + 1)))
    for n, tile in enumerate(tiles):
        scaled = tile if tile.width == side else tile.resize((side, side), Image.Resampling.BILINEAR)
        mosaic.paste(scaled, (n % (east + 1) * side, n // (east + 1) * side))
    left, top = east * (side // 2), south * (side // 2)
    expected = mosaic.crop((left, top, left + side, top + side))
    found = cut([np.asarray(tile) for tile in tiles], number)
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert found.flags["C_CONTIGUOUS"]


def test_what_is_described_is_cut_from_the_tiles_that_lie_there(tmp_path):
    mosaic = np.zeros((3 * SIDE, 3 * SIDE, 3), np.float32)
    for x in range(3):
        for y in range(3):
            write_tile(tmp_path, 6, 30 + x, 20 + y)
            mosaic[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = np.asarray(picture((6, 30 + x, 20 + y)))
    flight = scanned(tmp_path)
    assert described(flight).computed == 25
    found = stored(flight)
    assert len(found) == 25
    for (_, x, y, number), seen in found.items():
        left, top = (x - 30) * SIDE + geo.CUTS[number][0] * SIDE // 2, (y - 20) * SIDE + geo.CUTS[number][1] * SIDE // 2
        np.testing.assert_array_equal(seen, mosaic[top : top + SIDE, left : left + SIDE])


def test_a_tile_is_read_little_more_than_once(tmp_path):
    for x in range(12):
        for y in range(12):
            write_tile(tmp_path, 6, 10 + x, 10 + y)
    reads = []

    def read(tile):
        reads.append(tile)
        out = io.BytesIO()
        picture(0).save(out, "PNG")
        return out.getvalue()

    loader = TileLoader(read, (0,), (SIDE, SIDE), "resize", 1 << 20, cuts=True)
    loader._kept._most = 64 * SIDE * SIDE * 3  # a square of eight
    for piece in pieces(scanned(tmp_path).build_dir, overlap=2).new:
        loader.image(Unit(piece.tiles[0], 0, piece.cut, piece.tiles[1:]))
    assert len(set(reads)) == 144
    assert len(reads) <= 1.5 * 144
    assert loader._kept._bytes <= loader._kept._most


# Nothing twice


@pytest.fixture
def square(tmp_path):
    """Five by five tiles."""
    for x in range(5):
        for y in range(5):
            write_tile(tmp_path, 6, 30 + x, 20 + y)
    return scanned(tmp_path)


def test_a_changed_tile_is_described_again_with_the_eight_cuts_that_show_it(square):
    assert described(square).computed == 81
    write_tile(square.root, 6, 32, 22, seed=1)
    scan(square.selection, square.build_dir)
    assert count_lacking(square.build_dir, square.descriptor_store, KEYS[:1], overlap=2) == 9
    assert described(square).computed == 9
    write_tile(square.root, 6, 30, 20, seed=2)  # in the corner
    scan(square.selection, square.build_dir)
    assert described(square).computed == 4


def test_a_removed_tile_costs_nothing_and_an_added_one_itself_and_its_cuts(square):
    described(square)
    path = square.root / "sat/6/32/22.png"
    kept = path.read_bytes()
    path.unlink()
    scan(square.selection, square.build_dir)
    assert described(square).computed == 0
    assert len(addresses(square)) == 81 - 9
    path.write_bytes(kept)
    scan(square.selection, square.build_dir)
    assert described(square).computed == 0
    write_tile(square.root, 6, 35, 20)
    scan(square.selection, square.build_dir)
    assert described(square).computed == 2


def test_a_store_with_tiles_alone_lacks_only_the_cuts(square):
    coverage = last_corpus(square.selection, square.build_dir).coverage_sha256
    assert described(square, overlap=1).computed == 25
    assert not is_described(square.descriptor_store, KEYS[:1], coverage, overlap=2)
    assert count_lacking(square.build_dir, square.descriptor_store, KEYS[:1], overlap=2) == 56
    assert described(square).computed == 56
    assert is_described(square.descriptor_store, KEYS[:1], coverage, overlap=2)
    assert described(square, overlap=1).computed == 0


def test_only_what_shows_a_column_that_changed_is_looked_up(square, monkeypatch):
    described(square)
    seen, missing = [], DescriptorStore.missing
    monkeypatch.setattr(DescriptorStore, "missing", lambda s, keys: missing(s, seen.append(len(keys)) or keys))
    write_tile(square.root, 6, 30, 22, seed=1)  # in the first column
    scan(square.selection, square.build_dir)
    assert described(square).computed == 6
    assert sum(seen) == 5 + 5 + 4 + 4


def test_equal_tiles_have_one_descriptor_and_so_have_equal_cuts(tmp_path):
    for x in range(4):
        for y in range(4):
            write_tile(tmp_path, 6, 30 + x, 20 + y, seed=(x + y) % 2)
    assert described(scanned(tmp_path)).computed == 2 + 2 + 2 + 2


def test_without_cuts_everything_is_as_before(square):
    from provisioning.catalogue import corpus_table

    ids, keys = pieces_table(square.build_dir, overlap=1)
    before = corpus_table(square.build_dir)
    assert (ids == before[0]).all()
    assert (keys == before[1]).all()
    assert [piece.key for piece in pieces(square.build_dir, overlap=1).new] == [keys[n].tobytes() for n in np.argsort(ids_by_column(ids))]  # fmt: skip


def ids_by_column(ids):
    found = [geo.unpack_id(int(each)) for each in ids]
    return [each.x * 1000 + each.y for each in found]


def test_each_heading_of_a_cut_is_described_under_its_own_key(square):
    turned = replace(square, index=Index(rotations=4))
    assert described(turned, keys=KEYS).computed == 4 * 81
    own, quarter = stored(turned), stored(turned, KEYS[1])
    np.testing.assert_array_equal(quarter[6, 31, 21, 3], np.rot90(own[6, 31, 21, 3]))


# When there are cuts


@pytest.mark.parametrize(
    ("settings", "tiles", "dimension", "expected"),
    [
        ({}, 50_000, 512, 2),
        ({}, 50_001, 512, 1),
        ({}, 50_000, None, 2),
        ({}, None, 512, 1),
        ({"rotations": 4}, 12_500, 512, 2),
        ({"rotations": 4}, 12_501, 512, 1),
        ({"rotations": 16}, 10, 512, 2),
        ({"rotations": 17}, 10, 512, 1),
        ({"memory_mb": 390}, 50_000, 4096, 1),
        ({"memory_mb": 400}, 25_000, 4096, 2),
        ({"memory_mb": 400, "kind": "sqfp16"}, 25_000, 4096, 1),
        ({"latency_ms": 1}, 50_000, 4096, 1),
    ],
)
def test_the_rule_of_zero_is_a_function_of_numbers(settings, tiles, dimension, expected):
    assert overlap_of(Index(overlap=0, **settings), tiles=tiles, dimension=dimension) == expected


def test_one_and_two_are_taken_whatever_they_cost():
    assert overlap_of(Index(overlap=2), tiles=10_000_000, dimension=8448) == 2
    assert overlap_of(Index(overlap=1), tiles=1, dimension=8) == 1
    assert overlap_of(Index(), tiles=1, dimension=8) == 1


def test_where_the_cuts_do_not_fit_the_refusal_says_what_they_cost():
    with pytest.raises(IndexingError) as refusal:
        choose(Index(overlap=2, memory_mb=100), vectors=4_000_000, dimension=512)
    assert "index.overlap = 1" in refusal.value.next_step
    with pytest.raises(IndexingError) as refusal:
        choose(Index(memory_mb=100), vectors=4_000_000, dimension=512)
    assert "overlap" not in refusal.value.next_step


def test_the_key_of_an_index_without_cuts_is_that_of_before():
    asked = {"vectors": 40, "dimension": 8, "sources": ("sat",)}
    assert index_facts(Index(), **asked) == index_facts(Index(), **asked, overlap=1)
    assert "overlap" not in index_facts(Index(), **asked)
    assert index_facts(Index(), **asked, overlap=2)["overlap"] == 2


# On a fleet


def test_a_worker_cuts_the_same_from_the_tiles_that_it_is_sent(square, monkeypatch):
    described(square)
    job = remote.Job("run", "0" * 64, None, None, (0,), "resize", 1 << 20, 4, cuts=True)
    monkeypatch.setitem(remote._HELD, job.resource, remote.Held(Whole()))
    units = [Unit(*pair) for pair in units_of(square)]
    with open_reader(square.tiles.source, square.build_dir) as reader:
        data = {tile: reader.read(tile) for unit in units for tile in unit.tiles}
    answer = remote.compute(job, units, data)
    assert answer.rows == list(range(81))
    with DescriptorStore(square.descriptor_store, KEYS[0], "float32") as store:
        expected = store.gather([unit.key for unit in units])
    np.testing.assert_array_equal(np.frombuffer(answer.described, "<f4").reshape(81, -1), expected)


def units_of(flight):
    for piece in pieces(flight.build_dir, overlap=2).new:
        tile, *beside = map(tile_of, piece.tiles)
        yield tile, 0, piece.cut, tuple(beside)


def test_an_id_of_no_cut_is_refused():
    with pytest.raises(IndexingError, match="names a cut that there is not"):
        Places(np.array([4], np.int64), 1)


# What the gates make of cuts


def everywhere(zoom, rotations):
    """Return the rows of the whole world with all its cuts."""
    side = 1 << zoom
    places = [
        (x, y, n) for x in range(side) for y in range(side) for n, (_, south) in enumerate(geo.CUTS) if y + south < side
    ]
    ids = [geo.pack_id(zoom, x, y, 0, h, cut=n, rotations=rotations) for x, y, n in places for h in range(rotations)]
    return Rows(np.sort(np.array(ids, np.int64)), np.empty((0, 32), np.uint8), rotations)


def test_right_is_what_has_its_centre_a_side_away_at_most():
    rows = everywhere(3, 2)
    near, beside = around(rows, 3, 0, 3)
    assert len(near) == len(rows.ids)  # within eight tiles lies all of a world of eight
    found = [geo.unpack_id(int(each), 2) for each in rows.ids[near[beside]]]
    halves = {(2 * each.x + geo.CUTS[each.cut][0], 2 * each.y + geo.CUTS[each.cut][1]) for each in found}
    assert halves == {(x % 16, y) for x in (-2, -1, 0, 1, 2) for y in (4, 5, 6, 7, 8)}
    assert len(found) == 2 * 25


def test_the_sample_of_the_gates_and_the_tiles_that_lend_colours_are_tiles():
    rows = everywhere(3, 2)
    subject = Subject(
        asked=Requirements(), corpus=None, rows=rows, gather=None, index=None, network=None, decode=None, fit=""
    )
    assert {geo.unpack_id(int(each), 2)[4:] for each in rows.ids[subject.sample]} == {(0, 0)}
    two = np.sort(np.concatenate([rows.ids, rows.ids | 1 << 6]))
    subject = replace(subject, rows=Rows(two, rows.shas, 2))
    lenders = [subject.lender(int(row)) for row in subject.sample]
    assert {geo.unpack_id(int(two[each]), 2).cut for each in lenders} == {0}
