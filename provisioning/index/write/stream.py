"""Write flat, sqfp16, sq8 and sq4 indexes in one pass over the descriptors, with the memory of a few blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from provisioning.base.events import progress
from provisioning.index.choice import Choice
from provisioning.index.ids import Floats, Int64s
from provisioning.index.write import layout
from provisioning.index.write.codec import encoder
from provisioning.index.write.layout import Trained
from provisioning.index.write.parallel import one_thread

Rows = Callable[[slice | Int64s], Floats]
BLOCK_BYTES = 1 << 20
"""Descriptors in one block, small enough for a core's own cache."""


def blocks(rows: int, dimension: int, size: int = BLOCK_BYTES) -> Iterator[slice]:
    """Cut `rows` descriptors of `dimension` components into blocks of at most `size` bytes."""
    step = max(64, size // (4 * dimension))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


@dataclass(frozen=True, eq=False)
class Job:
    """What goes into one index file.

    `rows` gives checked and transformed descriptors, float32 [m, trained.dimension], of rows in the order of `ids`.
    """

    choice: Choice
    trained: Trained
    ids: Int64s
    rows: Rows


def write_streamed(job: Job, output: Path) -> None:
    """Write a flat, sqfp16, sq8 or sq4 index to `output`, in the bytes that FAISS's `write_index` would give."""
    kind, count = job.choice.kind, len(job.ids)
    encode = encoder(kind, job.trained.dimension, job.trained.range)
    with open(output, "wb", buffering=0) as file, one_thread():
        write_all(file, layout.before_codes(kind, job.trained, count))
        for block in blocks(count, job.trained.dimension):
            write_all(file, encode(job.rows(block)).data)
            progress("corpus", block.stop, count, unit="vectors")
        write_all(file, layout.after_codes(count))
        write_all(file, np.ascontiguousarray(job.ids, "<i8").data)


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, which may take only a part at a time."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(file.fileno(), rest) :]
