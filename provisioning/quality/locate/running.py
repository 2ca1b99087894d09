"""Queries without what the camera, the light and the season of a flight do to all of them.

An index with `index.transform = "center"` takes the mean of its tiles off tiles and queries alike. A flight's photos
have a mean of their own. The running mean of the photos so far is taken off in its place; the tables are in
docs/evaluation.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import IndexingError
from provisioning.engines import Network
from provisioning.index.ids import Floats

TILES_WEIGH = 3.0
"""Photos that the mean of the tiles counts for, so that the first photos are not taken off from themselves."""


class RunningMean:
    """A network whose descriptors are moved by the difference of two means: of the tiles, and of the photos so far.

    One object for each flight and camera, called with the photos in their order; each call counts as one photo. Put it
    in the place of a locator's network: `locator.network = RunningMean(locator.network, tiles_mean(locator.index))`.
    """

    def __init__(self, network: Network, tiles: Floats) -> None:
        """Take the network of the index and the mean of its tiles, float32 [d]."""
        self._network, self._tiles = network, tiles.astype(np.float64)
        self._sum, self._weight = self._tiles * TILES_WEIGH, TILES_WEIGH

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images it takes, pixel."""
        return self._network.size

    @property
    def dimension(self) -> int:
        """Length of a descriptor."""
        return self._network.dimension

    def __call__(self, images: NDArray[np.uint8]) -> Floats:
        """Return the descriptors of one photo, float32 [n, d]: n patches or headings, which count as their mean."""
        found = self._network(images)
        self._sum = self._sum + found.mean(axis=0, dtype=np.float64)
        self._weight += 1
        moved: Floats = (found - self._sum / self._weight + self._tiles).astype(np.float32)
        return moved

    def clone(self) -> RunningMean:
        """Return one for another thread: another flight, which has seen nothing yet."""
        return RunningMean(self._network.clone(), self._tiles.astype(np.float32))


def tiles_mean(index: Any) -> Floats:
    """Return the mean that a loaded index takes off, float32 [d]; IndexingError if its transform is not `center`."""
    import faiss

    outer = faiss.downcast_index(index)  # `index` owns the memory: it must outlive this
    chain = outer.chain if isinstance(outer, faiss.IndexPreTransform) else None
    first = faiss.downcast_VectorTransform(chain.at(0)) if chain is not None and chain.size() else None
    if not isinstance(first, faiss.CenteringTransform):
        raise IndexingError(
            "a running mean of the photos needs an index that takes off the mean of its tiles",
            key="index.transform",
            next_step='set index.transform = "center", or try it: --try transform=center,mean=running',
        )
    return np.asarray(faiss.vector_to_array(first.mean), np.float32)
