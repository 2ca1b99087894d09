"""Tile arithmetic on the Web Mercator grid (XYZ scheme), in integers wherever a result is kept or hashed.

Angles are 1e-7 degree as in MAVLink. Tile ids are those of PMTiles: all tiles of zoom 0, then 1, then 2, each zoom in
the order of a Hilbert curve (https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md).
"""

from __future__ import annotations

import math
from functools import lru_cache

from provisioning.base.geometry.angles import HALF_TURN_E7, TURN_E7, BBox, Origin, wrapped_e7
from provisioning.base.limits import MAX_SOURCES
from provisioning.base.named import NamedTuple

E7 = 10_000_000
MAX_LATITUDE_E7 = 850_511_287
"""Web Mercator ends here: atan(sinh(pi)), rounded towards the equator: inside the outermost row of every zoom."""
MAX_ZOOM = 24
MAX_HEADINGS = 64
"""Headings times cuts that an index id has room for."""
CUTS = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Half tiles to the east and to the south by which each cut lies from its tile; cut 0 is the tile itself."""
MOST_ROTATIONS_WITH_CUTS = MAX_HEADINGS // len(CUTS)


class TileRanges(NamedTuple):
    """Tiles of one zoom level as inclusive ranges: one or two of columns, one of rows."""

    columns: tuple[tuple[int, int], ...]
    rows: tuple[int, int]


class PackedId(NamedTuple):
    """What an index id says: the tile, the numbers of its source, its heading and its cut.

    What is described lies half a tile east and south of z/x/y by `CUTS[cut]`.
    """

    z: int
    x: int
    y: int
    source: int
    heading: int
    cut: int = 0

    @property
    def centre(self) -> Origin:
        """The centre of what is described, in the Mercator plane, 1e-7 degree."""
        return cut_centre(self.z, self.x, self.y, self.cut)


ADDRESS_BITS = 25
"""Of a column or row in a packed address."""


def pack_address(z: int, x: int, y: int) -> int:
    """Return a tile's address in 64 bits, ascending with z, x and y."""
    return z << 2 * ADDRESS_BITS | x << ADDRESS_BITS | y


def unpack_address(address: int) -> tuple[int, int, int]:
    """Return z, x and y of a packed address; the inverse of `pack_address`."""
    last = (1 << ADDRESS_BITS) - 1
    return address >> 2 * ADDRESS_BITS, address >> ADDRESS_BITS & last, address & last


def check_tile(z: int, x: int, y: int) -> None:
    """Raise ValueError if z/x/y is not a tile."""
    if not 0 <= z <= MAX_ZOOM:
        raise ValueError(f"zoom {z} is not within 0–{MAX_ZOOM}")
    if not (0 <= x < 1 << z and 0 <= y < 1 << z):
        raise ValueError(f"{z}/{x}/{y} is not a tile: x and y must be within 0–{(1 << z) - 1}")


def zxy_to_tileid(z: int, x: int, y: int) -> int:
    """Return the PMTiles id of a tile; the inverse of `tileid_to_zxy`."""
    check_tile(z, x, y)
    tileid = ((1 << 2 * z) - 1) // 3
    for bit in range(z - 1, -1, -1):
        side = 1 << bit
        right, down = x & side, y & side
        tileid += ((3 * right) ^ down) << bit
        if not down:
            if right:
                x, y = ~x, ~y
            x, y = y, x
    return tileid


def tileid_to_zxy(tileid: int) -> tuple[int, int, int]:
    """Return (z, x, y) of a PMTiles id; ValueError if it lies beyond `MAX_ZOOM`."""
    z = ((3 * tileid + 1).bit_length() - 1) // 2 if tileid >= 0 else -1
    if not 0 <= z <= MAX_ZOOM:
        raise ValueError(f"{tileid} is not the id of a tile of zoom 0–{MAX_ZOOM}")
    position = tileid - ((1 << 2 * z) - 1) // 3
    if z <= BLOCK_LEVELS:
        return z, *_along_curve(z, position)
    (left, top), (right_x, right_y), (down_x, down_y) = _block(z, position >> 2 * BLOCK_LEVELS)
    right, down = _inner(position & (1 << 2 * BLOCK_LEVELS) - 1)
    return z, left + right * right_x + down * down_x, top + right * right_y + down * down_y


def _along_curve(z: int, position: int) -> tuple[int, int]:
    """Return x and y of a position on the Hilbert curve of a zoom level."""
    x = y = 0
    for bit in range(z):
        right = 1 & (position >> 1)
        down = 1 & (position ^ right)
        if not down:
            if right:
                x, y = (1 << bit) - 1 - x, (1 << bit) - 1 - y
            x, y = y, x
        x, y, position = x | right << bit, y | down << bit, position >> 2
    return x, y


BLOCK_LEVELS = 4
"""The last levels of the curve, taken together: neighbours on it share all others."""


@lru_cache(1 << 2 * BLOCK_LEVELS)
def _inner(position: int) -> tuple[int, int]:
    return _along_curve(BLOCK_LEVELS, position)


CORNER = tuple(
    next(n for n in range(4) if _along_curve(BLOCK_LEVELS, n) == place) for place in ((0, 0), (1, 0), (0, 1))
)
"""Positions of the tile in a block's corner, of that right of it and of that below."""


