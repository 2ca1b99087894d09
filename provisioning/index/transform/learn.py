"""What is done to a descriptor before it is compared: learned here, kept in `corpus.index` for the queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from provisioning.index.ids import Floats
from provisioning.index.transform.eigen import principal
from provisioning.index.transform.exact import Doubles, mean_and_covariance, normalised, product
from provisioning.index.transform.spec import TransformSpec
from provisioning.index.write import layout
from provisioning.index.write.layout import Stage

LEAST_VARIANCE = 1e-4
"""Whitening lifts no component whose variance is less than this share of the largest: it would lift noise."""


@dataclass(frozen=True, eq=False)
class Transform:
    """A learned transform: as FAISS reads it, and as rows go through it here, float32 [m, in] to [m, out]."""

    stages: tuple[Stage, ...]
    apply: Callable[[Floats], Floats]


class Learned(NamedTuple):
    """What a transform has learned, float64: mean [d]; eigenvectors [k, d], the scale of each [k]; empty if unused."""

    mean: Doubles
    vectors: Doubles
    scale: Doubles


_NOTHING = np.empty(0, np.float64)


def learn(spec: TransformSpec, sample: Callable[[], Floats]) -> Learned:
    """Return what `spec` learns from the rows that `sample` gives, float32 [n, d]; asked only if needed."""
    if spec.name == "none":
        return Learned(_NOTHING, _NOTHING, _NOTHING)
    mean, covariance = mean_and_covariance(sample())
    if spec.name == "center":
        return Learned(mean, _NOTHING, _NOTHING)
    values, vectors = principal(covariance, spec.components)
    scale = np.ones_like(values)
    if spec.name == "pca-whiten":
        scale = 1 / np.sqrt(np.maximum(values, LEAST_VARIANCE * values[0]) + np.finfo(np.float64).tiny)
        scale = scale / scale[0]
    return Learned(mean, vectors, scale)


def transform_of(learned: Learned) -> Transform:
    """Return the transform that has learned `learned`."""
    if not learned.mean.size:
        return Transform((), lambda each: each)
    if not learned.vectors.size:
        return _center(learned.mean.astype(np.float32))
    return _linear(*learned)


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
