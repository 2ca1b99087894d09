"""Bytes of the built-in backbones."""

from __future__ import annotations

from functools import cache

from provisioning.network.backbone.gist import gist
from provisioning.network.backbone.presets import BUILTINS


@cache
def onnx_bytes(name: str) -> bytes:
    """Return the ONNX file of the built-in backbone `name`, the same bytes every time."""
    data: bytes = gist(colour=BUILTINS[name]).SerializeToString(deterministic=True)
    return data
