"""Missions of every format, as their programs write them: the same legs, or a refusal that says what to do."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymavlink import mavutil, mavwp

from provisioning.area.reading import read_mission
from provisioning.base.errors import AreaError
from tests.flying import HOME, A, B, C, area_of, covered, missing, plan, required, row, simple, wpl, written
from tests.properties import examples

ROWS = [row(0, 16, HOME, frame=0, alt=450), row(1, 22), row(2, 16, A), row(3, 16, B), row(4, 20, frame=2)]
TEXT = wpl(*ROWS)


def route_of(path, **options):
    """Return the first route of a mission file as (latitude, longitude)."""
    return [(round(p.lat, 6), round(p.lon, 6)) for p in read_mission(path, **options).routes[0]]


LEGS = [HOME, A, B, HOME]


# QGC WPL


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(TEXT.encode("utf-8-sig"), id="BOM"),
        pytest.param(TEXT.encode("utf-16"), id="UTF-16"),
        pytest.param(TEXT.encode("utf-16-le"), id="UTF-16 without BOM"),
        pytest.param(TEXT.encode("utf-16-be"), id="UTF-16 BE"),
        pytest.param(TEXT.replace("\n", "\r\n").encode(), id="CRLF"),
        pytest.param(TEXT.replace("\n", "\r").encode(), id="CR"),
        pytest.param(b"\r\n\r\n" + TEXT.encode(), id="blank first line"),
        pytest.param(TEXT.replace("\t", " ").encode(), id="spaces"),
        pytest.param(TEXT.replace(".", ",").encode(), id="decimal comma"),
        pytest.param(TEXT.replace("QGC WPL 110", "QGC  WPL\t110 ").encode(), id="spaces in the head"),
        pytest.param(
            TEXT.replace("QGC WPL 110\n0\t1\t0\t16", "QGC WPL 110\n0\t1\t0\t0").encode(), id="home is command 0"
        ),
        pytest.param((TEXT + "# a comment\n\n").encode(), id="comment"),
    ],
)
def test_a_waypoint_file_is_read_as_programs_write_it(tmp_path, data):
    assert route_of(written(tmp_path, data)) == LEGS


def test_version_120_has_no_home_and_counts_from_its_first_line(tmp_path):
    rows = [row(0, 16, A), row(1, 16, B), row(2, 16, C), row(3, 177, params=(0, 1, 0, 0))]
    area = area_of(tmp_path, wpl(*rows, head="QGC WPL 120"))
    assert area.home is None
    assert required(area, C, A)


def test_a_waypoint_file_without_home_begins_at_its_first_place(tmp_path):
    assert route_of(written(tmp_path, wpl(row(0, 16, (0, 0), frame=0), *ROWS[2:]))) == [A, B]


@pytest.mark.parametrize("command", [5001, 5100])
def test_a_file_with_a_fence_or_rally_points_is_no_mission(tmp_path, command):
    with pytest.raises(AreaError, match="fence or rally points"):
        read_mission(written(tmp_path, wpl(row(0, 16, HOME, frame=0), row(1, command, A))))


@given(st.lists(st.tuples(st.floats(-80, -0.5) | st.floats(0.5, 80), st.floats(-179, 179)), min_size=2, max_size=12))
@examples(0.5)
def test_what_pymavlink_writes_is_flown_as_it_numbers_it(tmp_path_factory, places):
    loader = mavwp.MAVWPLoader()
    for n, (lat, lon) in enumerate(places):
        frame = 0 if n == 0 else 3
        loader.add(mavutil.mavlink.MAVLink_mission_item_message(1, 1, n, frame, 16, 0, 1, 0, 0, 0, 0, lat, lon, 50))
    path = tmp_path_factory.mktemp("wpl") / "m.txt"
    loader.save(str(path))
    drawing = read_mission(path)
    written_places = [(round(w.x, 6), round(w.y, 6)) for w in loader.wpoints]
    set_places = {place for place in written_places if place != (0, 0)}
    flown = {(round(p.lat, 6), round((p.lon + 180) % 360 - 180, 6)) for line in drawing.lines for p in line}
    assert flown == set_places


# QGroundControl


def v1(*items, home=HOME):
    def item(n, command, place, params=(0, 0, 0, 0)):
        return {"autoContinue": True, "command": command, "coordinate": [*place, 50], "frame": 3, "id": n,
                "type": "missionItem", **{f"param{i}": value for i, value in enumerate(params, 1)}}  # fmt: skip

    return {"MAV_AUTOPILOT": 3, "groundStation": "QGroundControl", "version": "1.0", "complexItems": [],
            "plannedHomePosition": item(0, 16, home), "items": [item(n, *i) for n, i in enumerate(items, 1)]}  # fmt: skip


def v2(*items):
    old = [{k: v for k, v in i.items() if k != "params"} | {"params": i["params"][:4], "coordinate": [*i["params"][4:6], 50]}
           for i in items]  # fmt: skip
    return {"fileType": "Mission", "version": 2, "plannedHomePosition": [*HOME, 450], "items": old}


PLANS = {
    "plan": plan(simple(16, A), simple(16, B), simple(20, frame=2)),
    "mission of version 1": v1((16, A), (16, B), (20, (0, 0))),
    "mission of version 2": v2(simple(16, A), simple(16, B), simple(20, frame=2)),
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_plan_of_any_version_is_read(tmp_path, kind):
    assert route_of(written(tmp_path, PLANS[kind])) == LEGS


def test_patterns_of_version_1_are_flown_in_their_place(tmp_path):
    old = v1((16, A), (16, C))
    old["items"][1]["id"] = 9
    old["complexItems"] = [{"id": 2, "type": "complexItem", "complexItemType": "survey", "version": 1, "gridSpacing": 300,
                            "polygon": [list(B), [47.02, 7.35], [47.02, 7.37]]}]  # fmt: skip
    area = area_of(tmp_path, old)
    assert required(area, A, (47.02, 7.37)) or required(area, A, B)
    assert not covered(area, A, C)


# mwp and INAV


def inav(*items, home='home-x="7.0" home-y="47.0"', root="mission"):
    body = "".join(f'<missionitem no="{n}" action="{action}" lat="{lat}" lon="{lon}" alt="50" parameter1="{p1}" '
                   f'parameter2="{p2}" parameter3="0" flag="{flag}"/>'
                   for n, (action, (lat, lon), p1, p2, flag) in enumerate(items, 1))  # fmt: skip
    return f'<?xml version="1.0" encoding="utf-8"?>\n<{root}><version value="2.3-pre8"/><mwp zoom="14" {home}/>{body}</{root}>'


def item(action, place=(0, 0), p1=0, p2=0, flag=0):
    return action, place, p1, p2, flag


def test_a_mission_of_inav_is_flown_with_its_jumps_and_return(tmp_path):
    steps = [item("WAYPOINT", A), item("POSHOLD_TIME", B), item("SET_POI", (10, 10)), item("WAYPOINT", C),
             item("JUMP", p1=1, p2=2), item("SET_HEAD", p1=90), item("RTH", flag=165)]  # fmt: skip
    area = area_of(tmp_path, inav(*steps))
    for leg in ((HOME, A), (A, B), (B, C), (C, A), (C, HOME)):
        assert required(area, *leg)
    assert area.bbox.south > 469_000_000


def test_several_missions_of_one_file_are_each_flown_from_home_and_count_their_own_items(tmp_path):
    steps = [item("WAYPOINT", A), item("LAND", B, flag=165), item("WAYPOINT", C), item("JUMP", p1=1, p2=2, flag=165)]
    area = area_of(tmp_path, inav(*steps))
    assert required(area, HOME, A)
    assert required(area, HOME, C)
    assert not covered(area, B, C)


def test_capitals_and_decimal_commas_of_inav_are_read(tmp_path):
    text = inav(item("WAYPOINT", ("47,1", "7,1"))).replace("missionitem", "MISSIONITEM").replace("lat=", "LAT=")
    assert route_of(written(tmp_path, text))[1] == (47.1, 7.1)


def test_a_waypoint_of_inav_at_home_is_home(tmp_path):
    assert route_of(written(tmp_path, inav(item("WAYPOINT", A), item("WAYPOINT", (1, 1), flag=72)))) == [HOME, A, HOME]


@pytest.mark.parametrize(("step", "reason"), [(item("TELEPORT"), "unknown action"), (item("WAYPOINT", ("x", 1)), "no"),
                                              (item("JUMP", p1="x"), "without target"), (item("JUMP", p1=8, p2=1), "does not have")])  # fmt: skip
def test_an_item_of_inav_that_is_not_understood_is_refused(tmp_path, step, reason):
    with pytest.raises(AreaError, match=reason):
        read_mission(written(tmp_path, inav(step)))


# DJI


def wpml(places, *, finish="goHome", takeoff="47.0,7.0,12.3", mode="toPointAndStopWithDiscontinuityCurvature"):
    marks = "".join(
        f"<Placemark><Point><coordinates>\n {lon},{lat}\n</coordinates></Point><wpml:index>{n}</wpml:index>"
        f"<wpml:waypointTurnParam><wpml:waypointTurnMode>{mode}</wpml:waypointTurnMode></wpml:waypointTurnParam></Placemark>"
        for n, (lat, lon) in enumerate(places)
    )
    names = 'xmlns="http://www.opengis.net/kml/2.2" xmlns:wpml="http://www.dji.com/wpmz/1.0.2"'
    config = f"<wpml:missionConfig><wpml:finishAction>{finish}</wpml:finishAction><wpml:takeOffRefPoint>{takeoff}</wpml:takeOffRefPoint></wpml:missionConfig>"
    document = f'<?xml version="1.0" encoding="UTF-8"?><kml {names}><Document>{config}%s</Document></kml>'
    return zipped(
        {"wpmz/template.kml": document % "<Folder/>", "wpmz/waylines.wpml": document % f"<Folder>{marks}</Folder>"}
    )


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


def test_a_route_of_dji_is_flown_from_its_take_off_and_back(tmp_path):
    assert route_of(written(tmp_path, wpml([A, B]))) == LEGS


def test_a_route_of_dji_may_end_where_it_began(tmp_path):
    assert route_of(written(tmp_path, wpml([A, B, C], finish="gotoFirstWaypoint"))) == [HOME, A, B, C, A]


def test_a_route_of_dji_without_take_off_point_says_so_and_takes_the_configured_one(tmp_path):
    data = wpml([A, B], takeoff="")
    assert any("set flight.takeoff" in note for note in missing(area_of(tmp_path, data)))
    area = area_of(tmp_path, data, takeoff=HOME)
    assert required(area, HOME, A)
    assert required(area, B, HOME)
    assert not missing(area)


def test_a_dji_route_without_waypoints_names_the_ways_out(tmp_path):
    with pytest.raises(AreaError, match="no waypoint") as caught:
        read_mission(written(tmp_path, zipped({"wpmz/template.kml": "<kml/>"})))
    assert "QGC WPL" in caught.value.next_step


# tables, GPX, KML


@pytest.mark.parametrize(
    "text",
    [
        "latitude,longitude,altitude(m),heading(deg),curvesize(m)\n47.0,7.1,40,0,0\n47.0,7.35,40,0,0\n",
        "\ufefflatitude,longitude,altitude(m)\r\n47.0,7.1,40\r\n47.0,7.35,40\r\n",
        "latitude;longitude;altitude(m)\n47,0;7,1;40\n47,0;7,35;40\n",
        "Lat\tLon\n47.0\t7.1\n47.0\t7.35\n",
    ],
)
def test_a_table_of_waypoints_is_flown_in_its_order(tmp_path, text):
    area = area_of(tmp_path, text, takeoff=HOME)
    for leg in ((HOME, A), (A, B), (B, HOME)):
        assert required(area, *leg)


def test_curves_of_litchi_are_said(tmp_path):
    text = "latitude,longitude,curvesize(m)\n47.0,7.1,30\n47.0,7.35,0\n"
    assert any("1 curved turns" in str(note) for note in area_of(tmp_path, text).notes)


def test_a_row_that_is_no_position_is_named(tmp_path):
    with pytest.raises(AreaError, match="waypoint 2 is not a position"):
        read_mission(written(tmp_path, "latitude,longitude\n47,7\nnorth,7\n"))


def gpx(body):
    return f'<?xml version="1.0"?><gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">{body}</gpx>'


def points(name, *places):
    return "".join(f'<{name} lat="{lat}" lon="{lon}"><ele>5</ele></{name}>' for lat, lon in places)


@pytest.mark.parametrize(
    "body",
    [
        f"<rte>{points('rtept', A, B)}</rte>",
        f"<trk><trkseg>{points('trkpt', A, B)}</trkseg></trk>",
        points("wpt", A, B),
        f"<rte>{points('rtept', A, B)}</rte><trk><trkseg>{points('trkpt', (10, 10), (11, 11))}</trkseg></trk>",
        f"{points('wpt', (10, 10))}<rte>{points('rtept', A, B)}</rte>",
    ],
)
def test_gpx_is_flown_along_its_routes_or_else_tracks_or_else_waypoints(tmp_path, body):
    area = area_of(tmp_path, gpx(body), takeoff=HOME)
    for leg in ((HOME, A), (A, B), (B, HOME)):
        assert required(area, *leg)
    assert area.bbox.south > 469_000_000


def kml(body, names='xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2"'):
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<kml {names}><Document><Placemark>{body}</Placemark></Document></kml>'
    )


def line(*places):
    return "<coordinates>\n" + "\n ".join(f"{lon},{lat},100" for lat, lon in places) + "\n</coordinates>"


KML = {
    "line": kml(f"<LineString>{line(A, B)}</LineString>"),
    "line of a multi-geometry": kml(f"<MultiGeometry><LineString>{line(A, B)}</LineString></MultiGeometry>"),
    "track": kml(f"<gx:Track><gx:coord>{A[1]} {A[0]} 5</gx:coord><gx:coord>{B[1]} {B[0]} 5</gx:coord></gx:Track>"),
    "points": kml(f"<Point>{line(A)}</Point></Placemark><Placemark><Point>{line(B)}</Point>"),
    "KML 2.0 without a namespace": kml(f"<LineString>{line(A, B)}</LineString>", names=""),
}


@pytest.mark.parametrize("kind", KML)
@pytest.mark.parametrize("pack", [str.encode, lambda text: zipped({"files/a.png": "", "doc.kml": text})])
def test_kml_and_kmz_are_flown_along_their_lines(tmp_path, kind, pack):
    area = area_of(tmp_path, pack(KML[kind]), takeoff=HOME)
    for leg in ((HOME, A), (A, B), (B, HOME)):
        assert required(area, *leg)


# what is no mission


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
        ("POLYGON((7 47, 8 47, 8 48, 7 47))", "none that is known"),
        ('{"type": "Topology"}', "TopoJSON"),
        ('{"geometryType": "esriGeometryPolygon", "features": []}', "Esri JSON"),
        ('{"waypoints": []}', "not a QGroundControl plan"),
        ("<osm/>", "XML of the kind 'osm'"),
        ("<kml", "not well-formed"),
        (zipped({"a.txt": "x"}), "ZIP file without KML"),
        (zipped({"a.shp": "x"}), "Shapefile in a ZIP file"),
        (zipped({"doc.kml": "<kml/>"})[:-30], "damaged"),
        ("", "none that is known"),
    ],
)
def test_what_is_not_read_is_named_with_a_way_out(tmp_path, content, reason):
    path = written(tmp_path, content)
    with pytest.raises(AreaError, match=reason) as caught:
        read_mission(path)
    assert caught.value.file == str(path)
    assert caught.value.next_step


@pytest.mark.parametrize("name", ["a.plan", "a.waypoints", "a.kml", "a"])
def test_the_name_of_a_file_does_not_say_what_it_is(tmp_path, name):
    assert route_of(written(tmp_path, inav(item("WAYPOINT", A), item("WAYPOINT", B), item("RTH")), name)) == LEGS


NOWHERE = {
    "a.csv": "latitude,longitude,altitude(m)\n47.0,7.1,40\n0,0,40\n47.0,7.35,40\n",
    "a.gpx": '<gpx><rte><rtept lat="47.0" lon="7.1"/><rtept lat="0" lon="0.0"/><rtept lat="47.0" lon="7.35"/></rte></gpx>',
    "a.kml": "<kml><Placemark><LineString><coordinates>7.1,47 0,0 7.35,47</coordinates></LineString></Placemark></kml>",
}


@pytest.mark.parametrize("name", NOWHERE)
def test_a_place_at_zero_zero_is_no_place_and_said(tmp_path, name):
    (tmp_path / name).write_text(NOWHERE[name])
    drawing = read_mission(tmp_path / name)
    assert drawing.routes == (((7.1, 47.0), (7.35, 47.0)),)
    assert any(note.missing and "taken for none" in note.what for note in drawing.notes)


def test_a_mission_around_zero_zero_keeps_its_places(tmp_path):
    (tmp_path / "a.csv").write_text("latitude,longitude\n0,0\n0.01,0.01\n")
    assert read_mission(tmp_path / "a.csv").routes == (((0.0, 0.0), (0.01, 0.01)),)
