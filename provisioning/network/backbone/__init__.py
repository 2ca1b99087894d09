"""Backbones: where an ONNX model is, what decides its bytes, and how it becomes a network that takes tiles.

Importing this package is cheap; onnx, numpy and Pillow are imported by the calls that do the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.config import Backbone
from provisioning.network.backbone.facts import prepared_facts
from provisioning.network.backbone.presets import resolved
from provisioning.network.backbone.source import OnnxSource, model_file, onnx_source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["OnnxSource", "fit", "model_file", "onnx_source", "prepare", "prepared_facts", "resolved"]


def prepare(backbone: Backbone, source: OnnxSource, output: Path) -> None:
    """Write `backbone` as one self-contained ONNX file; BackboneError names the model. See `wrap.prepare`."""
    from provisioning.network.backbone.wrap import prepare as wrap

    wrap(backbone, source, output)


def fit(image: npt.NDArray[np.uint8], size: tuple[int, int], how: str) -> npt.NDArray[np.uint8]:
    """Return `image` uint8 [H, W, 3] as uint8 [size[0], size[1], 3]. See `image.fit`."""
    from provisioning.network.backbone.image import fit as fitted

    return fitted(image, size, how)
