"""hrq, which FAISS builds in one piece: bits of rotated vectors (RaBitQ), refined by 8-bit codes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from provisioning.base.events import progress
from provisioning.index.choice import HRQ_REFINE, rotated
from provisioning.index.ids import Floats, steadily
from provisioning.index.write import layout
from provisioning.index.write.parallel import idle_threads
from provisioning.index.write.stream import Job, blocks, write_all

FAST_SCAN_COMPONENTS = 2048
"""The longest vectors of FAISS's fast scan: of 4096 components, that of FAISS 1.15.1 finds none again (measured)."""
ADD_BYTES = 16 << 20
"""Descriptors in one call of `add`: FAISS starts its threads for each."""
CENTRE_ROWS = 4
"""Rows whose mean the bits are taken around: while they stay, old rows keep their bytes. Recall is that of the mean of
2,048 rows, which every new tile would move (measured: docs/decisions/delta-on-the-link.md)."""


def write_whole(job: Job, output: Path) -> None:
    """Write an hrq index to `output`."""
    import faiss

    held = _filled(job)
    with open(output, "wb", buffering=0) as file:
        write_all(file, layout.transforms(job.trained, len(job.ids)))
        writer = faiss.PyCallbackIOWriter(lambda data: write_all(file, data), 1 << 20)
        faiss.write_index(held, writer)
        del writer


def _filled(job: Job) -> Any:
    import faiss

    count, dimension = len(job.ids), job.trained.dimension
    form = "RaBitQfs" if dimension <= FAST_SCAN_COMPONENTS else "RaBitQ"
    factory = f"HR{rotated(dimension)},{form},Refine(SQ8)"
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    index.k_factor = HRQ_REFINE
    held = faiss.IndexIDMap2(index)
    with idle_threads():
        index.train(centre(job.rows(steadily(job.ids, CENTRE_ROWS)))[None])  # the mean of one row is that row
        faiss.copy_array_to_vector(job.trained.range, faiss.downcast_index(index.refine_index).sq.trained)
        for block in blocks(count, job.trained.input, ADD_BYTES):
            held.add_with_ids(_rows(job, block), job.ids[block])
            progress("corpus", block.stop, count, unit="vectors")
    return held


def centre(rows: Floats) -> Floats:
    """Return the mean of few rows, moved towards zero by what chance adds to its length (James and Stein), float32 [d].

    Sums have a fixed order or are exact, so that every processor gives the same bytes.
    """
    count = len(rows)
    mean = rows.sum(axis=0, dtype=np.float64) / count
    length = math.fsum(mean * mean)
    if count > 1 and length:
        chance = (math.fsum(np.square(rows, dtype=np.float64).ravel()) / count - length) / (count - 1)
        mean = mean * max(0.0, 1 - chance / length)
    return np.asarray(mean, np.float32)


def _rows(job: Job, which: slice) -> Floats:
    """Return the rows of `which`, read in the small blocks that the descriptor store serves best."""
    parts = blocks(which.stop - which.start, job.trained.input)
    moved = [slice(which.start + part.start, which.start + part.stop) for part in parts]
    return np.concatenate([job.rows(part) for part in moved])
