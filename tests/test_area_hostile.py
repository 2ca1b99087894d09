"""Area and mission files made to harm: refused within a second and 200 MB, whatever they would expand to."""

import io
import json
import os
import subprocess
import sys
import zipfile

import pytest

from tests.flying import HOME, plan, row, simple, wpl, written
from tests.fuzz.targets import GEOJSON, KML, LITCHI, PLAN, WPL
from tests.test_routes_formats import zipped

READER = """
import os, resource, sys, time
from pathlib import Path
from provisioning.area.area import measure_area
from provisioning.base.errors import AreaError
from provisioning.config import Area, Flight


def peak_kb():  # ru_maxrss would be that of the process that started this one
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])


def read(key, path):
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    began = time.process_time()
    try:
        measure_area(Area(**{key: Path(path)}, zooms=(15,)))
        print("read")
    except AreaError as error:
        assert error.next_step
        print(round(time.process_time() - began, 2), peak_kb() // 1024, error.what)


for harmless in sys.argv[1:]:  # so that what reads such files is imported
    key, path = harmless.split("=")
    measure_area(Area(**{key: Path(path)}, zooms=(15,)))
for line in sys.stdin:
    child = os.fork()
    if not child:
        read(*line.rstrip("\\n").split("\\t"))
        sys.stdout.flush()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(f"ended {status}", flush=True)
"""


