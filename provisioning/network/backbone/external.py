"""External data of an ONNX model: the files its weights are in."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import BackboneError
from provisioning.network.backbone.source import trees

KINDS = (
    (b"PK\x03\x04", "a ZIP archive, as PyTorch's .pt and .pth files are", "export the model: torch.onnx.export"),
    (b"\x80\x02", "a Python pickle, as old .pt files are", "export the model: torch.onnx.export"),
    (b"ftrt", "a TensorRT engine", "give the ONNX that it was built from; engines are compiled here"),
    (b"vtrt", "a TensorRT-RTX engine", "give the ONNX that it was built from; engines are compiled here"),
    (b"\x89HDF", "an HDF5 file, as Keras writes", "export the model: tf2onnx"),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"<", "a page of HTML or XML: what a download gave instead of the model", "download the file itself"),
    (b"{", "a JSON file", "download the file itself"),
)
"""First bytes: what such a file is, and what to do."""
_WHOLE = ("FLOAT", "FLOAT16", "DOUBLE", "INT64", "INT32", "INT8", "UINT8")
WHOLE_BYTES = tuple(map(onnx.TensorProto.DataType.Value, _WHOLE))
TFLITE, SAFETENSORS = b"TFL3", b'{"'


def load_graph(path: Path) -> onnx.ModelProto:
    """Return the model without its external data; BackboneError if the bytes are not an ONNX model."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise _not_onnx(path, error) from error
    if not model.graph.node or not model.graph.output:
        raise _not_onnx(path, None)
    return model


def _not_onnx(path: Path, error: Exception | None) -> BackboneError:
    """Return the error for a file that is no ONNX model, with what it is as far as its first bytes show."""
    with open_regular(path) as file:
        start = file.read(4096)
    what, step = _link_as_text(path, start) or _kind(start)
    return BackboneError(
        f"this file is not an ONNX model but {what}" if what else "this file is not an ONNX model with a graph",
        file=path,
        facts={"onnx says": error} if error else {},
        next_step=step,
    )


def _link_as_text(path: Path, start: bytes) -> tuple[str, str] | None:
    """Return what a file is that holds nothing but the path of another one: a link, copied by what knows no links."""
    text = start.decode("utf-8", "replace").strip()
    if not text.isprintable() or not 0 < len(text) < 1024 or not (path.parent / text).is_file():
        return None
    return f"the text of a symbolic link to {text}", f"make the link again: ln -sf {text} {path.name}"


def _kind(start: bytes) -> tuple[str, str]:
    if start[4:8] == TFLITE:
        return "a TensorFlow Lite model", "export the model: tf2onnx --tflite"
    if start[8:10] == SAFETENSORS:
        return "a safetensors file: weights without a graph", "export the model: torch.onnx.export"
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    found = (kind[1:] for kind in KINDS if start.startswith(kind[0]) or text.startswith(kind[0]))
    return next(found, ("", "export it again"))


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every weight of the graph, those inside nodes and subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors(inner)


def locations(path: Path) -> tuple[str, ...]:
    """Return the external data files that the model at `path` names, sorted; empty for a self-contained model."""
    named = set()
    for tensor in tensors(load_graph(path).graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entry = {pair.key: pair.value for pair in tensor.external_data}
            named.add(entry.get("location", ""))
    return tuple(sorted(named))


def inside(path: Path, location: str) -> Path:
    """Return the file `location` beside the model; BackboneError if it leads elsewhere or is not there.

    A symbolic link is followed as long as it stays in the tree of the model: beside it, or in a Hugging Face cache.
    """
    relative = PurePosixPath(location)
    if not location or relative.is_absolute() or ".." in relative.parts:
        raise BackboneError(
            "the model names external data outside its own directory",
            file=path,
            facts={"external data": location},
            next_step="export it again with the weights beside the model",
        )
    found = path.parent / relative
    if not found.is_file():
        raise BackboneError(
            "the model's external data is missing",
            file=found,
            facts={"model": path},
            next_step="copy it beside the model under this name",
        )
    real = Path(os.path.realpath(found))
    if not any(real.is_relative_to(root) for root in trees(path)):
        raise BackboneError(
            "the model's external data is a link that leads out of the model's directory",
            file=found,
            facts={"model": path, "leads to": real},
            next_step="replace the link by a copy of the file",
        )
    return found


def load_weights(model: onnx.ModelProto, path: Path, *, most_bytes: int | None = None) -> None:
    """Read the external data of `model`, the graph at `path`, into it; BackboneError if it is not as announced.

    Weights of the graph above `most_bytes` stay where they are.
    """
    for tensor in tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entry = {pair.key: pair.value for pair in tensor.external_data}
            file, expected = inside(path, entry.get("location", "")), _expected_bytes(tensor)
            if most_bytes is not None and expected is not None and expected > most_bytes:
                _require_part(file, entry, expected, path)
                continue
            tensor.raw_data = _part(file, entry, expected, path)
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]


def _require_part(file: Path, entry: Mapping[str, str], expected: int, model: Path) -> None:
    """Refuse a weight that is not whole in its file, without reading it."""
    try:
        offset, length = int(entry.get("offset", 0)), int(entry.get("length", expected))
        there = file.stat().st_size - offset
    except (OSError, ValueError) as error:
        raise _unreadable(file, model, error) from error
    if length != expected or not 0 <= expected <= there:
        raise _unreadable(file, model, f"{max(there, 0)} bytes at {offset}, expected {expected}")


def _expected_bytes(tensor: onnx.TensorProto) -> int | None:
    """Return how long the data must be; None for types that pack several elements into a byte."""
    if tensor.data_type not in WHOLE_BYTES:
        return None
    size: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims)) * size


def _part(file: Path, entry: Mapping[str, str], expected: int | None, model: Path) -> bytes:
    """Return the bytes that `entry` names in `file`."""
    try:
        offset, length = int(entry.get("offset", 0)), int(entry.get("length", -1))
        with open_regular(file) as stream:
            stream.seek(offset)
            data = stream.read(length)
    except (OSError, ValueError) as error:
        raise _unreadable(file, model, error) from error
    if (length >= 0 and len(data) != length) or (expected is not None and len(data) != expected):
        raise _unreadable(file, model, f"{len(data)} bytes at {offset}, expected {expected or length}")
    return data


def _unreadable(file: Path, model: Path, why: object) -> BackboneError:
    return BackboneError(
        "the model's external data cannot be read",
        file=model,
        facts={"external data": file, "it is": why},
        next_step="export or download both files again",
    )
