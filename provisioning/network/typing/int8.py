"""int8 as QuantizeLinear/DequantizeLinear (Q/DQ) pairs in the ONNX, calibrated on tiles of the corpus.

Seven-bit weights (`reduce_range`): with eight, the same file gives another answer on a CPU without VNNI (measured:
cosine 0.84). Symmetric, since TensorRT takes no zero points.

With `minmax` a tensor's range is the mean of what each tile needs. The widest of all grows with the number of tiles
(measured on GIST with 24 and 200 real tiles: median cosine 0.983 and 0.965; with the mean 0.965 and 0.990).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.base.errors import EngineError
from provisioning.network.typing.graph import makers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPERATORS = ("Conv", "Gemm", "MatMul")
"""What is worth quantising; preprocessing and normalisation stay in fp32."""
OLDEST_OPSET = 13
"""First opset whose QuantizeLinear has an axis, which weights quantised for each channel need."""
NEWEST_OPSET = 20
"""Last opset whose QuantizeLinear has no output_dtype. ONNX Runtime's optimiser (1.32) changes the zero point of a
QuantizeLinear that it moved from int8 to uint8, and leaves that attribute: the model cannot be opened."""


@dataclass(frozen=True, kw_only=True)
class Int8Options:
    """How a model becomes int8. `keep_fp32` holds names of nodes that stay as they are."""

    keep_fp32: frozenset[str] = frozenset()
    method: str = "minmax"
    quantise_bias: bool = True
    """False for TensorRT, whose parser refuses DequantizeLinear of int32. ONNX Runtime needs it for its kernels."""


def to_int8(path: Path, output: Path, images: Iterable[NDArray[np.uint8]], options: Int8Options | None = None) -> int:
    """Write the fp32 model at `path`, opset 13 or later, with Q/DQ pairs to `output`; return how many tiles it took.

    EngineError where there are no tiles.
    """
    waiting = iter(images)
    first = next(waiting, None)
    if first is None:
        raise EngineError(
            "int8 needs tiles to calibrate with, and there are none",
            file=path,
            next_step='run `doit`, which scans the tiles of the area first, or choose precision = "fp16"',
        )
    reader = _Reader(path, chain([first], waiting))
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch, _quiet():
        model = _quantised(path, reader, Path(scratch), options or Int8Options())
        output.write_bytes(model.SerializeToString(deterministic=True))
    return reader.count


def _quantised(path: Path, reader: _Reader, scratch: Path, options: Int8Options) -> Any:
    """Return the model with Q/DQ pairs: onnxruntime's `quantize_static`, calibrated by `_ranges`."""
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    ranges = _ranges(path, reader, scratch, options.method)
    extra = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": options.quantise_bias,
    }
    quantizer = QDQQuantizer(
        load_model_with_shape_infer(path),
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(options.keep_fp32),
        op_types_to_quantize=list(OPERATORS),
        extra_options=extra,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    _read_fp32(quantizer.model.model.graph, options.keep_fp32)
    return quantizer.model.model


def _read_fp32(graph: Any, kept: frozenset[str]) -> None:
    """Let the nodes named in `kept` read what was made: onnxruntime quantises the outputs of the layers before them."""
    from provisioning.network.backbone.graph.stitch import drop_dead_nodes

    makes = makers(graph)
    for node in graph.node:
        for place, source in enumerate(node.input if node.name in kept else ()):
            dequantise = makes.get(source)
            quantise = (
                makes.get(dequantise.input[0]) if dequantise and dequantise.op_type == "DequantizeLinear" else None
            )
            if quantise is not None and quantise.op_type == "QuantizeLinear":
                node.input[place] = quantise.input[0]
    if kept:
        drop_dead_nodes(graph)


def _ranges(path: Path, reader: _Reader, scratch: Path, method: str) -> Any:
    """Return the range of every tensor that is quantised.

    A histogram is fed one tile at a time: onnxruntime keeps every tensor of what it is fed in memory.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    methods = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    calibrator = create_calibrator(
        path,
        list(OPERATORS),
        augmented_model_path=str(scratch / "augmented.onnx"),
        calibrate_method=getattr(CalibrationMethod, methods[method]),
        extra_options={"moving_average": True} if method == "minmax" else {"symmetric": True},
    )
    if method == "minmax":
        calibrator.collect_data(reader)
    else:
        while (fed := reader.get_next()) is not None:
            calibrator.collect_data(_Once(fed))
    return calibrator.compute_data()


class _Once:
    """Hands one batch to onnxruntime."""

    def __init__(self, fed: dict[str, Any]) -> None:
        self._fed: dict[str, Any] | None = fed

    def get_next(self) -> dict[str, Any] | None:
        fed, self._fed = self._fed, None
        return fed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what onnxruntime's quantizer prints, and what it says to the root logger.

    It uses `logging.warning`, which puts a handler on the root logger where there is none: from then on every event of
    a build would be printed twice.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    root.addFilter(_nothing)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(_nothing)
        root.removeHandler(silent)


def _nothing(_record: logging.LogRecord) -> bool:
    return False


class _Reader:
    """Hands calibration tiles to onnxruntime, a batch of the model's own size at a time."""

    def __init__(self, path: Path, images: Iterable[NDArray[np.uint8]]) -> None:
        import onnx

        source = onnx.load(str(path), load_external_data=False).graph.input[0]
        dim = source.type.tensor_type.shape.dim[0]
        self.count = 0
        self._batch = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else 1
        self._name, self._images = source.name, iter(images)

    def get_next(self) -> dict[str, Any] | None:
        import numpy as np

        image = next(self._images, None)
        if image is None:
            return None
        self.count += 1
        return {self._name: np.repeat(image[None], self._batch, axis=0)}
