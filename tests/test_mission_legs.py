"""Every leg that an autopilot flies is in the area and its tiles are required; what cannot be known is said."""

import math
from itertools import pairwise

import pytest
from pyproj import Transformer
from shapely.geometry import LinearRing, Polygon
from shapely.geometry import Point as Shape

from provisioning.base.errors import AreaError
from tests.flying import (
    EARTH,
    HOME,
    A,
    B,
    C,
    D,
    area_of,
    covered,
    missing,
    plan,
    required,
    row,
    simple,
    tiles_between,
    wpl,
)

FIXED_WING, ARDUPILOT, PX4 = 1, 3, 12
WAY = [simple(16, A), simple(16, B), simple(16, C)]
RETURN = simple(20, frame=2)
SURVEY = {"type": "ComplexItem", "complexItemType": "survey", "version": 5, "angle": 0,
          "polygon": [[47.05, 7.05], [47.05, 7.08], [47.07, 7.08], [47.07, 7.05]]}  # fmt: skip
STRUCTURE = {"type": "ComplexItem", "complexItemType": "StructureScan", "version": 3, "Layers": 2,
             "polygon": [[47.06, 7.06], [47.06, 7.062], [47.062, 7.062], [47.062, 7.06]],
             "CameraCalc": {"DistanceToSurface": 400, "version": 1}}  # fmt: skip
CORRIDOR = {"type": "ComplexItem", "complexItemType": "CorridorScan", "CorridorWidth": 800, "version": 2,
            "polyline": [[47.05, 7.05], [47.05, 7.15]],
            "TransectStyleComplexItem": {"VisualTransectPoints": [], "TurnAroundDistance": 600,
                                         "CameraCalc": {"AdjustedFootprintSide": 200}}}  # fmt: skip
LANDING = {"type": "ComplexItem", "complexItemType": "fwLandingPattern", "version": 2, "loiterRadius": 900,
           "landCoordinate": [47.02, 7.0, 0], "landingApproachCoordinate": [47.04, 7.02, 40]}  # fmt: skip
RALLY = (47.05, 7.5)


def jump(target, repeats, number=None):
    return simple(177, params=(target, repeats, 0, 0), frame=2, number=number)


def both(items, rows):
    """The same mission as plan and as waypoint file."""
    return [
        pytest.param(plan(*items), id="plan"),
        pytest.param(wpl(row(0, 16, HOME, frame=0, alt=450), *rows), id="wpl"),
    ]


# jumps


@pytest.mark.parametrize("repeats", [1, 3, 32767, -1])
def test_a_jump_flies_back_and_on(tmp_path, repeats):
    area = area_of(tmp_path, plan(*WAY, jump(1, repeats), simple(16, D)))
    assert required(area, C, A)
    assert required(area, C, D)


def test_a_jump_in_a_waypoint_file_names_the_number_of_the_line(tmp_path):
    rows = [
        row(1, 22, (0, 0)),
        row(2, 16, A),
        row(3, 16, B),
        row(4, 16, C),
        row(5, 177, params=(2, 3, 0, 0)),
        row(6, 16, D),
    ]
    area = area_of(tmp_path, wpl(row(0, 16, HOME, frame=0), *rows))
    assert required(area, C, A)
    assert required(area, C, D)
    assert not covered(area, C, HOME)


def test_a_jump_without_repeats_is_not_flown(tmp_path):
    area = area_of(tmp_path, plan(*WAY, jump(1, 0), simple(16, D)))
    assert not covered(area, C, A)


def test_a_jump_to_a_command_goes_on_at_the_waypoint_after_it(tmp_path):
    items = [simple(16, A), simple(178, params=(1, 15, -1, 0), frame=2), simple(16, B), simple(16, C), jump(2, 2)]
    assert required(area_of(tmp_path, plan(*items)), C, B)


