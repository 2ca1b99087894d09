"""The quick ways of a scan find what the slow ones find: ids by directory, places by row and column, looks by tone."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.area.cover import Band, Cover
from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import MAX_ZOOM, tile_bounds_e7, tileid_to_zxy
from provisioning.catalogue import scan
from provisioning.catalogue.scanning import place as placing
from provisioning.sources.containers.idranges import LIMIT, are_inside, tiles_of_ids
from provisioning.sources.pixels import likeness
from provisioning.sources.placement.evidence import Statement
from provisioning.sources.placement.placement import _misfit
from tests.tilesets import Z, age, bbox_of, block, flight, image, write_mbtiles, write_reference_pmtiles


@given(st.lists(st.integers(0, LIMIT - 1), max_size=40))
def test_many_tile_ids_are_the_tiles_that_each_alone_is(ids):
    z, x, y = tiles_of_ids(np.array(sorted(set(ids)), np.int64))
    assert [*zip(z.tolist(), x.tolist(), y.tolist(), strict=True)] == [tileid_to_zxy(each) for each in sorted(set(ids))]


def test_the_first_and_last_ids_of_each_zoom_are_the_corners_of_the_curve():
    firsts = [((1 << 2 * z) - 1) // 3 for z in range(MAX_ZOOM + 1)]
    ids = np.array(sorted({*firsts, *(first - 1 for first in firsts[1:]), LIMIT - 1}), np.int64)
    found = [*zip(*(column.tolist() for column in tiles_of_ids(ids)), strict=True)]
    assert found == [tileid_to_zxy(each) for each in ids.tolist()]


def some_cover(rng):
    def ranges(z, most):
        edges = np.unique(rng.integers(0, 1 << z, most)).tolist()
        return [*zip(edges[::2], edges[1::2], strict=False)]

    return Cover({
        z: tuple(Band(left, right, rows) for left, right in ranges(z, 8) if (rows := tuple(ranges(z, 6))))
        for z in (3, 5, 9)
    })  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_many_tiles_are_inside_a_cover_where_each_alone_is(seed):
    rng = np.random.default_rng(seed)
    cover = some_cover(rng)
    columns = tiles_of_ids(np.unique(rng.integers(0, ((1 << 20) - 1) // 3, 2000)))
    expected = [cover.holds(*tile) for tile in zip(*(column.tolist() for column in columns), strict=True)]
    assert are_inside(cover, *columns).tolist() == expected
    assert any(expected) == any(cover.bands.values())


def overlap(tile, box):
    """Return whether a tile overlaps a box by more than a fiftieth of its side, with shapely, turn by turn."""
    from shapely.geometry import box as rectangle

    def degrees(bounds):
        west, south, east, north = bounds
        return rectangle(west, south, east if west <= east else east + 360, north)

    side = tile_bounds_e7(*tile)
    mine = degrees([each / 1e7 for each in side])
    theirs = degrees(box)
    for turn in (-360, 0, 360):
        common = rectangle(mine.bounds[0] + turn, mine.bounds[1], mine.bounds[2] + turn, mine.bounds[3]) & theirs
        if common.area > 0:
            return True
    return False


@pytest.mark.parametrize("box", [(8.0, 47.0, 8.4, 47.3), (179.5, -20.0, -179.5, -19.0), (-180.0, -85.0, 180.0, 85.0)])
def test_the_share_of_tiles_outside_a_box_is_that_which_shapely_counts(box):
    rng = np.random.default_rng(3)
    centre = {8.0: (534, 359), 179.5: (0, 570), -180.0: (300, 300)}[box[0]]
    tiles = [(10, (centre[0] + int(dx)) % 1024, centre[1] + int(dy)) for dx, dy in rng.integers(-6, 7, (60, 2))]
    expected = sum(not overlap(tile, box) for tile in tiles) / len(tiles)
    assert _misfit(tiles, Statement(file="x", boxes=(box,))) == expected
    assert box[0] == -180.0 or 0 < expected < 1


def slow_pairs(looks, left, right):
    a, b = looks[left].astype(int), looks[right].astype(int)
    waves = [row[4:].astype(np.uint8).view(np.int8).astype(int) for row in (looks[left], looks[right])]
    return (
        (waves[0] * waves[1]).sum() >= likeness.COSINE * 127 * 127
        and np.abs(a[:3] - b[:3]).max() <= likeness.COLOUR
        and max(a[3], b[3]) <= likeness.CONTRAST * min(a[3], b[3]) + 1
    )


def test_pictures_of_other_tones_are_left_out_and_those_of_one_tone_compared():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (40, likeness.PERCEPTUAL_HASH_BYTES), dtype=np.uint8)
    waves = rng.standard_normal((40, likeness.COEFFICIENTS))
    scaled = (waves / np.linalg.norm(waves, axis=1, keepdims=True) * 127).round().astype(np.int8)
    base[:, 4:] = scaled.view(np.uint8)
    again = base.copy()
    again[:, :3] = np.clip(base[:, :3].astype(int) + rng.integers(-7, 8, (40, 3)), 0, 255)
    looks = np.concatenate([base, again])
    groups = likeness.alike(looks, np.arange(len(looks)), least=2)
    expected = sorted([n, n + 40] for n in range(40) if slow_pairs(looks, n, n + 40))
    assert sorted(map(sorted, groups)) == expected
    assert 0 < len(expected) < 40


TILES = block(8, 8)
WRITERS = {"mbtiles": write_mbtiles, "pmtiles": write_reference_pmtiles}


@pytest.fixture
def counted(monkeypatch):
    """Count how often a source's place is compared with its evidence."""
    calls = []
    real = placing.check_place
    monkeypatch.setattr(placing, "check_place", lambda source: calls.append(source) or real(source))
    monkeypatch.setattr("provisioning.sources.source.RACY_NS", -(10**12))
    return calls


@pytest.mark.parametrize("kind", WRITERS)
def test_the_place_is_checked_again_where_an_address_is_new_and_not_where_bytes_are(tmp_path, kind, counted):
    path = WRITERS[kind](tmp_path / f"sat.{kind}", TILES)
    age(path)
    asked = flight(tmp_path, path, bbox=bbox_of(TILES))
    scan(asked.selection, asked.build_dir)
    assert len(counted) == 1
    for tiles, checks in (({**TILES, (Z, 17_003, 11_004): image(999)}, 1), (dict([*TILES.items()][1:]), 2), (TILES, 3)):
        path.unlink()
        WRITERS[kind](path, tiles)
        scan(asked.selection, asked.build_dir)
        assert len(counted) == checks


def test_a_container_that_says_another_place_is_refused_though_its_tiles_are_as_they_were(tmp_path, counted):
    path = write_mbtiles(tmp_path / "sat.mbtiles", TILES)
    age(path)
    asked = flight(tmp_path, path, bbox=bbox_of(TILES))
    scan(asked.selection, asked.build_dir)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO metadata VALUES ('bounds', '10,10,11,11')")
    for _ in range(2):
        with pytest.raises(TileError, match="own description"):
            scan(asked.selection, asked.build_dir)
    assert len(counted) == 3
