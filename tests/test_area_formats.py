"""Areas of every format, as mapping programs write them: the same place, or a refusal that says what to do."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from provisioning.base.errors import AreaError
from provisioning.base.geometry import geo
from tests.flying import EARTH, area_of, covered, written
from tests.properties import examples
from tests.test_routes_formats import gpx, kml, points, zipped

SQUARE = [[7.4, 46.9], [7.5, 46.9], [7.5, 46.98], [7.4, 46.98], [7.4, 46.9]]
HOLE = [[7.43, 46.92], [7.43, 46.96], [7.47, 46.96], [7.47, 46.92], [7.43, 46.92]]
INSIDE, OUTSIDE, IN_HOLE = (46.91, 7.41), (46.99, 7.45), (46.94, 7.45)
POLYGON = {"type": "Polygon", "coordinates": [SQUARE]}
HOLED = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}


def drawn(tmp_path, content, name="a.geojson", **options):
    return area_of(tmp_path, content, key="geojson", name=name, **({"buffer_m": None} | options))


def feature(geometry, **properties):
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def is_square(area, *, hole=False):
    return covered(area, INSIDE) and not covered(area, OUTSIDE) and covered(area, IN_HOLE) is not hole


# GeoJSON


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(POLYGON, id="geometry"),
        pytest.param(feature(POLYGON), id="feature"),
        pytest.param(feature(POLYGON) | {"properties": None}, id="no properties"),
        pytest.param(collection(feature(None), feature(POLYGON)), id="collection"),
        pytest.param([feature(POLYGON)], id="list of features"),
        pytest.param({"type": "GeometryCollection", "geometries": [POLYGON]}, id="geometries"),
        pytest.param({"type": "MultiPolygon", "coordinates": [[SQUARE]]}, id="multi-polygon"),
        pytest.param({"type": "Polygon", "coordinates": [[[*p, 400] for p in SQUARE]]}, id="heights"),
        pytest.param(
            POLYGON | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}, id="crs84"
        ),
        pytest.param(
            POLYGON | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::4326"}}}, id="4326"
        ),
        pytest.param(json.dumps(feature(POLYGON)).encode("utf-16"), id="UTF-16"),
        pytest.param(json.dumps(feature(POLYGON)).encode("utf-8-sig"), id="BOM"),
        pytest.param(json.dumps(feature(POLYGON), indent=2), id="indented"),
        pytest.param(json.dumps(feature(POLYGON)) + "\n" + json.dumps(feature(None)) + "\n", id="a feature a line"),
        pytest.param("\x1e" + json.dumps(feature(POLYGON)) + "\n\x1e" + json.dumps(feature(None)), id="text sequence"),
        pytest.param("\x1e" + json.dumps(feature(POLYGON), indent=1) + "\n", id="indented text sequence"),
    ],
)
def test_geojson_in_all_its_forms_is_the_same_area(tmp_path, content):
    assert is_square(drawn(tmp_path, content))


def test_a_hole_of_a_polygon_is_no_area(tmp_path):
    assert is_square(drawn(tmp_path, HOLED), hole=True)


@pytest.mark.parametrize("crs", ["EPSG:3857", "urn:ogc:def:crs:EPSG::25832", "EPSG:14326", "EPSG:43260"])
def test_another_coordinate_system_is_refused(tmp_path, crs):
    with pytest.raises(AreaError, match="not in WGS 84"):
        drawn(tmp_path, POLYGON | {"crs": {"type": "name", "properties": {"name": crs}}})


# circles


@pytest.mark.parametrize(
    "properties",
    [
        {"radius": 2500.0, "shape": "Circle"},
        {"radius": "2500"},
        {"radius": 2500, "subType": "Circle"},
        {"radius_m": 2500},
        {"radiusMeters": 2500},
        {"radiusInKm": 2.5},
        {"circleRadius": 2500},
        {"radiusInMetres": 2500},
        {"radius": 2.5, "units": "kilometers"},
        {"radius": 2.5, "radiusUnits": "km"},
        {"Radius (ft)": 2500 / 0.3048},
        {"radius": 2500, "radius_km": 2.5},
    ],
)
def test_a_circle_is_all_that_lies_within_its_radius(tmp_path, properties):
    area = drawn(tmp_path, feature({"type": "Point", "coordinates": [7.45, 46.94]}, **properties))
    for azimuth in range(0, 360, 45):
        for metres, inside in ((2400, True), (4000, False)):
            at = EARTH.Direct(46.94, 7.45, azimuth, metres)
            assert covered(area, (at["lat2"], at["lon2"])) is inside


def test_a_circle_that_some_libraries_add_to_geojson_is_one(tmp_path):
    area = drawn(tmp_path, {"type": "Circle", "coordinates": [7.45, 46.94], "radius": 2500})
    assert covered(area, (46.96, 7.45))


def test_the_buffer_is_added_around_a_circle(tmp_path):
    circle = feature({"type": "Point", "coordinates": [7.45, 46.94]}, radius=500)
    assert covered(drawn(tmp_path, circle, buffer_m=2000), (46.96, 7.45))


@given(st.floats(-75, 75), st.floats(-180, 180), st.floats(500, 20_000), st.floats(0, 360), st.floats(0.01, 0.99))
@examples(0.2)
def test_a_circle_anywhere_holds_what_geodesics_say(tmp_path_factory, lat, lon, radius, azimuth, share):
    circle = feature({"type": "Point", "coordinates": [lon, lat]}, radius=radius)
    area = drawn(tmp_path_factory.mktemp("circle"), circle, z=10)
    at = EARTH.Direct(lat, lon, azimuth, radius * share)
    x, y = geo.tile_at(10, lat_e7=round(at["lat2"] * 1e7), lon_e7=round(at["lon2"] * 1e7))
    bounds = geo.tile_bounds_e7(10, x, y)
    assert area.cover.holds(10, x, y) or _barely(bounds, lat, lon, radius)


def _barely(box, lat, lon, radius):
    """Tell whether a circle reaches into a tile by less than a pixel."""
    nearest = min(max(lat, box.south / 1e7), box.north / 1e7), min(max(lon, box.west / 1e7), box.east / 1e7)
    return radius - EARTH.Inverse(lat, lon, *nearest)["s12"] < 40_075_000 / 1024 / 256 * 1.5


@pytest.mark.parametrize(
    "properties",
    [{"radius": -5}, {"radius": "wide"}, {"radius": 5, "units": "degrees"}, {"radiusPx": 5}, {"radius": True},
     {"radius": 1e308}, {"radius_m": 5, "radius_km": 5}, {"shape": "Circle"}],
)  # fmt: skip
def test_a_circle_whose_radius_is_not_clear_is_refused(tmp_path, properties):
    with pytest.raises(AreaError, match=r"radius|radii"):
        drawn(tmp_path, feature({"type": "Point", "coordinates": [7.45, 46.94]}, **properties))


@pytest.mark.parametrize("properties", [{}, {"shape": "CircleMarker", "radius": 10}, {"name": "Pylon"}])
def test_a_point_without_a_radius_is_one_tile_and_said(tmp_path, properties):
    area = drawn(tmp_path, feature({"type": "Point", "coordinates": [7.45, 46.94]}, **properties))
    assert area.cover.expected(15) == 1
    assert any("each is one tile" in str(note) for note in area.notes)


# KML, GPX, fences


def ring(corners):
    return "<LinearRing><coordinates>" + " ".join(f"{x},{y},0" for x, y in corners) + "</coordinates></LinearRing>"


KML_POLYGON = kml(f"<Polygon><outerBoundaryIs>{ring(SQUARE)}</outerBoundaryIs><innerBoundaryIs>{ring(HOLE)}</innerBoundaryIs></Polygon>")  # fmt: skip


@pytest.mark.parametrize(
    "pack", [str.encode, lambda text: zipped({"doc.kml": text}), lambda text: zipped({"b/a.KML": text})]
)
def test_kml_and_kmz_are_polygons_with_holes(tmp_path, pack):
    assert is_square(drawn(tmp_path, pack(KML_POLYGON)), hole=True)


def test_what_a_kml_refers_to_is_said(tmp_path):
    text = KML_POLYGON.replace("</Document>", "<NetworkLink><Link/></NetworkLink></Document>")
    assert any("1 NetworkLink" in str(note) for note in drawn(tmp_path, text).notes)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<Polygon/>", "no outer boundary"),
        (f"<Polygon><outerBoundaryIs>{ring(SQUARE[:2])}</outerBoundaryIs></Polygon>", "fewer than 3 corners"),
        ("<Point><coordinates>7.4 46.9</coordinates></Point>", "not longitude,latitude"),
        ("<Point><coordinates>7.4,146.9</coordinates></Point>", "out of range"),
        ("<name>nothing</name>", "no polygon, line or point"),
    ],
)
def test_a_kml_that_is_no_area_is_refused(tmp_path, body, reason):
    with pytest.raises(AreaError, match=reason):
        drawn(tmp_path, kml(body))


def test_a_track_of_gpx_is_a_corridor(tmp_path):
    area = drawn(
        tmp_path, gpx(f"<trk><trkseg>{points('trkpt', (46.9, 7.4), (46.9, 7.6))}</trkseg></trk>"), buffer_m=500
    )
    assert covered(area, (46.903, 7.5))


def fenced(**fence):
    return {"fileType": "Plan", "version": 1, "geoFence": {"version": 2, **fence},
            "mission": {"version": 2, "plannedHomePosition": [46.94, 7.45, 0], "items": []}}  # fmt: skip


CORNERS = [[lat, lon] for lon, lat in SQUARE[:4]]


@pytest.mark.parametrize(
    "fence",
    [
        {"polygons": [{"polygon": CORNERS, "inclusion": True, "version": 1}], "circles": []},
        {"polygons": [{"polygon": [*CORNERS, CORNERS[0]], "inclusion": True}], "circles": []},
        {"polygon": CORNERS, "version": 1},
    ],
)
def test_the_fence_of_a_plan_is_the_area(tmp_path, fence):
    assert is_square(drawn(tmp_path, fenced(**fence), name="a.plan"))


def test_a_circular_fence_is_the_area_and_exclusions_are_said(tmp_path):
    circle = {"circle": {"center": [46.94, 7.45], "radius": 2500}, "inclusion": True, "version": 1}
    out = {"polygon": CORNERS, "inclusion": False, "version": 1}
    area = drawn(tmp_path, fenced(circles=[circle], polygons=[out]))
    assert covered(area, (46.96, 7.45))
    assert not covered(area, INSIDE)
    assert any("1 exclusions" in str(note) for note in area.notes)


def test_a_plan_without_a_fence_and_a_mission_are_no_area(tmp_path):
    with pytest.raises(AreaError, match="no inclusion fence") as caught:
        drawn(tmp_path, fenced())
    assert "area.mission" in caught.value.next_step
    with pytest.raises(AreaError, match="a mission and not an area"):
        drawn(tmp_path, "QGC WPL 110\n0\t1\t0\t16\t0\t0\t0\t0\t47\t7\t0\t1\n")


# features of GDAL


def write_features(path, geometries, crs, **options):
    pyogrio.raw.write(path, np.array([shapely.to_wkb(g) for g in geometries]), field_data=[np.array([1] * len(geometries))],
                      fields=["n"], crs=crs, geometry_type=options.pop("geometry_type", "Unknown"), **options)  # fmt: skip
    return path


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:25832", "EPSG:3857", "EPSG:2056", "EPSG:4258"])
@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb"])
def test_features_of_any_coordinate_system_come_to_their_place(tmp_path, name, crs):
    to_crs = Transformer.from_crs(4326, crs, always_xy=True).transform
    outline = shapely.transform(shapely.Polygon(SQUARE, [HOLE]), to_crs, interleaved=False)
    path = write_features(tmp_path / name, [outline], crs, geometry_type="Polygon")
    area = area_of_file(path)
    assert is_square(area, hole=True)


def area_of_file(path, **options):
    from provisioning.area.area import measure_area
    from provisioning.config import Area

    return measure_area(Area(geojson=path, zooms=(15,), **options))


def test_every_layer_and_kind_of_geometry_of_a_geopackage_is_read(tmp_path):
    path = tmp_path / "a.gpkg"
    write_features(path, [shapely.MultiPolygon([shapely.Polygon(SQUARE)])], "EPSG:4326", layer="areas")
    shapes = [shapely.LineString([(8, 47), (8.1, 47)]), shapely.Point(9, 47), shapely.MultiPoint([(10, 47)]),
              shapely.GeometryCollection([shapely.Point(11, 47)])]  # fmt: skip
    write_features(path, shapes, "EPSG:4326", layer="rest", append=True)
    area = area_of_file(path)
    assert all(covered(area, place) for place in (INSIDE, (47, 8.05), (47, 9), (47, 10), (47, 11)))


def test_reading_a_geopackage_leaves_nothing_beside_it(tmp_path):
    path = write_features(tmp_path / "a.gpkg", [shapely.Polygon(SQUARE)], "EPSG:4326")
    before = path.read_bytes()
    area_of_file(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gpkg"]
    assert path.read_bytes() == before


def test_a_shapefile_without_its_coordinate_system_is_refused(tmp_path):
    path = write_features(tmp_path / "a.shp", [shapely.Polygon(SQUARE)], "EPSG:4326", geometry_type="Polygon")
    path.with_suffix(".prj").unlink()
    with pytest.raises(AreaError, match="does not say its coordinate system") as caught:
        area_of_file(path)
    assert ".prj" in caught.value.next_step


def test_another_coordinate_system_beside_a_shapefile_is_another_area(tmp_path):
    from provisioning.area.area import area_facts
    from provisioning.config import Area

    path = write_features(tmp_path / "a.shp", [shapely.Polygon(SQUARE)], "EPSG:4326", geometry_type="Polygon")
    asked = Area(geojson=path, zooms=(15,))
    before = area_facts(asked)
    path.with_suffix(".prj").write_text("other")
    assert area_facts(asked) != before


def test_without_the_library_its_extra_and_a_conversion_are_named(tmp_path, monkeypatch):
    path = write_features(tmp_path / "a.gpkg", [shapely.Polygon(SQUARE)], "EPSG:4326")
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)
    with pytest.raises(AreaError, match="pyogrio is not installed") as caught:
        area_of_file(path)
    assert "flightcache[geo]" in caught.value.next_step
    assert "ogr2ogr" in caught.value.next_step


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SQLite format 3\0" + bytes(52) + b"GPKG" + bytes(2000), "GeoPackage cannot be read"),
        (b"SQLite format 3\0" + bytes(2000), "a SQLite database and no GeoPackage"),
        (b"\0\0\x27\x0a" + bytes(200), "Shapefile cannot be read"),
        (b"fgb\3fgb\0" + bytes(200), "FlatGeobuf"),
    ],
)
def test_a_file_that_only_begins_like_features_is_refused(tmp_path, data, reason):
    path = tmp_path / "a.shp"
    path.write_bytes(data)
    with pytest.raises(AreaError, match=reason) as caught:
        area_of_file(path)
    assert caught.value.next_step


@given(
    st.floats(-80, 80), st.floats(-180, 179.9), st.sampled_from(["geojson", "kml", "gpx", "plan", "wpl", "inav", "csv"])
)
@examples(0.5)
def test_a_place_is_never_silently_elsewhere_whatever_writes_it(tmp_path_factory, lat, lon, writer):
    """A point written in any format comes back at its place."""
    lat, lon = round(lat, 6), round(lon, 6)
    text, key = WRITERS[writer](lat, lon)
    folder = tmp_path_factory.mktemp("place")
    written(folder, text, "m")
    if (lat, lon) == (0, 0) and key == "mission":  # no position, to missions
        return
    area = area_of(folder, text, key=key, name="m", buffer_m=None if key == "geojson" else 0)
    assert area.cover.expected(15) <= 4
    assert covered(area, (lat, lon))


WRITERS = {
    "geojson": lambda lat, lon: ({"type": "Point", "coordinates": [lon, lat]}, "geojson"),
    "kml": lambda lat, lon: (kml(f"<Point><coordinates>{lon},{lat},0</coordinates></Point>"), "geojson"),
    "gpx": lambda lat, lon: (gpx(points("wpt", (lat, lon))), "geojson"),
    "plan": lambda lat, lon: ({"fileType": "Plan", "mission": {"plannedHomePosition": None, "items": [
        {"type": "SimpleItem", "command": 16, "frame": 3, "params": [0, 0, 0, None, lat, lon, 5]}]}}, "mission"),
    "wpl": lambda lat, lon: (f"QGC WPL 120\n0\t0\t3\t16\t0\t0\t0\t0\t{lat}\t{lon}\t5\t1\n", "mission"),
    "inav": lambda lat, lon: (f'<mission><missionitem no="1" action="WAYPOINT" lat="{lat}" lon="{lon}"/></mission>', "mission"),
    "csv": lambda lat, lon: (f"latitude,longitude\n{lat},{lon}\n", "mission"),
}  # fmt: skip
