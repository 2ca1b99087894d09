"""Areas: the tiles within a distance on the ground, against a brute-force geodesic reference; holes; what is required."""

import json
import math
import random
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise

import mercantile
import pytest
from geographiclib.geodesic import Geodesic
from hypothesis import given
from hypothesis import strategies as st

from provisioning.area.area import enclosing, measure_area
from provisioning.area.corridor import chord_m, pieces_of, space
from provisioning.area.cover import Band, Cover, merged, union
from provisioning.area.ellipsoid import box_size_m, meridian_m, rows_km2
from provisioning.area.near import Near, bands_near
from provisioning.area.shapes import Point, unrolled
from provisioning.base.errors import AreaError
from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import BBox, Origin
from provisioning.catalogue import area_of, measure_coverage, scan
from provisioning.catalogue.gaps import holes, missing
from provisioning.config import Area, AreaPart, FlightIdentity
from tests.properties import examples
from tests.tilesets import X, Y, Z, bbox_of, block, flight, scanned, write_xyz

EARTH = Geodesic.WGS84


def tiles_of(bands):
    return {
        (x, y) for b in bands for x in range(b.left, b.right + 1) for low, high in b.rows for y in range(low, high + 1)
    }


def cover_of(*bands) -> Cover:
    return Cover({Z: union([bands])})


def geojson(tmp_path, *geometries):
    path = tmp_path / "area.geojson"
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def drawn(tmp_path, *geometries, zooms=(Z,), buffer_m=None):
    path = geojson(tmp_path, *geometries)
    buffer = None if buffer_m is None else Decimal(buffer_m)
    return measure_area(Area(geojson=path, buffer_m=buffer, zooms=zooms))


# covers


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(0, 12), st.integers(0, 5)), max_size=8))
def test_a_union_of_bands_holds_exactly_their_tiles(rectangles):
    bands = [Band(x, x + w, ((y, y + h),)) for x, w, y, h in rectangles]
    joined = union([bands])
    assert tiles_of(joined) == tiles_of(bands)
    assert all(a.right < b.left for a, b in pairwise(joined))
    cover = Cover({5: joined})
    assert Cover.from_json(cover.to_json()).bands == cover.bands
    for x in range(20):
        for y in range(20):
            assert cover.holds(5, x, y) == ((x, y) in tiles_of(bands))
    assert cover.expected(5) == len(tiles_of(bands))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(0, 12), st.integers(0, 5)), max_size=5),
       st.tuples(st.integers(0, 18), st.integers(0, 6), st.integers(0, 18), st.integers(0, 6)))  # fmt: skip
def test_a_rectangle_touches_a_cover_when_it_shares_a_tile(rectangles, other):
    cover = Cover({5: union([[Band(x, x + w, ((y, y + h),)) for x, w, y, h in rectangles]])})
    x, w, y, h = other
    inside = {(i, j) for i in range(x, x + w + 1) for j in range(y, y + h + 1)}
    assert cover.touches(5, (x, x + w), (y, y + h)) == bool(inside & tiles_of(cover.bands[5]))


