"""Several patches of one photo ask for one place: their answers are added where they agree on the camera's position.

For a position each patch gives the similarity of the ground where it would then lie, interpolated between the centres
of tiles, as a patch between two tiles is like either. Patches are weighed alike: each counts in standard deviations of
all tiles that it was compared with. How far a position stands out is counted in standard deviations of the sums at
other positions, so that answers from one patch and from nine, of different zoom levels, can be ranked together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.index.ids import Floats, Int64s, evenly

Doubles = NDArray[np.float64]
PROPOSED = 24
"""Best tiles of each patch whose positions are tried."""
BACKGROUND = 2000
"""Most positions from which is learned how sums vary by chance."""
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
    scores: Floats, x: Int64s, y: Int64s, offsets: Doubles, rows: Int64s, *, apart: float = 0.5
) -> Iterator[Candidate]:
    """Yield positions of the camera, the best first, none closer than `apart` tile sides to a better one.

    scores: float32 [p, n] of each patch with each tile. x, y: int64 [n], the tiles' addresses at one zoom. offsets:
    [p, 2], where each patch lies from the camera, in tile sides to the east and south. rows: int64 [n].
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :PROPOSED]
    patch = np.repeat(np.arange(len(scores)), best.shape[1])
    tile = best.ravel()
    at = np.stack([x[tile] + 0.5, y[tile] + 0.5], axis=1) - offsets[patch]
    mean = scores.mean(axis=1, keepdims=True)
    weighed = (scores - mean) / np.maximum(scores.std(axis=1, keepdims=True), LEAST_SPREAD)
    others = np.stack([x + 0.5, y + 0.5], axis=1)[evenly(len(x), BACKGROUND)] - offsets[0]
    background = _sum(weighed, x, y, offsets, others)
    above = (_sum(weighed, x, y, offsets, at) - background.mean()) / max(float(background.std()), LEAST_SPREAD)
    similar = mean.mean() + _sum(scores - mean, x, y, offsets, at) / len(offsets)
    taken: list[tuple[float, float]] = []
    for number in np.lexsort((rows[tile], -above)):
        place = float(at[number, 0]), float(at[number, 1])
        if all(max(abs(place[0] - one[0]), abs(place[1] - one[1])) >= apart for one in taken):
            taken.append(place)
            yield Candidate(float(above[number]), float(similar[number]), *place, int(rows[tile[number]]))


def _sum(scores: Doubles, x: Int64s, y: Int64s, offsets: Doubles, at: Doubles) -> Doubles:
    """Return the sum over patches of interpolated scores at positions `at`, float64 [c]; 0 where there is no tile."""
    where = _Lookup(x, y, scores)
    total = np.zeros(len(at))
    for patch, offset in enumerate(offsets):
        ground = at + offset - 0.5
        corner = np.floor(ground).astype(np.int64)
        share = ground - corner
        for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            weight = (share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1])
            total += weight * where(patch, corner[:, 0] + right, corner[:, 1] + down)
    return total


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
