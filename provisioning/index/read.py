"""Load an index from bytes that were verified, and search it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import IndexingError

_LIMIT = threading.Lock()
_TRANSFORM_BYTES = 4 * 16_384**2
"""FAISS holds input times output dimension of a transform against the limit, even of one that stores no matrix."""


def load_index(data: bytes | bytearray | memoryview) -> Any:
    """Return the FAISS index in `data`, which must be verified before: FAISS trusts what it reads.

    The codes stay in `data` (kept alive by the index), so memory is that of the file. No vector in the file may claim
    more bytes than the file has, or than the largest transform needs. Raises IndexingError for bytes that are no
    inner-product index.
    """
    import faiss

    buffer = np.frombuffer(data, np.uint8)
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(buffer), buffer.size)
    with _LIMIT:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(max(buffer.size, _TRANSFORM_BYTES))
        try:
            index = faiss.read_index(reader)
        except (RuntimeError, MemoryError) as error:
            raise IndexingError(
                "the bytes are not an index",
                facts={"faiss": str(error).splitlines()[0][:200]},
                next_step="build again: doit",
            ) from error
        finally:
            faiss.set_deserialization_vector_byte_limit(before)
    if reader.rp_ != buffer.size:  # FAISS 1.15.1 reads a list of ids past the end of the buffer (measured)
        raise IndexingError("the bytes are not one whole index", facts={"bytes": buffer.size, "used": reader.rp_})
    index.referenced_objects = [buffer, data]
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or index.ntotal <= 0:
        raise IndexingError(
            "the index does not compare by inner product, or is empty",
            facts={"metric": index.metric_type, "vectors": index.ntotal},
        )
    return index


def search(index: Any, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores float32 [q, k] and ids int64 [q, k] of the `k` best of each query; id -1 where there are fewer."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != index.d:
        raise IndexingError(
            f"a query has {queries.shape[-1]} components, the index {index.d}",
            next_step="use the descriptor engine that the Manifest names for this index",
        )
    if not np.isfinite(queries).all():
        raise IndexingError("a query is not finite")
    scores, ids = index.search(queries, k)
    return scores, ids
