"""Promises of the arithmetic under the index: the order of summation cannot be seen in a result."""

import numpy as np
import pytest

from provisioning.base.errors import IndexingError
from provisioning.index.transform.eigen import DIRECT, OVERSAMPLE, jacobi, principal
from provisioning.index.transform.exact import exponents, mean_and_covariance, normalised, product


def rows(count, dimension, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, dimension)) + 0.3
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def submit(count, dimension, seed=0):
    """Rows that vary in a few directions much more than in others."""
    rng = np.random.default_rng(seed)
    few = rng.standard_normal((count, 12)) * np.linspace(3, 0.5, 12)
    values = few @ rng.standard_normal((12, dimension)) + 0.05 * rng.standard_normal((count, dimension))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dimension", [3, 64, 1000, 8448])
def test_a_product_is_the_same_in_every_order_of_summation(dimension):
    left = rows(5, dimension) * np.float32([[1e-3], [1], [7], [1e4], [0]])
    right = rows(4, dimension, seed=1).T.astype(np.float64)
    order = np.random.default_rng(2).permutation(dimension)
    assert (product(left, right) == product(left[:, order], right[order])).all()


def test_a_product_is_right_to_the_precision_of_a_descriptor():
    left, right = rows(50, 512), rows(40, 512, seed=1).T.astype(np.float64)
    np.testing.assert_allclose(product(left, right), left.astype(np.float64) @ right, atol=2e-7)


def test_a_covariance_is_the_same_for_rows_in_any_order():
    sample = rows(9000, 20)
    order = np.random.default_rng(3).permutation(9000)
    for first, again in zip(mean_and_covariance(sample), mean_and_covariance(sample[order]), strict=True):
        assert (first == again).all()
    np.testing.assert_allclose(mean_and_covariance(sample)[1], np.cov(sample.T, bias=True), atol=1e-7)


def test_normalised_rows_have_norm_one_and_zero_stays_zero():
    got = normalised(np.float32([[3e-20, 4e-20], [0, 0], [1e15, 0]]))
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), [1, 0, 1], atol=1e-6)


def test_unit_rows_never_straddle_two_powers():
    assert set(exponents(rows(1000, 512)).tolist()) == {0}
    assert exponents(np.float32([[2, 0], [2.5, 0], [0, 0]])).tolist() == [1, 2, 0]


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_jacobi_finds_the_eigenvectors_of_lapack(size):
    half = np.random.default_rng(size).standard_normal((size, size))
    matrix = half @ half.T
    values, vectors = jacobi(matrix)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(matrix), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(vectors @ matrix @ vectors.T, np.diag(values), atol=1e-5 * np.abs(matrix).max())


@pytest.mark.parametrize("dimension", [60, 300, DIRECT + 76])
def test_principal_components_keep_the_variance_that_the_best_ones_keep(dimension):
    covariance = mean_and_covariance(submit(300, dimension))[1]
    values, vectors = principal(covariance, 10)
    best = np.linalg.eigvalsh(covariance)[::-1][:10]
    assert values.sum() > 0.999 * best.sum()
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(10), atol=1e-10)
    assert (np.diff(values) <= 0).all()


def test_too_many_components_of_very_long_descriptors_are_refused():
    with pytest.raises(IndexingError, match="cannot keep"):
        principal(np.eye(DIRECT + 100), DIRECT - OVERSAMPLE + 1)
