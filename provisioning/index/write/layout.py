"""The bytes of a FAISS file around its codes and ids, as faiss-cpu 1.15 `write_index` writes them.

Knowing them lets a million vectors be written in one pass with the memory of one block; tests compare with FAISS.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provisioning.index.choice import code_bytes

INNER_PRODUCT = 0
SQ_TYPES = {"sq8": 0, "sq4": 1, "sqfp16": 4}
_UNUSED = 1 << 20


@dataclass(frozen=True)
class Stage:
    """One learned step before the comparison, in FAISS's own serialised form."""

    payload: bytes
    output: int


@dataclass(frozen=True, eq=False)
class Trained:
    """What was learned from the corpus and decides codes: the steps before, and the range of codes (float32 [2·d])."""

    input: int
    stages: tuple[Stage, ...] = ()
    range: NDArray[np.float32] | None = None

    @property
    def dimension(self) -> int:
        """Components of a stored vector."""
        return self.stages[-1].output if self.stages else self.input


def header(dimension: int, vectors: int) -> bytes:
    """Return the part that every FAISS index begins with, after its four letters."""
    return struct.pack("<iqqq?i", dimension, vectors, _UNUSED, _UNUSED, True, INNER_PRODUCT)  # noqa: FBT003


def vector(values: NDArray[np.generic]) -> bytes:
    """Return `values` as FAISS writes a std::vector: its length and its elements."""
    return struct.pack("<Q", values.size) + values.tobytes()


def transforms(trained: Trained, vectors: int) -> bytes:
    """Return the head of an IndexPreTransform, or nothing where no step comes before the comparison."""
    if not trained.stages:
        return b""
    return (
        b"IxPT"
        + header(trained.input, vectors)
        + struct.pack("<i", len(trained.stages))
        + b"".join(s.payload for s in trained.stages)
    )


def linear_stage(matrix: NDArray[np.float32], offset: NDArray[np.float32]) -> Stage:
    """Return the step y = matrix · x + offset; matrix float32 [out, in]."""
    out, inputs = matrix.shape
    return Stage(b"LTra" + b"\x01" + vector(matrix) + vector(offset) + struct.pack("<ii?", inputs, out, True), out)  # noqa: FBT003


def center_stage(mean: NDArray[np.float32]) -> Stage:
    """Return the step y = x - mean; mean float32 [d]."""
    return Stage(b"VCnt" + vector(mean) + struct.pack("<ii?", mean.size, mean.size, True), mean.size)  # noqa: FBT003


def normalise_stage(dimension: int) -> Stage:
    """Return the step y = x / |x|."""
    return Stage(b"VNrm" + struct.pack("<fii?", 2.0, dimension, dimension, True), dimension)  # noqa: FBT003


def scalar_quantiser(kind: str, dimension: int, trained_range: NDArray[np.float32] | None) -> bytes:
    """Return a serialised ScalarQuantizer; sq8 and sq4 carry their range, sqfp16 none."""
    size = code_bytes(kind, dimension)
    learned = np.empty(0, np.float32) if trained_range is None or kind == "sqfp16" else trained_range
    return struct.pack("<iifQQ", SQ_TYPES[kind], 0, 0.0, dimension, size) + vector(learned)


def before_codes(kind: str, trained: Trained, vectors: int) -> bytes:
    """Return everything before the codes of a flat, sqfp16, sq8 or sq4 index with ids."""
    head = header(trained.dimension, vectors)
    outer = transforms(trained, vectors) + b"IxM2" + head
    if kind == "flat":
        return outer + b"IxFI" + head + struct.pack("<Q", vectors * trained.dimension)
    quantiser = scalar_quantiser(kind, trained.dimension, trained.range)
    return outer + b"IxSQ" + head + quantiser + struct.pack("<Q", vectors * code_bytes(kind, trained.dimension))


def after_codes(vectors: int) -> bytes:
    """Return what stands between the codes and the ids (int64, little-endian), which end the file."""
    return struct.pack("<Q", vectors)
