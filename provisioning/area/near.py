"""Which tiles lie within a distance of a line or inside a polygon.

Squares of tiles are decided whole where they are wholly near or far, and split where they are not: level by level, each
with the pieces of line that may reach it, in arrays. A tile belongs to the area when about a pixel of it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.area.corridor import chord_m, space
from provisioning.area.cover import Band, union
from provisioning.area.shapes import Polygon
from provisioning.base.errors import AreaError

PIXEL_LEVELS = 8
"""Levels from a tile to its pixels."""
WHOLE_FROM_ZOOM = 4
"""Squares of coarser zooms are always split: the distance to their corners does not bound their extent."""
PIECES_FROM_ZOOM = 9
"""Above it, squares are compared with blocks of pieces that follow each other."""
BLOCK_PIECES, MOST_BLOCKS = 64, 1000
"""Pieces in a block, more where that would give more blocks."""
BLOCK_SLACK_M = 1.0
"""Over the radius of a block, for rounding."""
SLACK = 1.02
"""Over the distance to a square's farthest corner, for edges that bulge."""
MOST_AT_ONCE = 400_000
"""Pairs of a square and a piece, or of a point and an edge, that are held at once: about 100 MB."""
MOST_PAIRS = 200_000_000
"""Pairs compared for one zoom level before an area is refused: some twenty seconds."""

MOST_ENTRIES = 8
"""Bands of latitude that an edge lies in, on average."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Near(NamedTuple):
    """The tiles within `distance_m` of the pieces, [n, 2, 3], or inside the polygons that they bound."""

    pieces: Floats
    polygons: tuple[Polygon, ...]
    distance_m: float


class _Squares(NamedTuple):
    """Squares of one level, [n] each, and pairs (`of`, `near`) with what may reach them, `of` ascending.

    `near` counts blocks of pieces, or pieces. `tile` is for squares smaller than a tile: which one they belong to.
    """

    x: Ints
    y: Ints
    tile: Ints
    of: Ints
    near: Ints

    def only(self, squares: Flags, pairs: Flags) -> _Squares:
        """Return some of the squares, with those of their pairs that are asked for too."""
        number = np.cumsum(squares) - 1
        pairs = pairs & squares[self.of]
        return _Squares(self.x[squares], self.y[squares], self.tile[squares], number[self.of[pairs]], self.near[pairs])

    def children(self) -> _Squares:
        """Return the four quarters of each square, each with all of its pairs."""
        quarters = [(i, j) for i in (0, 1) for j in (0, 1)]
        count = len(self.x)
        return _Squares(
            np.concatenate([2 * self.x + i for i, _ in quarters]),
            np.concatenate([2 * self.y + j for _, j in quarters]),
            np.tile(self.tile, 4),
            np.concatenate([self.of + n * count for n in range(4)]),
            np.tile(self.near, 4),
        )

    def parts(self) -> Iterator[_Squares]:
        """Yield the squares in parts of about `MOST_AT_ONCE` pairs, none where there are none."""
        ends = np.cumsum(np.bincount(self.of, minlength=len(self.x)) + 1)
        part = ends // MOST_AT_ONCE
        for n in np.unique(part).tolist():
            squares = part == n
            yield self.only(squares, np.ones(len(self.of), bool)) if len(part) and part[-1] else self

    def any(self, pairs: Flags) -> Flags:
        """Return for each square whether any of its pairs is flagged."""
        return np.bincount(self.of[pairs], minlength=len(self.x)) > 0

    def least(self, distances: Floats) -> Floats:
        """Return the least distance of each square's pairs; infinite where it has none."""
        result = np.full(len(self.x), np.inf)
        np.minimum.at(result, self.of, distances)
        return result


class _Places(NamedTuple):
    """Centres of squares, on the ground and in space, and radii around them that hold the squares."""

    lat: Floats
    lon: Floats
    centre: Floats
    radius: Floats


def bands_near(near: Near, z: int) -> tuple[Band, ...]:
    """Return the tiles of zoom `z` that reach into the area. AreaError if finding them takes too long."""
    return union([tuple(_Search(near, z).bands())])