def test_a_jump_forward_leaves_out_nothing(tmp_path):
    area = area_of(tmp_path, plan(simple(16, A), jump(4, 1), simple(16, B), simple(16, C)))
    assert required(area, A, C)
    assert required(area, A, B)


def test_a_jump_to_a_tag_goes_to_it(tmp_path):
    tag, to_tag = simple(600, params=(7, 0, 0, 0), frame=2), simple(601, params=(7, 2, 0, 0), frame=2)
    assert required(area_of(tmp_path, plan(tag, *WAY, to_tag)), C, A)


def test_a_jump_into_a_survey_goes_to_its_line(tmp_path):
    items = [simple(16, (47.05, 7.2), number=2), simple(16, (47.06, 7.2), number=3)]
    survey = SURVEY | {"TransectStyleComplexItem": {"Items": items}}
    area = area_of(tmp_path, plan(simple(16, A, number=1), survey, simple(16, C, number=4), jump(3, 1, number=5)))
    assert required(area, C, (47.06, 7.2))


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([*WAY, jump(9, 1)], "item 9, which the mission does not have"),
        ([*WAY, jump(1, 1_000_000_000)], "repeats a jump 1000000000 times"),
        ([*WAY, jump(1, -7)], "repeats a jump -7 times"),
        ([jump(1, -1), *WAY], "for ever without flying"),
        ([jump(2, -1), jump(1, -1), *WAY], "for ever without flying"),
        ([*WAY, jump(None, 1)], "without target"),
    ],
)
def test_a_jump_that_autopilots_refuse_is_refused(tmp_path, items, reason):
    with pytest.raises(AreaError, match=reason) as caught:
        area_of(tmp_path, plan(*items))
    assert caught.value.next_step


# going home


@pytest.mark.parametrize(
    "content", both([*WAY, RETURN], [row(1, 16, A), row(2, 16, B), row(3, 16, C), row(4, 20, frame=2)])
)
def test_a_return_is_flown_home(tmp_path, content):
    assert required(area_of(tmp_path, content), C, HOME)


def test_the_take_off_elsewhere_adds_its_legs_to_those_of_home(tmp_path):
    away = (46.9, 7.2)
    area = area_of(tmp_path, plan(*WAY, RETURN), takeoff=away)
    for place in (away, HOME):
        assert required(area, place, A)
        assert required(area, C, place)
    assert area.home.lat_e7 == 470_000_000


def test_the_take_off_is_home_where_the_mission_has_none(tmp_path):
    area = area_of(tmp_path, plan(simple(22), *WAY, RETURN, home=(0, 0)), takeoff=HOME)
    assert required(area, HOME, A)
    assert required(area, C, HOME)
    assert not missing(area)


def test_a_return_without_a_home_is_said(tmp_path):
    assert any("set flight.takeoff" in note for note in missing(area_of(tmp_path, plan(*WAY, RETURN, home=None))))


def test_a_return_may_go_to_the_nearest_rally_point(tmp_path):
    area = area_of(tmp_path, plan(*WAY, RETURN, rally=[RALLY, (47.9, 7.5)]))
    assert required(area, C, RALLY)
    assert not covered(area, C, (47.9, 7.5))


def test_a_return_may_go_to_the_landing_sequence(tmp_path):
    sequence = [simple(189, frame=2), simple(16, (47.05, 7.0)), simple(21, HOME)]
    area = area_of(tmp_path, plan(simple(16, A), RETURN, simple(16, C), *sequence))
    assert required(area, A, (47.05, 7.0))


def test_a_fixed_wing_of_ardupilot_returns_when_its_mission_is_over(tmp_path):
    home = area_of(tmp_path, plan(*WAY, firmwareType=ARDUPILOT, vehicleType=FIXED_WING))
    stays = area_of(tmp_path, plan(*WAY, firmwareType=PX4, vehicleType=2))
    assert required(home, C, HOME)
    assert not covered(stays, C, HOME)
    assert any("a return from there is not covered" in str(note) for note in stays.notes)


