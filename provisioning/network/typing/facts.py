"""What decides the bytes of a typed ONNX, found without the code that makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from provisioning.base.distributions import installed_version
from provisioning.base.hashing import Fact, Sha256
from provisioning.config import Backbone
from provisioning.network import backbone as backbones

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Images = Callable[[int], "Iterable[NDArray[np.uint8]]"]
"""Called with a number, gives at most that many corpus tiles uint8 [height, width, 3] as the backbone takes them."""

FORMAT = 1
"""Raised when the same inputs shall give other bytes."""
KEPT = 2
"""Raised when other nodes stay in fp32 by themselves."""
RANGE_TILES = 16
"""Corpus tiles that `check_range` looks at; the conversion to fp16 looks at black, white and noise."""
RANGES = {
    "minmax": "mean of each tile's extremes",
    "entropy": "least divergence, 128 bins",
    "percentile": "99.999 percent, 2048 bins",
}
"""Calibration method: what it does, as it stands in the key of the typed ONNX."""


def typed_facts(
    backbone: Backbone, source: backbones.OnnxSource, calibration: Sha256 | None, *, backend: str = "onnxruntime"
) -> Mapping[str, Fact]:
    """Return everything that decides the bytes of the typed ONNX.

    `calibration` is the digest of the tiles that calibrate int8; other precisions do not depend on it. `backend` is
    what compiles the typed ONNX; it decides int8 alone.
    """
    facts: dict[str, Fact] = {
        "typing": FORMAT,
        "prepared": backbones.prepared_facts(backbone, source),
        "precision": backbone.precision,
    }
    if backbone.precision != "fp32":
        facts["converter"] = {
            "onnx": installed_version("onnx"),
            "onnxruntime": installed_version("onnxruntime", "onnxruntime-gpu"),
        }
        facts["keep_fp32"] = sorted(backbone.keep_fp32)
        facts["kept"] = KEPT
    if backbone.precision == "int8":
        facts |= {"calibration": calibration, "calibration_tiles": backbone.calibration_tiles}
        facts |= {"ranges": RANGES[backbone.calibration_method], "quantised_bias": quantises_bias(backend)}
    return facts


def quantises_bias(backend: str) -> bool:
    """Return whether `backend` takes biases as integers: the parsers of TensorRT refuse DequantizeLinear of int32."""
    return backend == "onnxruntime"


def range_facts(typed_key: Sha256, tiles: Sha256 | None) -> Mapping[str, Fact]:
    """Return what decides the outcome of `check_range`: the typed ONNX, and the digest of the tiles looked at."""
    return {"range_check": FORMAT, "typed": typed_key, "tiles": tiles}
