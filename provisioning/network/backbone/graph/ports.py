"""Where the image goes into a model and the descriptor comes out, checked against what flight.toml declares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import TensorProto

from provisioning.base.errors import BackboneError
from provisioning.config import Backbone
from provisioning.network.backbone.presets import Preset

OLDEST_OPSET = 7
"""First opset whose arithmetic broadcasts as numpy does; older models are converted."""
IMAGE_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)
VECTOR_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Ports:
    """The image input of a model, and its descriptor output where it has one. Free dimensions are None."""

    image: str
    image_type: int
    batch: int | None
    channels: int
    height: int | None
    width: int | None
    vector: str = ""
    vector_type: int = TensorProto.UNDEFINED
    vector_shape: tuple[int | None, ...] = ()


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that the model is written in."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def require_opset(model: onnx.ModelProto, file: str, *, least: int = OLDEST_OPSET) -> onnx.ModelProto:
    """Return the model in opset `least` or later; BackboneError if it cannot be converted."""
    if opset_of(model) >= least:
        return model
    try:
        return onnx.version_converter.convert_version(model, max(13, least))
    except Exception as error:  # the converter raises RuntimeError and worse from C++
        raise BackboneError(
            f"the model is in opset {opset_of(model)} and cannot be converted",
            file=file,
            facts={"onnx says": error},
            next_step=f"export it with opset {max(13, least)} or later",
        ) from error


def lowered_opset(model: onnx.ModelProto, most: int) -> onnx.ModelProto:
    """Return the model in opset `most`; as it is where it is in no later one, or uses what came later."""
    if opset_of(model) <= most:
        return model
    try:
        return onnx.version_converter.convert_version(model, most)
    except Exception:  # noqa: BLE001 - the converter raises RuntimeError and worse from C++
        return model


def find_ports(backbone: Backbone, model: onnx.ModelProto, file: str) -> Ports:
    """Return the ports that `backbone` names, or the only ones; BackboneError otherwise."""
    image = find_image(backbone, model, file)
    vector = _one_of("output", backbone.output, model.graph.output, file)
    _require_type("output", vector, VECTOR_TYPES, file)
    shape = _vector_shape(model, vector, file)
    return replace(image, vector=vector.name, vector_type=vector.type.tensor_type.elem_type, vector_shape=shape)


def find_image(backbone: Backbone, model: onnx.ModelProto, file: str) -> Ports:
    """Return the image input that `backbone` names, or the only one; BackboneError otherwise."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    image = _one_of("input", backbone.input, inputs, file)
    _refuse_further([i.name for i in inputs if i.name != image.name], file)
    _require_type("input", image, IMAGE_TYPES, file)
    taken = _shape(image)
    if taken is None or len(taken) != 4:
        raise BackboneError(
            f"the image input {image.name!r} must have four dimensions",
            file=file,
            facts={"shape": taken},
            next_step="name another with backbone.input, or export it with a batch: [n, 3, height, width]",
        )
    batch, channels, height, width = taken if backbone.layout == "nchw" else (taken[0], taken[3], taken[1], taken[2])
    wanted = 1 if backbone.channels == "gray" else 3
    if channels not in (None, wanted):
        raise BackboneError(
            f"the image input has {channels} channels, declared are {wanted}",
            file=file,
            facts={"input": image.name, "shape": list(taken), "layout": backbone.layout, "channels": backbone.channels},
            next_step=_channels_step(taken, wanted),
        )
    return Ports(image.name, image.type.tensor_type.elem_type, batch, wanted, height, width)


def _channels_step(taken: tuple[int | None, ...], wanted: int) -> str:
    """Return the line that fits an image input of shape `taken`, where one does."""
    layouts = {taken[1]: "nchw", taken[3]: "nhwc"}
    if wanted in layouts:
        return f'set layout = "{layouts[wanted]}"'
    if {1, 3} & layouts.keys():
        return 'set channels = "gray"' if wanted == 3 else 'set channels = "rgb"'
    return "name another input with backbone.input, or export a model that takes RGB or gray images"


def _refuse_further(names: list[str], file: str) -> None:
    """Refuse a model that reads more than the image."""
    if names:
        raise BackboneError(
            "the model reads further inputs besides the image",
            file=file,
            key="backbone.constants",
            facts={"inputs": ", ".join(names)},
            next_step="set constants = {" + ", ".join(f"{name} = 0" for name in names) + "} with the values they need",
        )


def _one_of(what: str, name: str, ports: Iterable[onnx.ValueInfoProto], file: str) -> onnx.ValueInfoProto:
    by_name = {port.name: port for port in ports}
    if name in by_name:
        return by_name[name]
    if name:
        raise BackboneError(
            f"the model has no {what} {name!r}", file=file, key=f"backbone.{what}", facts={"it has": list(by_name)}
        )
    if len(by_name) != 1:
        raise BackboneError(
            f"the model has {len(by_name)} {what}s and flight.toml names none",
            file=file,
            facts={f"{what}s": ", ".join(by_name) or "none"},
            next_step=f'set {what} = "{next(iter(by_name), "name")}", or another of them',
        )
    return next(iter(by_name.values()))


def _require_type(what: str, port: onnx.ValueInfoProto, allowed: Sequence[int], file: str) -> None:
    element = port.type.tensor_type.elem_type
    if element not in allowed:
        raise BackboneError(
            f"the {what} {port.name!r} is of type {TensorProto.DataType.Name(element)}",
            file=file,
            facts={"expected": ", ".join(TensorProto.DataType.Name(t) for t in allowed)},
            next_step=f"name another with backbone.{what}, or export it in float32 (in torch: model.float())",
        )


def _shape(port: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    if not port.type.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.dim_value > 0 else None for d in port.type.tensor_type.shape.dim)


def _vector_shape(model: onnx.ModelProto, vector: onnx.ValueInfoProto, file: str) -> tuple[int | None, ...]:
    """Return the declared shape of the output, else the inferred one."""
    shape = _shape(vector)
    if shape is None:
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        shape = next((_shape(port) for port in inferred if port.name == vector.name), None)
    if shape is None or not 1 <= len(shape) <= 4:
        raise BackboneError(
            f"the output {vector.name!r} has no shape that a descriptor can be taken from",
            file=file,
            facts={"shape": shape},
            next_step="export the model with the shape of its output",
        )
    return shape


def square(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return height and width where `size` gives one side for both."""
    return size * 2 if len(size) == 1 else size


def image_size(backbone: Backbone, ports: Ports, preset: Preset | None, file: str) -> tuple[int, int]:
    """Return height and width: what the model fixes, else `backbone.size`, else the preset; they may not disagree."""
    asked = square(backbone.size)
    if backbone.fit == "keep-aspect" and (ports.height or ports.width):
        raise BackboneError(
            "the model fixes the size of its images, so it cannot keep their aspect",
            file=file,
            key="backbone.fit",
            facts={"the model takes": f"{ports.height or 'any'} x {ports.width or 'any'} pixels"},
            next_step='export it with free height and width, or set fit = "crop", "pad" or "resize"',
        )
    chosen = asked or (preset.size if preset else ()) or (None, None)
    height, width = ports.height or chosen[0], ports.width or chosen[1]
    if asked and (height, width) != asked:
        raise BackboneError(
            f"the model takes {height} x {width} pixels, flight.toml says {asked[0]} x {asked[1]}",
            file=file,
            key="backbone.size",
        )
    if height is None or width is None:
        raise BackboneError(
            "the model takes images of any size",
            file=file,
            key="backbone.size",
            next_step="set size = [height, width]",
        )
    return height, width
