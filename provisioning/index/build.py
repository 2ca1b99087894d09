"""Build `corpus.index` from descriptors: check, learn, transform, encode, write; rows that stayed are copied."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from provisioning.index.choice import SAMPLE_ROWS, Choice
from provisioning.index.codebook import Codebook, kept_codebook, learn_codebook, range_of
from provisioning.index.codec import check_rows
from provisioning.index.ids import Floats, Gather, Int64s, check_ids, evenly
from provisioning.index.info import IndexInfo
from provisioning.index.ivf import write_lists
from provisioning.index.layout import Trained
from provisioning.index.memo import History, remember
from provisioning.index.parallel import idle_threads
from provisioning.index.stream import Job, write_streamed
from provisioning.index.transform import Learned, Transform, learn, transform_of
from provisioning.index.transform_spec import TransformSpec
from provisioning.index.whole import write_whole

RANGE_ROWS = 2_048
"""Rows from which the range of 8-bit codes is learned; what lies outside is stored as the end of the range."""


def build_index(
    choice: Choice,
    ids: Int64s,
    gather: Gather,
    output: Path,
    *,
    transform: str = "none",
    history: History | None = None,
) -> IndexInfo:
    """Write a FAISS index of `choice.kind` to `output`.

    `ids` int64 [n], strictly ascending; `gather` gives the descriptors of a slice or of row numbers, float32 [m, d].
    With a `history`, rows that stayed since the last build are copied. The bytes do not depend on that, on threads,
    or on the kind of processor. Raises IndexingError for bad ids, and for rows that are zero or not finite.
    """
    ids = check_ids(ids)
    dimension = int(gather(slice(0, 1)).shape[1])
    spec = TransformSpec.parse(transform)
    spec.output(dimension)
    codebook = kept_codebook(history) if choice.kind == "ivf-sq8" else None
    plain = Job(choice, Trained(dimension), ids, lambda which: check_rows(gather(which), ids[which]), history)
    learned = _learned(spec, plain) if codebook is None else codebook.transform
    job = _in_space(plain, transform_of(learned))
    if choice.kind == "ivf-sq8" and codebook is None:
        codebook = learn_codebook(job, evenly(len(ids), RANGE_ROWS), learned)
    output.unlink(missing_ok=True)  # it may be the last index, whose codes are read while this one is written
    encoded = _write(job, codebook, output)
    if history is not None:
        remember(history, output, ids)
    size = os.stat(output).st_size
    built = IndexInfo(choice.kind, dimension, len(ids), size, transform, choice.nlist, choice.nprobe)
    return dataclasses.replace(built, reason=choice.reason, encoded=encoded)


def _learned(spec: TransformSpec, job: Job) -> Learned:
    with idle_threads():
        return learn(spec, lambda: job.rows(evenly(len(job.ids), SAMPLE_ROWS)))


def _in_space(job: Job, transform: Transform) -> Job:
    """Return `job` over rows that went through `transform`."""
    if not transform.stages:
        return job

    def rows(which: slice | Int64s) -> Floats:
        return check_rows(transform.apply(job.rows(which)), job.ids[which])

    return dataclasses.replace(job, trained=Trained(job.trained.input, transform.stages), rows=rows)


def _write(job: Job, codebook: Codebook | None, output: Path) -> int:
    """Learn the range of codes where none is given, and write; return how many rows were encoded."""
    if codebook is not None:
        return write_lists(with_range(job, codebook.range), codebook.centroids, output)
    which = evenly(len(job.ids), RANGE_ROWS)
    if job.choice.kind in ("hrq", "hnsw-sq8"):
        return write_whole(job, output, which)
    return write_streamed(with_range(job, range_of(job, which)) if job.choice.kind == "sq8" else job, output)


def with_range(job: Job, learned: NDArray[np.float32]) -> Job:
    """Return `job` with the range of its 8-bit codes."""
    return dataclasses.replace(job, trained=dataclasses.replace(job.trained, range=learned))
