"""Sessions of ONNX Runtime: one thread, the CPU, its errors in our words."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.base.errors import EngineError


def _require_library(path: Path) -> None:
    """Refuse what is no regular file: the loader would wait for a pipe."""
    if not path.is_file():
        raise EngineError("the library of custom operators is no file", file=path, next_step="give a shared library")


def session_options(level: str, custom_ops: Path | None, weights: Path | None = None) -> Any:
    """Return the options of every session: one thread, silent, optimised to `level`; `weights` as in `open_session`."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # for a program that imported it before us; see provisioning/__init__.py
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors are raised, and said by us
    if custom_ops is not None:
        _require_library(custom_ops)
        options.register_custom_ops_library(str(custom_ops))
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    return options


def run_limited(session: Any, outputs: list[str] | None, inputs: dict[str, Any], *, within_s: float) -> Any:
    """Return what `session` computes; EngineError if it has not after `within_s` seconds: a model may loop for ever.

    ONNX Runtime stops before the next node, those of a loop's body included.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    over = threading.Timer(within_s, lambda: setattr(options, "terminate", True))
    over.daemon = True
    over.start()
    try:
        return session.run(outputs, inputs, options)
    except Exception as error:
        if not options.terminate:
            raise
        raise EngineError(
            f"the model had not finished after {within_s:g} s", next_step="see whether it loops"
        ) from error
    finally:
        over.cancel()


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


def open_session(
    model: str | bytes, custom_ops: Path | None, *, level: str, save: Path | None = None, weights: Path | None = None
) -> Any:
    """Return a single-threaded session of the file or the bytes `model`, optimised to `level`, also saved to `save`.

    `weights`: the directory of external data that the model names, for bytes.
    EngineError holds what onnxruntime says: the operator it does not know, the type it has no kernel for.
    """
    import onnxruntime

    with translated(model if isinstance(model, str) else "engine"):
        options = session_options(level, custom_ops, weights)
        if save is not None:
            options.optimized_model_filepath = str(save)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
