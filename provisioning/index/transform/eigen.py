"""Eigenvectors of a symmetric matrix by element-wise arithmetic alone: LAPACK's depend on threads and processor.

Cyclic Jacobi with the round-robin ordering of Brent and Luk (1985); where few vectors of many are wanted, or more than
DIRECT dimensions there are, first the dominant subspace by orthogonal iteration (Halko, Martinsson, Tropp 2011,
algorithm 4.4). A principal basis need not be accurate to the last digit to be useful; it must be the same everywhere.
"""

from __future__ import annotations

import math

import numpy as np

from provisioning.base.errors import IndexingError
from provisioning.index.ids import Int64s
from provisioning.index.transform.exact import Doubles, product

DIRECT = 1024
OVERSAMPLE = 32
ITERATIONS = 4
SWEEPS = 12
TOLERANCE = 1e-7


def principal(matrix: Doubles, count: int) -> tuple[Doubles, Doubles]:
    """Return the `count` largest eigenvalues [count], descending, and their unit eigenvectors [count, d].

    The component of largest size of each vector is positive. IndexingError if too many are asked of a large matrix.
    """
    if len(matrix) <= min(DIRECT, 2 * (count + OVERSAMPLE)):
        values, vectors = jacobi(matrix)
    else:
        values, vectors = _dominant(matrix, count)
    order = np.argsort(-values, kind="stable")[:count]
    values, vectors = values[order], vectors[order]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    return values, vectors * np.where(largest < 0, -1.0, 1.0)


def jacobi(matrix: Doubles) -> tuple[Doubles, Doubles]:
    """Return all eigenvalues and eigenvectors (as rows) of a symmetric matrix, in no order."""
    size = len(matrix)
    even = size + size % 2
    a, v = np.zeros((even, even)), np.eye(even)
    a[:size, :size] = matrix
    limit = TOLERANCE * float(np.abs(matrix).max())
    for _ in range(SWEEPS):
        if float(np.abs(a - np.diag(a.diagonal())).max()) <= limit:
            break
        a, v = _sweep(a, v)
    return a.diagonal()[:size].copy(), v[:size, :size].copy()


def _sweep(a: Doubles, v: Doubles) -> tuple[Doubles, Doubles]:
    """Rotate every pair of axes once, half of them at a time."""
    players, half = np.arange(len(a)), len(a) // 2
    for _ in range(len(a) - 1):
        p, q = players[:half], players[half:][::-1]
        cos, sin = _angles(a[p, p], a[q, q], a[p, q])
        _turn(a, p, q, cos, sin)
        a = np.ascontiguousarray(a.T)
        _turn(a, p, q, cos, sin)
        _turn(v, p, q, cos, sin)
        players = np.concatenate([players[:1], players[-1:], players[1:-1]])
    return a, v


def _angles(app: Doubles, aqq: Doubles, apq: Doubles) -> tuple[Doubles, Doubles]:
    """Return cosines and sines that make the elements apq vanish (Golub and Van Loan, 8.5.2)."""
    zero = apq == 0
    tau = (aqq - app) / np.where(zero, 1.0, 2 * apq)
    tangent = np.where(zero, 0.0, np.where(tau < 0, -1.0, 1.0) / (np.abs(tau) + np.sqrt(1 + tau * tau)))
    cos = 1 / np.sqrt(1 + tangent * tangent)
    return cos[:, None], (tangent * cos)[:, None]


def _turn(a: Doubles, p: Int64s, q: Int64s, cos: Doubles, sin: Doubles) -> None:
    upper, lower = a[p], a[q]
    a[p] = cos * upper - sin * lower
    a[q] = sin * upper + cos * lower


def _dominant(matrix: Doubles, count: int) -> tuple[Doubles, Doubles]:
    width = count + OVERSAMPLE
    if width > DIRECT:
        raise IndexingError(
            f"index.transform cannot keep {count} of {len(matrix)} components",
            file="flight.toml",
            key="index.transform",
            next_step=f"keep at most {DIRECT - OVERSAMPLE}",
        )
    scale = 2.0 ** math.frexp(np.sqrt((matrix * matrix).sum(axis=0)).max())[1]
    unit = matrix / scale
    basis = orthonormal(
        np.random.Generator(np.random.PCG64(1)).integers(-1, 2, (width, len(matrix))).astype(np.float64)
    )
    for _ in range(ITERATIONS):
        basis = orthonormal(product(basis, unit))
    small = product(product(basis, unit), basis.T.copy())
    values, turned = jacobi((small + small.T) / 2 * scale)
    return values, orthonormal(product(turned, basis))


def orthonormal(rows: Doubles) -> Doubles:
    """Return `rows` made orthonormal by modified Gram-Schmidt, twice, each sum in one fixed order."""
    done: Doubles = rows.copy()
    for _ in range(2):
        for number in range(len(done)):
            norm = np.sqrt((done[number] * done[number]).sum())
            done[number] /= norm if norm > 0 else 1.0
            rest = done[number + 1 :]
            rest -= (rest * done[number]).sum(axis=1)[:, None] * done[number]
    return done
