"""Build `corpus.index` from descriptors: check, learn, transform, encode, write; rows that stayed are copied."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from provisioning.errors import IndexError_
from provisioning.index.choice import Choice
from provisioning.index.codec import check_rows, learned_range
from provisioning.index.ids import Floats, Gather, Int64s, check_ids
from provisioning.index.info import IndexInfo
from provisioning.index.layout import Trained
from provisioning.index.memo import History, remember
from provisioning.index.stream import Job, write_streamed

SAMPLE_BYTES = 32 << 20
"""Descriptors from which ranges and transforms are learned: evenly spaced rows, at most this many bytes."""


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
    or on the kind of processor. Raises IndexError_ for bad ids, and for rows that are zero or not finite.
    """
    ids = check_ids(ids)
    dimension = int(gather(slice(0, 1)).shape[1])

    def rows(which: slice | Int64s) -> Floats:
        return check_rows(gather(which), ids[which])

    trained = learn(choice.kind, rows, len(ids), dimension)
    encoded = _write(Job(choice, trained, ids, rows, history), output)
    if history is not None:
        remember(history, output, ids)
    size = os.stat(output).st_size
    return IndexInfo(
        kind=choice.kind,
        dimension=dimension,
        vectors=len(ids),
        bytes=size,
        transform=transform,
        nlist=choice.nlist,
        nprobe=choice.nprobe,
        reason=choice.reason,
        encoded=encoded,
    )


def _write(job: Job, output: Path) -> int:
    if job.choice.kind not in ("flat", "sqfp16", "sq8"):
        raise IndexError_(f"no builder for an index of kind {job.choice.kind}")
    return write_streamed(job, output)


def sample(vectors: int, dimension: int) -> slice | Int64s:
    """Return the rows to learn from: all, or evenly spaced ones (ids follow a space-filling curve, so do they)."""
    most = max(256, SAMPLE_BYTES // (4 * dimension))
    return slice(0, vectors) if vectors <= most else np.arange(most, dtype=np.int64) * vectors // most


def learn(kind: str, rows: Callable[[slice | Int64s], Floats], vectors: int, dimension: int) -> Trained:
    """Return what must be learned from the corpus before its rows can be encoded."""
    needs_range = kind in ("sq8", "ivf-sq8")
    learned = learned_range(rows(sample(vectors, dimension))) if needs_range else None
    return Trained(dimension, (), learned)
