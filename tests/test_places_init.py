"""The whole first step in one line: init with mission, area, rows and pattern, and what it refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.geometry.angles import BBox, overlap
from provisioning.catalogue import scan
from provisioning.cli import main
from provisioning.config.parse import read_flight
from tests.tilesets import X, Y, bbox_of, block, write_xyz

FLOWN = block(9, 9)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def middle():
    west, south, east, north = (side / 1e7 for side in bbox_of(block(1, 1, x=X + 4, y=Y + 4)))
    return (south + north) / 2, (west + east) / 2


def plan(path, lat, lon):
    """Write a mission that flies a hundred metres around a place."""
    items = [
        {
            "type": "SimpleItem",
            "command": 16,
            "frame": 3,
            "doJumpId": n,
            "params": [0, 0, 0, None, lat + d, lon + d, 50],
        }
        for n, d in ((1, 0.0), (2, 0.001))
    ]
    mission = {
        "version": 2,
        "firmwareType": 12,
        "vehicleType": 2,
        "plannedHomePosition": [lat, lon, 500],
        "items": items,
    }
    path.write_text(json.dumps({"fileType": "Plan", "version": 1, "mission": mission}))
    return path


def init(tmp_path, *options):
    return main(["init", str(tmp_path / "cache"), "--tiles", str(tmp_path / "sat"), *map(str, options)])


def test_mission_area_rows_and_pattern_in_one_line(tmp_path, capsys):
    lat, lon = middle()
    write_xyz(tmp_path / "sat", FLOWN, pattern="{z}_{x}_{y}", tms=True)
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps({"type": "Point", "coordinates": [lon, lat + 0.02]}))
    mission = plan(tmp_path / "flight.plan", lat, lon)
    assert (
        init(tmp_path, "--mission", mission, "--area", area, "--source-scheme", "tms", "--pattern", "{z}_{x}_{y}") == 0
    )
    assert "the mission or area lies here" in capsys.readouterr().out
    asked = read_flight(tmp_path / "cache")
    assert (asked.area.mission, [part.geojson for part in asked.area.part]) == (mission, [area])
    assert scan(asked.selection, asked.build_dir).required_missing == ()


@pytest.mark.parametrize(
    ("south", "step"), [(True, "the other end: --source-scheme tms"), (False, "give the tiles of this area")]
)
def test_tiles_that_lie_elsewhere_than_the_mission_are_refused(tmp_path, capsys, south, step):
    lat, lon = middle()
    write_xyz(tmp_path / "sat", FLOWN, tms=south)
    mission = plan(tmp_path / "flight.plan", lat, lon if south else lon + 20)
    assert init(tmp_path, "--mission", mission) != 0
    said = capsys.readouterr().err
    assert "the tiles lie elsewhere" in said
    assert step in said
    assert not (tmp_path / "cache" / "flight.toml").exists()


def test_progress_is_said_while_tiles_are_looked_at(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("provisioning.catalogue.surveying.progress", lambda *a, **_: said.append(a))
    write_xyz(tmp_path / "sat", FLOWN)
    assert init(tmp_path) == 0
    assert ("tiles looked at", 81, 81) in said
    assert any(task == "tiles listed" for task, *_ in said)


LON, LAT = st.integers(-1_800_000_000, 1_799_999_999), st.integers(-850_000_000, 850_000_000)


@given(LON, st.integers(1, 900_000_000), LON, st.integers(1, 900_000_000), st.tuples(LAT, LAT), st.tuples(LAT, LAT))
def test_boxes_overlap_as_shapely_says(west, width, other, breadth, rows, lines):
    from shapely.geometry import MultiPolygon, box

    def drawn(left, wide, lat):
        whole = [box(left + turn, min(lat), left + wide + turn, max(lat) + 1) for turn in (-36e8, 0, 36e8)]
        return MultiPolygon(whole).buffer(0)

    def bbox(left, wide, lat):
        return BBox(left, min(lat), (left + wide + 1_800_000_000) % 3_600_000_000 - 1_800_000_000, max(lat) + 1)

    shared = drawn(west, width, rows).intersection(drawn(other, breadth, lines)).area > 0
    assert overlap(bbox(west, width, rows), bbox(other, breadth, lines)) == shared
