"""Which tiles lie within a distance of a line or inside a polygon, on the WGS 84 ellipsoid.

Lines become pieces of at most a kilometre; distances are taken in space, where neither the antimeridian nor a pole is
special, and turned into distances along the ground. Squares of tiles are decided whole where they are wholly near or
far, and split where they are not. A tile belongs to the area when about a pixel of it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from provisioning.area.cover import Band, union
from provisioning.area.ellipsoid import E2, MEAN_RADIUS, A
from provisioning.area.shapes import Point, Polygon, Ring
from provisioning.base.geo import row_edge_deg

PIECE_M = 1000.0
PIXELS = 256
BLOCK_PIECES = 64
BLOCK_SLACK_M = 1.0
"""Over the radius of a block, for rounding."""
WHOLE_FROM_ZOOM = 4
"""Squares of coarser zooms are always split: the distance to their corners does not bound their extent."""
SLACK = 1.02
"""Over the distance to a square's farthest corner, for edges that bulge."""

Vector = tuple[float, float, float]
Piece = tuple[Vector, Vector]


class Near(NamedTuple):
    """The tiles within `distance_m` of the pieces, or inside the polygons that they bound."""

    pieces: tuple[Piece, ...]
    polygons: tuple[Polygon, ...]
    distance_m: float


def space(lat_deg: float, lon_deg: float) -> Vector:
    """Return the Earth-centred coordinates of a point on the ellipsoid, metre."""
    lat, lon = math.radians(lat_deg), math.radians(lon_deg)
    n = A / math.sqrt(1 - E2 * math.sin(lat) ** 2)
    flat = n * math.cos(lat)
    return flat * math.cos(lon), flat * math.sin(lon), n * (1 - E2) * math.sin(lat)


def chord_m(ground_m: float) -> float:
    """Return the straight distance of points that are `ground_m` apart on the ground; within 0.1 m at 200 km."""
    return 2 * MEAN_RADIUS * math.sin(min(ground_m / (2 * MEAN_RADIUS), math.pi / 2))


def length_m(lines: Iterable[Ring]) -> float:
    """Return the length of lines on the sphere, metre, quickly: within 1 % of that along shortest paths."""
    total = 0.0
    for line in lines:
        for a, b in pairwise(line):
            up, across = math.sin(math.radians(b.lat - a.lat) / 2), math.sin(math.radians(b.lon - a.lon) / 2)
            h = up * up + math.cos(math.radians(a.lat)) * math.cos(math.radians(b.lat)) * across * across
            whole_turns = abs(b.lon - a.lon) // 360  # of a band around the world
            total += 2 * MEAN_RADIUS * (math.asin(math.sqrt(min(1.0, h))) + math.pi * whole_turns)
    return total


def pieces_of(line: Ring, *, geodesic: bool) -> Iterator[Piece]:
    """Yield the pieces of a line, each at most `PIECE_M` long; a single point is a piece of length 0."""
    last = space(line[0].lat, line[0].lon)
    if len(line) == 1:
        yield last, last
    for before, after in pairwise(line):
        for lat, lon in _steps(before.lat, before.lon, after.lat, after.lon, geodesic=geodesic):
            here = space(lat, lon)
            yield last, here
            last = here


def _steps(lat: float, lon: float, lat2: float, lon2: float, *, geodesic: bool) -> Iterator[tuple[float, float]]:
    """Yield points from the first (left out) to the second position, `PIECE_M` apart or less."""
    if geodesic and length_m([(Point(lon, lat), Point(lon2, lat2))]) < 0.9 * PIECE_M:
        yield lat2, lon2
        return
    if geodesic:
        from geographiclib.geodesic import Geodesic  # Karney's own; only a new area pays for it

        path = Geodesic.WGS84.InverseLine(lat, lon, lat2, lon2)
        count = max(1, math.ceil(path.s13 / PIECE_M))
        for i in range(1, count + 1):
            at = path.Position(path.s13 * i / count)
            yield at["lat2"], at["lon2"]
        return
    north = abs(lat2 - lat) * 111_700
    east = abs(lon2 - lon) * 111_400 * math.cos(math.radians(min(abs(lat), abs(lat2)) if lat * lat2 > 0 else 0))
    count = max(1, math.ceil(math.hypot(north, east) / PIECE_M))
    for i in range(1, count + 1):
        yield lat + (lat2 - lat) * i / count, lon + (lon2 - lon) * i / count


def _from_piece(p: Vector, piece: Piece) -> float:
    """Return the distance of `p` from a piece, metre, in space."""
    (ax, ay, az), (bx, by, bz) = piece
    ux, uy, uz = bx - ax, by - ay, bz - az
    px, py, pz = p[0] - ax, p[1] - ay, p[2] - az
    length = ux * ux + uy * uy + uz * uz
    t = max(0.0, min(1.0, (px * ux + py * uy + pz * uz) / length)) if length else 0.0
    return math.sqrt((px - t * ux) ** 2 + (py - t * uy) ** 2 + (pz - t * uz) ** 2)


def inside(lat: float, lon: float, polygons: Iterable[Polygon]) -> bool:
    """Tell whether a point is inside any polygon: on an odd number of its rings' inner sides."""
    return any(_inside_one(lat, lon, polygon) for polygon in polygons)


