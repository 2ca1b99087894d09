"""Search among chosen rows of an index only, exactly: what a position with a radius, or one zoom level, leaves."""

from __future__ import annotations

from typing import Any

import numpy as np

from provisioning.index.ids import Floats, Int64s
from provisioning.index.transform.space import into_space

BLOCK_ROWS = 16_384


def ids_of(index: Any) -> Int64s:
    """Return every id of a loaded index in the order of its rows, int64 [n]: ascending, as they were built."""
    import faiss

    inner = _inner(index)
    if hasattr(inner, "id_map"):
        return np.asarray(faiss.vector_to_array(inner.id_map), np.int64)
    lists = inner.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(n), lists.list_size(n)).copy()
        for n in range(lists.nlist)
        if lists.list_size(n)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def scores_among(index: Any, queries: Floats, rows: Int64s, ids: Int64s) -> Floats:
    """Return the inner product of each query with each of `rows`, float32 [q, len(rows)], in the index's own space.

    rows: ascending row numbers; ids: all ids, as `ids_of` gives them. Every row is compared, whatever the kind of
    index: a graph or lists that skip rows would make a prior lose what it asks for.
    """
    inner, asked = _inner(index), into_space(index, np.ascontiguousarray(queries, np.float32))
    if not hasattr(inner, "id_map"):
        return _by_selector(inner, asked, ids[rows])
    stored = inner.index
    found = np.empty((len(asked), len(rows)), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = np.ascontiguousarray(rows[start : start + BLOCK_ROWS])
        found[:, start : start + len(block)] = asked @ stored.reconstruct_batch(block).T
    return found


def _by_selector(lists: Any, asked: Floats, ids: Int64s) -> Floats:
    """Return the scores of `ids` (ascending) in inverted lists, all of which are looked through."""
    import faiss

    keep = np.ascontiguousarray(ids)
    selector = faiss.IDSelectorBatch(len(keep), faiss.swig_ptr(keep))
    parameters = faiss.SearchParametersIVF(sel=selector, nprobe=lists.nlist)
    scores, which = lists.search(asked, len(ids), params=parameters)
    found = np.full((len(asked), len(ids)), -np.inf, np.float32)
    at = np.searchsorted(ids, np.maximum(which, ids[0]))
    np.put_along_axis(found, at, np.where(which >= 0, scores, -np.inf).astype(np.float32), axis=1)
    return found


def _inner(index: Any) -> Any:
    """Return the part of a FAISS index that keeps ids or lists, below any transform before it."""
    import faiss

    index = faiss.downcast_index(index)
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index