def test_a_mission_that_ends_with_a_landing_leaves_nothing_open(tmp_path):
    assert not area_of(tmp_path, plan(*WAY, simple(21, HOME))).notes


def test_home_set_on_the_way_is_returned_to(tmp_path):
    area = area_of(tmp_path, plan(*WAY, simple(179, D, params=(0, 0, 0, 0)), RETURN))
    assert required(area, C, D)


# diversions


def test_diversions_are_covered_or_required_by_choice(tmp_path):
    content = plan(*WAY, RETURN, rally=[RALLY], fence={"breachReturn": [46.95, 7.1, 50], "polygons": [], "circles": []})
    points, legs, must = (area_of(tmp_path, content, diversions=choice) for choice in ("points", "legs", "required"))
    assert covered(points, RALLY)
    assert not covered(points, B, RALLY)
    assert covered(legs, B, RALLY)
    assert not required(legs, B, RALLY)
    assert required(must, B, RALLY)
    assert required(must, A, (46.95, 7.1))
    assert required(must, B, HOME)


# patterns


def test_transit_to_and_from_a_survey_is_flown_whichever_end_comes_first(tmp_path):
    area = area_of(tmp_path, plan(SURVEY | {"grid": {"spacing": 200}}, RETURN, vehicleType=2))
    assert all(required(area, HOME, (lat, 7.0505)) for lat in (47.05, 47.07))
    assert sum(map(len, area.routes)) > 20


def test_a_plan_written_by_other_programs_may_spell_a_pattern_otherwise(tmp_path):
    other = {k: v for k, v in CORRIDOR.items() if k != "CorridorWidth"} | {
        "corridorWidth": 800,
        "complexItemType": "corridorScan",
    }
    assert area_of(tmp_path, plan(other)).cover.bands == area_of(tmp_path, plan(CORRIDOR)).cover.bands


@pytest.mark.parametrize("key", ["Items", "VisualTransectPoints"])
def test_the_lines_of_a_survey_are_flown_turn_arounds_included(tmp_path, key):
    line = [(47.05, 7.06), (47.12, 7.06), (47.12, 7.07), (47.05, 7.07)]
    saved = [simple(16, place) for place in line] if key == "Items" else [list(place) for place in line]
    area = area_of(tmp_path, plan(SURVEY | {"TransectStyleComplexItem": {key: saved}}, RETURN))
    assert all(required(area, a, b) for a, b in zip([HOME, *line], [*line, HOME], strict=True))


def test_computed_lines_of_a_survey_reach_its_outline_and_turn_around_beyond(tmp_path):
    grid = {"angle": 0, "spacing": 100, "turnAroundDistance": 1500}
    area = area_of(tmp_path, plan(SURVEY | {"version": 3, "grid": grid}))
    for lon in (7.052, 7.065, 7.078):
        north = EARTH.Direct(47.07, lon, 0, 1300)
        assert required(area, (47.055, lon), (north["lat2"], lon))
    outline = Polygon([(lon, lat) for lat, lon in SURVEY["polygon"]]).buffer(0.021)
    assert all(outline.contains(Shape(lon / 1e7, lat / 1e7)) for r in area.routes for lat, lon in r if (lat, lon) != (470_000_000, 70_000_000))  # fmt: skip


def test_what_a_camera_sees_beyond_the_edge_of_a_survey_is_in_the_area(tmp_path):
    camera = {"AdjustedFootprintSide": 900, "AdjustedFootprintFrontal": 600, "SideOverlap": 70, "FrontalOverlap": 70}
    drawn = {"VisualTransectPoints": [[47.06, 7.06], [47.06, 7.07]], "CameraCalc": camera}
    area = area_of(tmp_path, plan(SURVEY | {"TransectStyleComplexItem": drawn}), buffer_m=0)
    half = math.hypot(900, 600) / 0.3 / 2
    for metres, inside in ((half * 0.95, True), (half + 1500, False)):
        at = EARTH.Direct(47.07, 7.065, 0, metres)
        assert covered(area, (at["lat2"], at["lon2"])) is inside


