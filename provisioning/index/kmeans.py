"""Spherical k-means in integers: the same centroids on every host, for any number of threads.

Unit vectors are rounded to multiples of 1/4000. Every partial sum of a dot product of two such is an integer below
2**24, which float32 holds exactly, so the matrix products may be done by any BLAS in any order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from provisioning.index.exact import normalised
from provisioning.index.ids import Floats
from provisioning.index.parallel import cores, in_order

SCALE = 4000
ITERATIONS = 10
BLOCK_ROWS = 512
Points = NDArray[np.int16]
Labels = NDArray[np.int32]


def points(rows: NDArray[np.floating] | NDArray[np.integer]) -> Points:
    """Return rows as integer points on the sphere of radius SCALE, int16 [n, d]."""
    found: Points = np.rint(normalised(rows) * np.float32(SCALE)).astype(np.int16)
    return found


def finder(centroids: Points) -> Callable[[Points], Labels]:
    """Return the function from points to the number of the nearest centroid of each, the first of equals, int32 [n]."""
    columns = np.ascontiguousarray(centroids.T, np.float32)

    def nearest(data: Points) -> Labels:
        labels: Labels = (data.astype(np.float32) @ columns).argmax(axis=1).astype(np.int32)
        return labels

    return nearest


def train(data: Points, count: int) -> Points:
    """Return `count` centroids of `data` int16 [n, d], int16 [count, d]; begins with evenly spaced points."""
    centroids = data[np.arange(count) * len(data) // count]
    labels = _labels(data, centroids)
    for _ in range(ITERATIONS):
        centroids = _means(data, labels, centroids)
        before, labels = labels, _labels(data, centroids)
        if np.array_equal(before, labels):
            break
    return centroids


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, count, BLOCK_ROWS)]


def _labels(data: Points, centroids: Points) -> Labels:
    nearest = finder(centroids)
    return np.concatenate(list(in_order(lambda block: nearest(data[block]), _blocks(len(data)), cores())))


def _means(data: Points, labels: Labels, centroids: Points) -> Points:
    """Return the direction of the sum of each cluster; an empty cluster keeps its centroid."""
    sums = np.zeros(centroids.shape, np.int64)
    parts = in_order(lambda block: _sums(data[block], labels[block]), _blocks(len(data)), cores())
    for which, part in parts:
        sums[which] += part
    filled = sums.any(axis=1)
    moved: Points = centroids.copy()
    moved[filled] = points(sums[filled])
    return moved


def _sums(data: Points, labels: Labels) -> tuple[Labels, NDArray[np.int32]]:
    """Return the clusters of a block, ascending, and their sums: those of 2**18 points would still fit."""
    order = np.argsort(labels, kind="stable")
    first = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return labels[order][first], np.add.reduceat(data[order].astype(np.int32), first, axis=0)


def as_floats(centroids: Points) -> Floats:
    """Return centroids as unit vectors, float32 [count, d]."""
    unit: Floats = (centroids / np.float32(SCALE)).astype(np.float32)
    return unit
