"""What decides the bytes of a prepared network besides the ONNX itself."""

from __future__ import annotations

from collections.abc import Mapping

from provisioning.base.hashing import Fact
from provisioning.config import Backbone
from provisioning.network.backbone.presets import preset_of, resolved
from provisioning.network.backbone.source import OnnxSource

FORMAT = 1
"""Raised whenever `prepare` or `fit` gives other bytes for the same declaration."""

PREPROCESSING = ("input", "output", "fit", "layout", "channels", "scale", "mean", "std", "pooling", "normalise")


def prepared_facts(backbone: Backbone, source: OnnxSource) -> Mapping[str, Fact]:
    """Return the facts that key the prepared network: format, ONNX digest, preprocessing after the preset.

    A backbone of another role is compiled as it is, so only its ONNX counts.
    """
    facts: dict[str, Fact] = {"prepared_format": FORMAT, "onnx_sha256": source.sha256}
    if backbone.role != "descriptor":
        return facts
    full, preset = resolved(backbone), preset_of(backbone)
    size = full.size or (preset.size if preset else ())
    return facts | {"size": size} | {name: getattr(full, name) for name in PREPROCESSING}