def test_a_structure_is_flown_around_at_its_distance_from_any_of_its_corners(tmp_path):
    area = area_of(tmp_path, plan(simple(22, HOME), STRUCTURE, RETURN))
    to_metres = Transformer.from_crs(4326, "+proj=aeqd +lat_0=47.061 +lon_0=7.061 +units=m").transform
    structure = Polygon([to_metres(*corner) for corner in STRUCTURE["polygon"]])
    ring = next(route for route in area.routes if len(route) > 4)[:5]
    flown = LinearRing([to_metres(lat / 1e7, lon / 1e7) for lat, lon in ring[:4]])
    assert flown.distance(structure) == pytest.approx(400, rel=2e-3)
    assert structure.buffer(400, join_style="mitre").exterior.hausdorff_distance(flown) < 2
    for lat, lon in ring:
        assert required(area, HOME, (lat / 1e7, lon / 1e7))


def test_a_corridor_scan_is_flown_over_its_width_and_turns_beyond_its_ends(tmp_path):
    area = area_of(tmp_path, plan(CORRIDOR, RETURN), z=16)
    for aside in (-300, -100, 100, 300):
        line = [EARTH.Direct(47.05, lon, 0, aside) for lon in (7.05 - 0.006, 7.15 + 0.006)]
        ends = [(at["lat2"], at["lon2"]) for at in line]
        assert all(area.required.holds(*tile) for tile in tiles_between(*ends, z=16, samples=5))


def test_a_landing_pattern_is_loitered_and_landed(tmp_path):
    area = area_of(tmp_path, plan(*WAY, LANDING))
    assert required(area, (47.04, 7.02), (47.02, 7.0))
    for azimuth in range(0, 360, 45):
        at = EARTH.Direct(47.04, 7.02, azimuth, 900)
        assert covered(area, (at["lat2"], at["lon2"]))


@pytest.mark.parametrize(("command", "params"), [(17, (0, 0, 2000, 0)), (18, (3, 0, -2000, 0)), (19, (9, 0, 2000, 0)),
                                                 (31, (0, 2000, 0, 0)), (34, (2000, 0, 0, 0))])  # fmt: skip
def test_a_loiter_is_flown_on_its_circle(tmp_path, command, params):
    area = area_of(tmp_path, plan(simple(16, A), simple(command, B, params=params)))
    for azimuth in range(0, 360, 30):
        at = EARTH.Direct(*B, azimuth, 2000)
        assert required(area, (at["lat2"], at["lon2"]), (at["lat2"], at["lon2"]))


def test_a_loiter_without_a_radius_says_what_the_buffer_must_hold(tmp_path):
    assert any("vehicle's own radius" in str(note) for note in area_of(tmp_path, plan(simple(17, A))).notes)


def test_a_spline_is_covered_where_it_leaves_the_straight_leg(tmp_path):
    way = [(47.0, 7.0), (47.0, 7.2), (47.2, 7.2), (47.2, 7.0)]
    curved = area_of(tmp_path, plan(*[simple(82, place) for place in way[1:]], home=way[0]))
    straight = area_of(tmp_path, plan(*[simple(16, place) for place in way[1:]], home=way[0]))
    extra = curved.cover.expected(15) - straight.cover.expected(15)
    assert extra > 20
    assert all(required(curved, a, b) for a, b in pairwise(way))


# frames and positions


