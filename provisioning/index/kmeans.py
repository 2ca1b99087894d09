"""Spherical k-means in integers: the same centroids on every host, for any number of threads.

Unit vectors are rounded to multiples of 1/4000. Every partial sum of a dot product of two such is an integer below
2**24, which float32 holds exactly, so the matrix products may be done by any BLAS in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from provisioning.index.exact import normalised
from provisioning.index.ids import Floats

SCALE = 4000
ITERATIONS = 10
BLOCK_ROWS = 1024
Points = NDArray[np.int16]
Labels = NDArray[np.int32]


def points(rows: NDArray[np.floating] | NDArray[np.integer]) -> Points:
    """Return rows as integer points on the sphere of radius SCALE, int16 [n, d]."""
    found: Points = np.rint(normalised(rows) * np.float32(SCALE)).astype(np.int16)
    return found


def nearest(data: Points, centroids: Points) -> Labels:
    """Return for each point the number of its nearest centroid, the first of equals, int32 [n]."""
    columns = np.ascontiguousarray(centroids.T, np.float32)
    found = np.empty(len(data), np.int32)
    for start in range(0, len(data), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        found[block] = (data[block].astype(np.float32) @ columns).argmax(axis=1)
    return found


def train(data: Points, count: int) -> Points:
    """Return `count` centroids of `data` int16 [n, d], int16 [count, d]; begins with evenly spaced points."""
    centroids = data[np.arange(count) * len(data) // count]
    labels = nearest(data, centroids)
    for _ in range(ITERATIONS):
        centroids = _means(data, labels, centroids)
        before, labels = labels, nearest(data, centroids)
        if np.array_equal(before, labels):
            break
    return centroids


def _means(data: Points, labels: Labels, centroids: Points) -> Points:
    """Return the direction of the sum of each cluster; an empty cluster keeps its centroid."""
    sums = np.zeros(centroids.shape, np.int64)
    for start in range(0, len(data), BLOCK_ROWS):
        part, mine = data[start : start + BLOCK_ROWS], labels[start : start + BLOCK_ROWS]
        order = np.argsort(mine, kind="stable")
        first = np.flatnonzero(np.diff(mine[order], prepend=-1))
        sums[mine[order][first]] += np.add.reduceat(part[order].astype(np.int64), first, axis=0)
    filled = sums.any(axis=1)
    moved: Points = centroids.copy()
    moved[filled] = points(sums[filled])
    return moved


def as_floats(centroids: Points) -> Floats:
    """Return centroids as unit vectors, float32 [count, d]."""
    unit: Floats = (centroids / np.float32(SCALE)).astype(np.float32)
    return unit
