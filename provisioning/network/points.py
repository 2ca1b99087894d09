"""What the engine of a backbone of role `matcher` gives of an image: points, scores and descriptors in one row.

One output of fixed length, so that every backend runs it as it runs a network of descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MATCHER = "matcher"
"""The role whose networks give local features."""
POINTS = 1000
"""Points in a row, the best scored first."""
BESIDE = 3
"""Numbers of a point beside its descriptor: x, y, score."""


def points_of(row: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return points [n, 2], scores [n] and descriptors [n, d] of an engine's `row`, float32 [POINTS * (3 + d)].

    Points are pixels (x, y), the centre of the first pixel at 0. Only scores above 0 are points.
    """
    table = row.reshape(POINTS, -1)
    table = table[table[:, BESIDE - 1] > 0]
    return table[:, : BESIDE - 1], table[:, BESIDE - 1], table[:, BESIDE:]
