"""A user's model becomes a network from tiles to descriptors: one front, one back, nothing left to the caller.

The front takes uint8 pixels as they are decoded and normalises inside the graph, which saves more time than decoding
takes (measured). The back pools, casts and normalises, so that every engine gives float32 unit vectors.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import BackboneError
from provisioning.base.events import warn
from provisioning.config import Backbone
from provisioning.network.backbone.external import load_graph, load_weights
from provisioning.network.backbone.graph.adapt import plain
from provisioning.network.backbone.graph.back import append_back
from provisioning.network.backbone.graph.front import prepend_front
from provisioning.network.backbone.graph.order import sort_nodes
from provisioning.network.backbone.graph.ports import Ports, find_ports, image_size, require_opset, square
from provisioning.network.backbone.graph.stitch import drop_dead_nodes, free_name
from provisioning.network.backbone.layout import output_layout
from provisioning.network.backbone.matcher import matcher
from provisioning.network.backbone.presets import declared_normalisation, preset_of, resolved
from provisioning.network.backbone.reproducible import require_reproducible
from provisioning.network.backbone.source import OnnxSource
from provisioning.network.backbone.trial import DOES_NOT_RUN, NOT_ONE_FOR_EACH, TRACED, measured_shape, trial
from provisioning.network.points import MATCHER

TILES, DESCRIPTORS = "tiles", "descriptors"
OLDEST_IR = 4
"""From here on weights need not be listed as inputs, which would keep them from being folded."""

SMALL_WEIGHT_BYTES = 1 << 16
"""Weights up to here may be shapes and axes, which preparing a network reads."""


def prepare(backbone: Backbone, source: OnnxSource, output: Path) -> None:
    """Write the network of `backbone` to `output`, self-contained but for weights that one file cannot hold.

    Those stay in the directory `source.weights`. Role descriptor: input "tiles" uint8 [batch, H, W, 3] RGB, output
    "descriptors" float32 [batch, D], with batch as the model fixes it or free. It is run once here. Role matcher: as
    `matcher.matcher` has it. Other roles: the model as it is, with its images at `size` if that is declared.
    BackboneError names the model.
    """
    model = load(backbone, source)
    require_reproducible(model, source.name)
    if backbone.role == "descriptor":
        model = network(backbone, model, source.name, source.weights)
        dimension = _tried(model, backbone, source)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = dimension
    elif backbone.role == MATCHER:
        model = matcher(backbone, model, source.name, source.weights)
        model.ir_version = max(model.ir_version, OLDEST_IR)
    elif backbone.size:
        fix_size(backbone, model, source.name)
    with wrap_os_errors("write the prepared network", output):
        output.write_bytes(_serialised(model, source.name))


def _tried(model: onnx.ModelProto, backbone: Backbone, source: OnnxSource) -> int:
    """Return the length of the descriptors; a batch that is free by declaration only becomes the one of the trace."""
    run = partial(trial, model, source.name, preset_of(backbone), backbone.custom_ops, source.weights)
    batches = [port.type.tensor_type.shape.dim[0] for port in (model.graph.input[0], model.graph.output[0])]
    try:
        return run()
    except BackboneError as error:
        if batches[0].dim_value or error.what not in (DOES_NOT_RUN, NOT_ONE_FOR_EACH):
            raise
        refused = error
    for traced in TRACED:
        for batch in batches:
            batch.dim_value = traced
        with suppress(BackboneError):
            dimension = run()
            reason = f"its batch is free by declaration only: {refused.what}"
            warn("backbone.batch", model=backbone.name, batch=traced, reason=reason)
            return dimension
    raise refused


def fix_size(backbone: Backbone, model: onnx.ModelProto, file: str) -> None:
    """Fix height and width of every image input that leaves them free; BackboneError where that is none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    place = 2 if backbone.layout == "nchw" else 1
    found = False
    for port in [port for port in model.graph.input if port.name not in weights]:
        axes = port.type.tensor_type.shape.dim
        sides = axes[place : place + 2] if len(axes) == 4 else ()
        for side, pixels in zip(sides, square(backbone.size), strict=False):
            found = found or side.dim_value in (0, pixels)
            side.dim_value = side.dim_value or pixels
    if not found:
        raise BackboneError(
            "the model takes no image whose size is free",
            file=file,
            key=f"backbone.{backbone.name}.size",
            facts={"layout": backbone.layout},
            next_step="leave out size, or correct layout",
        )
    del model.graph.value_info[:]


