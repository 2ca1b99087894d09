"""Areas and missions that cannot be flown, and tile numbers that are none: each error says what is wrong."""

import json

import pytest

from provisioning.area.area import enclosing, measure_area
from provisioning.area.reading import read_mission
from provisioning.base.errors import AreaError, EmptyCorpusError
from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import BBox
from provisioning.catalogue import measure_coverage
from provisioning.config import Area
from tests.test_area import drawn
from tests.test_mission import WAYPOINTS, plan, simple, written
from tests.tilesets import Z, bbox_of, block, flight


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"type": "MultiPolygon", "coordinates": 3}, "not a list"),
        ({"type": "Feature", "geometry": None}, "no polygon, line or point"),
        ({"type": "FeatureCollection", "features": [3]}, "not made of features"),
    ],
)
def test_a_geojson_without_geometry_is_named(tmp_path, content, reason):
    with pytest.raises(AreaError, match=reason):
        measure_area(Area(geojson=written(tmp_path, content), zooms=(Z,)))


def test_features_nested_without_end_are_given_up(tmp_path):
    content = '{"type": "Feature", "geometry": ' * 40 + "1" + "}" * 40
    with pytest.raises(AreaError, match="not made of features"):
        measure_area(Area(geojson=written(tmp_path, content), zooms=(Z,)))


def test_an_area_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AreaError, match="cannot be read: No such file"):
        measure_area(Area(geojson=tmp_path / "a.geojson", zooms=(Z,)))


@pytest.mark.parametrize(
    ("module", "limit", "least", "reason"),
    [("files", "MOST_BYTES", 20, "larger than"), ("formats.lines", "MOST_POINTS", 2, "more than 2 points")],
)
def test_an_area_larger_than_any_is_refused_before_it_is_measured(tmp_path, monkeypatch, module, limit, least, reason):
    monkeypatch.setattr(f"provisioning.area.{module}.{limit}", least)
    with pytest.raises(AreaError, match=reason):
        drawn(tmp_path, {"type": "LineString", "coordinates": [[8, 47], [8.1, 47], [8.2, 47]]})


def test_an_area_beyond_the_last_tile_has_none_and_says_so(tmp_path):
    with pytest.raises(AreaError, match="no tile") as caught:
        drawn(tmp_path, {"type": "Point", "coordinates": [8, 89]})
    assert "85 degrees" in caught.value.next_step


def test_boxes_all_around_the_world_are_enclosed_by_the_world():
    thirds = [BBox(west * 10**7, 0, (west + 120) * 10**7, 10**7) for west in (-180, -60, 60)]
    assert enclosing(thirds) == BBox(-180 * 10**7, 0, 180 * 10**7, 10**7)


def test_coverage_before_the_first_scan_says_what_to_run(tmp_path):
    asked = flight(tmp_path, tmp_path / "sat", bbox=bbox_of(block()))
    with pytest.raises(EmptyCorpusError, match="not been scanned") as caught:
        measure_coverage(asked.area, None, asked.build_dir)
    assert "doit" in caught.value.next_step


def test_blank_lines_and_comments_of_a_waypoint_file_are_passed_over(tmp_path):
    head, *rest = WAYPOINTS.splitlines()
    commented = read_mission(written(tmp_path, "\n".join([head, "# a comment", "", *rest])))
    assert commented.routes == read_mission(written(tmp_path, WAYPOINTS)).routes


def test_a_home_at_nought_degrees_is_a_home_that_was_never_set(tmp_path):
    drawing = read_mission(written(tmp_path, plan(simple(16, 47.4, 8.6), home=[0, 0, 0])))
    assert drawing.takeoff is None
    assert [(p.lat, p.lon) for p in drawing.lines[0]] == [(47.4, 8.6)]


def test_a_mission_of_too_many_points_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("provisioning.area.missions.flying.MOST_POINTS", 2)
    with pytest.raises(AreaError, match="more than 2 points"):
        read_mission(written(tmp_path, json.dumps(plan(simple(16, 47.4, 8.6), simple(16, 47.5, 8.6)))))


@pytest.mark.parametrize("tileid", [-1, geo.zxy_to_tileid(geo.MAX_ZOOM, 0, 0) * 5])
def test_what_is_no_tile_id_is_refused(tileid):
    with pytest.raises(ValueError, match="is not the id of a tile"):
        geo.tileid_to_zxy(tileid)


@pytest.mark.parametrize(("source", "heading"), [(256, 0), (-1, 0), (0, 64), (0, -1)])
def test_what_does_not_fit_an_index_id_is_refused(source, heading):
    with pytest.raises(ValueError, match="does not fit an index id"):
        geo.pack_id(3, 0, 0, source, heading)


def test_a_box_around_the_world_whose_ends_meet_in_one_tile_has_every_column_once():
    assert geo.tiles_in_bbox(geo.BBox(10, 0, 5, 10**7), 3).columns == ((0, 7),)
