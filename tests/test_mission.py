"""Missions: QGroundControl plans and waypoint files become a route, survey areas and a take-off point."""

import json

import pytest
from geographiclib.geodesic import Geodesic

from provisioning.area.area import measure_area
from provisioning.area.reading import read_mission
from provisioning.base.errors import AreaError
from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import Origin
from provisioning.catalogue import scan
from provisioning.config import Area, FlightIdentity
from tests.tilesets import Z, flight, image, scanned, write_xyz

EARTH = Geodesic.WGS84
HOME = [47.3977, 8.5456, 488.0]


def simple(command, lat, lon, *, frame=3, alt=50):
    return {"type": "SimpleItem", "command": command, "frame": frame, "autoContinue": True, "doJumpId": 1,
            "params": [0, 0, 0, None, lat, lon, alt]}  # fmt: skip


def plan(*items, home=HOME, rally=()):
    return {"fileType": "Plan", "version": 1, "groundStation": "QGroundControl",
            "geoFence": {"circles": [], "polygons": [], "version": 2},
            "rallyPoints": {"points": list(rally), "version": 2},
            "mission": {"version": 2, "plannedHomePosition": home, "items": list(items)}}  # fmt: skip


SURVEY = {"type": "ComplexItem", "complexItemType": "survey", "version": 5,
          "polygon": [[47.40, 8.55], [47.40, 8.56], [47.41, 8.56], [47.41, 8.55]],
          "TransectStyleComplexItem": {"VisualTransectPoints": [[47.401, 8.551], [47.401, 8.559], [47.409, 8.559]]}}  # fmt: skip
CORRIDOR = {"type": "ComplexItem", "complexItemType": "CorridorScan", "CorridorWidth": 50, "version": 2,
            "polyline": [[47.42, 8.55], [47.43, 8.58]], "TransectStyleComplexItem": {"VisualTransectPoints": []}}  # fmt: skip
LANDING = {"type": "ComplexItem", "complexItemType": "fwLandingPattern", "version": 2,
           "landCoordinate": [47.39, 8.54, 0], "landingApproachCoordinate": [47.395, 8.545, 40]}  # fmt: skip