class _Search:
    """The search of one zoom level."""

    def __init__(self, near: Near, z: int) -> None:
        self.z = z
        self.reach = chord_m(near.distance_m)
        pieces = near.pieces
        self.start, self.along = pieces[:, 0], pieces[:, 1] - pieces[:, 0]
        self.square_m2 = np.einsum("ij,ij->i", self.along, self.along)
        self.block = max(BLOCK_PIECES, -(-len(pieces) // MOST_BLOCKS))
        self.block_centre, self.block_radius = _blocks(pieces, self.block)
        self.inside = _Inside(near.polygons, self.spend) if near.polygons else None
        self.pairs = 0

    def spend(self, pairs: int) -> None:
        """Count pairs compared; AreaError when they are too many."""
        self.pairs += pairs
        if self.pairs > MOST_PAIRS:
            raise AreaError(
                f"the edge of the area takes too long to follow at zoom {self.z}",
                key="area.zooms",
                next_step="draw it with fewer corners, in parts, or ask for coarser zoom levels",
            )

    def bands(self) -> Iterator[Band]:
        """Yield the tiles, as squares of them."""
        found = [*self._far_off()]
        for level, x, y in found:
            side = 1 << (self.z - level)
            for left, top in zip((x * side).tolist(), (y * side).tolist(), strict=True):
                yield Band(left, left + side - 1, ((top, top + side - 1),))

    def _far_off(self) -> Iterator[tuple[int, Ints, Ints]]:
        """Yield level, x and y of squares in the area: compare with blocks at first, then with pieces."""
        zero, blocks = np.zeros(1, np.int64), np.arange(len(self.block_radius))
        squares = _Squares(zero, zero, zero, np.zeros_like(blocks), blocks)
        last = min(self.z, PIECES_FROM_ZOOM)
        for level in range(last + 1):
            places = _places(level, squares.x, squares.y)
            apart = _apart(places.centre[squares.of], self.block_centre[squares.near])
            near = apart <= self.reach + places.radius[squares.of] + self.block_radius[squares.near]
            if level < WHOLE_FROM_ZOOM:
                near[:] = True
            touched = squares.any(near)
            inside = self._inside(places, ~touched)
            yield level, squares.x[inside], squares.y[inside]
            squares = squares.only(touched, near)
            if level < last:
                squares = squares.children()
        yield from self._close_by(last, self._with_pieces(squares))

    def _with_pieces(self, squares: _Squares) -> _Squares:
        """Return squares with the pieces of the blocks that they had."""
        first = squares.near * self.block
        counts = np.minimum(self.block, len(self.start) - first)
        steps = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return squares._replace(of=np.repeat(squares.of, counts), near=np.repeat(first, counts) + steps)

    def _close_by(self, level: int, squares: _Squares) -> Iterator[tuple[int, Ints, Ints]]:
        stack = [(level, part) for part in squares.parts()]
        while stack:
            level, squares = stack.pop()
            if level >= WHOLE_FROM_ZOOM:
                held, squares = self._decided(level, squares)
                yield level, *held
            if level == self.z:
                reached = self._reaching(squares)
                yield level, squares.x[reached], squares.y[reached]
            else:
                stack += [(level + 1, part) for part in squares.children().parts()]

    def _decided(self, level: int, squares: _Squares) -> tuple[tuple[Ints, Ints], _Squares]:
        """Return the squares that are wholly in the area, and those that are in part, with what is near them."""
        places = _places(level, squares.x, squares.y)
        distances = self._distances(places, squares)
        radius = places.radius[squares.of]
        whole = squares.any(distances + radius <= self.reach)
        near = distances <= self.reach + radius
        whole |= self._inside(places, ~whole & (squares.least(distances) > places.radius))
        return (squares.x[whole], squares.y[whole]), squares.only(~whole & squares.any(near), near)

    def _reaching(self, tiles: _Squares) -> Flags:
        """Return which tiles on the edge of the area reach into it by about a pixel."""
        reached = np.zeros(len(tiles.x), bool)
        pixel = _places(self.z, tiles.x, tiles.y).radius / (1 << PIXEL_LEVELS)
        thick = np.full(len(pixel), self.reach)
        if self.inside is None:  # a line without a buffer is a pixel wide
            thick = np.maximum(thick, pixel)
        stack = [(self.z, tiles._replace(tile=np.arange(len(tiles.x))))]
        while stack:
            level, squares = stack.pop()
            squares = squares.only(~reached[squares.tile], np.ones(len(squares.of), bool))
            places = _places(level, squares.x, squares.y)
            distances = self._distances(places, squares)
            within = squares.any(distances <= thick[squares.tile][squares.of])
            within |= self._inside(places, ~within)
            reached[squares.tile[within]] = True
            near = distances <= (thick[squares.tile] + places.radius)[squares.of]
            split = ~reached[squares.tile] & squares.any(near) & (places.radius > pixel[squares.tile])
            stack += [(level + 1, part) for part in squares.only(split, near).children().parts()]
        return reached

    def _distances(self, places: _Places, squares: _Squares) -> Floats:
        """Return the distance of each pair's centre and piece, metre, in space."""
        self.spend(len(squares.of))
        along = self.along[squares.near]
        away = places.centre[squares.of] - self.start[squares.near]
        length = self.square_m2[squares.near]
        share = np.einsum("ij,ij->i", away, along) / np.where(length > 0, length, 1)
        away -= np.clip(share, 0, 1)[:, None] * along
        distances: Floats = np.sqrt(np.einsum("ij,ij->i", away, away))
        return distances

    def _inside(self, places: _Places, asked: Flags) -> Flags:
        """Return which of the squares asked for have their centre in a polygon."""
        result = np.zeros(len(asked), bool)
        if self.inside is not None and asked.any():
            result[asked] = self.inside.of(places.lat[asked], places.lon[asked])
        return result


def _places(z: int, x: Ints, y: Ints) -> _Places:
    """Return where squares of level `z` lie."""
    lon = (x + 0.5) * 360 / (1 << z) - 180
    north, middle, south = (_row_deg(z + 1, 2 * y + n) for n in (0, 1, 2))
    centre = space(middle, lon)
    corners = [(lat, lon - 180 / (1 << z)) for lat in (north, south)]
    corners += [(north, lon), (south, lon)] if z < 10 else []
    radius = np.max([_apart(centre, space(*corner)) for corner in corners], axis=0)
    return _Places(middle, lon, centre, radius * SLACK)


def _row_deg(z: int, y: Ints) -> Floats:
    degrees: Floats = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / (1 << z)))))
    return degrees


