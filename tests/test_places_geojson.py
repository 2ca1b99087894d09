"""coverage.geojson: polygons that every map program accepts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.geometry.angles import BBox
from provisioning.base.geometry.geo import tile_bounds_e7
from provisioning.report.geojson import coverage_geojson
from provisioning.report.model import Cell, LonLat, TileMap
from provisioning.report.polygons import polygons_of

shapely = pytest.importorskip("shapely", reason="the oracle of polygons is shapely")
LEVEL = 10


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1))
def test_polygons_are_valid_and_cover_the_cells_and_nothing_else(cells):
    from shapely.geometry import MultiPolygon, Polygon, box
    from shapely.ops import unary_union

    polygons = [Polygon(shell, holes) for shell, *holes in polygons_of(cells)]
    shape = MultiPolygon(polygons)
    assert shape.is_valid
    assert shape.equals(unary_union([box(x, y, x + 1, y + 1) for x, y in cells]))
    for polygon in polygons:  # rows count southwards: what is clockwise here is counterclockwise on the map
        assert not polygon.exterior.is_ccw
        assert all(hole.is_ccw for hole in polygon.interiors)


@given(st.sets(st.tuples(st.integers(1020, 1027), st.integers(300, 305)), min_size=1))
def test_gaps_over_the_antimeridian_are_valid_and_as_large_as_what_is_missing(cells):
    from shapely.geometry import shape

    ordered = sorted(cells, key=lambda at: (at[1], at[0]))
    tiles = TileMap(zoom=LEVEL, level=LEVEL, cells=tuple(Cell(x, y, 0, 1, None) for x, y in ordered))
    box = BBox(1_790_000_000, 500_000_000, -1_790_000_000, 600_000_000)
    found = json.loads(coverage_geojson(bbox=box, maps=[tiles]))
    gaps = next(f for f in found["features"] if f["properties"]["role"] == "gaps")
    geometry = shape(gaps["geometry"])
    assert geometry.is_valid
    boxes = [tile_bounds_e7(LEVEL, x % 1024, y) for x, y in cells]
    expected = sum((b.east - b.west) * (b.north - b.south) for b in boxes) / 1e14
    assert geometry.area == pytest.approx(expected)
    assert all(-180 <= x <= 180 for x in (geometry.bounds[0], geometry.bounds[2]))


@given(
    st.sampled_from([(0, 0), (1020, 0), (1019, 1017), (500, 1017)]),
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 6)), min_size=1),
)
def test_holes_at_the_poles_and_across_the_antimeridian_are_valid(corner, cells):
    from shapely.geometry import shape

    left, top = corner
    ordered = sorted(((left + x, top + y) for x, y in cells), key=lambda at: (at[1], at[0]))
    tiles = TileMap(zoom=LEVEL, level=LEVEL, cells=tuple(Cell(x, y, 0, 1, None) for x, y in ordered))
    edges = [tile_bounds_e7(LEVEL, x % 1024, y) for x, y in ordered]
    box = BBox(edges[0].west, min(b.south for b in edges), edges[-1].east, max(b.north for b in edges))
    for feature in json.loads(coverage_geojson(bbox=box, maps=[tiles]))["features"]:
        if feature["geometry"] and "Polygon" in feature["geometry"]["type"]:
            geometry = shape(feature["geometry"])
            assert geometry.is_valid, feature["properties"]
            west, south, east, north = geometry.bounds
            assert -180 <= west <= east <= 180
            assert -90 <= south <= north <= 90


@pytest.mark.parametrize(
    "rings",
    [
        [[(0, 0), (10, 10), (10, 0), (0, 10)]],  # a bow-tie
        [[(0, 0), (10, 0), (10, 10), (0, 10)], [(5, 5), (15, 5), (15, 15), (5, 15)]],  # two that overlap
        [[(0, 0), (10, 0), (10, 0), (10, 10)]],  # a point twice
    ],
)
def test_a_drawn_area_is_valid_however_it_was_drawn(rings):
    from shapely.geometry import shape

    tiles = TileMap(zoom=LEVEL, level=LEVEL, cells=(Cell(5, 5, 1, 1, None), Cell(6, 5, 1, 1, None)))
    outline = [tuple(LonLat(x * 10**7, y * 10**7) for x, y in ring) for ring in rings]
    found = json.loads(coverage_geojson(bbox=BBox(0, 0, 10**8, 10**8), maps=[tiles], outline=outline))
    areas = [shape(f["geometry"]) for f in found["features"] if f["properties"]["role"] == "area"]
    assert areas
    assert all(area.is_valid and area.area > 0 for area in areas)
