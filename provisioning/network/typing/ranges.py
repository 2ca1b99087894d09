"""What would overflow in fp16, found from fp32 intermediates.

ONNX Runtime on a CPU computes fp16 in fp32 and hides an overflow; a GPU does not. So the range is looked at before.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from provisioning.network.session import open_session
from provisioning.network.typing.graph import label, makers, readers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FP16_MAX = 65504.0


class Overflow(NamedTuple):
    """A tensor that fp16 cannot hold."""

    tensor: str
    node: str
    """Operator and name of the node that makes it, or `weight`."""
    largest: float


def overflows(
    model: Any,
    images: Iterable[NDArray[np.uint8]],
    kept: frozenset[str],
    *,
    custom_ops: Path | None = None,
    weights: Path | None = None,
) -> tuple[Overflow, ...]:
    """Return every tensor above the range of fp16 that the fp32 `model` makes from `images`, largest first.

    A tensor that passes only between nodes named in `kept` never becomes fp16. `weights`: the directory of external
    data, where the model has not loaded it.
    """
    largest = _weights(model, weights) | _activations(model, images, custom_ops, weights)
    makes, reads = makers(model.graph), readers(model.graph)
    shown = {value.name for value in model.graph.output}
    found = []
    for tensor, value in largest.items():
        maker = makes.get(tensor)
        concerned = [node.name for node in (*([maker] if maker is not None else []), *reads.get(tensor, []))]
        if value > FP16_MAX and not (set(concerned) <= kept and (concerned or tensor in shown)):
            found.append(Overflow(tensor, "weight" if maker is None else label(maker), value))
    return tuple(sorted(found, key=lambda overflow: (-overflow.largest, overflow.tensor)))


def _weights(model: Any, folder: Path | None) -> dict[str, float]:
    from onnx import TensorProto, numpy_helper

    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    arrays = ((tensor.name, numpy_helper.to_array(tensor, str(folder or ""))) for tensor in floats)
    return {name: _largest(array) for name, array in arrays}


def _activations(
    model: Any, images: Iterable[NDArray[np.uint8]], custom_ops: Path | None, weights: Path | None
) -> dict[str, float]:
    """Return the largest magnitude of every float tensor that a node makes, over `images`, one at a time."""
    import numpy as np

    session, names = _instrumented(model, custom_ops, weights)
    source = session.get_inputs()[0]
    batch = source.shape[0] if isinstance(source.shape[0], int) else 1
    largest = dict.fromkeys(names, 0.0)
    for image in images:
        values = session.run(names, {source.name: np.repeat(image[None], batch, axis=0)})
        for name, value in zip(names, values, strict=True):
            largest[name] = max(largest[name], _largest(value))
    return largest


def _largest(values: Any) -> float:
    """Return the largest magnitude, infinity for what is not a number.

    The ends of fp32 and minus infinity do not count: exporters write them in masks of attention for "as small as can
    be", and that is what they become in fp16 too. Added to a score they stay there; no layer makes them by chance.
    """
    import numpy as np

    if np.isnan(values).any():
        return float(np.inf)
    magnitudes = np.abs(values)
    return float(np.max(magnitudes, initial=0, where=(magnitudes != np.finfo(np.float32).max) & (values != -np.inf)))


def _instrumented(model: Any, custom_ops: Path | None, weights: Path | None) -> tuple[Any, list[str]]:
    """Return a session of `model` that shows every float tensor a node makes, and their names."""
    from onnx import TensorProto, shape_inference

    inferred = shape_inference.infer_shapes(model)
    known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    made = [output for node in model.graph.node for output in node.output if output in known]
    names = [name for name in made if known[name].type.tensor_type.elem_type == TensorProto.FLOAT]
    shown = {value.name for value in inferred.graph.output}
    inferred.graph.output.extend(known[name] for name in names if name not in shown)
    session = open_session(inferred.SerializeToString(), custom_ops, level="ORT_DISABLE_ALL", weights=weights)
    return session, names
