"""Why a gate failed, measured: the preprocessing, the precision, the compiler, or the network itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from provisioning.base.errors import Error, GateError
from provisioning.config import Backbone
from provisioning.engines.accuracy.fidelity import perturbed, reference_network
from provisioning.engines.accuracy.sensitivity import layer_losses
from provisioning.engines.spec import Network
from provisioning.network import backbone as backbones
from provisioning.network.backbone.presets import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TILES = 24
"""Most tiles on which other preprocessing is tried."""
LEAST_TILES = 6
LOOK_S = 30.0
"""About how long other preprocessing is tried, by which the number of tiles is chosen, and then that of forms."""
LAYER_TILES = 4
CLEARLY = 0.1
"""Recall by which another preprocessing must be better to be named the likely cause."""
UNIT = Decimal("0.00392156862745098")
HALF = Decimal("0.5")
PREPROCESSING: Mapping[str, Mapping[str, object]] = {
    "0 to 1": {"scale": UNIT, "mean": (), "std": ()},
    "ImageNet": {"scale": UNIT, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    "-1 to 1": {"scale": UNIT, "mean": (HALF,), "std": (HALF,)},
    "0 to 255": {"scale": Decimal(1), "mean": (), "std": ()},
    "0 to 255 minus mean": {"scale": Decimal(1), "mean": tuple(255 * m for m in IMAGENET_MEAN), "std": ()},
}
"""What networks are trained with, as keys of [[backbone]]."""


class Found(NamedTuple):
    """How well tiles seen otherwise are found with one preprocessing: recall@1, and the margin to the next tile."""

    name: str
    settings: Mapping[str, object]
    recall: float
    margin: float

    def is_clearly_better(self, other: Found) -> bool:
        """Return whether more tiles are found than with `other`, or as many with far more room."""
        if self.recall >= other.recall + CLEARLY:
            return True
        return self.recall >= other.recall and self.margin > max(2 * other.margin, other.margin + CLEARLY)


def explain(
    error: GateError,
    backbone: Backbone,
    source: backbones.OnnxSource,
    images: NDArray[np.uint8],
    *,
    typed: Path,
    allowed: Decimal,
) -> GateError:
    """Return `error` with its likely cause, measured on `images` uint8 [n, H, W, 3], and the line that helps.

    `typed` is the typed ONNX, where it is still there; `allowed` the loss of cosine that the gate permits.
    """
    try:
        if any(name.startswith("fidelity") for name in error.facts):
            return _of_precision(error, backbone, source, images, typed, allowed)
        if set(error.facts) & {"recognition", "degenerate", "distinct"}:
            return _of_preprocessing(error, backbone, source, images)
    except Error:  # the gate's own message stands
        return error
    return error


def _of_precision(
    error: GateError,
    backbone: Backbone,
    source: backbones.OnnxSource,
    images: NDArray[np.uint8],
    typed: Path,
    allowed: Decimal,
) -> GateError:
    if backbone.precision != "int8" or not typed.is_file():
        cause = "the compiler" if backbone.precision == "fp32" else f"precision {backbone.precision}, or the compiler"
        return _with(error, {"likely cause": cause}, None)
    losses = layer_losses(backbone, source, typed, images[:LAYER_TILES])
    if not losses.tried:
        return error
    worst = ", ".join(f"{found.node} {found.loss:.4f}" for found in losses.tried[:5])
    facts = {
        "likely cause": "precision int8",
        "layers that lose most": worst,
        "layers tried": f"{len(losses.tried)} of {losses.layers}",
    }
    return _with(error, facts, f'set {losses.line(allowed)}, or choose precision = "fp16"')


def _of_preprocessing(
    error: GateError, backbone: Backbone, source: backbones.OnnxSource, images: NDArray[np.uint8]
) -> GateError:
    if source.path is None or len(images) < 2:
        return error
    network = reference_network(backbone, source)
    images = images[: _affordable(network, images)]
    declared = _found("declared", {}, network, images)
    others = list(_others(backbone, source, images))
    best = max(others, key=lambda found: (found.recall, found.margin), default=declared)
    facts = {found.name: f"recall@1 {found.recall:.2f}, margin {found.margin:.3f}" for found in (declared, best)}
    if not best.is_clearly_better(declared):
        return _with(error, {**facts, "likely cause": "the network or the imagery; the preprocessing is not"}, None)
    lines = "; ".join(f"{key} = {_toml(value)}" for key, value in best.settings.items())
    return _with(error, {**facts, "likely cause": "the preprocessing declared"}, f"set {lines}, without a preset")


def _affordable(network: Network, images: NDArray[np.uint8]) -> int:
    """Return how many tiles each form may describe, as they are and seen otherwise, for all to take `LOOK_S`."""
    network(images[:1])  # the first call allocates
    started = time.monotonic()
    network(images[:1])
    each_s = time.monotonic() - started
    forms = 2 * len(PREPROCESSING)
    return max(LEAST_TILES, min(TILES, int(LOOK_S / (2 * forms * max(each_s, 1e-6)))))


def _others(backbone: Backbone, source: backbones.OnnxSource, images: NDArray[np.uint8]) -> Iterator[Found]:
    """Yield how well each other preprocessing does, of those with which the network runs; none after `LOOK_S`."""
    full, over = backbones.resolved(backbone), time.monotonic() + LOOK_S
    for channels in dict.fromkeys((full.channels, *(("rgb", "bgr") if full.channels != "gray" else ()))):
        for name, settings in PREPROCESSING.items():
            wanted = {**settings, "channels": channels}
            if time.monotonic() > over or all(getattr(full, key) == value for key, value in wanted.items()):
                continue
            variant = replace(full, preset="", **wanted)
            try:
                yield _found(f"{name}, {channels}", wanted, reference_network(variant, source), images)
            except Error:  # with this one the network gives nothing of use
                continue


def _found(name: str, settings: Mapping[str, object], network: Network, images: NDArray[np.uint8]) -> Found:
    import numpy as np

    queries = np.stack([perturbed(image, number) for number, image in enumerate(images)])
    scores = _unit(network, queries) @ _unit(network, images).T
    own = np.diag(scores).copy()
    np.fill_diagonal(scores, -np.inf)
    margins = own - scores.max(axis=1)
    return Found(name, settings, float(np.mean(margins > 0)), float(np.mean(margins)))


def _unit(network: Network, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import numpy as np

    rows = np.concatenate([network(image[None]) for image in images])
    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:f}" if isinstance(value, Decimal) else str(value)


def _with(error: GateError, facts: Mapping[str, object], step: str | None) -> GateError:
    return GateError(
        error.what,
        file=error.file,
        key=error.key,
        facts={**error.facts, **facts},
        next_step=f"{step}; or {error.next_step}" if step else error.next_step,
    )
