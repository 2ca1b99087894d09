"""What is done to a descriptor before it is compared: learned here, kept in `corpus.index` for the queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from provisioning.index import layout
from provisioning.index.eigen import principal
from provisioning.index.exact import Doubles, mean_and_covariance, normalised, product
from provisioning.index.ids import Floats
from provisioning.index.layout import Stage
from provisioning.index.transform_spec import TransformSpec

LEAST_VARIANCE = 1e-4
"""Whitening lifts no component whose variance is less than this share of the largest: it would lift noise."""


@dataclass(frozen=True, eq=False)
class Transform:
    """A learned transform: as FAISS reads it, and as rows go through it here, float32 [m, in] to [m, out]."""

    stages: tuple[Stage, ...]
    apply: Callable[[Floats], Floats]


def learn_transform(spec: TransformSpec, sample: Callable[[], Floats]) -> Transform:
    """Return the transform `spec` learned from the rows that `sample` gives, float32 [n, d]; asked only if needed."""
    if spec.name == "none":
        return Transform((), lambda each: each)
    mean, covariance = mean_and_covariance(sample())
    if spec.name == "center":
        return _center(mean.astype(np.float32))
    values, vectors = principal(covariance, spec.components)
    scale = np.ones_like(values)
    if spec.name == "pca-whiten":
        scale = 1 / np.sqrt(np.maximum(values, LEAST_VARIANCE * values[0]) + np.finfo(np.float64).tiny)
        scale = scale / scale[0]
    return _linear(mean, vectors, scale)


def _center(mean: Floats) -> Transform:
    stages = (layout.center_stage(mean), layout.normalise_stage(len(mean)))
    return Transform(stages, lambda rows: normalised(rows - mean))


def _linear(mean: Doubles, vectors: Doubles, scale: Doubles) -> Transform:
    """Return y = scale·(vectors·x - vectors·mean), then y/|y|."""
    columns = np.ascontiguousarray(vectors.T)
    offset = product(mean[None, :], columns)[0]
    matrix = (vectors * scale[:, None]).astype(np.float32)
    stages = (layout.linear_stage(matrix, (-offset * scale).astype(np.float32)), layout.normalise_stage(len(scale)))
    return Transform(stages, lambda rows: normalised((product(rows, columns) - offset) * scale))
