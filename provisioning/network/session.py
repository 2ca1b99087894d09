"""Sessions of ONNX Runtime: one thread, the CPU, its errors in our words."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.base.errors import EngineError
from provisioning.network import large


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
    with translated(model if isinstance(model, str) else "engine"):
        options = session_options(level, custom_ops, weights)
        packed = large.opened(Path(model)) if isinstance(model, str) else model if large.is_packed(model) else None
        if packed is not None:
            return _open_packed(packed, options, save)
        if save is not None:
            options.optimized_model_filepath = str(save)
        return _session(model, options)


def _session(model: str | bytes, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _open_packed(packed: large.Buffer, options: Any, save: Path | None) -> Any:
    """Return a session of a model above 2 GiB, also saved to `save`; the weights stay where they are in `packed`."""
    import onnx
    from onnxruntime import OrtValue

    graph = large.graph_of(packed)
    weights = large.weights_of(onnx.load_model_from_string(graph), packed)
    values = [OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers(list(weights), values)
    if save is None:
        session = _session(graph, options)
    else:
        with tempfile.TemporaryDirectory(dir=save.parent) as scratch:
            written = Path(scratch) / "optimised.onnx"
            options.optimized_model_filepath = str(written)
            for key, value in (("file_name", "weights"), ("min_size_in_bytes", str(large.SMALLEST_BYTES))):
                options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
            session = _session(graph, options)
            large.save(onnx.load(str(written)), save)
    session.kept_weights = values  # ONNX Runtime reads them where they lie
    return session
