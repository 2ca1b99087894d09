"""Missions as autopilots and ground stations write them, and the question whether a leg is in the area and required."""

import json
from decimal import Decimal

from geographiclib.geodesic import Geodesic

from provisioning.area.area import measure_area
from provisioning.base.geometry import geo
from provisioning.base.geometry.angles import Origin
from provisioning.config import Area

EARTH = Geodesic.WGS84
Z = 15
HOME = (47.0, 7.0)
A, B, C, D = (47.0, 7.1), (47.0, 7.35), (47.17, 7.22), (47.25, 7.22)


def simple(command, place=(0, 0), *, params=(0, 0, 0, None), frame=3, number=None):
    item = {
        "type": "SimpleItem",
        "command": command,
        "frame": frame,
        "autoContinue": True,
        "params": [*params, *place, 50],
    }
    return item if number is None else item | {"doJumpId": number}


def plan(*items, home=HOME, fence=None, rally=(), **mission):
    """Return a plan; items without a doJumpId are numbered from 1, as QGroundControl does."""
    numbered = [item if "doJumpId" in item or item["type"] == "ComplexItem" else item | {"doJumpId": n}
                for n, item in enumerate(items, 1)]  # fmt: skip
    return {"fileType": "Plan", "version": 1, "groundStation": "QGroundControl",
            "geoFence": fence or {"circles": [], "polygons": [], "version": 2},
            "rallyPoints": {"points": [[*place, 30] for place in rally], "version": 2},
            "mission": {"version": 2, "plannedHomePosition": [*home, 450] if home else None, "items": numbered, **mission}}  # fmt: skip


def written(tmp_path, content, name="a.mission"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else
                     (content if isinstance(content, str) else json.dumps(content)).encode())  # fmt: skip
    return path


def area_of(tmp_path, content, *, takeoff=None, name="a.mission", key="mission", z=Z, buffer_m=50, **area):
    path = written(tmp_path, content, name)
    where = None if takeoff is None else Origin(round(takeoff[0] * 1e7), round(takeoff[1] * 1e7))
    buffer = None if buffer_m is None else Decimal(buffer_m)
    asked = Area(**{key: path}, zooms=(z,), buffer_m=buffer, **area)
    return measure_area(asked, where)


def tiles_between(a, b, z=Z, samples=9):
    """Return tiles along the shortest path, ends included, by somebody else's geodesics."""
    line = EARTH.InverseLine(*a, *b)
    places = [line.Position(line.s13 * n / (samples - 1)) for n in range(samples)]
    return [(z, *geo.tile_at(z, lat_e7=round(p["lat2"] * 1e7), lon_e7=round(p["lon2"] * 1e7))) for p in places]


def required(area, a, b):
    """Tell whether all of a leg is in the area and required."""
    return all(area.cover.holds(*tile) and area.required.holds(*tile) for tile in tiles_between(a, b))


def covered(area, a, b=None):
    """Tell whether all of a leg, or a place, is in the area."""
    return all(area.cover.holds(*tile) for tile in tiles_between(a, b or a))


def missing(area):
    """Return what the area says may be flown besides."""
    return [str(note) for note in area.notes if note.missing]


def wpl(*rows, head="QGC WPL 110", end="\n"):
    return end.join([head, *("\t".join(map(str, row)) for row in rows), ""])


def row(index, command, place=(0, 0), *, params=(0, 0, 0, 0), frame=3, alt=50):
    return (index, int(index == 0), frame, command, *params, *place, alt, 1)
