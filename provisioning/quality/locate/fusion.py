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

from provisioning.index.ids import Floats, Int64s

Doubles = NDArray[np.float64]
PROPOSED = 24
"""Best tiles of each patch whose positions are tried."""
BACKGROUND = 2000
"""Tiles from which is learned how similarities vary by chance."""
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
    scores: Floats, x: Int64s, y: Int64s, offsets: Doubles, rows: Int64s, *, others: Floats, apart: float = 0.5
) -> Iterator[Candidate]:
    """Yield positions of the camera, the best first, none closer than `apart` tile sides to a better one.

    scores: float32 [p, n] of each patch with each tile. x, y: int64 [n], the tiles' addresses at one zoom. offsets:
    [p, 2], where each patch lies from the camera, in tile sides to the east and south. rows: int64 [n]. others: float32
    [p, m], of each patch with tiles from everywhere that is searched.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :PROPOSED]
    patch = np.repeat(np.arange(len(scores)), best.shape[1])
    tile = best.ravel()
    at = np.stack([x[tile] + 0.5, y[tile] + 0.5], axis=1) - offsets[patch]
    mean = others.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = np.maximum(others.std(axis=1, keepdims=True, dtype=np.float64), LEAST_SPREAD)
    by_chance = max(float(((others - mean) / spread).sum(axis=0).std()), LEAST_SPREAD)
    lifted = _interpolated(scores - mean, x, y, offsets, at)
    above = (lifted / spread).sum(axis=0) / by_chance
    similar = mean.mean() + lifted.mean(axis=0)
    taken: list[tuple[float, float]] = []
    for number in np.lexsort((rows[tile], -above)):
        place = float(at[number, 0]), float(at[number, 1])
        if all(max(abs(place[0] - one[0]), abs(place[1] - one[1])) >= apart for one in taken):
            taken.append(place)
            yield Candidate(float(above[number]), float(similar[number]), *place, int(rows[tile[number]]))


def _interpolated(scores: Doubles, x: Int64s, y: Int64s, offsets: Doubles, at: Doubles) -> Doubles:
    """Return the interpolated score of each patch for positions `at`, float64 [p, c]; 0 where there is no tile."""
    where = _Lookup(x, y, scores)
    found = np.zeros((len(offsets), len(at)))
    for patch, offset in enumerate(offsets):
        ground = at + offset - 0.5
        corner = np.floor(ground).astype(np.int64)
        share = ground - corner
        for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            weight = (share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1])
            found[patch] += weight * where(patch, corner[:, 0] + right, corner[:, 1] + down)
    return found


class _Lookup:
    """Scores by address; of several rows of one tile (sources, headings) the best."""

    def __init__(self, x: Int64s, y: Int64s, scores: Doubles) -> None:
        keys = x << 32 | y
        order = np.argsort(keys, kind="stable")
        self.keys, first = np.unique(keys[order], return_index=True)
        self.scores = np.maximum.reduceat(scores[:, order], first, axis=1)

    def __call__(self, patch: int, x: Int64s, y: Int64s) -> Doubles:
        keys = x << 32 | y
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = np.where(self.keys[at] == keys, self.scores[patch, at], 0.0)
        return np.asarray(found, np.float64)