def written(tmp_path, content, name="a.plan"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def area(tmp_path, content, *, takeoff=None, **part):
    path = written(tmp_path, content)
    asked = Area(mission=path, zooms=(Z,), **part)
    return measure_area(asked, takeoff)


def holds(found, lat, lon):
    x, y = geo.tile_at(Z, lat_e7=round(lat * 1e7), lon_e7=round(lon * 1e7))
    return found.cover.holds(Z, x, y)


def test_a_plan_is_a_route_from_home_over_its_waypoints(tmp_path):
    content = plan(simple(22, 47.398, 8.546), simple(16, 47.42, 8.60), simple(82, 47.43, 8.61))
    drawing = read_mission(written(tmp_path, content))
    assert [(p.lat, p.lon) for p in drawing.routes[0]] == [
        (47.3977, 8.5456),
        (47.398, 8.546),
        (47.42, 8.60),
        (47.43, 8.61),
    ]
    assert drawing.takeoff == Origin(473_977_000, 85_456_000, 488_000)


def test_a_return_to_home_is_flown_too(tmp_path):
    drawing = read_mission(written(tmp_path, plan(simple(16, 47.42, 8.60), simple(20, 0, 0, frame=2))))
    assert drawing.routes[0][0] == drawing.routes[0][-1]


def test_the_corridor_is_a_thousand_metres_unless_given(tmp_path):
    content = plan(simple(16, 47.50, 8.5456))
    found = area(tmp_path, content)
    for metres, inside in ((900, True), (2500, False)):
        for azimuth in (90, 270):
            at = EARTH.Direct(47.45, 8.5456, azimuth, metres)
            assert holds(found, at["lat2"], at["lon2"]) is inside
    wider = area(tmp_path, content, buffer_m=3000)
    at = EARTH.Direct(47.45, 8.5456, 90, 2500)
    assert holds(wider, at["lat2"], at["lon2"])


def test_a_survey_is_covered_with_its_polygon_and_its_flight_lines(tmp_path):
    found = area(tmp_path, plan(SURVEY), buffer_m=10)
    for lat, lon in ((47.405, 8.555), (47.401, 8.551), (47.409, 8.559), (47.4099, 8.5501)):
        assert holds(found, lat, lon)
    assert len(found.routes[0]) == 4


def test_a_corridor_scan_without_transects_is_its_line(tmp_path):
    found = area(tmp_path, plan(CORRIDOR), buffer_m=10)
    assert holds(found, 47.425, 8.565)


def test_a_landing_pattern_and_rally_points_are_covered(tmp_path):
    found = area(tmp_path, plan(LANDING, rally=[[47.45, 8.7, 30]]), buffer_m=10)
    assert holds(found, 47.39, 8.54)
    assert holds(found, 47.45, 8.7)
    assert (47.45, 8.7) not in {(lat / 1e7, lon / 1e7) for lat, lon in found.routes[0]}


@pytest.mark.parametrize("item", [simple(195, 10, 10), simple(201, 1, 1), simple(22, 0, 0), simple(17, None, None)])
def test_commands_that_fly_nowhere_are_no_waypoints(tmp_path, item):
    drawing = read_mission(written(tmp_path, plan(simple(16, 47.42, 8.60), item)))
    assert len(drawing.routes[0]) == 2


def wpl(*rows):
    return "\n".join(["QGC WPL 110", *("\t".join(map(str, row)) for row in rows), ""])


WAYPOINTS = wpl(
    (0, 1, 0, 16, 0, 0, 0, 0, 47.3977, 8.5456, 488.0, 1),
    (1, 0, 3, 22, 15, 0, 0, 0, 47.398, 8.546, 50, 1),
    (2, 0, 3, 16, 0, 0, 0, 0, 47.42, 8.60, 50, 1),
    (3, 0, 2, 20, 0, 0, 0, 0, 0, 0, 0, 1),
)


def test_a_waypoint_file_is_the_same_route(tmp_path):
    drawing = read_mission(written(tmp_path, WAYPOINTS, "a.waypoints"))
    same = read_mission(
        written(tmp_path, plan(simple(22, 47.398, 8.546), simple(16, 47.42, 8.60), simple(20, 0, 0, frame=2)))
    )
    assert (drawing.routes, drawing.takeoff, drawing.takeoff_datum) == (same.routes, same.takeoff, same.takeoff_datum)


def test_home_is_the_take_off_point_unless_one_is_given(tmp_path):
    tile = geo.tile_at(Z, lat_e7=473_977_000, lon_e7=85_456_000)
    path = written(tmp_path, plan(simple(16, 47.3978, 8.5457)))
    store = write_xyz(tmp_path / "sat", {(Z, *tile): image(1)})
    asked = flight(tmp_path, store, area=Area(mission=path, zooms=(Z,)))
    assert scan(asked.selection, asked.build_dir).takeoff == Origin(473_977_000, 85_456_000, 488_000)
    given = Origin(473_978_000, 85_457_000)
    from dataclasses import replace

    assert scanned(replace(asked, flight=FlightIdentity(takeoff=given))).takeoff == given


def test_a_route_over_the_antimeridian_has_no_leg_around_the_world(tmp_path):
    found = area(tmp_path, plan(simple(16, -17.0, -179.95), home=[-17.0, 179.95, 0]))
    assert found.cover.expected(Z) < 500
    assert holds(found, -17.0, 179.999)
    assert holds(found, -17.0, -179.999)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"fileType": "Plan"}, "not a QGroundControl plan"),
        ({"type": "FeatureCollection", "features": []}, "GeoJSON, which is an area and not a mission"),
        (plan(home=None), "no position"),
        (plan(simple(16, 95, 8)), "out of range"),
        (plan(simple(16, "a", 8)), "not a position"),
        (plan(simple(16, 10, 8, frame=8)), "local frame"),
        (plan(simple(16, 10, 8, frame=99)), "unknown frame"),
        (plan({"type": "ComplexItem", "complexItemType": "teleport"}), "unknown kind"),
        (plan(7), "not an object"),
        (plan(SURVEY | {"polygon": [[1, 2], [3, 4]]}), "fewer than 3 corners"),
        (plan(SURVEY | {"polygon": "square"}), "no list of positions"),
        (plan(home=[1]), "not a position"),
        ("QGC WPL 90\n", "QGC WPL 110 is needed"),
        ("QGC WPL 110\n1\t0\t3\n", "3 fields instead of 12"),
        (wpl((0, 1, 0, 16, 0, 0, 0, 0, "north", 8, 1, 1)), "is not a waypoint"),
        (wpl((0, 1, 0, 16, 0, 0, 0, 0, "nan", 8, 1, 1)), "not a position"),
        (wpl((1, 0, 1, 16, 0, 0, 0, 0, 5, 8, 1, 1)), "local frame"),
        ("QGC WPL 110\n", "no position"),
        ("", "none that is known"),
    ],
)
def test_a_mission_that_cannot_be_understood_is_named(tmp_path, content, reason):
    path = written(tmp_path, content)
    with pytest.raises(AreaError, match=reason) as caught:
        read_mission(path)
    assert caught.value.file == str(path)
