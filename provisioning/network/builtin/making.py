"""The ONNX bytes of the built-in backbones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import onnx

from provisioning.network.builtin import weights
from provisioning.network.builtin.checkpoint import read_checkpoint
from provisioning.network.builtin.efficientnet import descriptor
from provisioning.network.builtin.gist import gist
from provisioning.network.builtin.known import EFFICIENTNET, GIST_COLOR, GIST_GRAY


def _efficientnet_lite0() -> onnx.ModelProto:
    file = weights.read(weights.EFFICIENTNET_LITE0, EFFICIENTNET)
    return descriptor(read_checkpoint(file))


_MAKERS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    EFFICIENTNET: _efficientnet_lite0,
    GIST_COLOR: lambda: gist(colour=True),
    GIST_GRAY: lambda: gist(colour=False),
}


@cache
def onnx_bytes(name: str) -> bytes:
    """Return the ONNX file of the built-in backbone `name`, the same bytes every time.

    Raises BackboneError where its weights are not installed or not the ones expected.
    """
    data: bytes = _MAKERS[name]().SerializeToString(deterministic=True)
    return data