HARMLESS = [
    ("geojson", "a.geojson", GEOJSON), ("geojson", "a.kmz", zipped({"doc.kml": KML.decode()})),
    ("mission", "a.plan", PLAN), ("mission", "a.waypoints", WPL), ("mission", "a.csv", LITCHI),
]  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A process that has imported what reads such files, and reads each file in a copy of itself."""
    folder = tmp_path_factory.mktemp("harmless")
    harmless = [f"{key}={written(folder, data, name)}" for key, name, data in HARMLESS]
    with subprocess.Popen(
        [sys.executable, "-c", READER, *harmless], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    ) as process:  # fmt: skip
        yield process


def said_by(reader, key, path):
    """Return what the reader printed of a file, and how it ended."""
    print(key, path, sep="\t", file=reader.stdin, flush=True)
    said = []
    while not (line := reader.stdout.readline()).startswith("ended "):
        assert line, "the reader is gone"
        said.append(line)
    return "".join(said), line.split()[1]


def lol(root):
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "lol">{entities}]><{root}>&e11;</{root}>'


def many_members():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for n in range(30_000):
            archive.writestr(f"{n}.kml", "")
    return out.getvalue()


def polygon_around_the_world():
    return {
        "type": "Polygon",
        "coordinates": [[[n * 37 % 180 - 90, n * 91 % 160 - 80] for n in range(60_000)] + [[-90, -80]]],
    }


HOSTILE = {
    "billion laughs in KML": ("geojson", lambda: lol("kml"), "document type or entities"),
    "billion laughs in GPX": ("mission", lambda: lol("gpx"), "document type or entities"),
    "billion laughs in mwp": ("mission", lambda: lol("mission"), "document type or entities"),
    "quadratic entity": ("geojson", lambda: f'<!DOCTYPE x [<!ENTITY a "{"x" * 60_000}">]><kml>{"&a;" * 60_000}</kml>', "document type"),
    "file entity": ("geojson", lambda: '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><kml>&a;</kml>', "document type"),
    "entities inside KMZ": ("geojson", lambda: zipped({"doc.kml": lol("kml")}), "document type"),
    "zip bomb": ("geojson", lambda: zipped({"doc.kml": b"<kml>" + bytes(64 << 20)}), "larger than"),
    "zip of many bombs": ("mission", lambda: zipped({f"{n}.kml": bytes(8 << 20) for n in range(8)}), "larger than"),
    "zip of many members": ("geojson", many_members, "too many members"),
    "XML of empty elements": ("geojson", lambda: "<kml>" + "<a/>" * 3_000_000 + "</kml>", "XML elements"),
    "XML of attributes": ("geojson", lambda: "<kml " + " ".join(f'a{n}=""' for n in range(900_000)) + "/>", "XML elements"),
    "XML nested deeply": ("geojson", lambda: "<kml>" + "<a>" * 200_000 + "</a>" * 200_000 + "</kml>", "no polygon"),
    "JSON nested deeply": ("geojson", lambda: "[" * 1_000_000, "not valid JSON"),
    "JSON of empty objects": ("geojson", lambda: "[" + "{}," * 3_000_000 + "{}]", "JSON values"),
    "whole number of 400 digits": ("mission", lambda: json.dumps(plan(simple(16, HOME))).replace("[47.0", "[1" + "0" * 400), "not a position"),
    "latitude 1e308": ("mission", lambda: plan(simple(16, (1e308, 7))), "out of range"),
    "latitude 1e308 in WPL": ("mission", lambda: wpl(row(0, 16, (1e308, 7), frame=0)), "out of range"),
    "radius 1e308": ("mission", lambda: plan(simple(17, HOME, params=(0, 0, 1e308, 0))), "not a length"),
    "local position 1e308": ("mission", lambda: plan(simple(16, (1e308, 1e308), frame=1)), "not a length"),
    "circle of 1e308": ("geojson", lambda: {"type": "Circle", "coordinates": [7, 47], "radius": 1e308}, "radius"),
    "jump without end": ("mission", lambda: wpl(row(0, 16, HOME, frame=0), row(1, 177, params=(1, -1, 0, 0))), "for ever"),
    "a thousand million repeats": ("mission", lambda: wpl(row(0, 16, HOME, frame=0), row(1, 16, (47, 7.1)), row(2, 177, params=(1, 1e9, 0, 0))), "repeats a jump"),
    "jumps into each other": ("mission", lambda: plan(*[simple(16, (47, 7 + n * 1e-5)) if n % 2 else simple(177, params=(n * 7 % 2000 // 2 * 2 + 1, 9, 0, 0), number=n) for n in range(1, 2001)], *[simple(201)] * 4000), ""),
    "legs around the world": ("mission", lambda: plan(*[simple(16, ((-80, 80)[n % 2], n * 97 % 180)) for n in range(9_000)]), "larger than can be measured"),
    "lines a nanometre apart": ("mission", lambda: plan({"type": "ComplexItem", "complexItemType": "survey", "polygon": [[47, 7], [48, 7], [48, 8]], "grid": {"spacing": 1e-9}}), "more than 5000 lines"),
    "ring around the world": ("geojson", polygon_around_the_world, "larger than can be measured"),
    "circles of every size": ("geojson", lambda: [{"type": "Feature", "properties": {"radius": 1 + n}, "geometry": {"type": "Point", "coordinates": [7, 47]}} for n in range(9_000)], "larger than can be measured"),
    "lines without end": ("mission", lambda: "latitude,longitude\n" + "\n" * 8_000_000, "lines"),
    "17 MB": ("geojson", lambda: " " * (17 << 20), "larger than"),
}  # fmt: skip


DEAR = ("circles of every size",)
"""Refused as a ring around the world is, in as long."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in DEAR else []) for kind in HOSTILE]
)
def test_a_hostile_file_is_refused_within_a_second_and_200_mb(reader, tmp_path, kind):
    key, make, reason = HOSTILE[kind]
    content = make()
    path = tmp_path / "m"
    path.write_bytes(content if isinstance(content, bytes) else
                     (content if isinstance(content, str) else json.dumps(content)).encode())  # fmt: skip
    said, status = said_by(reader, key, path)
    assert status == "0", said
    if not reason:
        return
    cpu_s, peak_mb, what = said.split(" ", 2)
    assert reason in what
    assert float(cpu_s) < 3  # one on a machine with nothing else to do
    assert int(peak_mb) < 200
