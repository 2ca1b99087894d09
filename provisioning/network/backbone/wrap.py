"""A user's model becomes a network from tiles to descriptors: one front, one back, nothing left to the caller.

The front takes uint8 pixels as they are decoded and normalises inside the graph, which saves more time than decoding
takes (measured). The back pools, casts and normalises, so that every engine gives float32 unit vectors.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from provisioning.base.errors import BackboneError
from provisioning.base.events import warn
from provisioning.base.files import wrap_os_errors
from provisioning.config import Backbone
from provisioning.network.backbone.back import append_back
from provisioning.network.backbone.external import load_graph
from provisioning.network.backbone.front import prepend_front
from provisioning.network.backbone.order import sort_nodes
from provisioning.network.backbone.ports import find_ports, image_size, require_opset
from provisioning.network.backbone.presets import preset_of, resolved
from provisioning.network.backbone.source import OnnxSource
from provisioning.network.backbone.stitch import drop_dead_nodes, free_name
from provisioning.network.backbone.trial import trial

TILES, DESCRIPTORS = "tiles", "descriptors"
OLDEST_IR = 4
"""From here on weights need not be listed as inputs, which would keep them from being folded."""


def prepare(backbone: Backbone, source: OnnxSource, output: Path) -> None:
    """Write the network of `backbone` to `output`, self-contained.

    Role descriptor: input "tiles" uint8 [batch, H, W, 3] RGB, output "descriptors" float32 [batch, D], with batch as
    the model fixes it or free. It is run once here. Other roles: the model as it is. BackboneError names the model.
    """
    model = load(backbone, source)
    if backbone.role == "descriptor":
        model = network(backbone, model, source.name)
        dimension = _tried(model, backbone, source.name)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = dimension
    with wrap_os_errors("write the prepared network", output):
        output.write_bytes(_serialised(model, source.name))


def _tried(model: onnx.ModelProto, backbone: Backbone, file: str) -> int:
    """Return the length of the descriptors; a model whose free batch is only a claim gets its batch fixed at 1."""
    preset = preset_of(backbone)
    batches = [port.type.tensor_type.shape.dim[0] for port in (model.graph.input[0], model.graph.output[0])]
    try:
        return trial(model, file, preset, backbone.custom_ops)
    except BackboneError as error:
        if batches[0].dim_value:
            raise
        refused = error
    for batch in batches:
        batch.dim_value = 1
    try:
        dimension = trial(model, file, preset, backbone.custom_ops)
    except BackboneError:
        raise refused from None
    warn("backbone.batch", model=backbone.name, reason=f"one tile at a time: {refused.what}")
    return dimension


def tile_size(backbone: Backbone, source: OnnxSource) -> tuple[int, int]:
    """Return height and width of the images that the prepared network takes; BackboneError if nothing says it."""
    full, model = resolved(backbone), load(backbone, source)
    return image_size(full, find_ports(full, model, source.name), preset_of(backbone), source.name)


def load(backbone: Backbone, source: OnnxSource) -> onnx.ModelProto:
    """Return the model with its external data loaded; BackboneError if that fails."""
    if source.path is None:
        from provisioning.network.backbone import builtin

        return onnx.load_model_from_string(builtin.onnx_bytes(backbone.onnx))
    model = load_graph(source.path)
    try:
        onnx.load_external_data_for_model(model, str(source.path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise BackboneError(
            "the model's external data cannot be read", file=source.path, facts={"onnx says": error}
        ) from error
    sort_nodes(model.graph)
    return model


def network(backbone: Backbone, model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """Return `model` between front and back, as `backbone` and its preset declare them; `file` is for errors."""
    full, preset = resolved(backbone), preset_of(backbone)
    model = require_opset(model, file)
    ports = find_ports(full, model, file)
    size = image_size(full, ports, preset, file)
    for name in (TILES, DESCRIPTORS):
        ports = free_name(model.graph, name, ports)
    _forget_ports(model)
    prepend_front(full, model, ports, tiles=TILES)
    append_back(full, model, ports, descriptors=DESCRIPTORS, file=file)
    batch: int | str = ports.batch or "batch"
    model.graph.input.append(helper.make_tensor_value_info(TILES, TensorProto.UINT8, [batch, *size, 3]))
    model.graph.output.append(helper.make_tensor_value_info(DESCRIPTORS, TensorProto.FLOAT, [batch, "dimension"]))
    drop_dead_nodes(model.graph)
    model.ir_version = max(model.ir_version, OLDEST_IR)
    return model


def _forget_ports(model: onnx.ModelProto) -> None:
    """Drop inputs, outputs and the shapes noted between them, which may speak of another batch or size."""
    for part in (model.graph.input, model.graph.output, model.graph.value_info):
        del part[:]


def _serialised(model: onnx.ModelProto, file: str) -> bytes:
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise BackboneError(
            "the model is above 2 GiB, more than one ONNX file can hold", file=file, next_step="export it in fp16"
        ) from error
    return data