@lru_cache(4096)
def _block(z: int, high: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return the corner of a block of the curve, and the steps on the map of one step right and one down inside it."""
    first = high << 2 * BLOCK_LEVELS
    corner, right, down = (_along_curve(z, first | n) for n in CORNER)
    return corner, (right[0] - corner[0], right[1] - corner[1]), (down[0] - corner[0], down[1] - corner[1])


def pack_id(z: int, x: int, y: int, source: int, heading: int, *, cut: int = 0, rotations: int = 1) -> int:
    """Return the index id of a cut of a tile at one of `rotations` headings, below 2**63.

    Tile id, source number (8 bits), and `cut * rotations + heading` (6 bits). ValueError: a number has no room.
    """
    last = cut * rotations + heading
    is_own = 0 <= cut < len(CUTS) and 0 <= heading < (rotations if cut else MAX_HEADINGS)
    if not (is_own and 0 <= source < MAX_SOURCES and last < MAX_HEADINGS):
        raise ValueError(f"source {source}, heading {heading} or cut {cut} does not fit an index id")
    return zxy_to_tileid(z, x, y) << 14 | source << 6 | last


def unpack_id(packed: int, rotations: int = MAX_HEADINGS) -> PackedId:
    """Return what an id says of an index with `rotations` headings; the inverse of `pack_id`.

    Without `rotations`, what the id of an index without cuts says.
    """
    cut, heading = divmod(packed & 0x3F, rotations)
    return PackedId(*tileid_to_zxy(packed >> 14), packed >> 6 & 0xFF, heading, cut)


def cut_parts(z: int, x: int, y: int, cut: int) -> tuple[tuple[int, int], ...]:
    """Return x and y of the tiles that a cut shows: the tile itself, east, south, south-east of it, as far as needed.

    Columns go on across the antimeridian. ValueError: the cut would reach beyond the southernmost row.
    """
    east, south = CUTS[cut]
    if y + south >= 1 << z:
        raise ValueError(f"{z}/{x}/{y} has no tile to the south")
    return tuple(((x + dx) % (1 << z), y + dy) for dy in range(south + 1) for dx in range(east + 1))


def row_edge_deg(z: int, y: float) -> float:
    """Return the latitude of the northern edge of tile row `y`, with a fraction that of a line inside it, degree."""
    return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / (1 << z)))))


def row_at(z: int, lat_e7: float) -> float:
    """Return the tile row, with fraction, of a latitude; clipped where the projection ends."""
    latitude = math.radians(max(-MAX_LATITUDE_E7, min(MAX_LATITUDE_E7, lat_e7)) / E7)
    return (1 - math.asinh(math.tan(latitude)) / math.pi) / 2 * (1 << z)


def column_at(z: int, lon_e7: float) -> float:
    """Return the tile column, with fraction, of a longitude."""
    return (lon_e7 / TURN_E7 + 0.5) * (1 << z)


def column_edge_e7(z: int, x: int) -> int:
    """Return the longitude of the western edge of tile column `x`, 1e-7 degree, rounded to nearest."""
    return (2 * x * 2 * HALF_TURN_E7 + (1 << z)) // (2 << z) - HALF_TURN_E7


def tile_bounds_e7(z: int, x: int, y: int) -> BBox:
    """Return the bounds of a tile, 1e-7 degree, rounded to nearest."""
    check_tile(z, x, y)
    north, south = (round(row_edge_deg(z, row) * E7) for row in (y, y + 1))
    return BBox(column_edge_e7(z, x), south, column_edge_e7(z, x + 1), north)


def tile_centre(z: int, x: int, y: int) -> Origin:
    """Return the centre of a tile in the Mercator plane, 1e-7 degree."""
    return cut_centre(z, x, y, 0)


def cut_centre(z: int, x: int, y: int, cut: int) -> Origin:
    """Return the centre of a cut of a tile in the Mercator plane, 1e-7 degree."""
    check_tile(z, x, y)
    east, south = CUTS[cut]
    right = (2 * x + 1 + east) % (2 << z)
    return Origin(round(row_edge_deg(z + 1, 2 * y + 1 + south) * E7), column_edge_e7(z + 1, right))


def tile_at(z: int, *, lat_e7: int, lon_e7: int) -> tuple[int, int]:
    """Return (x, y) of the tile that holds a point; points beyond the Mercator limit belong to the outermost row."""
    return ((wrapped_e7(lon_e7) + HALF_TURN_E7) << z) // TURN_E7, math.floor(row_at(z, lat_e7))


def tiles_in_bbox(bbox: BBox, z: int) -> TileRanges:
    """Return the tiles of zoom `z` that overlap `bbox` by more than 1e-7 degree.

    That much is granted because tile edges are not multiples of it: the bounding box of a set of tiles gives the set.
    """
    west, east = _narrowed(bbox.west, bbox.east) if bbox.west <= bbox.east else (bbox.west + 1, bbox.east - 1)
    south, north = _narrowed(bbox.south, bbox.north)
    left, top = tile_at(z, lat_e7=north, lon_e7=west)
    right, bottom = tile_at(z, lat_e7=south, lon_e7=east)
    if bbox.west <= bbox.east:
        return TileRanges(((left, right),), (top, bottom))
    if left <= right:  # the two arms meet in one tile: the whole circle
        return TileRanges(((0, (1 << z) - 1),), (top, bottom))
    return TileRanges(((0, right), (left, (1 << z) - 1)), (top, bottom))


def _narrowed(low: int, high: int) -> tuple[int, int]:
    """Return an interval without its outermost unit at each end, never empty."""
    return (low + 1, high - 1) if high - low >= 2 else ((low + high) // 2,) * 2


def contains(bbox: BBox, origin: Origin) -> bool:
    """Return whether a point lies inside the box, its edges included."""
    return bbox.holds(origin)
