"""Matrix arithmetic whose result no thread, BLAS kernel or vector width can change.

Rows and columns are rounded to a grid on which every partial sum of a dot product is an integer below 2**53: by
Cauchy-Schwarz no partial sum of a dot product exceeds the product of the norms. Any order of summation is then exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from provisioning.index.ids import Floats

Doubles = NDArray[np.float64]
GRID_BITS = 26
COVARIANCE_BITS = 20
COVARIANCE_ROWS = 4096
"""Rows of norm 2**20 whose outer products still add up exactly."""
SLACK = 1.01
"""Norms up to this times a power of two count as that power, so that unit vectors never straddle two."""


def exponents(rows: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return for each row the least e with |row| <= 1.01·2**e, int64 [n]; 0 for a zero row."""
    wide = rows.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide)) / SLACK
    mantissa, exponent = np.frexp(norms)
    found: NDArray[np.int64] = np.where(norms > 0, exponent - (mantissa == 0.5), 0).astype(np.int64)
    return found


def product(rows: NDArray[np.floating], columns: Doubles) -> Doubles:
    """Return rows [m, d] · columns [d, k] in float64; `columns` have norms of at most 1."""
    exponent = exponents(rows)[:, None]
    whole = np.rint(np.ldexp(rows.astype(np.float64), GRID_BITS - exponent))
    found: Doubles = np.ldexp(whole @ np.rint(np.ldexp(columns, GRID_BITS)), exponent - 2 * GRID_BITS)
    return found


def normalised(rows: NDArray[np.floating] | NDArray[np.integer]) -> Floats:
    """Return rows divided by their norms, float32; zero rows stay zero."""
    wide = rows.astype(np.float64)
    _, exponent = np.frexp(np.abs(wide).max(axis=1, keepdims=True))
    wide = np.ldexp(wide, -exponent)
    bits = (53 - rows.shape[1].bit_length()) // 2
    whole = np.rint(np.ldexp(wide, bits))
    norms = np.ldexp(np.sqrt(np.einsum("ij,ij->i", whole, whole)), -bits)[:, None]
    unit: Floats = (wide / np.where(norms > 0, norms, 1)).astype(np.float32)
    return unit


def mean_and_covariance(rows: Floats) -> tuple[Doubles, Doubles]:
    """Return the mean [d] and the covariance [d, d] of rows, both float64."""
    exponent = int(exponents(rows).max())
    whole = np.rint(np.ldexp(rows.astype(np.float64), COVARIANCE_BITS - exponent))
    total, squares = np.zeros(rows.shape[1], np.int64), np.zeros((rows.shape[1],) * 2, np.int64)
    for start in range(0, len(whole), COVARIANCE_ROWS):
        part = whole[start : start + COVARIANCE_ROWS]
        total += part.astype(np.int64).sum(axis=0)
        squares += (part.T @ part).astype(np.int64)
    mean = total / len(rows)
    covariance = squares / len(rows) - mean[:, None] * mean[None, :]
    return np.ldexp(mean, exponent - COVARIANCE_BITS), np.ldexp(covariance, 2 * (exponent - COVARIANCE_BITS))
