"""Large areas are measured in few comparisons or refused before the work; what is measured agrees with shapely."""

import json
import math
import random

import mercantile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from provisioning.area import near
from provisioning.area.area import measure_area
from provisioning.area.corridor import chord_m, pieces_of, space
from provisioning.area.near import Near, bands_near
from provisioning.area.shapes import Point, closed
from provisioning.base.errors import AreaError
from provisioning.config import Area

WEST, SOUTH = 7.0, 47.0


def item(number, lat, lon, command=16, params=(0, 0, 0, None)):
    return {"type": "SimpleItem", "command": command, "frame": 3, "doJumpId": number, "params": [*params, lat, lon, 50]}


def plan(tmp_path, items):
    mission = {"version": 2, "firmwareType": 12, "vehicleType": 2, "plannedHomePosition": [47, 7, 500], "items": items}
    path = tmp_path / "flight.plan"
    path.write_text(json.dumps({"fileType": "Plan", "version": 1, "mission": mission}))
    return path


def ring(corners, rough, seed=1):
    """Return a closed ring of many corners around a place, each up to `rough` degrees further out."""
    draw = random.Random(seed)
    turn = [(n * math.tau / corners, 0.05 + rough * draw.random()) for n in range(corners)]
    found = [[WEST + r * math.sin(t), SOUTH + r * math.cos(t)] for t, r in turn]
    return [*found, found[0]]


@pytest.fixture
def pairs(monkeypatch):
    """Count the pairs that a search compares."""
    spent = []
    usual = near._Search.spend
    monkeypatch.setattr(near._Search, "spend", lambda self, n: (spent.append(n), usual(self, n)))
    return spent


def measured(zoom, **part):
    return measure_area(Area(zooms=(zoom,), **part))


def test_thousands_of_jumps_to_one_place_are_followed_in_few_comparisons(tmp_path, pairs):
    draw, items = random.Random(1), [item(1, 47.01, 7.01)]
    for k in range(1, 601):
        lat, lon = 47 + draw.random() / 50, 7 + draw.random() / 50
        items += [item(2 * k, lat, lon), item(2 * k + 1, 0, 0, command=177, params=(1, 2, 0, 0))]
    area = measured(18, mission=plan(tmp_path, items))
    assert area.cover.expected(18) > 1000
    assert sum(pairs) < 2_000_000


def test_a_short_mission_at_the_finest_zoom_is_measured_in_few_comparisons(tmp_path, pairs):
    area = measured(24, mission=plan(tmp_path, [item(1, 47.0, 7.0), item(2, 47.003, 7.0)]))
    assert area.cover.expected(24) > 1_000_000
    assert sum(pairs) < 2_000_000


def test_the_edge_of_a_polygon_with_many_corners_is_estimated_before_it_is_followed(tmp_path, monkeypatch):
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring(20_000, 0.004)]}))
    monkeypatch.setattr(near, "bands_near", lambda *_: pytest.fail("measured"))
    with pytest.raises(AreaError, match="larger than can be measured") as refused:
        measured(22, geojson=path)
    assert "simplify" in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_search_without_end_stops_with_the_way_out(monkeypatch):
    monkeypatch.setattr(near, "MOST_PAIRS", 1000)
    pieces = pieces_of((Point(7, 47), Point(8, 48)), geodesic=True)
    with pytest.raises(AreaError, match="coarser zoom levels"):
        bands_near(Near(pieces, (), 500.0), 18)


def tiles_of(bands, z):
    return {(z, x, y) for b in bands for x in range(b.left, b.right + 1) for a, e in b.rows for y in range(a, e + 1)}


shapes = st.tuples(
    st.integers(3, 40), st.floats(0, 0.04), st.integers(0, 999), st.floats(-179.99, 179.99), st.floats(-70, 70)
)


@given(shapes, st.sampled_from([11, 12]))
def test_tiles_of_a_polygon_with_a_hole_are_those_of_shapely(shape, z):
    corners, rough, seed, lon, lat = shape
    outer = [(lon + x - WEST, lat + y - SOUTH) for x, y in ring(corners, rough, seed)]
    inner = [(lon + (x - WEST) / 3, lat + (y - SOUTH) / 3) for x, y in ring(corners, rough, seed)]
    drawn = Polygon(outer, [inner])
    rings = tuple(closed([Point(*p) for p in corner]) for corner in (outer, inner))
    pieces = np.concatenate([pieces_of(line, geodesic=False) for line in rings])
    found = tiles_of(bands_near(Near(pieces, (rings,), 0.0), z), z)
    reach = 0.1
    for tile in mercantile.tiles(lon - reach, lat - reach, lon + reach, lat + reach, z):
        bounds = mercantile.bounds(tile)
        held = (z, tile.x % (1 << z), tile.y) in found
        share = drawn.intersection(box(*bounds)).area / box(*bounds).area
        if share > 1e-3:
            assert held
        if not drawn.buffer((bounds.east - bounds.west) / 64).intersects(box(*bounds)):
            assert not held


def test_distances_of_long_lines_are_geodesic(tmp_path):
    from geographiclib.geodesic import Geodesic

    a, b = Point(7, 47), Point(9.2, 48.6)
    path = Geodesic.WGS84.InverseLine(a.lat, a.lon, b.lat, b.lon)
    pieces = list(pieces_of((a, b), geodesic=True))
    for share in (0.1, 0.37, 0.5, 0.93):
        at = path.Position(path.s13 * share, Geodesic.STANDARD | Geodesic.LATITUDE)

        place = space(at["lat2"], at["lon2"])
        assert min(math.dist(place, end) for piece in pieces for end in piece) < 510
        off = min(_off(place, piece) for piece in pieces)
        assert off < chord_m(0.05) + 0.03  # a piece of a kilometre cuts 2 cm under the ground


def _off(p, piece):
    (a, b) = piece
    u, w = [y - x for x, y in zip(a, b, strict=True)], [y - x for x, y in zip(a, p, strict=True)]
    t = max(0, min(1, sum(x * y for x, y in zip(u, w, strict=True)) / sum(x * x for x in u)))
    return math.dist(w, [t * x for x in u])