def _inside_one(lat: float, lon: float, polygon: Polygon) -> bool:
    west, east = min(p.lon for p in polygon[0]), max(p.lon for p in polygon[0])
    first = lon - 360 * math.floor((lon - west) / 360)
    return first <= east and sum(_crossings(lat, first, ring, west) for ring in polygon) % 2 == 1


def _crossings(lat: float, lon: float, ring: Ring, west: float) -> int:
    """Return how many edges of a ring lie east of a point, the ring being taken to the turn that begins at `west`."""
    low = min(p.lon for p in ring)
    shift = -360 * math.floor((low - west) / 360)
    count = 0
    for a, b in pairwise(ring):
        if (a.lat > lat) != (b.lat > lat) and lon < a.lon + shift + (b.lon - a.lon) * (lat - a.lat) / (b.lat - a.lat):
            count += 1
    return count


class _Square(NamedTuple):
    """A tile of any zoom as a square to decide: its centre, and a radius around it that holds it."""

    lat: float
    lon: float
    centre: Vector
    radius: float


def _square(z: int, x: int, y: int) -> _Square:
    side = 360 / (1 << z)
    north, middle, south = row_edge_deg(z, y), row_edge_deg(z + 1, 2 * y + 1), row_edge_deg(z, y + 1)
    west = x * side - 180
    lon = west + side / 2
    centre = space(middle, lon)
    radius = max(math.dist(centre, space(lat, west)) for lat in (north, south))
    if z < 10:
        radius = max(radius, math.dist(centre, space(north, lon)), math.dist(centre, space(south, lon)))
    return _Square(middle, lon, centre, radius * SLACK)


class _Block(NamedTuple):
    """Pieces of a line that lie together, in a sphere: where it is far, so are they."""

    centre: Vector
    radius: float
    pieces: Sequence[Piece]


def _blocks(pieces: Sequence[Piece]) -> list[_Block]:
    """Return pieces in blocks of those that follow each other."""
    found = []
    for start in range(0, len(pieces), BLOCK_PIECES):
        some = pieces[start : start + BLOCK_PIECES]
        centre = some[len(some) // 2][0]
        radius = max(math.dist(centre, end) for piece in some for end in piece)
        found.append(_Block(centre, radius + BLOCK_SLACK_M, some))
    return found


def bands_near(near: Near, z: int) -> tuple[Band, ...]:
    """Return the tiles of zoom `z` that reach into the area."""
    found: list[Band] = []
    reach = chord_m(near.distance_m)
    stack: list[tuple[int, int, int, Sequence[_Block]]] = [(0, 0, 0, _blocks(near.pieces))]
    while stack:
        level, x, y, blocks = stack.pop()
        verdict, blocks = _decide(level, _square(level, x, y), blocks, near, reach)
        if verdict is None and level == z:
            verdict = _reaches(level, x, y, blocks, near, reach)
        if verdict:
            side = 1 << (z - level)
            found.append(Band(x * side, (x + 1) * side - 1, ((y * side, (y + 1) * side - 1),)))
        elif verdict is None:
            stack += [(level + 1, 2 * x + i, 2 * y + j, blocks) for i in (0, 1) for j in (0, 1)]
    return union([tuple(found)])


def _decide(
    level: int, square: _Square, blocks: Sequence[_Block], near: Near, reach: float
) -> tuple[bool | None, Sequence[_Block]]:
    """Return True if all of a square is in the area, False if none is, None if it must be split; and what is near."""
    if level < WHOLE_FROM_ZOOM:
        return None, blocks
    closest, kept = math.inf, []
    for block in blocks:
        if math.dist(square.centre, block.centre) > reach + square.radius + block.radius:
            continue
        some = []
        for piece in block.pieces:
            distance = _from_piece(square.centre, piece)
            if distance + square.radius <= reach:
                return True, blocks
            closest = min(closest, distance)
            if distance <= reach + square.radius:
                some.append(piece)
        if some:
            kept.append(block._replace(pieces=some))
    if closest > square.radius and near.polygons and inside(square.lat, square.lon, near.polygons):
        return True, kept
    return (None if kept else False), kept


def _reaches(z: int, x: int, y: int, blocks: Sequence[_Block], near: Near, reach: float) -> bool:
    """Tell whether a tile on the edge of the area reaches into it by about a pixel."""
    pixel = _square(z, x, y).radius / PIXELS
    thick = max(reach, pixel) if not near.polygons else reach  # a line without a buffer is a pixel wide
    stack: list[tuple[int, int, int, Sequence[_Block]]] = [(z, x, y, blocks)]
    while stack:
        level, left, top, candidates = stack.pop()
        square = _square(level, left, top)
        if any(_from_piece(square.centre, piece) <= thick for block in candidates for piece in block.pieces):
            return True
        if near.polygons and inside(square.lat, square.lon, near.polygons):
            return True
        verdict, kept = _decide(WHOLE_FROM_ZOOM, square, candidates, near, thick)
        if verdict is None and square.radius > pixel:
            stack += [(level + 1, 2 * left + i, 2 * top + j, kept) for i in (0, 1) for j in (0, 1)]
    return False
