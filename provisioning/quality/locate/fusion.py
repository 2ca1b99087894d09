"""Several patches of one photo ask for one place: their answers are added where they agree on the camera's position.

A position is worth the mean, over the patches, of the similarity of the ground where the patch would then lie. Between
the centres of tiles the similarity is interpolated, as a patch between two tiles is like either.
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


class Candidate(NamedTuple):
    """A position: in tile units of the zoom level, x to the east and y to the south; the tile that proposed it."""

    score: float
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
    worth = _worth(scores, x, y, offsets, at)
    taken: list[tuple[float, float]] = []
    for number in np.lexsort((rows[tile], -worth)):
        place = float(at[number, 0]), float(at[number, 1])
        if all(max(abs(place[0] - one[0]), abs(place[1] - one[1])) >= apart for one in taken):
            taken.append(place)
            yield Candidate(float(worth[number]), *place, int(rows[tile[number]]))


def _worth(scores: Floats, x: Int64s, y: Int64s, offsets: Doubles, at: Doubles) -> Doubles:
    """Return the mean interpolated score of positions `at`, float64 [c]; ground without a tile has the least score."""
    where = _Lookup(x, y, scores)
    total = np.zeros(len(at))
    for patch, offset in enumerate(offsets):
        ground = at + offset - 0.5
        corner = np.floor(ground).astype(np.int64)
        share = ground - corner
        for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            weight = (share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1])
            total += weight * where(patch, corner[:, 0] + right, corner[:, 1] + down)
    return total / len(offsets)


class _Lookup:
    """Scores by address; of several rows of one tile (sources, headings) the best."""

    def __init__(self, x: Int64s, y: Int64s, scores: Floats) -> None:
        keys = x << 32 | y
        order = np.argsort(keys, kind="stable")
        self.keys, first = np.unique(keys[order], return_index=True)
        self.scores = np.maximum.reduceat(scores[:, order], first, axis=1)
        self.least = scores.min(axis=1)

    def __call__(self, patch: int, x: Int64s, y: Int64s) -> Doubles:
        keys = x << 32 | y
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = np.where(self.keys[at] == keys, self.scores[patch, at], self.least[patch])
        return np.asarray(found, np.float64)
