"""From descriptors to the codes that an index stores, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import IndexingError
from provisioning.index.choice import code_bytes
from provisioning.index.ids import Bytes, Floats, Int64s
from provisioning.index.write.layout import SQ_TYPES

Encode = Callable[[Floats], Bytes]
"""From float32 [m, d] to uint8 [m, code bytes]."""

RANGE_GRID = 1024.0
"""The range of 4-bit codes is widened to multiples of 1/1024, so that it seldom moves when tiles come or go."""
LEAST_WIDTH = 2.0**-20
CACHED_ROWS = 256


def check_rows(rows: Floats, ids: Int64s) -> Floats:
    """Return `rows` if each is finite and none is zero; FAISS would store them and rank them at random."""
    if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(ids):
        raise IndexingError(
            f"descriptors are float32 [rows, dimension], not {rows.dtype} {rows.shape} for {len(ids)} ids"
        )
    rows = np.ascontiguousarray(rows)
    norms = _squares(rows)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        where = int(bad[0])
        what = "zero" if norms[where] == 0 else "not finite"
        raise IndexingError(
            f"a descriptor is {what}",
            facts={"id": int(ids[where]), "in this block": len(bad)},
            next_step="look at the tile (blank or damaged?) and at the backbone's output",
        )
    return rows


def _squares(rows: Floats) -> Floats:
    """Return the squared norms of rows, float32 [n]."""
    import faiss

    norms = np.empty(len(rows), np.float32)
    faiss.fvec_norms_L2sqr(faiss.swig_ptr(norms), faiss.swig_ptr(rows), rows.shape[1], len(rows))
    return norms


def learned_range(kind: str, parts: Iterable[Floats]) -> NDArray[np.float32]:
    """Return the range of codes over rows in `parts`: least value and width of each component, float32 [2·d].

    Eight bits have room to spare: their range is so coarse that it hardly ever moves when tiles come or go. Each that
    moves changes a byte of every row, which costs a delta about one per cent (measured).
    """
    found = [(rows.min(axis=0), rows.max(axis=0), rows.sum(axis=0, dtype=np.float64), len(rows)) for rows in parts]
    least, most = np.min([part[0] for part in found], axis=0), np.max([part[1] for part in found], axis=0)
    if kind == "sq4":
        return _in_steps(least, most)
    mean = sum(part[2] for part in found) / sum(part[3] for part in found)
    return _in_powers_of_two(least, most, mean)


def _in_steps(least: Floats, most: Floats) -> NDArray[np.float32]:
    grid = np.float32(RANGE_GRID)
    low, high = np.floor(least * grid) / grid, np.ceil(most * grid) / grid
    return np.concatenate([low, np.maximum(high - low, 1 / RANGE_GRID)]).astype(np.float32)


def _in_powers_of_two(least: Floats, most: Floats, mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return ranges as wide as a power of two, around the mean as a multiple of a quarter of one."""
    step = _power_of_two(most - least) / 4
    middle = np.round(mean / step) * step
    half = _power_of_two(np.maximum(most - middle, middle - least))
    return np.concatenate([middle - half, 2 * half]).astype(np.float32)


def _power_of_two(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the least power of two that is no less than each value, and 2**-20 at least."""
    mantissa, exponent = np.frexp(np.maximum(values.astype(np.float64), LEAST_WIDTH))
    power: NDArray[np.float64] = np.ldexp(1.0, exponent - (mantissa == 0.5))
    return power


def encoder(kind: str, dimension: int, trained_range: NDArray[np.float32] | None) -> Encode:
    """Return the encoder of flat, sqfp16, sq8 or sq4 codes."""
    if kind == "flat":
        return lambda rows: rows.view(np.uint8)
    if kind == "sqfp16":
        return _half(dimension)
    assert trained_range is not None
    low, width = trained_range[:dimension], trained_range[dimension:]
    return _eight_bits(low, width) if kind == "sq8" else _four_bits(low, width)


def _half(dimension: int) -> Encode:
    import faiss

    quantiser = faiss.ScalarQuantizer(dimension, SQ_TYPES["sqfp16"])

    def encode(rows: Floats) -> Bytes:
        codes: Bytes = quantiser.compute_codes(rows)
        return codes

    return encode


def _eight_bits(low: Floats, width: Floats) -> Encode:
    """Return FAISS's 8-bit encoder in NumPy: bit for bit the same, in half the time (measured)."""

    def encode(rows: Floats) -> Bytes:
        codes = np.empty(rows.shape, np.uint8)
        for start in range(0, len(rows), CACHED_ROWS):
            part = _within(rows[start : start + CACHED_ROWS], low, width)
            part *= np.float32(255)
            codes[start : start + CACHED_ROWS] = part
        return codes

    return encode


def _four_bits(low: Floats, width: Floats) -> Encode:
    """Return FAISS's 4-bit encoder in NumPy: two components in a byte, the first in its lower half."""

    def encode(rows: Floats) -> Bytes:
        codes = np.zeros((len(rows), code_bytes("sq4", rows.shape[1])), np.uint8)
        for start in range(0, len(rows), CACHED_ROWS):
            part = (_within(rows[start : start + CACHED_ROWS], low, width) * np.float64(15)).astype(np.uint8)
            codes[start : start + CACHED_ROWS] = part[:, ::2]
            codes[start : start + CACHED_ROWS, : part.shape[1] // 2] |= part[:, 1::2] << 4
        return codes

    return encode


def _within(rows: Floats, low: Floats, width: Floats) -> Floats:
    """Return rows as shares of the range, from 0 to 1."""
    part: Floats = rows - low
    part /= width
    return np.clip(part, 0, 1, out=part)
