"""Several patches of one photo ask for one place: their answers are added where they agree on the camera's position.

For a position each patch gives the similarity of the ground where it would then lie, interpolated between the centres
of tiles, as a patch between two tiles is like either. Patches count alike: each similarity is taken in standard
deviations of the patch's similarities to tiles from everywhere that is searched, of any zoom level and area. What the
sum of the patches varies by over those tiles is the unit of the answer. So answers from one patch and from nine, of
different zoom levels and areas, are ranked together: an area is never measured against itself alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.base.geometry.geo import CUTS
from provisioning.index.ids import Floats, Int64s

Doubles = NDArray[np.float64]
Corners = Doubles | Int64s
Flags = NDArray[np.bool_]
PROPOSED = 24
"""Best tiles of each patch whose positions are tried; four times as many where there are cuts beside them."""
BACKGROUND = 2000
"""Tiles from which is learned how similarities vary by chance."""
NOTHING = 1e-6
"""A weight that rounding makes."""
LEAST_SPREAD = 1e-3
"""A patch that is as like to every tile says nothing."""


class Candidate(NamedTuple):
    """A position: in tile units of the zoom level, x to the east and y to the south; the tile that proposed it.

    z: by how many standard deviations it stands out. similarity: mean over the patches.
    """

    z: float
    similarity: float
    x: float
    y: float
    row: int


def fused(
    scores: Floats, x: Corners, y: Corners, offsets: Doubles, rows: Int64s, *, others: Floats, apart: float = 0.5
) -> Iterator[Candidate]:
    """Yield positions of the camera, the best first, none closer than `apart` tile sides to a better one.

    scores: float32 [p, n] of each patch with each tile or cut. x, y: [n], their north-western corners in tile units of
    one zoom, whole for tiles, half more for cuts to the east or south. offsets:
    [p, 2], where each patch lies from the camera, in tile sides to the east and south. rows: int64 [n]. others: float32
    [p, m], of each patch with tiles from everywhere that is searched.
    """
    half_x, half_y = _halves(x), _halves(y)
    has_cuts = bool(((half_x | half_y) & 1).any())
    best = np.argsort(-scores, axis=1, kind="stable")[:, : PROPOSED * (len(CUTS) if has_cuts else 1)]
    patch = np.repeat(np.arange(len(scores)), best.shape[1])
    tile = best.ravel()
    at = np.stack([x[tile] + 0.5, y[tile] + 0.5], axis=1) - offsets[patch]
    mean = others.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = np.maximum(others.std(axis=1, keepdims=True, dtype=np.float64), LEAST_SPREAD)
    by_chance = max(float(((others - mean) / spread).sum(axis=0).std()), LEAST_SPREAD)
    lifted = _interpolated(scores - mean, half_x, half_y, offsets, at)
    above = (lifted / spread).sum(axis=0) / by_chance
    similar = mean.mean() + lifted.mean(axis=0)
    order = np.lexsort((rows[tile], -above))
    places, free = at[order], np.ones(len(order), bool)
    for rank, number in enumerate(order):
        if free[rank]:
            free &= (np.abs(places - places[rank]) >= apart).any(axis=1)
            x_, y_ = places[rank].tolist()
            yield Candidate(float(above[number]), float(similar[number]), x_, y_, int(rows[tile[number]]))


def _halves(corners: Corners) -> Int64s:
    """Return corners in half tiles."""
    return np.rint(2 * corners).astype(np.int64)


def _interpolated(scores: Doubles, half_x: Int64s, half_y: Int64s, offsets: Doubles, at: Doubles) -> Doubles:
    """Return the interpolated score of each patch for positions `at`, float64 [p, c]; 0 where there is no tile.

    Between tiles and cuts where all four around a position are there, else between tiles alone.
    """
    own = (half_x | half_y) & 1 == 0
    tiles = _Lookup(half_x[own], half_y[own], scores[:, own])
    halves = None if own.all() else _Lookup(half_x, half_y, scores)
    found = np.zeros((len(offsets), len(at)))
    for patch, offset in enumerate(offsets):
        ground = at + offset - 0.5
        found[patch] = tiles.between(patch, ground, step=2)[0]
        if halves is not None:
            finer, whole = halves.between(patch, ground, step=1)
            found[patch] = np.where(whole, finer, found[patch])
    return found


class _Lookup:
    """Scores by address in half tiles; of several rows of one address (sources, headings) the best."""

    def __init__(self, x: Int64s, y: Int64s, scores: Doubles) -> None:
        keys = x << 32 | y
        order = np.argsort(keys, kind="stable")
        self.keys, first = np.unique(keys[order], return_index=True)
        self.scores = np.maximum.reduceat(scores[:, order], first, axis=1) if len(keys) else scores

    def between(self, patch: int, ground: Doubles, *, step: int) -> tuple[Doubles, Flags]:
        """Return what is interpolated between the four addresses around each of `ground`, and whether all are there.

        ground: float64 [c, 2], tile units from the centre of tile 0, 0. step: half tiles between addresses.
        """
        fine = ground * (2 / step)
        corner = np.floor(fine).astype(np.int64)
        share = fine - corner
        found, whole = np.zeros(len(ground)), np.ones(len(ground), bool)
        for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            weight = (share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1])
            score, there = self._at(patch, step * (corner[:, 0] + right), step * (corner[:, 1] + down))
            found += weight * score
            whole &= there | (weight < NOTHING)
        return found, whole

    def _at(self, patch: int, x: Int64s, y: Int64s) -> tuple[Doubles, Flags]:
        if not len(self.keys):
            return np.zeros(len(x)), np.zeros(len(x), bool)
        keys = x << 32 | y
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        there = self.keys[at] == keys
        return np.where(there, self.scores[patch, at], 0.0).astype(np.float64), there