def tile_size(backbone: Backbone, source: OnnxSource) -> tuple[int, int]:
    """Return height and width of the images that the prepared network takes; BackboneError if nothing says it."""
    full = resolved(backbone)
    model = plain(load(backbone, source), full.constants, full.output, source.name)
    return image_size(full, find_ports(full, model, source.name), preset_of(backbone), source.name)


def load(backbone: Backbone, source: OnnxSource) -> onnx.ModelProto:
    """Return the model with its external data, but for what stays in `source.weights`; BackboneError if that fails."""
    if source.path is None:
        from provisioning.network.builtin.making import onnx_bytes

        return onnx.load_model_from_string(onnx_bytes(backbone.onnx))
    model = load_graph(source.path)
    if source.weights:
        _require_no_calibration(backbone, source)
    load_weights(model, source.path, most_bytes=SMALL_WEIGHT_BYTES if source.weights else None)
    sort_nodes(model.graph)
    return model


def _require_no_calibration(backbone: Backbone, source: OnnxSource) -> None:
    """Refuse int8 above 2 GiB: onnxruntime's calibration reads and writes one protobuf message."""
    if backbone.precision == "int8":
        raise _too_large(source.name, f'set precision = "fp16" or "fp32" for backbone.{backbone.name}')


def network(backbone: Backbone, model: onnx.ModelProto, file: str, weights: Path | None = None) -> onnx.ModelProto:
    """Return `model` between front and back, as `backbone` and its preset declare them; `file` is for errors.

    `weights`: the directory of its external data, where that is not loaded.
    """
    full, preset = resolved(backbone), preset_of(backbone)
    model = plain(require_opset(model, file), full.constants, full.output, file)
    ports = find_ports(full, model, file)
    _warn_of_unused(full, ports)
    size = image_size(full, ports, preset, file)
    for name in (TILES, DESCRIPTORS):
        ports = free_name(model.graph, name, ports)
    _forget_ports(model)
    prepend_front(full, model, ports, tiles=TILES)
    batch: int | str = ports.batch or "batch"
    model.graph.input.append(helper.make_tensor_value_info(TILES, TensorProto.UINT8, [batch, *size, 3]))
    count, ports = _measured(model, ports, full.custom_ops, weights)
    layout = output_layout(ports.vector_shape, count, size, full, output=ports.vector, file=file)
    append_back(full, model, ports, layout=layout, descriptors=DESCRIPTORS, file=file)
    model.graph.output.append(helper.make_tensor_value_info(DESCRIPTORS, TensorProto.FLOAT, [batch, "dimension"]))
    drop_dead_nodes(model.graph)
    model.ir_version = max(model.ir_version, OLDEST_IR)
    return model


def _measured(model: onnx.ModelProto, ports: Ports, custom_ops: Path | None, weights: Path | None) -> tuple[int, Ports]:
    """Return how many images were given to `model`, and `ports` with the shape that the output then had.

    A vector needs no look. A model that does not run keeps its declared shape; the trial says why it does not.
    """
    if len(ports.vector_shape) <= 2:
        return ports.batch or 1, ports
    model.graph.output.append(helper.make_tensor_value_info(ports.vector, ports.vector_type, None))
    count, shape = measured_shape(model, ports.batch, custom_ops, weights)
    del model.graph.output[:]
    return count, replace(ports, vector_shape=shape or ports.vector_shape)


def _warn_of_unused(backbone: Backbone, ports: Ports) -> None:
    """Say that a model which takes bytes gets them as they are, whatever scale, mean and std are declared."""
    if ports.image_type == TensorProto.UINT8 and (unused := declared_normalisation(backbone)):
        warn("backbone.normalisation", model=backbone.name, unused=unused, reason="the model takes uint8")


def _forget_ports(model: onnx.ModelProto) -> None:
    """Drop inputs, outputs and the shapes noted between them, which may speak of another batch or size."""
    for part in (model.graph.input, model.graph.output, model.graph.value_info):
        del part[:]


def _serialised(model: onnx.ModelProto, file: str) -> bytes:
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise _too_large(file, "export it with external data") from error
    return data


def _too_large(file: str, next_step: str) -> BackboneError:
    return BackboneError("the model is above 2 GiB, more than one ONNX file can hold", file=file, next_step=next_step)
