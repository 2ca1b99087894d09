"""The codebook of an ivf-sq8 index: learned once from a corpus, kept in `.build/index`, read while it fits.

One file: a line of JSON that says what it was learned from, then centroids (int16) and the range of the 8-bit codes.
The line is all that the rules need to know of it (`training.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provisioning.errors import IndexError_
from provisioning.hashing import sha256_bytes
from provisioning.index import kmeans
from provisioning.index.codec import learned_range
from provisioning.index.ids import Int64s
from provisioning.index.kmeans import Points
from provisioning.index.parallel import in_order
from provisioning.index.stream import Job, blocks
from provisioning.index.training import keep_codebook, read_codebook

SAMPLE_BYTES = 256 << 20
POINTS_PER_LIST = 50


@dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids, int16 [lists, d] on the sphere of radius kmeans.SCALE, and the range of the codes, float32 [2·d]."""

    centroids: Points
    range: NDArray[np.float32]


def codebook_of(job: Job, which: Int64s) -> Codebook:
    """Return the codebook that the job's training names, from its file, or learned from the job's rows and kept.

    `which` rows give the range of the codes. Raises IndexError_ if the training names a corpus that is not this one and
    its codebook cannot be read.
    """
    training = None if job.history is None else job.history.training
    if training is None or job.history is None:
        return _learn(job, which)
    data = read_codebook(job.history.folder, training)
    if data is not None:
        return _from_bytes(data, training.nlist, job.trained.dimension)
    if training.coverage_sha256 != job.history.coverage_sha256:
        raise IndexError_(
            "the codebook that this index was to use is gone",
            file=job.history.folder,
            next_step="run `doit` again: a new one will be learned",
        )
    found = _learn(job, which)
    keep_codebook(job.history.folder, training, found.centroids.tobytes() + found.range.tobytes())
    return found


def _learn(job: Job, which: Int64s) -> Codebook:
    count, dimension, nlist = len(job.ids), job.trained.dimension, min(job.choice.nlist, len(job.ids))
    most = max(nlist, min(POINTS_PER_LIST * nlist, SAMPLE_BYTES // (2 * dimension)))
    rows = np.arange(count, dtype=np.int64) if count <= most else np.arange(most, dtype=np.int64) * count // most
    data = np.empty((len(rows), dimension), np.int16)
    for start in range(0, len(rows), kmeans.BLOCK_ROWS):
        block = slice(start, start + kmeans.BLOCK_ROWS)
        data[block] = kmeans.points(job.rows(rows[block]))
    return Codebook(kmeans.train(data, nlist), range_of(job, which))


def range_of(job: Job, which: Int64s) -> NDArray[np.float32]:
    """Return the range of 8-bit codes over the rows `which`, float32 [2·d]."""
    return learned_range(in_order(job.rows, (which[block] for block in blocks(len(which), job.trained.dimension))))


def _from_bytes(data: bytes, nlist: int, dimension: int) -> Codebook:
    if len(data) != nlist * dimension * 2 + dimension * 8:
        raise IndexError_(
            "the codebook is of another size than this index needs",
            facts={"sha256": sha256_bytes(data), "lists": nlist, "dimension": dimension, "bytes": len(data)},
            next_step="doit clean, then doit",
        )
    centroids = np.frombuffer(data, np.int16, nlist * dimension).reshape(nlist, dimension)
    return Codebook(centroids, np.frombuffer(data, np.float32, offset=nlist * dimension * 2))
