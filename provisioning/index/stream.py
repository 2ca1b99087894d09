"""Write flat, sqfp16 and sq8 indexes in one pass over the descriptors, with the memory of a few blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from provisioning.base.events import progress
from provisioning.index import layout
from provisioning.index.choice import Choice, code_bytes
from provisioning.index.codec import Encode, encoder
from provisioning.index.ids import Bytes, Floats, Int64s
from provisioning.index.layout import Trained
from provisioning.index.memo import History, recall
from provisioning.index.parallel import in_order

Rows = Callable[[slice | Int64s], Floats]
BLOCK_BYTES = 1 << 20
"""Descriptors in one block; a few blocks are held at a time, each small enough for a core's own cache."""


@dataclass(frozen=True, eq=False)
class Reuse:
    """Codes of the last index (uint8 [rows, code bytes], mapped) and for each new row its place in them, or -1."""

    codes: Bytes
    place: Int64s


def blocks(rows: int, dimension: int, size: int = BLOCK_BYTES) -> Iterator[slice]:
    """Cut `rows` descriptors of `dimension` components into blocks of at most `size` bytes."""
    step = max(64, size // (4 * dimension))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def reuse_of(history: History | None, *, kind: str, trained: Trained, ids: Int64s) -> Reuse | None:
    """Return the codes of the last index if it was made by the same descriptors, kind and trained state."""
    last = None if history is None else recall(history.folder)
    if history is None or last is None or last.made_by != history.made_by:
        return None
    start = layout.before_codes(kind, trained, len(last.ids))
    with open(last.path, "rb") as file:
        if file.read(len(start)) != start:
            return None
    shape = (len(last.ids), code_bytes(kind, trained.dimension))
    codes = np.memmap(last.path, np.uint8, "r", offset=len(start), shape=shape)
    return Reuse(codes, last.place_of(ids, history.content))


@dataclass(frozen=True, eq=False)
class Job:
    """What goes into one index file.

    `rows` gives checked and transformed descriptors, float32 [m, trained.dimension], of rows in the order of `ids`.
    """

    choice: Choice
    trained: Trained
    ids: Int64s
    rows: Rows
    history: History | None = None


def write_streamed(job: Job, output: Path) -> int:
    """Write a flat, sqfp16 or sq8 index to `output`; return how many rows were encoded rather than copied."""
    kind, count, encoded = job.choice.kind, len(job.ids), 0
    encode = encoder(kind, job.trained.dimension, job.trained.range)
    reuse = reuse_of(job.history, kind=kind, trained=job.trained, ids=job.ids)
    with open(output, "wb", buffering=0) as file:
        write_all(file, layout.before_codes(kind, job.trained, count))
        cut = list(blocks(count, job.trained.dimension))
        prepare = in_order if kind == "sqfp16" else map  # NumPy's codes gain nothing from a second thread (measured)
        made = prepare(lambda block: _codes(block, job.rows, encode, reuse), cut)
        for block, (codes, fresh) in zip(cut, made, strict=True):
            write_all(file, codes.data)
            encoded += fresh
            progress("corpus", block.stop, count, unit="vectors")
        write_all(file, layout.after_codes(count))
        write_all(file, np.ascontiguousarray(job.ids, "<i8").data)
    return encoded


def _codes(block: slice, rows: Rows, encode: Encode, reuse: Reuse | None) -> tuple[Bytes, int]:
    """Return the codes of one block and how many of its rows were encoded."""
    if reuse is None:
        return encode(rows(block)), block.stop - block.start
    place = reuse.place[block]
    fresh = np.flatnonzero(place < 0)
    codes: Bytes = np.ascontiguousarray(reuse.codes[place])
    if len(fresh):
        codes[fresh] = encode(rows(fresh + block.start))
    return codes, len(fresh)


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, which may take only a part at a time."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(file.fileno(), rest) :]
