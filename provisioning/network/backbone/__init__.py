"""Backbones: where an ONNX model is, what decides its bytes, and how it becomes a network that takes tiles.

Importing this package is cheap; onnx and numpy are imported by the calls that do the work.
"""

from __future__ import annotations

from pathlib import Path

from provisioning.config import Backbone
from provisioning.network.backbone.facts import prepared_facts
from provisioning.network.backbone.presets import resolved
from provisioning.network.backbone.source import OnnxSource, model_file, onnx_source

__all__ = ["OnnxSource", "model_file", "onnx_source", "prepare", "prepared_facts", "resolved"]


def prepare(backbone: Backbone, source: OnnxSource, output: Path) -> None:
    """Write `backbone` as one self-contained ONNX file; BackboneError names the model. See `wrap.prepare`."""
    from provisioning.network.backbone.wrap import prepare as wrap

    wrap(backbone, source, output)
