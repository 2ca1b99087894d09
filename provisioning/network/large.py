"""ONNX models above 2 GiB in one file: the graph, and behind it the weights that do not fit into a protobuf message.

    graph    an ONNX model whose large weights are external data: location LOCATION, offset from the start of this file
    weights  little-endian as in TensorProto.raw_data, each at a multiple of ALIGNMENT bytes
    end      length of the graph (8 bytes, little-endian), MAGIC (8 bytes)

ONNX's own form, a second file beside the first, was not taken: an engine is one file, which is hashed, copied, read
and opened as one. A model that fits is plain ONNX.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.base.errors import EngineError
from provisioning.network.backbone import source as sources

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"FCONNXW1"
LOCATION = "weights"
ALIGNMENT = 64
SMALLEST_BYTES = 4096
"""Smaller weights stay in the graph: they are shapes, axes and biases."""
_END = struct.Struct("<Q8s")

Buffer = bytes | mmap.mmap


def save(model: Any, path: Path) -> None:
    """Write `model`, whose weights are loaded, to `path`, as plain ONNX where it fits. `model` is used up."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= sources.LARGEST_FILE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    moved = [tensor for tensor in model.graph.initializer if _moves(tensor)]
    raw = [tensor.raw_data for tensor in moved]
    offsets = [0] * len(moved)
    for _ in range(4):  # the graph holds the offsets, whose digits make it longer: two rounds are enough
        for tensor, data, offset in zip(moved, raw, offsets, strict=True):
            _refer(tensor, offset, len(data))
        graph = model.SerializeToString(deterministic=True)
        if (placed := list(_offsets(len(graph), raw))) == offsets:
            break
        offsets = placed
    with path.open("wb") as file:
        file.write(graph)
        for data, offset in zip(raw, offsets, strict=True):
            file.write(bytes(offset - file.tell()))
            file.write(data)
        file.write(_END.pack(len(graph), MAGIC))


def _moves(tensor: Any) -> bool:
    from onnx import TensorProto

    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8)
    return len(tensor.raw_data) >= SMALLEST_BYTES and tensor.data_type in kinds


def _refer(tensor: Any, offset: int, length: int) -> None:
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", LOCATION), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _offsets(start: int, raw: list[bytes]) -> Iterator[int]:
    for data in raw:
        start += -start % ALIGNMENT
        yield start
        start += len(data)


def opened(path: Path) -> Buffer | None:
    """Return the file at `path`, mapped, if it is of this form; None for any other."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < _END.size:
            return None
        file.seek(-_END.size, os.SEEK_END)
        packed = is_packed(file.read(_END.size))
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if packed else None


def is_packed(data: Buffer) -> bool:
    """Return whether `data` is of this form."""
    return data[-len(MAGIC) :] == MAGIC


def graph_of(data: Buffer) -> bytes:
    """Return the ONNX model in `data`: without its large weights where it is of this form, else all of it."""
    length = _graph_bytes(data)
    return data[:length] if length is not None else bytes(data)


def _graph_bytes(data: Buffer) -> int | None:
    """Return the length of the graph; None where `data` is not of this form. EngineError where it is cut off."""
    if not is_packed(data) or len(data) < _END.size:
        return None
    length, _ = _END.unpack(data[-_END.size :])
    if length > len(data) - _END.size:
        raise EngineError("the model is cut off", facts={"bytes": len(data), "graph": length})
    return int(length)


def weights_of(model: Any, data: Buffer) -> dict[str, NDArray[np.generic]]:
    """Return the weights of `model` (`graph_of(data)`) that lie in `data`, by name and without a copy.

    EngineError for one that refers to another file or to bytes that `data` does not have. The buffer must outlive them.
    """
    import numpy as np
    from onnx import TensorProto, helper

    packed = _graph_bytes(data) is not None
    found: dict[str, NDArray[np.generic]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entry = {pair.key: pair.value for pair in tensor.external_data}
        kind, count = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)), math.prod(tensor.dims)
        offset, length = (int(entry[key]) if entry.get(key, "").isdecimal() else -1 for key in ("offset", "length"))
        whole = 0 <= length == count * kind.itemsize and 0 <= offset <= len(data) - length
        if not packed or entry.get("location") != LOCATION or not whole or min(tensor.dims, default=0) < 0:
            raise EngineError("the model refers to weights outside its file", facts={"weight": tensor.name, **entry})
        found[tensor.name] = np.frombuffer(data, kind, count, offset).reshape(tuple(tensor.dims))
    return found


def unpack(path: Path, folder: Path) -> Path:
    """Return a plain ONNX file for readers that take external data only: `path` itself, or a graph in `folder`.

    The graph's weights are a link to `path`, which therefore must stay.
    """
    data = opened(path)
    if data is None:
        return path
    graph = folder / "model.onnx"
    graph.write_bytes(graph_of(data))
    (folder / LOCATION).symlink_to(path.absolute())
    return graph
