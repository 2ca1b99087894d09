"""Synthetic imagery for a first cache: hills, fields, lanes, villages, a river, a motorway.

Every pixel is a function of its global position in integer arithmetic, so patches meet without seams and no
processor, BLAS or thread count changes a byte of them. The finer zoom level is drawn; the coarser is its 2 x 2 mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

from provisioning.base.geometry import geo
from provisioning.config import BBox

Array = npt.NDArray[Any]
"""int32, but for lattice positions (int64) and hashes (uint32)."""
Rgb = npt.NDArray[np.uint8]

ZOOMS: Final = (15, 16)
TILE_PIXELS: Final = 256
PATCH_PIXELS: Final = 2 * TILE_PIXELS
WEST_COLUMN, NORTH_ROW, COLUMNS, ROWS = 17_071, 11_477, 12, 11
"""The coarser level: 132 tiles; with their 528 children 660. About 8 by 9 km at 1.6 m a pixel."""
DISTRICT_PIXELS: Final = 704

ROTATIONS: Final = np.array([(5, 0), (4, 3), (3, 4), (0, 5), (-3, 4), (-4, 3)], dtype=np.int32)
"""Cosine and sine in fifths: exact rotations for the bearing of each district's fields."""
CROPS: Final = np.array(
    [
        (122, 132, 74), (98, 118, 62), (164, 148, 94), (186, 170, 112), (142, 116, 84), (112, 92, 70),
        (84, 108, 56), (150, 152, 92), (132, 142, 100), (104, 124, 84), (172, 156, 126), (92, 98, 60),
    ],
    dtype=np.int32,
)  # fmt: skip
ROOFS: Final = np.array(
    [(168, 92, 70), (150, 82, 66), (126, 120, 116), (188, 176, 164), (110, 96, 88), (204, 200, 194)], dtype=np.int32
)
FOREST, MEADOW, WATER, SHORE = (44, 66, 38), (116, 130, 78), (52, 76, 88), (150, 142, 116)
LANE, ASPHALT, MARKING, HEDGE, TRACK, GARDEN, SHADOW = (
    (178, 170, 154), (112, 112, 114), (214, 212, 204), (62, 80, 44), (160, 146, 112), (120, 132, 92), (52, 54, 52)
)  # fmt: skip


