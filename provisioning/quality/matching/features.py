"""Local features of an image: points with descriptors, and which of two images agree. OpenCV's ORB and SIFT."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import Error

Pixels = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]
INSTALL = "pip install 'flightcache[match]'"
CLASSICAL = ("orb", "sift")
MOST_POINTS = 1000
"""Of a photo, the strongest; more cost time and change the answer little."""
RATIO = 0.85
"""Of ORB and SIFT."""


class Features(NamedTuple):
    """Points, float64 [n, 2], pixel (x, y), the centre of the first pixel at 0; descriptors, [n, d]. Strongest first.

    Descriptors are float32, compared by their Euclidean distance, or uint8, compared by the bits that differ. ratio:
    greatest distance to the nearest descriptor as a share of that to the second nearest (Lowe 2004 takes 0.8).
    """

    points: Doubles
    descriptors: NDArray[Any]
    ratio: float = RATIO


Extractor = Callable[[Pixels, Flags], Features]
"""From an image, uint8 [H, W, 3], and where it shows something, bool [H, W], to its features there."""


def classical(name: str) -> Extractor:
    """Return OpenCV's detector `orb` or `sift`; Error where OpenCV is not installed."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise Error("OpenCV is needed for the second stage", facts={"reason": error}, next_step=INSTALL) from error
    cv2.setNumThreads(1)
    if name == "orb":
        return _of_opencv(cv2, cv2.ORB_create(nfeatures=MOST_POINTS, fastThreshold=7), width=32)
    return _of_opencv(cv2, cv2.SIFT_create(nfeatures=MOST_POINTS, contrastThreshold=0.02), width=128)


def _of_opencv(cv2: Any, detector: Any, *, width: int) -> Extractor:
    def extract(image: Pixels, shown: Flags) -> Features:
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        mask = cv2.erode(shown.astype(np.uint8), np.ones((17, 17), np.uint8), borderValue=1)
        found, descriptors = detector.detectAndCompute(grey, mask)
        if not found:
            return Features(np.empty((0, 2)), np.empty((0, width), np.uint8 if width == 32 else np.float32))
        order = np.argsort([-each.response for each in found], kind="stable")
        return Features(np.array([each.pt for each in found], np.float64)[order], descriptors[order])

    return extract


def matched(first: Features, second: Features) -> NDArray[np.int64]:
    """Return pairs of rows that are each other's nearest, int64 [m, 2], and distinctly so, by `first.ratio`."""
    if len(first.points) < 1 or len(second.points) < 2:
        return np.empty((0, 2), np.int64)
    away = _distances(first.descriptors, second.descriptors)
    rows = np.arange(len(away))
    nearest = away.argmin(axis=1)
    best = away[rows, nearest]
    mutual = away.argmin(axis=0)[nearest] == rows
    away[rows, nearest] = np.inf
    distinct = best <= first.ratio * away.min(axis=1)
    kept = np.flatnonzero(mutual & distinct)
    return np.stack([kept, nearest[kept]], axis=1).astype(np.int64)


def _distances(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
    """Return the distance of every descriptor to every other, float32 [n, m]."""
    if first.dtype == np.uint8:
        bits = [np.unpackbits(each, axis=1).astype(np.float32) for each in (first, second)]
        return np.asarray(_squares(*bits), np.float32)
    return np.sqrt(np.maximum(_squares(first.astype(np.float32), second.astype(np.float32)), 0))


def _squares(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return squared Euclidean distances; of bits the number that differ."""
    lengths = [(each * each).sum(axis=1) for each in (first, second)]
    return np.asarray(lengths[0][:, None] + lengths[1][None, :] - 2 * (first @ second.T), np.float32)
