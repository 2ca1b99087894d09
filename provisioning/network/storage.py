"""ONNX files of any size: one file where it fits into one protobuf message, else with the weights in a second file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

LARGEST_FILE_BYTES = (1 << 31) - (1 << 20)
"""A protobuf message is smaller than 2 GiB; the rest is for nodes and names."""


def data_name(name: str) -> str:
    """Return the name of the file with the weights of the ONNX file `name`, if they lie in a second file."""
    return name + ".data"


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return how many bytes the weights of the main graph take."""
    return sum(len(tensor.raw_data) + 4 * len(tensor.float_data) for tensor in model.graph.initializer)


def is_vast(path: Path) -> bool:
    """Tell whether the weights of the ONNX file at `path` lie in a second file, as `save_model` writes it."""
    return path.with_name(data_name(path.name)).exists()


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` to `path`, and its weights beside it where the file would be 2 GiB or more; `model` is used up."""
    import onnx

    if weight_bytes(model) < LARGEST_FILE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        onnx.save_model(model, str(path), save_as_external_data=True, location=data_name(path.name))