@given(st.lists(st.tuples(st.integers(-1800, 1799), st.integers(1, 900)), min_size=1, max_size=5))
def test_the_box_around_boxes_holds_them_and_is_the_shortest(arcs):
    boxes = [BBox(w * 1_000_000, -5, (w + d + 1800) % 3600 * 1_000_000 - 1_800_000_000, 5) for w, d in arcs]
    found = enclosing(boxes)

    def degrees(box):
        width = (box.east - box.west) % 3_600_000_000 // 1_000_000 or 3600
        return {(box.west // 1_000_000 + i) % 3600 for i in range(width)}

    covered = set().union(*map(degrees, boxes))
    assert covered <= degrees(found)
    gaps, run = 0, 0
    for i in range(7200):
        run = 0 if i % 3600 in covered else run + 1
        gaps = max(gaps, min(run, 3600))
    assert len(degrees(found)) == (3600 - gaps)


# corridors


def nearest_m(lat, lon, samples):
    return min(EARTH.Inverse(lat, lon, a, o)["s12"] for a, o in samples)


def samples_of(line, step_m):
    for a, b in pairwise(line):
        path = EARTH.InverseLine(a.lat, a.lon, b.lat, b.lon)
        count = max(1, math.ceil(path.s13 / step_m))
        for i in range(count + 1):
            at = path.Position(path.s13 * i / count)
            yield at["lat2"], at["lon2"]


ROUTES = {
    "short": ((47.0, 8.0), (47.02, 8.03), (47.0, 8.05)),
    "over the antimeridian": ((-17.0, 179.97), (-17.02, -179.96)),
    "far north": ((84.0, 20.0), (84.03, 20.9)),
    "far south, over the antimeridian": ((-79.5, 179.8), (-79.48, -179.7)),
    "a point": ((10.0, 10.0),),
    "equator": ((-0.01, 30.0), (0.02, 30.01)),
}


@pytest.mark.parametrize("name", ROUTES)
def test_a_corridor_is_what_a_brute_force_geodesic_finds(name):
    line = unrolled([Point(lon, lat) for lat, lon in ROUTES[name]])
    z, distance_m = (16, 700) if abs(line[0].lat) < 70 else (14, 700)
    found = tiles_of(bands_near(Near(pieces_of(line, geodesic=True), (), distance_m), z))
    around = tiles_of(bands_near(Near(pieces_of(line, geodesic=True), (), distance_m * 2), z))
    assert found < around
    edge = sorted(
        t for t in around if len({(t[0] + i, t[1] + j) in found for i in (-1, 0, 1) for j in (-1, 0, 1)}) == 2
    )
    samples = list(samples_of(line, 70)) if len(line) > 1 else [(line[0].lat, line[0].lon)]
    decided = 0
    for x, y in random.Random(name).sample(edge, 12):
        closest, spacing = closest_m(x, y, z, samples, distance_m)
        if closest <= distance_m - 15:
            assert (x, y) in found, (x, y, closest)
            decided += 1
        if closest - spacing > distance_m + 15:
            assert (x, y) not in found, (x, y, closest)
            decided += 1
    assert decided >= 6


def closest_m(x, y, z, samples, distance_m):
    """Return the least geodesic distance of a grid on a tile from a line's samples, and the grid's spacing."""
    b = mercantile.bounds(x, y, z)
    grid = [
        (b.south + (b.north - b.south) * i / 6, b.west + (b.east - b.west) * j / 6) for i in range(7) for j in range(7)
    ]
    rough = sorted(samples, key=lambda s: math.dist(space(*s), space(*grid[24])))[:3]
    return min(nearest_m(*at, rough) for at in grid), EARTH.Inverse(*grid[0], *grid[8])["s12"]


@given(st.floats(-80, 80), st.floats(-180, 180), st.floats(0, 360), st.floats(1, 200_000))
@examples(2)
def test_the_chord_of_a_ground_distance_is_the_distance_in_space(lat, lon, azimuth, ground_m):
    end = EARTH.Direct(lat, lon, azimuth, ground_m)
    chord = math.dist(space(lat, lon), space(end["lat2"], end["lon2"]))
    assert abs(chord - chord_m(ground_m)) < 0.1


def test_a_line_without_a_buffer_is_the_tiles_that_it_crosses(tmp_path):
    area = drawn(tmp_path, {"type": "LineString", "coordinates": [[8.0, 47.0], [8.2, 47.13]]}, zooms=(12, Z))
    for z in (12, Z):
        found = {(x, y) for x, rows in area.cover.columns(z) for a, b in rows for y in range(a, b + 1)}
        crossed = {mercantile.tile(8 + 0.2 * i / 9999, 47 + 0.13 * i / 9999, z)[:2] for i in range(10_000)}
        assert crossed <= found
        assert len(found) <= len(crossed) * 1.2 + 2


def test_a_polygon_is_the_tiles_whose_middle_is_inside_and_those_at_its_edge(tmp_path):
    ring = [[8.0, 47.0], [8.3, 47.05], [8.2, 47.3], [8.0, 47.0]]
    hole = [[8.12, 47.08], [8.2, 47.1], [8.17, 47.15], [8.12, 47.08]]
    area = drawn(tmp_path, {"type": "Polygon", "coordinates": [ring, hole]})
    inner = total = 0
    for tile in mercantile.tiles(7.95, 46.95, 8.35, 47.35, Z):
        b = mercantile.bounds(tile)
        corners = [(b.west, b.south), (b.west, b.north), (b.east, b.south), (b.east, b.north)]
        inside = [odd(lon, lat, ring) != odd(lon, lat, hole) for lon, lat in corners]
        if all(inside) or any(inside):
            inner += 1
            assert area.cover.holds(Z, tile.x, tile.y)
        total += area.cover.holds(Z, tile.x, tile.y)
    assert inner <= total <= inner * 1.1


def odd(lon, lat, ring):
    return sum(
        (a[1] > lat) != (b[1] > lat) and lon < a[0] + (b[0] - a[0]) * (lat - a[1]) / (b[1] - a[1])
        for a, b in pairwise(ring)
    ) % 2 == 1  # fmt: skip


def test_a_polygon_made_of_tile_edges_is_those_tiles(tmp_path):
    box = [side / 1e7 for side in bbox_of(block(4, 5))]
    w, s, e, n = box
    area = drawn(tmp_path, {"type": "Polygon", "coordinates": [[[w, s], [e, s], [e, n], [w, n], [w, s]]]})
    assert area.cover.bands[Z] == (Band(X, X + 3, ((Y, Y + 4),)),)


def test_polygons_alone_are_outlined_as_they_were_drawn_counterclockwise(tmp_path):
    ring = [[10, 50], [10, 51], [11.5, 50.5], [10, 50]]  # clockwise
    polygon = {"type": "Polygon", "coordinates": [ring]}
    area = drawn(tmp_path, polygon, zooms=(7,))
    assert area.rings == (((500_000_000, 100_000_000), (505_000_000, 115_000_000), (510_000_000, 100_000_000),
                           (500_000_000, 100_000_000)),)  # fmt: skip
    assert type(area).from_json(area.to_json()).rings == area.rings
    hole = {"type": "Polygon", "coordinates": [ring, [[10.1, 50.4], [10.1, 50.6], [10.2, 50.5], [10.1, 50.4]]]}
    across = {"type": "Polygon", "coordinates": [[[179, 50], [181, 50], [181, 51], [179, 50]]]}
    line = {"type": "LineString", "coordinates": ring}
    for others, buffer_m in (([hole], None), ([across], None), ([line], None), ([], 100)):
        assert drawn(tmp_path, polygon, *others, zooms=(7,), buffer_m=buffer_m).rings == ()


@pytest.mark.parametrize("east", [-179.9, 180.1])
def test_a_polygon_over_the_antimeridian_is_drawn_either_way(tmp_path, east):
    ring = [[179.9, -17.1], [east, -17.1], [east, -16.9], [179.9, -16.9], [179.9, -17.1]]
    area = drawn(tmp_path, {"type": "Polygon", "coordinates": [ring]}, zooms=(10,))
    top = (1 << 10) - 1
    assert {x for x, _ in area.cover.columns(10)} == {0, top}
    assert area.bbox.west > area.bbox.east
    assert geo.contains(area.bbox, Origin(-170_000_000, -1_799_999_999))


def test_a_polygon_around_a_pole_is_refused(tmp_path):
    ring = [[0, 80], [90, 80], [180, 80], [-90, 80], [0, 80]]
    with pytest.raises(AreaError, match="around a pole"):
        drawn(tmp_path, {"type": "Polygon", "coordinates": [ring]})


def test_a_buffer_grows_a_polygon_by_metres_on_the_ground(tmp_path):
    ring = [[20.0, 70.0], [20.1, 70.0], [20.1, 70.03], [20.0, 70.03], [20.0, 70.0]]
    wide = drawn(tmp_path, {"type": "Polygon", "coordinates": [ring]}, buffer_m=2000, zooms=(16,))
    for azimuth, lat, lon in ((0, 70.03, 20.05), (90, 70.015, 20.1), (180, 70.0, 20.05), (270, 70.015, 20.0)):
        for metres, expected in ((1900, True), (2600, False)):
            at = EARTH.Direct(lat, lon, azimuth, metres)
            x, y = geo.tile_at(16, lat_e7=round(at["lat2"] * 1e7), lon_e7=round(at["lon2"] * 1e7))
            assert wide.cover.holds(16, x, y) is expected, (azimuth, metres)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not GeoJSON and not a QGroundControl plan"),
        ('{"type": "Polygon", "coordinates": [[[0, NaN]]]}', "not valid JSON"),
        ('{"type": "Topology"}', "TopoJSON, which is not read"),
        ('{"type": "FeatureCollection", "features": 3}', "has no features"),
        ('{"type": "FeatureCollection", "features": []}', "no polygon, line or point"),
        ('{"type": "LineString", "coordinates": [[0, 0]]}', "fewer than 2 points"),
        ('{"type": "LineString", "coordinates": [[0, 0], [0]]}', "not \\[longitude, latitude\\]"),
        ('{"type": "LineString", "coordinates": [[0, 0], [47, 95]]}', "out of range"),
        ('{"type": "LineString", "coordinates": [[0, 0], ["a", 1]]}', "not a position"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]}', "not closed"),
        ('{"type": "Polygon", "coordinates": []}', "no polygon, line or point"),
        ('{"type": "Point", "coordinates": [600000, 5200000]}', "out of range"),
        ('{"type": "Point", "coordinates": [8, 47], "crs": {"properties": {"name": "EPSG:3857"}}}', "not in WGS 84"),
        ('{"a":' * 5000, "not valid JSON"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_geojson_that_is_no_area_is_named(tmp_path, content, reason):
    path = tmp_path / "a.geojson"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(AreaError, match=reason) as caught:
        measure_area(Area(geojson=path, zooms=(Z,)))
    assert caught.value.file == str(path)


def test_geometries_may_be_nested_and_of_any_kind(tmp_path):
    area = drawn(
        tmp_path,
        {"type": "GeometryCollection", "geometries": [{"type": "MultiPoint", "coordinates": [[8, 47], [9, 47]]},
                                                      {"type": "MultiLineString", "coordinates": [[[8, 46], [8, 46.01]]]}]},
        {"type": "MultiPolygon", "coordinates": [[[[7, 47], [7.1, 47], [7.1, 47.1], [7, 47]]]]},
    )  # fmt: skip
    for lat, lon in ((47, 8), (47, 9), (46.005, 8), (47.02, 7.08)):
        x, y = geo.tile_at(Z, lat_e7=round(lat * 1e7), lon_e7=round(lon * 1e7))
        assert area.cover.holds(Z, x, y)


# lengths and areas


@given(st.floats(-85, 85))
def test_the_meridian_is_as_long_as_the_geodesic(lat):
    assert abs(abs(meridian_m(math.radians(lat))) - EARTH.Inverse(0, 0, lat, 0)["s12"]) < 0.001


@given(st.integers(4, 20), st.data())
@examples(0.5)
def test_the_area_of_tiles_is_that_of_the_geodesic_polygon(z, data):
    x, y = data.draw(st.integers(0, (1 << z) - 1)), data.draw(st.integers(0, (1 << z) - 2))
    b = mercantile.bounds(x, y, z)
    polygon = EARTH.Polygon()
    for i in range(65):
        polygon.AddPoint(b.south, b.west + (b.east - b.west) * i / 64)
    for i in range(65):
        polygon.AddPoint(b.north, b.east - (b.east - b.west) * i / 64)
    _, _, area = polygon.Compute(False, True)
    assert rows_km2(z, [(y, y)]) == pytest.approx(area / 1e6, rel=2e-3)


def test_a_box_is_as_wide_as_its_widest_parallel():
    width, height = box_size_m(BBox(0, 0, 10_000_000, 10_000_000))
    assert (round(width), round(height)) == (111_319, 110_574)
    assert box_size_m(BBox(1_795_000_000, 0, -1_795_000_000, 10_000_000))[0] == pytest.approx(width)


# holes


@given(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11))))
def test_holes_are_the_connected_missing_tiles(gone):
    columns = []
    for x in sorted({x for x, _ in gone}):
        ys = sorted(y for cx, y in gone if cx == x)
        columns.append((X + x, list(merged((Y + y, Y + y) for y in ys))))
    found = holes(Z, columns)
    left, parts = set(gone), []
    while left:
        stack, part = [left.pop()], 1
        while stack:
            x, y = stack.pop()
            near = {(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            part += len(near)
            stack += near
        parts.append(part)
    assert sorted(hole.tiles for hole in found) == sorted(parts)
    assert [hole.size_mm for hole in found] == sorted((hole.size_mm for hole in found), reverse=True)


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_what_is_missing_is_what_was_expected_and_is_not_there(a, b):
    expected = {n for n, bit in enumerate(a) if bit}
    present = {n for n, bit in enumerate(b) if bit}
    gone = missing(merged((n, n) for n in expected), merged((n, n) for n in present))
    assert {n for low, high in gone for n in range(low, high + 1)} == expected - present


def test_a_hole_is_measured_and_placed(tmp_path):
    tiles = block(6, 5)
    store = write_xyz(
        tmp_path / "sat", {at: d for at, d in tiles.items() if at[1:] not in {(X + 2, Y + 1), (X + 3, Y + 2)}}
    )
    asked = flight(tmp_path, store, bbox=bbox_of(tiles))
    corpus = scan(asked.selection, asked.build_dir)
    gaps = measure_coverage(asked.area, asked.flight.takeoff, asked.build_dir).per_zoom[Z]
    ((hole, where),) = gaps.holes
    assert (gaps.expected, gaps.present, gaps.hole_count, hole.tiles, where) == (30, 28, 1, 2, None)
    assert hole.bbox == bbox_of([(Z, X + 2, Y + 1), (Z, X + 3, Y + 2)])
    side = EARTH.Inverse(hole.bbox.south / 1e7, hole.bbox.west / 1e7, hole.bbox.south / 1e7, hole.bbox.east / 1e7)[
        "s12"
    ]
    assert hole.size_mm == pytest.approx(1000 * side, rel=1e-3)
    assert corpus.per_zoom[Z] == (28, 30, hole.size_mm)


def test_a_hole_on_a_route_says_where_on_it_it_lies(tmp_path):
    line = {"type": "LineString", "coordinates": [[8.0, 47.0], [8.1, 47.0], [8.1, 47.1]]}
    path = geojson(tmp_path, line)
    part = Area(geojson=path, buffer_m=Decimal(500), zooms=(Z,))
    cover = measure_area(part).cover
    x, y = geo.tile_at(Z, lat_e7=470_500_000, lon_e7=81_000_000)
    tiles = {(Z, cx, cy): d for (_, cx, cy), d in big_block(cover).items() if (cx, cy) != (x, y)}
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", tiles), area=part)
    corpus = scan(asked.selection, asked.build_dir)
    figures = measure_coverage(asked.area, asked.flight.takeoff, asked.build_dir)
    ((_, where),) = figures.per_zoom[Z].holes
    assert where.leg == 2
    assert where.off_m < 800
    first_leg = EARTH.Inverse(47, 8, 47, 8.1)["s12"]
    assert where.along_m == pytest.approx(first_leg + EARTH.Inverse(47, 8.1, 47.05, 8.1)["s12"], abs=800)
    assert [tuple(t) for t in figures.required_missing] == [(Z, x, y, "route")]
    assert corpus.required_missing == figures.required_missing
    assert corpus.required == figures.required_count > 10
    assert "leg 2" in corpus.hole_notes[Z]


def big_block(cover):
    from tests.tilesets import image

    one = image(1)
    return {(Z, x, y): one for x, rows in cover.columns(Z) for low, high in rows for y in range(low, high + 1)}


def test_the_take_off_tile_is_required_wherever_it_is(tmp_path):
    tiles = block(3, 3)
    store = write_xyz(tmp_path / "sat", {at: d for at, d in tiles.items() if at[1:] != (X, Y)})
    centre, there = geo.tile_centre(Z, X, Y), geo.tile_centre(Z, X + 1, Y)
    base = flight(tmp_path, store, area=Area(bbox=bbox_of(tiles), zooms=(Z,), min_coverage={Z: Decimal(0)}))
    gone = scanned(replace(base, flight=FlightIdentity(takeoff=centre)))
    assert [tuple(t) for t in gone.required_missing] == [(Z, X, Y, "take-off")]
    fine = scanned(replace(base, flight=FlightIdentity(takeoff=there)))
    assert (fine.required, fine.required_missing, fine.takeoff) == (1, (), there)
    assert fine.area_sha256 == gone.area_sha256


def test_a_missing_take_off_tile_fails_the_gate_whatever_coverage_is_asked(tmp_path):
    from provisioning.base.errors import GateError
    from provisioning.config.schema import Sector
    from provisioning.quality.gates import Requirements
    from provisioning.quality.gates.corpus import corpus_figures
    from provisioning.quality.gates.limits import corpus_limits, enforce

    tiles = block(3, 3)
    store = write_xyz(tmp_path / "sat", {at: d for at, d in tiles.items() if at[1:] != (X, Y)})
    area = Area(bbox=bbox_of(tiles), zooms=(Z,), min_coverage={Z: Decimal(0)})
    anything = Requirements(min_coverage=area.min_coverage)
    base = flight(tmp_path, store, area=area)
    for tile, passes in (((X, Y), False), ((X + 1, Y), True)):
        asked = replace(base, flight=FlightIdentity(takeoff=geo.tile_centre(Z, *tile)))
        corpus = scan(asked.selection, asked.build_dir)
        figures, limits = corpus_figures(corpus, Sector(), today=date(2025, 1, 1)), corpus_limits(anything, corpus)
        if passes:
            assert enforce(figures, limits)["coverage.required"].verdict == "pass"
        else:
            with pytest.raises(GateError) as caught:
                enforce(figures, limits)
            assert f"{Z}/{X}/{Y} (take-off)" in caught.value.facts["coverage.required"]


def test_an_area_is_measured_once(tmp_path, monkeypatch):
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", block()), area=Area(
        geojson=geojson(tmp_path, {"type": "Point", "coordinates": [8, 47]}), buffer_m=Decimal(800), zooms=(Z,),
        part=(AreaPart(bbox=bbox_of(block()), zooms=(Z,)),)))  # fmt: skip
    scan(asked.selection, asked.build_dir)
    monkeypatch.setattr("provisioning.catalogue.scanning.scan.measure_area", lambda _: pytest.fail("measured"))
    monkeypatch.setattr("provisioning.catalogue.coverage.measure_area", lambda _: pytest.fail("measured"))
    scan(asked.selection, asked.build_dir)
    assert area_of(asked.area, asked.flight.takeoff, asked.build_dir).cover.expected(Z) > 9
