"""Tile arithmetic against mercantile and the reference PMTiles code, and its own inverses."""

import math
from fractions import Fraction

import mercantile
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pmtiles.tile import zxy_to_tileid as reference_tileid

from provisioning.base.geometry import geo


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
    assert geo.unpack_id(packed) == (*tile, source, heading, 0)


@given(tiles(), st.integers(0, 255), st.integers(1, 16), st.integers(0, 3), st.data())
def test_packed_ids_of_cuts_invert(tile, source, rotations, cut, data):
    heading = data.draw(st.integers(0, rotations - 1))
    packed = geo.pack_id(*tile, source, heading, cut=cut, rotations=rotations)
    assert 0 <= packed < 2**63
    assert geo.unpack_id(packed, rotations) == (*tile, source, heading, cut)


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


COLUMNS = 1 << geo.MAX_ZOOM
INNER_EDGES = [1, 5, COLUMNS // 2 + 1, COLUMNS - 3]
"""Columns and rows of the deepest zoom whose first edge is no whole 1e-7 degree."""


def _longitude_of_edge(column):
    return Fraction(2 * geo.HALF_TURN_E7 * column, COLUMNS) - geo.HALF_TURN_E7


@pytest.mark.parametrize("column", INNER_EDGES)
@pytest.mark.parametrize("units", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("far", [-1_000_000_000, 1_000_000_000])
def test_a_column_belongs_to_a_box_that_overlaps_it_by_more_than_one_unit(column, units, far):
    edge = _longitude_of_edge(column)
    end, start = math.floor(edge) + units, math.ceil(edge) - units
    columns = geo.tiles_in_bbox(geo.BBox(far, 0, end, 10), geo.MAX_ZOOM).columns
    assert columns[0][1] == (column if end - edge > 1 else column - 1)
    columns = geo.tiles_in_bbox(geo.BBox(start, 0, far, 10), geo.MAX_ZOOM).columns
    assert columns[-1][0] == (column - 1 if edge - start > 1 else column)


@pytest.mark.parametrize("row", INNER_EDGES[1:])
@pytest.mark.parametrize("units", [-2, -1, 0, 1, 2, 3])
def test_a_row_belongs_to_a_box_that_overlaps_it_by_more_than_one_unit(row, units):
    edge = geo.row_edge_deg(geo.MAX_ZOOM, row) * geo.E7
    south, north = math.ceil(edge) - units, math.floor(edge) + units
    rows = geo.tiles_in_bbox(geo.BBox(0, south, 10, geo.MAX_LATITUDE_E7), geo.MAX_ZOOM).rows
    assert rows == (0, row if edge - south > 1 else row - 1)
    rows = geo.tiles_in_bbox(geo.BBox(0, -geo.MAX_LATITUDE_E7, 10, north), geo.MAX_ZOOM).rows
    assert rows == (row - 1 if north - edge > 1 else row, COLUMNS - 1)


@pytest.mark.parametrize(("west", "east", "column"), [(-1, -1, 0), (-1, 0, 0), (0, 0, 1), (0, 1, 1)])
def test_a_box_too_small_for_a_tolerance_has_the_tile_that_it_lies_in(west, east, column):
    (columns,), rows = geo.tiles_in_bbox(geo.BBox(west, west, east, east), 1)
    assert columns == (column, column)
    assert rows == (1, 1)
    assert {type(number) for number in (*columns, *rows)} == {int}


@pytest.mark.parametrize(("lat_e7", "lon_e7"), [(500_000_000, 1_000_000_000), (-300_000_000, -700_000_000)])
def test_the_box_of_a_point_has_the_tile_of_the_point(lat_e7, lon_e7):
    x, y = geo.tile_at(9, lat_e7=lat_e7, lon_e7=lon_e7)
    assert geo.tiles_in_bbox(geo.BBox(lon_e7, lat_e7, lon_e7, lat_e7), 9) == (((x, x),), (y, y))


def test_a_box_over_the_antimeridian_has_two_ranges_of_columns():
    box = geo.BBox(1_790_000_000, -10_000_000, -1_790_000_000, 10_000_000)
    assert geo.tiles_in_bbox(box, 8) == (((0, 0), (255, 255)), (127, 128))
    assert geo.contains(box, geo.Origin(0, 1_799_999_999))
    assert geo.contains(box, geo.Origin(0, -1_799_999_999))
    assert not geo.contains(box, geo.Origin(0, 0))


def test_a_box_over_the_antimeridian_whose_ends_share_a_tile_has_every_column_once():
    box = geo.BBox(40_000_000, -10_000_000, 30_000_000, 10_000_000)
    assert geo.tiles_in_bbox(box, 3) == (((0, 7),), (3, 4))


def test_the_antimeridian_belongs_to_the_first_column():
    for lon_e7 in (-geo.HALF_TURN_E7, geo.HALF_TURN_E7):
        assert geo.tile_at(5, lat_e7=0, lon_e7=lon_e7) == (0, 16)


@pytest.mark.parametrize("z", range(geo.MAX_ZOOM + 1))
@pytest.mark.parametrize("lat_e7", [900_000_000, geo.MAX_LATITUDE_E7])
def test_a_point_beyond_mercator_belongs_to_the_outermost_row(z, lat_e7):
    assert geo.tile_at(z, lat_e7=lat_e7, lon_e7=0) == (1 << z >> 1, 0)
    assert geo.tile_at(z, lat_e7=-lat_e7, lon_e7=0) == (1 << z >> 1, (1 << z) - 1)


@pytest.mark.parametrize(
    ("tile", "said"),
    [
        ((-1, 0, 0), "zoom -1"),
        ((25, 0, 0), "zoom 25"),
        ((3, 8, 0), "3/8/0 is not a tile: x and y must be within 0–7"),
        ((3, -1, 0), "3/-1/0 is not a tile"),
        ((3, 0, 8), "3/0/8 is not a tile"),
        ((3, 0, -1), "3/0/-1 is not a tile"),
    ],
)
@pytest.mark.parametrize("take", [geo.zxy_to_tileid, geo.tile_bounds_e7, geo.tile_centre])
def test_what_is_no_tile_is_refused(take, tile, said):
    with pytest.raises(ValueError, match=said):
        take(*tile)


@pytest.mark.parametrize("tileid", [-1, -100, (4**25 - 1) // 3])
def test_what_is_no_id_of_a_tile_is_refused(tileid):
    with pytest.raises(ValueError, match=f"{tileid} is not the id of a tile"):
        geo.tileid_to_zxy(tileid)


@pytest.mark.parametrize(("heading", "cut", "rotations"), [(0, 4, 1), (1, 1, 1), (0, -1, 1), (16, 3, 17), (-1, 1, 4)])
def test_a_cut_that_does_not_fit_an_index_id_is_refused(heading, cut, rotations):
    with pytest.raises(ValueError, match="does not fit"):
        geo.pack_id(1, 0, 0, 0, heading, cut=cut, rotations=rotations)


@pytest.mark.parametrize(("source", "heading"), [(-1, 0), (256, 0), (0, -1), (0, 64)])
def test_what_does_not_fit_an_index_id_is_refused(source, heading):
    with pytest.raises(ValueError, match=f"source {source}, heading {heading} or cut 0 does not fit"):
        geo.pack_id(0, 0, 0, source, heading)


def test_the_mercator_limit_is_rounded_towards_the_equator():
    assert math.degrees(math.atan(math.sinh(math.pi))) * 1e7 - geo.MAX_LATITUDE_E7 < 1
