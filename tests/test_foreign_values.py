"""Files of others whose form is right and whose values are of another kind: each gives a value or a typed Error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.base.errors import Error
from tests.fuzz import targets

KINDS: list[Any] = [None, True, [], {"type": []}]
ODD: list[Any] = [-1, 10**400, 1e308, float("nan"), "", "x\x1b[2J", [[]], [None, None], [0, 0], {}]
PLAN = {
    "fileType": "Plan",
    "geoFence": {
        "circles": [{"circle": {"center": [46.9, 7.4], "radius": 100}, "inclusion": True}],
        "polygons": [{"polygon": [[46.9, 7.4], [46.95, 7.4], [46.95, 7.5]], "inclusion": True}],
        "breachReturn": [46.9, 7.4, 50],
    },
    "rallyPoints": {"points": [[46.91, 7.41, 50]]},
    "mission": {
        "firmwareType": 3, "vehicleType": 1, "plannedHomePosition": [46.9, 7.4, 500],
        "items": [
            {"type": "SimpleItem", "command": 22, "frame": 3, "doJumpId": 1, "params": [0, 0, 0, None, 46.9, 7.4, 50]},
            {"type": "SimpleItem", "command": 16, "frame": 3, "doJumpId": 2, "coordinate": [46.92, 7.4, 50], "param1": 0},
            {"type": "ComplexItem", "complexItemType": "survey", "angle": 10, "polygon": [[46.9, 7.4], [46.91, 7.4], [46.91, 7.41]],
             "TransectStyleComplexItem": {"CameraCalc": {"AdjustedFootprintSide": 100}, "TurnAroundDistance": 10,
                                          "VisualTransectPoints": [[46.9, 7.4], [46.91, 7.41]],
                                          "Items": [{"command": 16, "params": [0, 0, 0, 0, 46.9, 7.4, 50]}]}},
            {"type": "ComplexItem", "complexItemType": "CorridorScan", "CorridorWidth": 50, "polyline": [[46.9, 7.4], [46.91, 7.4]],
             "TransectStyleComplexItem": {"CameraCalc": {"AdjustedFootprintSide": 50, "SideOverlap": 60}}},
            {"type": "ComplexItem", "complexItemType": "StructureScan", "polygon": [[46.9, 7.4], [46.91, 7.4], [46.91, 7.41]],
             "CameraCalc": {"DistanceToSurface": 20}},
            {"type": "SimpleItem", "command": 177, "frame": 2, "doJumpId": 6, "params": [2, 1, 0, 0, 0, 0, 0]},
            {"type": "ComplexItem", "complexItemType": "fwLandingPattern", "landingApproachCoordinate": [46.9, 7.4, 40],
             "landCoordinate": [46.91, 7.4, 0], "loiterRadius": 75},
        ],
    },
}  # fmt: skip
CIRCLES = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
    "features": [
        {"type": "Feature", "properties": {"shape": "Circle", "radius": "100", "radiusUnits": "m"},
         "geometry": {"type": "Point", "coordinates": [7.4, 46.9]}},
        {"type": "Feature", "properties": {}, "geometry": {"type": "Circle", "radius": 9, "coordinates": [7.4, 46.9]}},
        {"type": "Feature", "properties": None, "geometry": {"type": "GeometryCollection", "geometries": [
            {"type": "MultiPolygon", "coordinates": [[[[7, 46], [8, 46], [8, 47], [7, 46]]]]}]}},
    ],
}  # fmt: skip
DOCUMENTS = {"plan": PLAN, "circles": CIRCLES, "geojson": json.loads(targets.GEOJSON)}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value in JSON, the document itself too."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from places(part, (*path, name))


def changed(document: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    found = copy.deepcopy(document)
    inner = found
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = odd
    return found


@pytest.mark.parametrize("values", [KINDS, pytest.param(ODD, marks=pytest.mark.slow)], ids=["kinds", "odd"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_drawing_with_one_value_of_another_kind_is_read_or_refused(name: str, values: list[Any], tmp_path: Path):
    document, answers = DOCUMENTS[name], {True: 0, False: 0}
    for path in places(document):
        for odd in values:
            file = tmp_path / "drawing.json"
            file.write_text(json.dumps(changed(document, path, odd)))
            try:
                targets.drawn(file)
            except Error:
                answers[False] += 1
            except Exception as error:
                raise AssertionError(f"{path} = {odd!r}") from error
            else:
                answers[True] += 1
    assert all(answers.values())
