"""fp16 by conversion, and what would overflow in it, found from fp32 intermediates.

ONNX Runtime on a CPU computes fp16 in fp32 and hides an overflow; a GPU does not. So the range is looked at before.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from provisioning.engines.graph import kept, label
from provisioning.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FP16_MAX = 65504.0
ALWAYS_FP32 = ("ReduceL2", "ReduceSumSquare", "LpNormalization")
"""Sums of squares: a descriptor of 512 values around 12 overflows inside these, where no intermediate shows it."""


class Overflow(NamedTuple):
    """A tensor that fp16 cannot hold."""

    tensor: str
    node: str
    largest: float


def to_fp16(model: Any, keep_fp32: tuple[str, ...]) -> Any:
    """Return `model` in fp16, its inputs and outputs as they were, the nodes named in `keep_fp32` in fp32.

    EngineError if `keep_fp32` names what is not in the model.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    names = {node.name for node in model.graph.node}
    operators = {node.op_type for node in model.graph.node}
    if unknown := sorted(set(keep_fp32) - names - operators):
        facts = {"not in the model": ", ".join(unknown), "operators in it": ", ".join(sorted(operators))}
        raise EngineError("keep_fp32 names neither a node nor an operator type", key="keep_fp32", facts=facts)
    blocked = set(DEFAULT_OP_BLOCK_LIST) | set(ALWAYS_FP32) | set(keep_fp32)
    return convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=sorted(blocked & operators),
        node_block_list=sorted(set(keep_fp32) & names),
    )


def overflows(path: Path, images: Iterable[NDArray[np.uint8]], keep_fp32: tuple[str, ...]) -> tuple[Overflow, ...]:
    """Return every tensor above the range of fp16 that the fp32 model at `path` makes from `images`, largest first."""
    import onnx

    model = onnx.load(str(path))
    largest = _weights(model) | _activations(model, images)
    makers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for source in node.input:
            readers.setdefault(source, []).append(node)
    found = []
    for tensor, value in largest.items():
        concerned = [makers[tensor]] if tensor in makers else []
        concerned += readers.get(tensor, [])
        if value > FP16_MAX and not all(kept(node, (*keep_fp32, *ALWAYS_FP32)) for node in concerned):
            found.append(Overflow(tensor, label(makers[tensor]) if tensor in makers else "weight", value))
    return tuple(sorted(found, key=lambda overflow: (-overflow.largest, overflow.tensor)))


def _weights(model: Any) -> dict[str, float]:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    return {tensor.name: float(np.max(np.abs(numpy_helper.to_array(tensor)), initial=0)) for tensor in floats}


def _activations(model: Any, images: Iterable[NDArray[np.uint8]]) -> dict[str, float]:
    """Return the largest magnitude of every float tensor that a node makes, over `images`, one at a time."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, shape_inference

    inferred = shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.output)}
    names = [o for node in model.graph.node for o in node.output if types.get(o) == TensorProto.FLOAT]
    shown = {value.name for value in inferred.graph.output}
    inferred.graph.output.extend(v for v in inferred.graph.value_info if v.name in set(names) - shown)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    batch = source.shape[0] if isinstance(source.shape[0], int) else 1
    largest = dict.fromkeys(names, 0.0)
    for image in images:
        values = session.run(names, {source.name: np.repeat(image[None], batch, axis=0)})
        for name, value in zip(names, values, strict=True):
            magnitude = float(np.max(np.abs(value), initial=0))
            largest[name] = max(largest[name], np.inf if np.isnan(magnitude) else magnitude)
    return largest
