"""Missions and area files are read in a process of their own: the same drawing, the same errors, limits."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pyogrio
import pytest
import shapely

from provisioning.area import apart, reading
from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import Origin
from provisioning.base.process import confined
from provisioning.catalogue import area_of, scan
from provisioning.cli import running
from provisioning.config import Area
from tests.flying import plan as plan_of
from tests.flying import simple, written
from tests.fuzz.targets import GEOJSON, GPX, INAV, KML, LITCHI, PLAN, WPL
from tests.test_area_takeoff import CENTRE
from tests.test_routes_formats import zipped
from tests.tilesets import Z, block, flight, write_xyz

SQUARE = shapely.Polygon([(7.4, 46.9), (7.5, 46.9), (7.5, 46.98)])
FENCE = {"circles": [{"circle": {"center": [47, 7.1], "radius": 300}, "inclusion": True, "version": 1}], "polygons": [], "version": 2}  # fmt: skip
DRAWN = {
    "a.geojson": GEOJSON,
    "a.kml": KML,
    "a.gpx": GPX,
    "a.kmz": zipped({"doc.kml": KML.decode()}),
    "fence.plan": json.dumps(plan_of(simple(16, (47, 7.1)), fence=FENCE)).encode(),
}
FLOWN = {"a.waypoints": WPL, "a.plan": PLAN, "a.csv": LITCHI, "a.xml": INAV, "a.gpx": GPX}
TAKEOFF = Origin(469_000_000, 74_000_000, 500_000, "amsl")


@pytest.fixture(scope="module", autouse=True)
def scope(tmp_path_factory):
    with confined.apart(tmp_path_factory.mktemp("beside")):
        yield


def mission(path, takeoff=None):
    return apart.read_mission(path, takeoff=takeoff, diversions="points")


def refusal(read, path):
    with pytest.raises(AreaError) as caught:
        read(path)
    return caught.value.what, str(caught.value.file), caught.value.key, caught.value.facts, caught.value.next_step


BROKEN = (b"", b"{", b"\xff\xfe\xfa", b"<kml>", b"PK\5\6", b"SQLite format 3\0", b"\0\0\x27\x0a" + bytes(200), PLAN)
OPENED = ("a.gpkg", "a.fgb", "a.shp", "A.SHP")


@pytest.fixture(scope="module")
def files(tmp_path_factory, scope):
    """The folder with all that is good or broken; one process reads it, not one for each file."""
    folder = tmp_path_factory.mktemp("files")
    for name, content in {**DRAWN, **FLOWN, **{f"broken{n}.geojson": data for n, data in enumerate(BROKEN)}}.items():
        written(folder, content, name)
    for name in OPENED:
        (beside := folder / f"of {name}").mkdir()
        pyogrio.raw.write(
            beside / name.lower(), np.array([shapely.to_wkb(SQUARE)]), field_data=[np.array([1])], fields=["n"],
            crs="EPSG:4326", geometry_type="Polygon",
        )  # fmt: skip
        for path in [*beside.iterdir()] if name.isupper() else []:
            path.rename(path.with_name(path.name.upper()))
    confined._current().started(frozenset().union(*map(apart._reads, folder.rglob("*"))))
    return folder


@pytest.mark.parametrize("name", DRAWN)
def test_an_area_is_the_same_as_if_it_were_read_here(files, name):
    there = apart.read_area(files / name)
    assert there == reading.read_area(files / name)
    assert type(there.polygons + there.lines + there.margins) is tuple


@pytest.mark.parametrize("takeoff", [None, TAKEOFF])
@pytest.mark.parametrize("name", FLOWN)
def test_a_mission_is_the_same_as_if_it_were_read_here(files, name, takeoff):
    path = files / name
    assert mission(path, takeoff) == reading.read_mission(path, takeoff=takeoff, diversions="points")


@pytest.mark.parametrize("name", OPENED)
def test_a_file_that_a_library_opens_is_the_same_too(files, name):
    path = files / f"of {name}" / name
    assert apart.read_area(path) == reading.read_area(path)


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_what_is_refused_is_refused_in_the_same_words(files, number):
    path = files / f"broken{number}.geojson"
    assert refusal(apart.read_area, path) == refusal(reading.read_area, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    said = refusal(apart.read_area, tmp_path / "a.geojson")
    assert said == refusal(reading.read_area, tmp_path / "a.geojson")
    assert said[1].endswith("a.geojson")


def test_a_shape_larger_than_an_answer_may_be_is_read(tmp_path):
    ring = [[7 + n % 500 / 1e4 + 1e-9 / 7, 46 + n / 1e6] for n in range(50_000)]
    path = written(tmp_path, {"type": "LineString", "coordinates": ring}, "a.geojson")
    assert len(apart.read_area(path).lines[0]) == 50_000


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (confined.Limits(time_s=0.001), "had not been read in time"),
        (confined.Limits(memory_bytes=1 << 20), "takes more memory than it may|broke the process"),
    ],
)
def test_over_a_limit_is_one_error_that_names_the_file(tmp_path, monkeypatch, limits, said):
    """By a file that takes longer or more than these limits, which no good file does than the real ones."""
    path = written(tmp_path, GEOJSON, "a.geojson")
    with monkeypatch.context() as patched:
        patched.setattr(apart, "LIMITS", limits)
        with pytest.raises(AreaError, match=said) as caught:
            apart.read_area(path)
    assert str(path) in str(caught.value)
    assert caught.value.next_step
    assert apart.read_area(path) == reading.read_area(path)  # nothing of it is remembered


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"[]", b"null", b"{}", b"[" * 100_000, b"[1,2,3,4,5,6,7,8]",
        b'[[],[],[],[[["7",46]]],true,null,null,[]]', b"[[],[],[],[[[NaN,46]]],true,null,null,[]]",
        b"[[],[],[],[[[7,46,1]]],true,null,null,[]]", b"[[],[],[],[],true,[1],null,[]]",
        b'[[],[],[],[],true,null,"sea",[]]', b"[[],[],[],[],true,null,null,[[1]]]", b"[[],[],[[1e999,[],[]]],[],true,null,null,[]]",
    ],
)  # fmt: skip
def test_an_answer_that_is_no_drawing_is_refused(tmp_path, monkeypatch, answer):
    """By a parser that was taken over."""
    monkeypatch.setattr(confined, "call", lambda *_, **__: (None, np.frombuffer(answer, np.uint8)))
    with pytest.raises(AreaError, match="no drawing"):
        apart.read_area(tmp_path / "a.geojson")


def test_only_the_file_and_what_belongs_to_it_can_be_read(tmp_path):
    assert {path.stem for path in apart._reads(tmp_path / "a.shp")} == {"a"}
    assert tmp_path not in apart._reads(tmp_path / "a.shp")


def test_an_area_that_is_known_starts_no_process(tmp_path, monkeypatch):
    place = CENTRE.lat_e7 / 1e7, CENTRE.lon_e7 / 1e7
    path = written(tmp_path, plan_of(simple(16, place), home=place))
    asked = flight(tmp_path, write_xyz(tmp_path / "sat", block()), area=Area(mission=path, zooms=(Z,), buffer_m=0))
    called, really = [], confined.call
    monkeypatch.setattr(confined, "call", lambda *args, **more: called.append(args) or really(*args, **more))
    first = scan(asked.selection, asked.build_dir)
    assert len(called) == 1
    assert replace(scan(asked.selection, asked.build_dir), added=first.added) == first
    area_of(asked.area, asked.flight.takeoff, asked.build_dir)
    assert len(called) == 1


@pytest.mark.parametrize("words", [["init"], ["-q", "plan"], ["--color", "never", "tiles"], ["locate"]])
def test_commands_that_read_such_files_read_them_apart(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["flightcache", *words])
    monkeypatch.setattr(confined, "_scope", None)
    with running._apart():
        assert confined._scope is not None
    assert confined._scope is None
