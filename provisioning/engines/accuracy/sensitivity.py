"""Which layers an int8 network loses most in: each quantised alone, in a network that is otherwise in fp32."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from provisioning.config import Backbone
from provisioning.network import backbone as backbones
from provisioning.network.session import open_session
from provisioning.network.typing.graph import makers
from provisioning.network.typing.int8 import OPERATORS
from provisioning.network.typing.typed import int8_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_S = 120.0
"""How long layers are tried; those that come after are not."""
SAFETY = 2
"""Losses of several layers add up to less or more than their sum."""


class Loss(NamedTuple):
    """One layer, and by how much it alone in int8 lowers the mean cosine to the network in fp32."""

    node: str
    loss: float


class Losses(NamedTuple):
    """The layers tried, largest loss first, and how many there are in all."""

    tried: tuple[Loss, ...]
    layers: int

    def line(self, allowed: Decimal) -> str:
        """Return the line of flight.toml that keeps in fp32 what takes the total loss below `allowed`."""
        kept: list[str] = []
        left = sum(max(found.loss, 0) for found in self.tried)
        for found in self.tried:
            if left <= float(allowed) / SAFETY and kept:
                break
            kept.append(found.node)
            left -= max(found.loss, 0)
        return "keep_fp32 = [" + ", ".join(f'"{name}"' for name in kept) + "]"


def layer_losses(backbone: Backbone, source: backbones.OnnxSource, typed: Path, images: NDArray[np.uint8]) -> Losses:
    """Return what each quantised layer of the int8 ONNX `typed` of `backbone` costs on `images` uint8 [n, H, W, 3].

    BackboneError, EngineError as from making it.
    """
    import onnx

    plain, quantised = int8_source(backbone, source), onnx.load(str(typed))
    makes = makers(quantised.graph)
    by_name = {node.name: place for place, node in enumerate(plain.graph.node)}
    layers = [node for node in quantised.graph.node if node.op_type in OPERATORS and any(_pairs(node, makes))]
    expected, started = _run(plain, images), time.monotonic()
    found = []
    for layer in layers:
        if time.monotonic() - started > LONGEST_S:
            break
        with_one = _with_one(plain, by_name[layer.name], layer, quantised, makes)
        found.append(Loss(layer.name, 1 - _cosine(expected, _run(with_one, images))))
    return Losses(tuple(sorted(found, key=lambda loss: -loss.loss)), len(layers))


def _pairs(node: Any, makes: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield for each input of `node` that comes from DequantizeLinear that node, and the QuantizeLinear before it."""
    for source in node.input:
        maker = makes.get(source)
        if maker is not None and maker.op_type == "DequantizeLinear":
            before = makes.get(maker.input[0])
            yield [before, maker] if before is not None and before.op_type == "QuantizeLinear" else [maker]


def _with_one(plain: Any, place: int, layer: Any, quantised: Any, makes: dict[str, Any]) -> Any:
    """Return a copy of the network `plain` in which the node at `place` alone is quantised, as `layer` is."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(plain)
    new = [node for pair in _pairs(layer, makes) for node in pair]
    read = {name for node in new for name in node.input} - {weight.name for weight in plain.graph.initializer}
    model.graph.initializer.extend(weight for weight in quantised.graph.initializer if weight.name in read)
    model.graph.node[place].input[:] = layer.input
    for node in reversed([node for n, node in enumerate(new) if node not in new[:n]]):
        model.graph.node.insert(place, node)
    return model


def _run(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import numpy as np

    session = open_session(model.SerializeToString(), None, level="ORT_ENABLE_BASIC")
    source = session.get_inputs()[0]
    batch = source.shape[0] if isinstance(source.shape[0], int) else 1
    rows = [session.run(None, {source.name: np.repeat(image[None], batch, axis=0)})[0][:1] for image in images]
    return np.concatenate(rows)


def _cosine(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    import numpy as np

    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    return float(np.mean(np.sum(expected * actual, axis=1) / np.maximum(norms, 1e-12)))
