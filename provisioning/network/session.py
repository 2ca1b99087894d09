"""Sessions of ONNX Runtime: one thread, the CPU, its errors in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.base.errors import EngineError


def _options(custom_ops: Path | None, level: str) -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # for a program that imported it before us; see provisioning/__init__.py
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if custom_ops is not None:
        options.register_custom_ops_library(str(custom_ops))
    return options


@contextlib.contextmanager
def translated(file: Path | str) -> Iterator[None]:
    """Turn what onnxruntime raises into EngineError with its own words."""
    try:
        yield
    except Exception as error:  # onnxruntime raises a dozen classes straight from C++, all of them Exception
        if isinstance(error, EngineError):
            raise
        text = " ".join(str(error).split())
        raise EngineError("onnxruntime cannot take this model", file=file, facts={"onnxruntime says": text}) from error


def open_session(model: str | bytes, custom_ops: Path | None, *, level: str, save: Path | None = None) -> Any:
    """Return a single-threaded session of the file or the bytes `model`, optimised to `level`, also saved to `save`.

    EngineError holds what onnxruntime says: the operator it does not know, the type it has no kernel for.
    """
    import onnxruntime

    with translated(model if isinstance(model, str) else "engine"):
        options = _options(custom_ops, level)
        if save is not None:
            options.optimized_model_filepath = str(save)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
