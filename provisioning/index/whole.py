"""Kinds that FAISS must build in one piece: hrq (rotated RaBitQ refined by 8-bit codes) and hnsw-sq8 (a graph)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from provisioning.index import layout
from provisioning.index.choice import HRQ_REFINE
from provisioning.index.ids import Floats, Int64s
from provisioning.index.parallel import idle_threads
from provisioning.index.stream import Job, blocks, write_all

SEARCH_WIDTH = 256
"""Candidates that a search of the graph keeps; cross-view queries need many."""
ADD_BYTES = 16 << 20
"""Descriptors in one call of `add`: FAISS starts its threads for each."""


def write_whole(job: Job, output: Path, sample: Int64s) -> int:
    """Write an hrq or hnsw-sq8 index to `output`, learned from the rows `sample`; return how many rows were encoded."""
    import faiss

    held = _filled(job, sample)
    with open(output, "wb", buffering=0) as file:
        write_all(file, layout.transforms(job.trained, len(job.ids)))
        writer = faiss.PyCallbackIOWriter(lambda data: write_all(file, data), 1 << 20)
        faiss.write_index(held, writer)
        del writer
    return len(job.ids)


def _filled(job: Job, sample: Int64s) -> Any:
    import faiss

    index, count = _empty(job), len(job.ids)
    held = faiss.IndexIDMap2(index)
    with idle_threads():
        index.train(job.rows(sample))
        for block in (
            [slice(0, count)] if job.choice.kind == "hnsw-sq8" else blocks(count, job.trained.input, ADD_BYTES)
        ):
            held.add_with_ids(_all_rows(job, block), job.ids[block])
    return held


def _empty(job: Job) -> Any:
    import faiss

    dimension = job.trained.dimension
    if job.choice.kind == "hrq":
        rotated = 1 << (dimension - 1).bit_length()
        index = faiss.index_factory(dimension, f"HR{rotated},RaBitQfs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
        index.k_factor = HRQ_REFINE
        return index
    index = faiss.index_factory(dimension, "HNSW32,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = SEARCH_WIDTH
    return index


def _all_rows(job: Job, which: slice) -> Floats:
    """Return the rows of `which`: in one array, for a graph depends on how its vectors are cut into calls."""
    parts = blocks(which.stop - which.start, job.trained.input)
    moved = [slice(which.start + part.start, which.start + part.stop) for part in parts]
    return np.concatenate([job.rows(part) for part in moved])
