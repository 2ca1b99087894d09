"""External data of an ONNX model: the files its weights are in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from provisioning.base.errors import BackboneError


def load_graph(path: Path) -> onnx.ModelProto:
    """Return the model without its external data; BackboneError if the bytes are not an ONNX model."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise BackboneError(
            "this file is not an ONNX model", file=path, facts={"onnx says": error}, next_step="export it again"
        ) from error
    if not model.graph.node or not model.graph.output:
        raise BackboneError("this ONNX model has no graph", file=path, next_step="export it again")
    return model


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
    """Return the file `location` beside the model; BackboneError if it leads elsewhere or is not there."""
    relative = PurePosixPath(location)
    if not location or relative.is_absolute() or ".." in relative.parts:
        raise BackboneError(
            "the model names external data outside its own directory", file=path, facts={"external data": location}
        )
    found = path.parent / relative
    if not found.is_file():
        raise BackboneError(
            "the model's external data is missing",
            file=found,
            facts={"model": path},
            next_step="copy it beside the model under this name",
        )
    return found