def write_demo_tiles(folder: Path) -> BBox:
    """Write the imagery below `folder` as `z/x/y.jpg` and return the area that it covers, in 1e-7 degree."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda place: write_patch(folder, *place), np.ndindex(COLUMNS, ROWS)):
            pass
    return area()


def area() -> BBox:
    """Return the area of the demo imagery, in 1e-7 degree."""
    north_west = geo.tile_bounds_e7(ZOOMS[0], WEST_COLUMN, NORTH_ROW)
    south_east = geo.tile_bounds_e7(ZOOMS[0], WEST_COLUMN + COLUMNS - 1, NORTH_ROW + ROWS - 1)
    return BBox(north_west.west, south_east.south, south_east.east, north_west.north)


def write_patch(folder: Path, column: int, row: int) -> None:
    """Write the tile (column, row) of the coarser level, counted from 0, and its four children."""
    image = draw_patch(column, row)
    x, y = WEST_COLUMN + column, NORTH_ROW + row
    _write_tile(folder, ZOOMS[0], x, y, downsample(image))
    for dx, dy in np.ndindex(2, 2):
        rows, columns = slice(dy * TILE_PIXELS, (dy + 1) * TILE_PIXELS), slice(dx * TILE_PIXELS, (dx + 1) * TILE_PIXELS)
        _write_tile(folder, ZOOMS[1], 2 * x + dx, 2 * y + dy, image[rows, columns])


def _write_tile(folder: Path, z: int, x: int, y: int, image: Rgb) -> None:
    path = folder / str(z) / str(x) / f"{y}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=82, colorspace="RGB", fastdct=False)
    path.write_bytes(data)


def downsample(image: Rgb) -> Rgb:
    """Return the rounded 2 x 2 mean of a uint8 [2h, 2w, 3] image as uint8 [h, w, 3]."""
    wide = image.astype(np.uint16)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return np.asarray((total + 2) >> 2, dtype=np.uint8)


class _Ground(NamedTuple):
    """Global pixel coordinates of a patch, and the slow noises that everything else follows. All int32 [512, 512]."""

    x: Array
    y: Array
    height: Array
    slope: Array
    woods: Array
    grain: Array


class _Districts(NamedTuple):
    """Nearest district of each pixel: number, distance to the border and to the centre (pixel), rotated coordinates."""

    number: Array
    border: Array
    radius2: Array
    u: Array
    v: Array


def draw_patch(column: int, row: int) -> Rgb:
    """Return the 512 x 512 pixels, uint8 RGB, of the tile (column, row) of the coarser level, counted from 0."""
    ground = _ground(column * PATCH_PIXELS, row * PATCH_PIXELS)
    districts = _districts(ground)
    image = _fields(ground, districts)  # int32 [3, 512, 512]: a plane for each colour, several times as fast
    _plant_woods(image, ground)
    _build_villages(image, ground, districts)
    _pave_lanes(image, districts)
    _fill_water(image, ground)
    _lay_motorway(image, ground)
    return _lit(image, ground)


def _ground(left: int, top: int) -> _Ground:
    xs, ys = np.arange(left, left + PATCH_PIXELS), np.arange(top, top + PATCH_PIXELS)
    bend_x, bend_y = (_noise(seed, 9, xs, ys) - 128 for seed in (1, 2))
    from_6_before = (np.arange(axis[0] - 6, axis[-1] + 1) for axis in (xs, ys))
    heights = _height(*from_6_before)
    height = heights[6:, 6:]
    woods = (2 * _noise(6, 9, xs, ys) + _noise(7, 6, xs, ys) + _noise(8, 4, xs, ys)) >> 2
    grain = (_noise(9, 1, xs, ys) + _noise(10, 2, xs, ys)) >> 1
    x, y = xs[None, :].astype(np.int32) + bend_x, ys[:, None].astype(np.int32) + bend_y
    return _Ground(x, y, height >> 6, heights[:-6, :-6] - height, woods, grain)


def _height(xs: Array, ys: Array) -> Array:
    """Return the height of the ground, 0 to 255 in 64ths."""
    height: Array = 40 * _noise(3, 10, xs, ys) + 17 * _noise(4, 8, xs, ys) + 7 * _noise(5, 6, xs, ys)
    return height


def _noise(seed: int, scale_log2: int, xs: Array, ys: Array) -> Array:
    """Return value noise, 0 to 255, with a lattice of 2**scale_log2 pixels, smoothed by 3t^2 - 2t^3 in fixed point."""
    (ix, wx), (iy, wy) = (_lattice(axis, scale_log2) for axis in (xs, ys))
    lattice = _hash(seed, np.arange(iy[0], iy[-1] + 2)[:, None], np.arange(ix[0], ix[-1] + 2)[None, :]) >> np.uint32(24)
    values, ix, iy = lattice.astype(np.int32), ix - ix[0], iy - iy[0]
    along = values[:, ix] * (256 - wx) + values[:, ix + 1] * wx
    noise: Array = np.take(along[1:] - along[:-1], iy, axis=0)
    noise *= wy[:, None]
    noise += np.take(along << 8, iy, axis=0)
    noise >>= 16
    return noise


def _lattice(axis: Array, scale_log2: int) -> tuple[Array, Array]:
    t = ((axis & ((1 << scale_log2) - 1)) << 8) >> scale_log2
    return axis >> scale_log2, ((t * t * (768 - 2 * t)) >> 16).astype(np.int32)


def _hash(seed: int, *parts: Array) -> Array:
    """Mix integers into 32 well-spread bits (multiply and xor-shift, wrapping)."""
    mixed = np.full((1, 1), seed * 0x9E3779B1 & 0xFFFFFFFF, dtype=np.uint32)
    for part in parts:
        mixed = mixed ^ part.astype(np.uint32)
        mixed *= np.uint32(0x85EBCA6B)
        mixed ^= mixed >> np.uint32(13)
        mixed *= np.uint32(0xC2B2AE35)
        mixed ^= mixed >> np.uint32(16)
    return mixed


def _pick(bits: Array, shift: int, count: int) -> Array:
    """Return a number below `count` from 8 of the bits."""
    picked: Array = (((bits >> np.uint32(shift)) & np.uint32(255)) * np.uint32(count)) >> np.uint32(8)
    return picked.astype(np.int32)


def _districts(ground: _Ground) -> _Districts:
    """Assign each pixel to the nearest of the jittered district centres (Voronoi cells, bent by the ground)."""
    centres = _centres(ground)
    nearest = np.zeros(ground.x.shape, dtype=np.intp)
    first, second = np.full_like(ground.x, 1 << 30), np.full_like(ground.x, 1 << 30)
    d2, dy2 = np.empty_like(first), np.empty_like(first)
    for candidate, (cx, cy) in enumerate(centres):
        np.square(np.subtract(ground.x, cx, out=d2), out=d2)
        d2 += np.square(np.subtract(ground.y, cy, out=dy2), out=dy2)
        nearest[d2 < first] = candidate
        np.minimum(second, np.maximum(first, d2, out=dy2), out=second)
        np.minimum(first, d2, out=first)
    x, y = centres.T
    turn = ROTATIONS[_pick(_hash(20, x, y)[0], 0, len(ROTATIONS))]
    number = _hash(21, x, y)[0].astype(np.int32)
    dx, dy = ground.x - np.take(x, nearest), ground.y - np.take(y, nearest)
    cos, sin = (np.take(part, nearest) for part in turn.T)
    u, v = (dx * cos + dy * sin) // 5, (dy * cos - dx * sin) // 5
    return _Districts(np.take(number, nearest), (second - first) // (2 * DISTRICT_PIXELS), first, u, v)


def _centres(ground: _Ground) -> Array:
    """Return int32 [n, 2], the centres of districts that can be nearest or second nearest within the patch."""
    axes = [np.arange(a.min() // DISTRICT_PIXELS - 1, a.max() // DISTRICT_PIXELS + 2) for a in (ground.x, ground.y)]
    cx, cy = (axis.ravel() for axis in np.meshgrid(*axes))
    jitter = _hash(22, cx, cy)[0]
    half = DISTRICT_PIXELS // 4
    x = cx * DISTRICT_PIXELS + half + _pick(jitter, 0, DISTRICT_PIXELS // 2)
    y = cy * DISTRICT_PIXELS + half + _pick(jitter, 8, DISTRICT_PIXELS // 2)
    return np.stack([x, y], axis=1).astype(np.int32)


def _fields(ground: _Ground, districts: _Districts) -> Array:
    """Return int32 [3, 512, 512]: parcels with a crop each, rows or tramlines along them, hedges between."""
    bits = districts.number.astype(np.uint32)
    width, length = 56 + 8 * _pick(bits, 0, 10), 120 + 16 * _pick(bits, 8, 9)
    lane = districts.u // width
    along = districts.v + 37 * (lane & 7)
    parcel = _hash(30, districts.number, lane, along // length)
    period = 3 + _pick(parcel, 16, 11)
    furrow = np.where((districts.u % period) * 2 < period, 5, -5).astype(np.int32)
    shade = _pick(parcel, 8, 25) - 12 + furrow + ((ground.grain - 128) >> 3)
    image: Array = np.take(CROPS.T, _pick(parcel, 0, len(CROPS)), axis=1) + shade
    in_lane = districts.u - lane * width
    _paint(image, (in_lane < 3) | (along % length < 2), HEDGE)
    _paint(image, (in_lane < 4) & (lane % 3 == 0), TRACK)
    return image


def _paint(image: Array, where: Array, colour: Iterable[Array | int]) -> None:
    """Set the pixels `where`: to one colour, or each to its own, of as many values a plane as there are pixels."""
    for plane, value in zip(image, colour, strict=True):
        plane[where] = value


def _plant_woods(image: Array, ground: _Ground) -> None:
    meadow, wood = ground.woods > 146, ground.woods > 154
    _paint(image, meadow, (part + ((ground.grain[meadow] - 128) >> 2) for part in MEADOW))
    _paint(image, wood, (part + ((ground.grain[wood] - 128) >> 1) for part in FOREST))


def _build_villages(image: Array, ground: _Ground, districts: _Districts) -> None:
    """Build on the lots around some district centres: streets, gardens, roofs with a shadow to the north-west."""
    bits = districts.number.astype(np.uint32)
    radius = np.maximum(70 + 6 * _pick(bits, 16, 28) + 2 * (118 - ground.woods), 0)
    inside = (_pick(bits, 24, 10) < 3) & (districts.radius2 < radius * radius)
    u, v = districts.u[inside], districts.v[inside]
    lot = _hash(40, districts.number[inside], u // 26, v // 30)[0]
    breadth, depth = 9 + _pick(lot, 0, 9), 8 + _pick(lot, 8, 12)
    du, dv = u % 26 - 4, v % 30 - 4
    roof = (du >= 0) & (du < breadth) & (dv >= 0) & (dv < depth) & (_pick(lot, 16, 16) < 13)
    shade = (du >= -3) & (du < breadth - 2) & (dv >= -3) & (dv < depth - 2) & (_pick(lot, 16, 16) < 13)
    colour = np.array(GARDEN)[:, None] + (_pick(lot, 24, 40) - 20)
    _paint(colour, shade, SHADOW)
    _paint(colour, roof, ROOFS.T[:, _pick(lot, 20, len(ROOFS))[roof]] + np.where(2 * du < breadth, 10, -12)[roof])
    _paint(colour, (u % 78 < 5) | (v % 90 < 5), ASPHALT)
    _paint(image, inside, colour)


def _pave_lanes(image: Array, districts: _Districts) -> None:
    _paint(image, districts.border < 7, HEDGE)
    _paint(image, districts.border < 4, LANE)


def _fill_water(image: Array, ground: _Ground) -> None:
    """Fill a meandering river, which runs from west to east, and the lakes of the low ground."""
    river = np.abs(ground.y + 3 * (ground.height - 128) - (ROWS * PATCH_PIXELS) // 2)
    for bank, colour in ((46, SHORE), (38, WATER)):
        _paint(image, (river < bank) | (ground.height < 54 + bank // 8), colour)
    deep = (river < 38) | (ground.height < 58)
    image[:, deep] += (ground.grain[deep] - 128) >> 4


def _lay_motorway(image: Array, ground: _Ground) -> None:
    """Lay a motorway with two carriageways from north to south, over the river."""
    across = ground.x * 4 - ground.y - 2 * COLUMNS * PATCH_PIXELS + (ground.height - 128)
    offset = np.abs(across) // 4
    _paint(image, offset < 17, MEADOW)
    _paint(image, offset < 13, ASPHALT)
    _paint(image, (offset < 2) | (offset == 11), HEDGE)
    _paint(image, (offset == 7) & (ground.y % 24 < 12), MARKING)


def _lit(image: Array, ground: _Ground) -> Rgb:
    """Shade the slopes, light from the south-east, and mottle everything a little."""
    light = 256 + np.clip(ground.slope >> 3, -60, 60) + (ground.woods - 128) // 4
    image *= light
    image >>= 8
    planes: Rgb = np.clip(image, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))
