"""The codebook of an ivf-sq8 index: learned once from a corpus, kept in `.build/index`, read while it fits.

With it stays the transform: centroids mean something only in the space in which they were learned.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import IndexingError
from provisioning.index import kmeans
from provisioning.index.codec import learned_range
from provisioning.index.ids import Int64s, evenly
from provisioning.index.kmeans import Points
from provisioning.index.memo import History
from provisioning.index.stream import Job, blocks
from provisioning.index.training import keep_codebook, read_codebook
from provisioning.index.transform import Learned

SAMPLE_BYTES = 256 << 20
POINTS_PER_LIST = 50


class Codebook(NamedTuple):
    """Centroids, int16 [lists, d] on the sphere of radius kmeans.SCALE; range of codes, float32 [2·d]; transform."""

    centroids: Points
    range: NDArray[np.float32]
    transform: Learned


def kept_codebook(history: History | None) -> Codebook | None:
    """Return the codebook that `history` names; None if it is to be learned from the rows at hand, and kept.

    Raises IndexingError if it was learned from another corpus and is gone.
    """
    if history is None or history.training is None:
        return None
    data = read_codebook(history.folder, history.training)
    if data is not None:
        with np.load(io.BytesIO(data), allow_pickle=False) as parts:
            return Codebook(parts["centroids"], parts["range"], Learned(*(parts[name] for name in Learned._fields)))
    if history.training.coverage_sha256 != history.coverage_sha256:
        raise IndexingError(
            "the codebook that this index was to use is gone",
            file=history.folder,
            next_step="run `doit` again: a new one will be learned",
        )
    return None


def learn_codebook(job: Job, which: Int64s, transform: Learned) -> Codebook:
    """Return a codebook learned from the job's rows, the range of its codes from the rows `which`, and keep it."""
    count, dimension, nlist = len(job.ids), job.trained.dimension, min(job.choice.nlist, len(job.ids))
    most = max(nlist, min(POINTS_PER_LIST * nlist, SAMPLE_BYTES // (2 * dimension)))
    rows = evenly(count, most)
    data = np.empty((len(rows), dimension), np.int16)
    for start in range(0, len(rows), kmeans.BLOCK_ROWS):
        block = slice(start, start + kmeans.BLOCK_ROWS)
        data[block] = kmeans.points(job.rows(rows[block]))
    found = Codebook(kmeans.train(data, nlist), range_of(job, which), transform)
    if job.history is not None and job.history.training is not None:
        kept = io.BytesIO()
        np.savez(kept, centroids=found.centroids, range=found.range, **transform._asdict())
        keep_codebook(job.history.folder, job.history.training, kept.getvalue())
    return found


def range_of(job: Job, which: Int64s) -> NDArray[np.float32]:
    """Return the range of 8-bit codes over the rows `which`, float32 [2·d]."""
    return learned_range(job.rows(which[block]) for block in blocks(len(which), job.trained.dimension))
