"""The space in which an index compares: descriptors after its transform."""

from __future__ import annotations

from typing import Any

import numpy as np

from provisioning.index.ids import Floats


def into_space(index: Any, vectors: Floats) -> Floats:
    """Return `vectors` float32 [n, d] after the transform of `index`, if it has one."""
    import faiss

    vectors = np.ascontiguousarray(vectors, np.float32)
    if not isinstance(index, faiss.IndexPreTransform):
        return vectors
    for number in range(index.chain.size()):
        vectors = index.chain.at(number).apply(vectors)
    return vectors