def _apart(a: Floats, b: Floats) -> Floats:
    apart: Floats = np.sqrt(((a - b) ** 2).sum(axis=1))
    return apart


def _blocks(pieces: Floats, size: int) -> tuple[Floats, Floats]:
    """Return centres and radii of blocks of pieces that follow each other: where a block is far, so are they."""
    starts = np.arange(0, len(pieces), size)
    sizes = np.diff(np.append(starts, len(pieces)))
    centre = pieces[starts + sizes // 2, 0]
    reach = [_apart(pieces[:, end], np.repeat(centre, sizes, axis=0)) for end in (0, 1)]
    return centre, np.maximum.reduceat(np.maximum(*reach), starts) + BLOCK_SLACK_M


class _Inside:
    """Polygons as edges sorted into bands of latitude."""

    def __init__(self, polygons: Sequence[Polygon], spend: Callable[[int], None]) -> None:
        self._spend = spend
        self._west = np.array([min(p.lon for p in polygon[0]) for polygon in polygons])
        edges = [_edges(polygon, west) for polygon, west in zip(polygons, self._west.tolist(), strict=True)]
        self._polygon = np.repeat(np.arange(len(edges)), [len(found) for found in edges])
        self._edges = np.concatenate(edges)
        low, high = self._edges[:, [1, 3]].min(axis=1), self._edges[:, [1, 3]].max(axis=1)
        self._south, self._north = float(low.min()), float(high.max())
        self._bands = len(low)
        while self._bands > 1 and (self._band(high) - self._band(low) + 1).sum() > MOST_ENTRIES * len(low):
            self._bands //= 2
        first, counts = self._band(low), self._band(high) - self._band(low) + 1
        steps = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        band = np.repeat(first, counts) + steps
        order = np.argsort(band, kind="stable")
        self._entries = np.repeat(np.arange(len(low)), counts)[order]
        self._ends = np.searchsorted(band[order], np.arange(self._bands + 1))

    def _band(self, lat: Floats) -> Ints:
        share = (lat - self._south) / max(self._north - self._south, 1e-12)
        return np.clip((share * self._bands).astype(np.int64), 0, self._bands - 1)

    def of(self, lat: Floats, lon: Floats) -> Flags:
        """Return which points are in any polygon: on an odd number of its rings' inner sides."""
        result = np.zeros(len(lat), bool)
        band = self._band(lat)
        counts = np.where((lat >= self._south) & (lat <= self._north), self._ends[band + 1] - self._ends[band], 0)
        part = np.cumsum(counts) // MOST_AT_ONCE
        for n in np.unique(part).tolist():
            some = np.flatnonzero((part == n) & (counts > 0))
            result[some] = self._of(lat[some], lon[some], self._ends[band[some]], counts[some])
        return result

    def _of(self, lat: Floats, lon: Floats, first: Ints, counts: Ints) -> Flags:
        self._spend(int(counts.sum()))
        point = np.repeat(np.arange(len(lat)), counts)
        steps = np.arange(len(point)) - np.repeat(np.cumsum(counts) - counts, counts)
        entry = self._entries[np.repeat(first, counts) + steps]
        lon1, lat1, lon2, lat2 = self._edges[entry].T
        here = lat[point]
        crosses = (lat1 > here) != (lat2 > here)
        point, lon1, lat1, lon2, lat2, here = (v[crosses] for v in (point, lon1, lat1, lon2, lat2, here))
        polygon = self._polygon[entry[crosses]]
        east = lon[point] - 360 * np.floor((lon[point] - self._west[polygon]) / 360)
        beyond = east < lon1 + (lon2 - lon1) * (here - lat1) / (lat2 - lat1)
        pair, times = np.unique(point[beyond] * len(self._west) + polygon[beyond], return_counts=True)
        result = np.zeros(len(lat), bool)
        result[pair[times % 2 == 1] // len(self._west)] = True
        return result


def _edges(polygon: Polygon, west: float) -> Floats:
    """Return the edges of a polygon, [n, 4]: longitudes from `west` on, latitudes; each ring taken to that turn."""
    found = []
    for ring in polygon:
        corners = np.array(ring, float)
        corners[:, 0] -= 360 * np.floor((corners[:, 0].min() - west) / 360)
        found.append(np.hstack([corners[:-1], corners[1:]]))
    return np.concatenate(found)
