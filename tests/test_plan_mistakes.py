"""What a QGroundControl plan can get wrong is named with its place, and what it leaves out is said."""

from __future__ import annotations

import pytest

from provisioning.base.errors import AreaError
from tests.flying import HOME, A, B, C, area_of, missing, plan, required, row, simple, wpl

TAKEOFF, WAYPOINT = 22, 16
STRUCTURE = {
    "type": "ComplexItem",
    "complexItemType": "StructureScan",
    "polygon": [[*A], [A[0] + 0.01, A[1]], [A[0] + 0.01, A[1] + 0.01]],
    "CameraCalc": {},
}


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"type": "SimpleItem", "command": True, "params": []}], "no command number"),
        ([{"type": "SimpleItem", "command": WAYPOINT, "frame": 3, "coordinate": "north"}], "not a position|params"),
        ([{"type": "ComplexItem", "complexItemType": "fwLandingPattern"}], "no place to land"),
        ([{**STRUCTURE, "polygon": [[*A], [*B]]}], "fewer than 3"),
        ([{**STRUCTURE, "polygon": "round"}], "no list of positions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_item_that_cannot_be_flown_is_named(tmp_path, items, reason):
    with pytest.raises(AreaError, match=reason) as refused:
        area_of(tmp_path, plan(simple(TAKEOFF, HOME), *items))
    assert refused.value.next_step


def test_a_structure_without_its_distance_is_flown_as_its_outline_and_said(tmp_path):
    area = area_of(tmp_path, plan(simple(TAKEOFF, HOME), STRUCTURE))
    assert any("no distance to the structure" in note for note in (str(note) for note in area.notes)) or missing(area)


@pytest.mark.parametrize(
    ("fence", "reason"),
    [
        ("square", "geoFence is not an object"),
        ({"polygons": 3}, "no list of positions"),
        ({"polygons": [{"polygon": [[*A], [*B]], "inclusion": True}]}, "fewer than 3 corners"),
        ({"polygons": [{"polygon": {"points": [[*A], "x", [*B]]}, "inclusion": True}]}, "not a position"),
        ({"circles": [{"circle": "round", "inclusion": True}]}, "circle is not an object"),
        ({"circles": [{"circle": {"center": [*A], "radius": 500}, "inclusion": False}]}, "geoFence|fence"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fence_that_encloses_nothing_is_named(tmp_path, fence, reason):
    document = plan(simple(TAKEOFF, HOME))
    document["geoFence"] = fence
    with pytest.raises(AreaError, match=reason):
        area_of(tmp_path, document, key="geojson", name="a.plan", buffer_m=None)


def test_a_fence_of_an_old_plan_is_an_area_like_a_new_one(tmp_path):
    ring = [[47.0, 7.1], [47.1, 7.1], [47.1, 7.2]]
    boxes = []
    for corners in (ring, {"points": ring}, [{"latitude": lat, "longitude": lon} for lat, lon in ring]):
        document = plan(simple(TAKEOFF, HOME))
        document["geoFence"] = {"polygons": [{"polygon": corners, "inclusion": True}], "circles": [], "version": 2}
        boxes.append(area_of(tmp_path, document, key="geojson", name="a.plan", buffer_m=None).bbox)
    assert boxes[0] == boxes[1] == boxes[2]
    assert abs(boxes[0].south - 470_000_000) < 100_000


def test_a_waypoint_file_with_half_a_command_is_named(tmp_path):
    with pytest.raises(AreaError, match="no frame or command number"):
        area_of(tmp_path, wpl(row(0, WAYPOINT, HOME), row(1, 16.5, A)))


def test_a_jump_to_a_tag_of_a_waypoint_file_is_flown(tmp_path):
    jump_tag, do_jump_tag = 600, 601
    area = area_of(
        tmp_path,
        wpl(
            row(0, WAYPOINT, HOME),
            row(1, WAYPOINT, A),
            row(2, jump_tag, params=(7, 0, 0, 0)),
            row(3, WAYPOINT, B),
            row(4, WAYPOINT, C),
            row(5, do_jump_tag, params=(7, 2, 0, 0)),
        ),
    )
    assert required(area, C, B)


def test_a_first_line_that_is_no_waypoint_is_home_and_flown_to(tmp_path):
    area = area_of(tmp_path, wpl(row(0, TAKEOFF, HOME), row(1, WAYPOINT, A), row(2, WAYPOINT, B)))
    assert required(area, HOME, A)
    assert any("is home to ArduPilot" in str(note) for note in area.notes)
