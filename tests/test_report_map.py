"""Promises of the map's numbers and of coverage.geojson."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.geometry.angles import BBox, Origin
from provisioning.report.geojson import coverage_geojson
from provisioning.report.map import mercator
from provisioning.report.map.drawing import cells_path, date_bins, draw_map, frame_of
from provisioning.report.map.tilemap import Run, tile_map
from provisioning.report.model import Cell, LonLat, ReportModel
from tests import report_models

WHOLE = BBox(75_000_000, 470_000_000, 76_000_000, 471_000_000)
DATELINE = BBox(1_790_000_000, -10_000_000, -1_790_000_000, 10_000_000)
"""Two degrees around the antimeridian on the equator."""


def test_one_cell_for_each_tile_of_a_small_area():
    tiles = tile_map(10, [Run(5, 3, 4)], [(3, 5, "2024-01-02")])
    assert tiles.level == 10
    assert tiles.cells == (Cell(3, 5, 1, 1, "2024-01-02"), Cell(4, 5, 0, 1, None))


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 5000), st.integers(0, 5000))
def test_aggregation_loses_no_tile(width, height, left, top):
    runs = [Run(y, left, left + width - 1) for y in range(top, top + height)]
    tiles = tile_map(14, runs, ((left, run.y, None) for run in runs))
    assert sum(cell.expected for cell in tiles.cells) == width * height
    assert sum(cell.present for cell in tiles.cells) == height
    assert len({cell.x for cell in tiles.cells}) <= 97
    assert len({cell.y for cell in tiles.cells}) <= 97


def test_a_cell_shows_its_oldest_known_date():
    runs = [Run(y, 0, 199) for y in range(2)]
    dated = [(0, 0, "2023-01-01"), (1, 0, None), (0, 1, "2021-06-30"), (2, 1, "2024-01-01")]
    tiles = tile_map(14, runs, dated)
    assert tiles.cells[0] == Cell(0, 0, 4, 8, "2021-06-30")


def test_columns_count_on_past_the_antimeridian():
    runs = [Run(7, 0, 1), Run(7, 1022, 1023)]
    tiles = tile_map(10, runs, [(0, 7, None), (1023, 7, None)], west_column=1022)
    assert [(cell.x, cell.present) for cell in tiles.cells] == [(1022, 0), (1023, 1), (1024, 1), (1025, 0)]


def test_map_at_the_antimeridian_is_small_and_holds_route_and_take_off():
    runs = [Run(y, first, last) for y in (511, 512) for first, last in ((0, 2), (1021, 1023))]
    tiles = tile_map(10, runs, [], west_column=1021)
    frame = frame_of(tiles, DATELINE)
    assert frame.width < 8
    assert 0 < frame.x(1_799_000_000) < frame.x(-1_799_000_000) < 1000


def test_neighbouring_cells_in_a_row_become_one_rectangle():
    tiles = tile_map(10, [Run(5, 3, 8), Run(6, 3, 4)], [])
    assert cells_path(tiles.cells, frame_of(tiles, WHOLE)).count("M") == 2


def test_projection_agrees_with_the_tile_grid():
    from provisioning.base.geometry import geo

    for z, x, y in ((0, 0, 0), (5, 17, 11), (18, 137_000, 91_000)):
        bounds = geo.tile_bounds_e7(z, x, y)
        assert geo.column_at(z, bounds.west) == pytest.approx(x, abs=1e-2)
        assert geo.row_at(z, bounds.north) == pytest.approx(y, abs=1e-2)


def test_dates_are_shared_among_at_most_five_classes_without_overlap():
    dates = [f"20{year:02}-01-01" for year in range(10, 22)]
    tiles = tile_map(10, [Run(0, 0, 11)], [(x, 0, date) for x, date in enumerate(dates)])
    bins = date_bins(tiles)
    assert len(bins) == 5
    assert bins[0][0] == dates[0]
    assert bins[-1][1] == dates[-1]
    assert all(first <= last for first, last in bins)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(bins))


def test_map_draws_gaps_partial_cells_and_ring():
    runs = [Run(y, 0, 199) for y in range(200)]
    tiles = tile_map(14, runs, ((x, y, None) for x in range(100) for y in range(200) if (x, y) != (0, 0)))
    ring = tuple(
        LonLat(*point) for point in ((75_000_000, 470_000_000), (76_000_000, 470_000_000), (75_500_000, 471_000_000))
    )
    model = ReportModel(manifest=report_models.manifest(WHOLE, {}), maps=(tiles,), outline=(ring,))
    svg = draw_map(model, tiles, name="m")
    for style in ("there", "partial", "gap", "outline"):
        path = svg.partition(f'class="{style}"')[2].partition(' d="')[2].partition('"')[0]
        assert path.startswith("M"), style
    assert "19999 of 40000 tiles are there; 20001 are missing" in svg


@pytest.mark.parametrize(("metres", "bar"), [(1, 1), (4.9, 2), (5, 5), (1999, 1000), (123_456, 100_000)])
def test_scale_bar_is_a_round_length(metres, bar):
    assert mercator.round_below(metres) == bar


@pytest.mark.parametrize(
    ("metres", "expected"), [(0.5, "0.5 m"), (350, "350 m"), (1250, "1.25 km"), (2000, "2 km"), (120_000, "120 km")]
)
def test_distances_for_reading(metres, expected):
    assert mercator.distance(metres) == expected


def test_degrees_are_exact():
    assert mercator.degrees(-1_234_567, "N", "S") == "0.1234567°\u00a0S"
    assert mercator.degrees(1_799_999_999, "E", "W") == "179.9999999°\u00a0E"


def _features(data: bytes) -> dict[str, dict]:
    collection = json.loads(data)
    assert collection["type"] == "FeatureCollection"
    return {feature["properties"]["role"]: feature for feature in collection["features"]}


def test_geojson_holds_area_gaps_route_and_take_off():
    tiles = tile_map(10, [Run(360, 533, 536)], [(534, 360, None)])
    route = (LonLat(75_000_000, 470_000_000), LonLat(76_000_000, 471_000_000))
    features = _features(
        coverage_geojson(bbox=WHOLE, maps=[tiles], routes=[route], takeoff=Origin(470_000_001, 75_000_003, 431_500))
    )
    assert features["gaps"]["properties"] == {"role": "gaps", "zoom": 10, "missing": 3, "drawn_at_zoom": 10}
    assert len(features["gaps"]["geometry"]["coordinates"]) == 2
    assert features["route"]["geometry"]["coordinates"] == [[7.5, 47.0], [7.6, 47.1]]
    assert features["takeoff"]["geometry"]["coordinates"] == [7.5000003, 47.0000001, 431.5]
    assert features["area"]["geometry"]["coordinates"] == [
        [[[7.5, 47.0], [7.6, 47.0], [7.6, 47.1], [7.5, 47.1], [7.5, 47.0]]]
    ]


def test_geojson_without_gaps_has_no_gap_feature_and_is_the_same_each_time():
    tiles = tile_map(10, [Run(360, 533, 533)], [(533, 360, None)])
    data = coverage_geojson(bbox=WHOLE, maps=[tiles])
    assert set(_features(data)) == {"area"}
    assert data == coverage_geojson(bbox=WHOLE, maps=[tiles])


def test_geojson_is_cut_at_the_antimeridian():
    tiles = tile_map(10, [Run(512, 0, 1), Run(512, 1022, 1023)], [], west_column=1022)
    features = _features(coverage_geojson(bbox=DATELINE, maps=[tiles]))
    for role in ("area", "gaps"):
        pieces = features[role]["geometry"]["coordinates"]
        assert len(pieces) == 2
        for (ring,) in pieces:
            longitudes = [point[0] for point in ring]
            assert max(longitudes) - min(longitudes) < 2
            assert -180 <= min(longitudes) <= max(longitudes) <= 180


CORRIDOR = [Run(360, 533, 534), Run(361, 534, 536)]


def test_a_corridor_is_outlined_by_its_tiles_not_by_its_bounding_box():
    tiles = tile_map(10, CORRIDOR, [])
    model = ReportModel(manifest=report_models.manifest(WHOLE, {}), maps=(tiles,))
    outline = draw_map(model, tiles, name="m").partition('class="outline" d="')[2].partition('"')[0]
    assert (
        outline.count("h") == 4
    )  # above the first row; below its left tile; above the right two; below the second row
    assert outline.count("v") == 4


def test_geojson_area_of_a_corridor_is_its_tiles():
    tiles = tile_map(10, CORRIDOR, [])
    area = _features(coverage_geojson(bbox=WHOLE, maps=[tiles]))["area"]
    (shell,) = area["geometry"]["coordinates"]
    assert len(shell) == 1
    assert len(shell[0]) == 9  # two rows that share a side: eight corners, the first one again at the end


def test_gaps_come_finest_zoom_first():
    maps = [tile_map(zoom, [Run(0, 0, 0)], []) for zoom in (9, 11, 10)]
    collection = json.loads(coverage_geojson(bbox=WHOLE, maps=maps))
    assert [f["properties"]["zoom"] for f in collection["features"] if f["properties"]["role"] == "gaps"] == [11, 10, 9]
