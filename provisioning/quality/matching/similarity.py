"""Which pairs of points agree on one shift, turn and scale: RANSAC over pairs (Fischler, Bolles 1981), alike each time.

Not `cv2.estimateAffinePartial2D`: it takes no bounds on turn and scale, and accepts others than a photo may be off by.

Points of the plane are complex numbers here, so that a similarity is q = a·p + b.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]
Flags = NDArray[np.bool_]
SAMPLES = 2000
MOST_TURN_DEG = 30.0
SCALES = (0.6, 1.7)
"""A photo was rendered to the map's scale and heading: what it is off by is what attitude and height are wrong by."""
LEAST_APART = 0.05
"""Two points of a sample lie at least this share of the whole extent apart."""
REFINED = 3


class Similarity(NamedTuple):
    """q = a·p + b, and which pairs agree."""

    a: complex
    b: complex
    inliers: Flags


def similarity(p: Complex, q: Complex, *, within: float) -> Similarity | None:
    """Return the similarity that most pairs agree on to `within`, None where no sample is plausible.

    p, q: complex128 [n]; `within` in the unit of q.
    """
    if len(p) < 2:
        return None
    rng = np.random.default_rng(len(p))
    i, j = rng.integers(0, len(p), (2, SAMPLES))
    span = np.abs(p[j] - p[i])
    extent = float(np.abs(p - p.mean()).max())
    apart = span > LEAST_APART * extent
    a = np.divide(q[j] - q[i], p[j] - p[i], out=np.zeros(SAMPLES, np.complex128), where=apart)
    turned = np.abs(np.angle(a)) <= math.radians(MOST_TURN_DEG)
    likely = np.flatnonzero(apart & turned & (np.abs(a) >= SCALES[0]) & (np.abs(a) <= SCALES[1]))
    if not len(likely):
        return None
    a = a[likely]
    b = q[i[likely]] - a * p[i[likely]]
    agreeing = np.abs(a[:, None] * p + b[:, None] - q) <= within
    best = int(agreeing.sum(axis=1).argmax())
    return _refined(p, q, Similarity(complex(a[best]), complex(b[best]), agreeing[best]), within)


def _refined(p: Complex, q: Complex, found: Similarity, within: float) -> Similarity:
    """Return the least-squares similarity of the pairs that agree, which may win some more."""
    for _ in range(REFINED):
        inside = found.inliers
        if inside.sum() < 2:
            break
        p0, q0 = p[inside].mean(), q[inside].mean()
        a = complex(np.vdot(p[inside] - p0, q[inside] - q0) / max(float((np.abs(p[inside] - p0) ** 2).sum()), 1e-12))
        b = complex(q0 - a * p0)
        agreeing = np.abs(a * p + b - q) <= within
        if agreeing.sum() < inside.sum():
            break
        found = Similarity(a, b, agreeing)
    return found
