"""Tile arithmetic against mercantile and the reference PMTiles code, and its own inverses."""

import math

import mercantile
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pmtiles.tile import zxy_to_tileid as reference_tileid

from provisioning import geo


@st.composite
def tiles(draw, low=0):
    z = draw(st.integers(low, geo.MAX_ZOOM))
    return z, draw(st.integers(0, (1 << z) - 1)), draw(st.integers(0, (1 << z) - 1))


def test_tile_ids_of_the_first_zooms_are_consecutive_and_invert():
    assert [geo.zxy_to_tileid(*geo.tileid_to_zxy(i)) for i in range(21_845)] == list(range(21_845))


@given(tiles())
def test_tile_ids_equal_the_reference(tile):
    assert geo.zxy_to_tileid(*tile) == reference_tileid(*tile)
    assert geo.tileid_to_zxy(geo.zxy_to_tileid(*tile)) == tile


@given(tiles(), st.integers(0, 255), st.integers(0, 63))
def test_packed_ids_invert_and_fit_63_bits(tile, source, heading):
    packed = geo.pack_id(*tile, source, heading)
    assert 0 <= packed < 2**63
    assert geo.unpack_id(packed) == (*tile, source, heading)


@given(tiles())
def test_bounds_equal_mercantile(tile):
    ours, theirs = geo.tile_bounds_e7(*tile), mercantile.bounds(tile[1], tile[2], tile[0])
    assert all(abs(a - b * 1e7) <= 0.51 for a, b in zip(ours, theirs, strict=True))


@given(st.floats(-180, 179.9999999), st.floats(-85, 85), st.integers(0, 24))
def test_the_tile_at_a_point_holds_it(lon, lat, z):
    lat_e7, lon_e7 = round(lat * 1e7), round(lon * 1e7)
    x, y = geo.tile_at(z, lat_e7=lat_e7, lon_e7=lon_e7)
    west, south, east, north = geo.tile_bounds_e7(z, x, y)
    assert west - 1 <= lon_e7 <= east + 1
    assert south - 1 <= lat_e7 <= north + 1


@given(tiles(low=1))
def test_the_centre_lies_in_its_tile(tile):
    centre = geo.tile_centre(*tile)
    assert geo.tile_at(tile[0], lat_e7=centre.lat_e7, lon_e7=centre.lon_e7) == tile[1:]


@given(tiles(), st.integers(0, 30), st.integers(0, 30))
def test_the_bounding_box_of_a_block_of_tiles_gives_the_block(tile, width, height):
    z, x, y = tile
    right, bottom = min(x + width, (1 << z) - 1), min(y + height, (1 << z) - 1)
    north_west, south_east = geo.tile_bounds_e7(z, x, y), geo.tile_bounds_e7(z, right, bottom)
    bbox = geo.BBox(north_west.west, south_east.south, south_east.east, north_west.north)
    assert geo.tiles_in_bbox(bbox, z) == (((x, right),), (y, bottom))


def _is_near_an_edge(z, *, lat_e7, lon_e7):
    """Within 1e-7 degree of a tile's edge we grant what mercantile, which has another tolerance, does not."""
    around = [geo.tile_at(z, lat_e7=lat_e7 + d, lon_e7=lon_e7 + d) for d in (-2, 2)]
    return around[0] != around[1]


@given(st.floats(-179, 178), st.floats(-84, 83), st.floats(0.01, 1), st.integers(0, 12))
def test_tiles_in_bbox_equal_mercantile(west, south, size, z):
    box = [round(v * 1e7) for v in (west, south, west + size, south + size)]
    (columns,), rows = geo.tiles_in_bbox(geo.BBox(*box), z)
    assume(not any(_is_near_an_edge(z, lat_e7=lat, lon_e7=lon) for lon, lat in (box[:2], box[2:])))
    theirs = list(mercantile.tiles(*(v / 1e7 for v in box), [z]))
    assert columns == (min(t.x for t in theirs), max(t.x for t in theirs))
    assert rows == (min(t.y for t in theirs), max(t.y for t in theirs))


def test_a_box_over_the_antimeridian_has_two_ranges_of_columns():
    box = geo.BBox(1_790_000_000, -10_000_000, -1_790_000_000, 10_000_000)
    assert geo.tiles_in_bbox(box, 8).columns == ((0, 0), (255, 255))
    assert geo.contains(box, geo.Origin(0, 1_799_999_999))
    assert geo.contains(box, geo.Origin(0, -1_799_999_999))
    assert not geo.contains(box, geo.Origin(0, 0))


def test_a_point_beyond_mercator_belongs_to_the_outermost_row():
    assert geo.tile_at(5, lat_e7=900_000_000, lon_e7=0) == (16, 0)
    assert geo.tile_at(5, lat_e7=-900_000_000, lon_e7=0) == (16, 31)


@pytest.mark.parametrize("tile", [(-1, 0, 0), (25, 0, 0), (3, 8, 0), (3, 0, -1)])
def test_what_is_no_tile_is_refused(tile):
    with pytest.raises(ValueError, match=r"zoom|not a tile"):
        geo.zxy_to_tileid(*tile)


def test_the_mercator_limit_is_rounded_towards_the_equator():
    assert math.degrees(math.atan(math.sinh(math.pi))) * 1e7 - geo.MAX_LATITUDE_E7 < 1
