"""The area of a flight: its parts turned into the tiles that they need."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from provisioning.angles import BBox, Origin
from provisioning.config import AreaPart, Flight
from provisioning.geo import tiles_in_bbox
from provisioning.hashing import Fact, Sha256, digest_of
from provisioning.tiles.cover import Band, Cover, union

TURN_E7 = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Area:
    """What the flight needs: its tiles, its bounding box, and what its mission says about take-off and route."""

    cover: Cover
    bbox: BBox
    takeoff: Origin | None

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads."""
        return json.dumps([self.cover.to_json(), self.bbox, self.takeoff])

    @classmethod
    def from_json(cls, text: str) -> Area:
        """Return the area that `to_json` wrote."""
        cover, bbox, takeoff = json.loads(text)
        return cls(cover=Cover.from_json(cover), bbox=BBox(*bbox), takeoff=Origin(*takeoff) if takeoff else None)


def area_facts(flight: Flight) -> Sha256:
    """Return the digest of all that decides the area."""
    parts = [_part_facts(part) for part in flight.area.parts]
    return digest_of({"format": 1, "parts": parts})


def _part_facts(part: AreaPart) -> dict[str, Fact]:
    return {"bbox": part.bbox, "buffer_m": part.buffer_m, "zooms": part.zooms}


def measure_area(flight: Flight) -> Area:
    """Return the area of `flight`; AreaError if a file that draws it cannot be understood."""
    found: dict[int, list[tuple[Band, ...]]] = {}
    boxes: list[BBox] = []
    for part in flight.area.parts:
        if part.bbox:
            boxes.append(part.bbox)
            for z in part.zooms:
                found.setdefault(z, []).append(_bbox_bands(part.bbox, z))
    return Area(
        cover=Cover({z: union(bands) for z, bands in found.items()}),
        bbox=enclosing(boxes),
        takeoff=flight.flight.takeoff,
    )


def _bbox_bands(bbox: BBox, z: int) -> tuple[Band, ...]:
    columns, rows = tiles_in_bbox(bbox, z)
    return tuple(Band(left, right, (rows,)) for left, right in columns)


def enclosing(boxes: Iterable[BBox]) -> BBox:
    """Return the smallest box around `boxes`; it crosses the antimeridian where that is the shorter way round."""
    found = list(boxes)
    if len(found) == 1:
        return found[0]
    arcs = sorted((box.west, (box.east - box.west) % TURN_E7 or TURN_E7 * (box.east != box.west)) for box in found)
    gap, west, reach = 0, arcs[0][0], arcs[0][0]
    for start, width in [*arcs, (arcs[0][0] + TURN_E7, 0)]:
        if start - reach > gap:
            gap, west = start - reach, start
        reach = max(reach, start + width)
    south, north = min(box.south for box in found), max(box.north for box in found)
    if gap <= 0:
        return BBox(-TURN_E7 // 2, south, TURN_E7 // 2, north)
    half = TURN_E7 // 2
    return BBox((west + half) % TURN_E7 - half, south, (west - gap + half - 1) % TURN_E7 + 1 - half, north)
