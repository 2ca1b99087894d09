"""What decides the bytes of a prepared network besides the ONNX itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from provisioning.base.hashing import Fact
from provisioning.config import Backbone
from provisioning.network.backbone.presets import preset_of, resolved
from provisioning.network.backbone.source import OnnxSource
from provisioning.network.points import MATCHER

FORMAT = 1
"""Raised whenever `prepare` or `fit` gives other bytes for the same declaration."""

PREPROCESSING = ("input", "output", "fit", "layout", "channels", "scale", "mean", "std", "pooling", "normalise")

MATCHER_FORMAT = 1
"""Raised whenever a matcher becomes other bytes for the same declaration."""
OF_MATCHER = ("input", "layout", "channels", "scale", "mean", "std", "normalise")

LATER = ("output_layout", "gem_power", "skip_tokens", "constants")
"""Keys that joined the schema later: at their defaults they leave the key of a network as it was."""


def prepared_facts(backbone: Backbone, source: OnnxSource) -> Mapping[str, Fact]:
    """Return the facts that key the prepared network: format, ONNX digest, preprocessing after the preset.

    A matcher is preprocessed too. A backbone of another role is compiled as it is, so only its ONNX counts, and the
    size that it is fixed at.
    """
    facts: dict[str, Fact] = {"prepared_format": FORMAT, "onnx_sha256": source.sha256}
    if backbone.role == MATCHER:
        full = resolved(backbone)
        facts |= {"matcher_format": MATCHER_FORMAT, "size": full.size}
        facts |= {name: getattr(full, name) for name in OF_MATCHER}
        return facts | ({"constants": full.constants} if full.constants else {})
    if backbone.role != "descriptor":
        return facts | ({"size": backbone.size, "layout": backbone.layout} if backbone.size else {})
    full, preset = resolved(backbone), preset_of(backbone)
    size = full.size or (preset.size if preset else ())
    facts |= {"size": size} | {name: getattr(full, name) for name in PREPROCESSING}
    return facts | {name: value for name in LATER if (value := getattr(full, name)) != _defaults()[name]}


def _defaults() -> dict[str, Any]:
    """Return the default of every key of [[backbone]] that has one."""
    return {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(Backbone)}
