"""The take-off point and the area: its legs, its tile, the datum of its altitude; longitudes counted in one place."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.area.area import check_takeoff, measure_area, takeoff_tile
from provisioning.base.errors import AreaError
from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import HALF_TURN_E7, TURN_E7, BBox, Origin, wrapped_e7
from provisioning.catalogue import area_of, last_corpus, scan
from provisioning.config import Area, AreaPart, FlightIdentity
from tests.flying import HOME, A, plan, simple, written
from tests.tilesets import X, Y, Z, bbox_of, block, flight, scanned, write_xyz

CENTRE = geo.tile_centre(Z, X + 1, Y + 1)


def store_and_flight(tmp_path, takeoff, **area):
    tiles = block()
    store = write_xyz(tmp_path / "sat", tiles)
    asked = Area(**({"bbox": bbox_of(tiles), "zooms": (Z,)} | area))
    return replace(flight(tmp_path, store, area=asked), flight=FlightIdentity(takeoff=takeoff))


def test_a_take_off_outside_a_box_is_refused_with_the_keys_that_help(tmp_path):
    with pytest.raises(AreaError, match="take-off point lies outside the area") as caught:
        scanned(store_and_flight(tmp_path, Origin(CENTRE.lat_e7 + 10_000_000, CENTRE.lon_e7)))
    assert caught.value.key == "flight.takeoff"
    assert "area.bbox" in caught.value.next_step


def test_a_take_off_inside_a_box_requires_its_tile(tmp_path):
    corpus = scanned(store_and_flight(tmp_path, CENTRE))
    assert (corpus.required, corpus.required_missing) == (1, ())
    assert corpus.takeoff == CENTRE


def test_the_take_off_tile_is_asked_for_at_the_finest_zoom_that_the_area_has_there(tmp_path):
    tiles = block()
    elsewhere = AreaPart(bbox=BBox(0, 0, 10_000_000, 10_000_000), zooms=(Z + 1,))
    asked = store_and_flight(tmp_path, CENTRE, bbox=bbox_of(tiles), zooms=(Z,), part=(elsewhere,))
    corpus = scan(asked.selection, asked.build_dir)
    assert (corpus.required, corpus.required_missing) == (1, ())
    assert takeoff_tile(area_of(asked.area, asked.flight.takeoff, asked.build_dir).cover, CENTRE) == (Z, X + 1, Y + 1)
    assert last_corpus(asked.selection, asked.build_dir) is not None


def test_every_required_tile_of_a_mission_can_be_in_its_area(tmp_path):
    away = Origin(469_000_000, 72_000_000)
    path = written(tmp_path, plan(simple(16, A), simple(20, frame=2)))
    area = measure_area(Area(mission=path, zooms=(12, Z), buffer_m=0), away)
    check_takeoff(area, away)
    for z in area.required.zooms:
        for x, rows in area.required.columns(z):
            assert all(area.cover.holds(z, x, y) for low, high in rows for y in range(low, high + 1))


def test_another_take_off_is_another_area_only_where_a_mission_is_flown(tmp_path):
    from provisioning.area.area import area_facts

    path = written(tmp_path, plan(simple(16, A)))
    places = [None, Origin(469_000_000, 72_000_000), Origin(469_000_000, 72_000_000, 5)]
    boxed, flown = (
        [area_facts(area, place) for place in places]
        for area in (Area(bbox=BBox(0, 0, 1, 1), zooms=(3,)), Area(mission=path, zooms=(3,)))
    )
    assert len(set(boxed)) == 1
    assert flown[0] != flown[1] == flown[2]


def test_what_a_mission_leaves_open_is_an_event_of_each_scan(tmp_path, caplog):
    tiles = block()
    store = write_xyz(tmp_path / "sat", tiles)
    place = CENTRE.lat_e7 / 1e7, CENTRE.lon_e7 / 1e7
    path = written(tmp_path, plan(simple(16, place), simple(92, frame=2), home=place))
    asked = flight(tmp_path, store, area=Area(mission=path, zooms=(Z,), buffer_m=0))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO", logger="c10.provision"):
            scan(asked.selection, asked.build_dir)
        said = [record for record in caplog.records if getattr(record, "kind", "") == "c10.provision.area.open"]
        assert any(r.levelname == "WARNING" and "outside the mission" in r.kv["note"] for r in said)


def test_the_home_of_a_plan_is_above_mean_sea_level(tmp_path):
    area = measure_area(Area(mission=written(tmp_path, plan(simple(16, A))), zooms=(9,)))
    assert area.home == Origin(round(HOME[0] * 1e7), round(HOME[1] * 1e7), 450_000)
    assert area.home_datum == "amsl"


# longitudes


@given(st.integers(-(10**11), 10**11))
def test_a_wrapped_longitude_is_the_same_meridian(lon):
    wrapped = wrapped_e7(lon)
    assert -HALF_TURN_E7 <= wrapped < HALF_TURN_E7
    assert (wrapped - lon) % TURN_E7 == 0


@pytest.mark.parametrize(
    ("west", "east", "width", "middle"),
    [
        (-10, 10, 20, 0),
        (170, -170, 20, -180),
        (170, -160, 30, -175),
        (-180, 180, 360, 0),
        (10, -10, 340, -180),
        (5, 5, 0, 5),
    ],
)
def test_width_and_middle_of_a_box_go_from_west_to_east(west, east, width, middle):
    box = BBox(west * 10**7, -(10**7), east * 10**7, 3 * 10**7)
    assert box.width_e7 == width * 10**7
    assert box.middle == Origin(10**7, middle * 10**7)
    if box.width_e7:
        assert box.holds(box.middle)


def test_the_report_shows_what_a_mission_leaves_open():
    from provisioning.report.model import ReportModel
    from provisioning.report.tables import coverage
    from tests.report_models import manifest

    notes = ("mission item 2: is <steered> from outside the mission",)
    shown = coverage(ReportModel(manifest=manifest(BBox(0, 0, 1, 1), {}), area_notes=notes))
    assert "is &lt;steered&gt; from outside the mission" in shown