@pytest.mark.parametrize(("frame", "place"), [(1, (2000.0, 7592.0)), (4, (7592.0, 2000.0))])
def test_a_local_frame_is_counted_from_home(tmp_path, frame, place):
    area = area_of(tmp_path, plan(simple(16, place, frame=frame)))
    lat, lon = (angle / 1e7 for angle in area.routes[0][1])
    inverse = EARTH.Inverse(*HOME, lat, lon)
    assert inverse["s12"] == pytest.approx(math.hypot(2000, 7592), rel=2e-3)
    assert inverse["azi1"] == pytest.approx(math.degrees(math.atan2(7592, 2000)), abs=0.2)


@pytest.mark.parametrize("frame", [0, 3, 10])
def test_frames_differ_in_altitude_and_not_in_place(tmp_path, frame):
    assert required(area_of(tmp_path, plan(simple(16, A, frame=frame))), HOME, A)


@pytest.mark.parametrize("frame", [5, 6, 11])
def test_whole_numbers_of_1e7_degree_are_degrees(tmp_path, frame):
    assert required(area_of(tmp_path, plan(simple(16, (470_000_000, 71_000_000), frame=frame))), HOME, A)


@pytest.mark.parametrize("frame", [7, 8, 9, 12, 20, 99, True, None])
def test_a_frame_that_depends_on_the_flight_is_refused(tmp_path, frame):
    with pytest.raises(AreaError, match=r"local frame|unknown frame"):
        area_of(tmp_path, plan(simple(16, A, frame=frame)))


@pytest.mark.parametrize("place", [(0, 0), (None, None)])
@pytest.mark.parametrize("command", [16, 17, 19, 21, 22, 84])
def test_a_command_without_a_position_flies_nowhere_else(tmp_path, command, place):
    area = area_of(tmp_path, plan(simple(16, A), simple(command, place), simple(16, B)))
    assert required(area, A, B)
    assert area.bbox.south > 469_000_000


@pytest.mark.parametrize(
    "command", [93, 112, 113, 114, 115, 178, 181, 183, 189, 195, 201, 203, 205, 206, 211, 530, 2500]
)
def test_commands_that_move_nothing_are_no_places(tmp_path, command):
    area = area_of(tmp_path, plan(simple(16, A), simple(command, (10.0, 10.0)), simple(16, B)))
    assert required(area, A, B)
    assert area.bbox.south > 469_000_000
    assert not missing(area)


@pytest.mark.parametrize(("command", "word"), [(25, "moves"), (30, "straight on"), (92, "outside"), (3000, "cruise"),
                                               (42702, "script"), (87, "not known")])  # fmt: skip
def test_what_the_file_cannot_say_is_said(tmp_path, command, word):
    assert any(word in note for note in missing(area_of(tmp_path, plan(*WAY, simple(command, frame=2)))))


def test_an_unknown_navigation_command_with_a_position_is_a_waypoint_and_said(tmp_path):
    area = area_of(tmp_path, plan(simple(16, A), simple(90, B)))
    assert required(area, A, B)
    assert any("not known" in str(note) for note in area.notes)


def test_legs_beyond_the_last_tile_are_said(tmp_path):
    area = area_of(tmp_path, plan(simple(16, (85.5, 7.0)), home=(84.9, 7.0)), z=10)
    assert any("no tile is beyond" in note for note in missing(area))


def test_the_notes_and_the_datum_of_home_are_remembered_with_the_area(tmp_path):
    area = area_of(tmp_path, plan(*WAY))
    assert area.home_datum == "amsl"
    assert area.notes
    assert type(area).from_json(area.to_json()).notes == area.notes
    assert type(area).from_json(area.to_json()).home_datum == "amsl"


def test_numbers_beyond_any_autopilot_are_refused_in_few_words(tmp_path):
    for params in ((1, 1e300, 0, 0), (1e300, 1, 0, 0), (1, float("inf"), 0, 0)):
        rows = [row(0, 16, HOME, frame=0), row(1, 16, A), row(2, 177, params=params)]
        with pytest.raises(AreaError, match="jump") as caught:
            area_of(tmp_path, wpl(*rows))
        assert len(caught.value.what) < 150
