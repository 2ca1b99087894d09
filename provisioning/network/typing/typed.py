"""The typed ONNX: the prepared backbone in the precision it flies in. Precision lives here, not in builder flags."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.base import events
from provisioning.base.errors import EngineError
from provisioning.config import Backbone
from provisioning.network import backbone as backbones
from provisioning.network import large
from provisioning.network.points import MATCHER
from provisioning.network.typing.facts import RANGE_TILES, Images, quantises_bias
from provisioning.network.typing.fp16 import to_fp16
from provisioning.network.typing.graph import dynamically_quantised, tile_size, typed_as
from provisioning.network.typing.int8 import NEWEST_OPSET, OLDEST_OPSET, Int8Options, to_int8
from provisioning.network.typing.keep import kept_from_int8, kept_nodes, name_nodes
from provisioning.network.typing.ranges import FP16_MAX, Overflow, overflows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LINE_NODES = 40
"""Most nodes that a next step lists."""


def make_typed(
    backbone: Backbone,
    source: backbones.OnnxSource,
    output: Path,
    images: Images,
    *,
    backend: str = "onnxruntime",
) -> None:
    """Write the backbone with its preprocessing, in its precision, to `output`.

    A model that arrives in fp16 or with Q/DQ is taken as it is. EngineError: overflow in fp16 (with every tensor and
    its node), dynamic quantisation, nothing to calibrate with; BackboneError passes through.
    """
    import onnx

    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".typing-") as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        backbones.prepare(backbone, source, prepared)
        model = _flat(onnx.load(str(prepared), load_external_data=False), backbone.precision)
        _refuse_dynamic(backbone, model)
        arrives = typed_as(model)
        _require_declared(backbone, arrives)
        if backbone.precision == "fp32" or arrives != "fp32":
            if arrives == "int8":
                _with_readable_quantisers(model, prepared)
            if source.weights is None:
                prepared.replace(output)
            else:
                _with_weights(model, source)
                large.save(model, output)
        elif backbone.precision == "fp16":
            _require_whole_pixels(backbone)
            name_nodes(model)
            size = tile_size(model)
            _require_range(backbone, model, () if size is None else _extremes(size), source.weights)
            large.save(_halved(model, backbone, source), output)
        else:
            _require_tiles(backbone, model)
            model = _for_int8(backbone, model)
            prepared.write_bytes(model.SerializeToString(deterministic=True))
            options = Int8Options(
                keep_fp32=kept_from_int8(model, backbone.keep_fp32),
                method=backbone.calibration_method,
                quantise_bias=quantises_bias(backend),
            )
            to_int8(prepared, output, images(backbone.calibration_tiles), options)


def _with_readable_quantisers(model: Any, prepared: Path) -> None:
    """Write a model that arrives with Q/DQ anew, in an opset that ONNX Runtime opens (`int8.NEWEST_OPSET`)."""
    from provisioning.network.backbone.graph.ports import lowered_opset

    converted = lowered_opset(model, NEWEST_OPSET)
    if converted is not model:
        prepared.write_bytes(converted.SerializeToString(deterministic=True))


def _with_weights(model: Any, source: backbones.OnnxSource) -> None:
    """Read the weights that stayed in their files into `model`."""
    from provisioning.network.backbone.external import load_weights

    if source.path is not None:
        load_weights(model, source.path)


def _halved(model: Any, backbone: Backbone, source: backbones.OnnxSource) -> Any:
    """Return `model` in fp16. Above 2 GiB its shapes are inferred before its weights are loaded: onnx takes no more."""
    if source.weights is None:
        return to_fp16(model, backbone.keep_fp32)
    from onnx import shape_inference

    model = shape_inference.infer_shapes(model)
    _with_weights(model, source)
    return to_fp16(model, backbone.keep_fp32, infer_shapes=False)


def _flat(model: Any, precision: str) -> Any:
    """Return a model that is to be converted without local functions, and without branches that are always taken."""
    if precision == "fp32":
        return model
    from provisioning.network.backbone.graph.adapt import inlined
    from provisioning.network.backbone.graph.branches import take_branches

    model = inlined(model)
    take_branches(model.graph)
    return model


def int8_source(backbone: Backbone, source: backbones.OnnxSource) -> Any:
    """Return the network in fp32 from which int8 is made, with the names of nodes that it keeps."""
    import onnx

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        backbones.prepare(backbone, source, prepared)
        return _for_int8(backbone, _flat(onnx.load(str(prepared)), "int8"))


def _for_int8(backbone: Backbone, model: Any) -> Any:
    """Return the model with a name for each node, in an opset that can be quantised for each channel."""
    from provisioning.network.backbone.graph.ports import lowered_opset, opset_of, require_opset

    raised = require_opset(model, str(backbone.onnx), least=OLDEST_OPSET)
    converted = lowered_opset(raised, NEWEST_OPSET)
    if raised is not model:
        events.warn("backbone.opset", model=backbone.name, opset=opset_of(model), converted_to=opset_of(converted))
    name_nodes(converted)
    return converted


def _require_declared(backbone: Backbone, arrives: str) -> None:
    """Refuse a model whose own types contradict what flight.toml says; fp16 weights under "fp32" are only warned of.

    ONNX Runtime on a CPU computes those in fp32 anyway, a GPU does not.
    """
    if arrives in ("fp32", backbone.precision):
        return
    if (arrives, backbone.precision) != ("fp16", "fp32"):
        raise EngineError(
            f"{backbone.name} arrives as {arrives} and cannot become {backbone.precision}",
            file=backbone.onnx,
            key=f"backbone.{backbone.name}.precision",
            next_step=f'set precision = "{arrives}", or export the model in fp32',
        )
    events.warn("engine.precision", model=backbone.name, declared=backbone.precision, arrives=arrives)


def _require_whole_pixels(backbone: Backbone) -> None:
    if backbone.role == MATCHER:
        raise EngineError(
            f"{backbone.name} is a matcher: in fp16 its points would be half a pixel off and more",
            file=backbone.onnx,
            key=f"backbone.{backbone.name}.precision",
            next_step='set precision = "fp32", or export it with its convolutions in fp16 and set precision = "fp16"',
        )


def _refuse_dynamic(backbone: Backbone, model: Any) -> None:
    dim = model.graph.input[0].type.tensor_type.shape.dim
    alone = len(dim) > 0 and dim[0].dim_value == 1
    if not alone and (found := dynamically_quantised(model)):
        raise EngineError(
            f"{backbone.name} is dynamically quantised: a tile's descriptor depends on the tiles beside it in a batch",
            file=backbone.onnx,
            facts={"nodes": ", ".join(found[:8]), "in all": len(found)},
            next_step='export it in fp32 and set precision = "int8", which calibrates fixed ranges',
        )


def _require_tiles(backbone: Backbone, model: Any) -> None:
    if tile_size(model) is None or backbone.custom_ops is not None or backbone.role != "descriptor":
        why = "has custom operators" if backbone.custom_ops else "does not take tiles of one size"
        why = why if backbone.role == "descriptor" else f"has the role {backbone.role}, which sees no tiles"
        raise EngineError(
            f"{backbone.name} {why}, so it cannot be calibrated for int8 here",
            file=backbone.onnx,
            next_step="calibrate it elsewhere and give the ONNX with its Q/DQ nodes",
        )


def check_range(backbone: Backbone, source: backbones.OnnxSource, images: Images) -> int:
    """Hold `backbone`, which becomes fp16, to the range of fp16 on corpus tiles; return how many were looked at.

    EngineError names every tensor that fp16 cannot hold, and its node. A model that arrives in fp16 is not looked at.
    """
    import onnx

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        backbones.prepare(backbone, source, prepared)
        model = _flat(onnx.load(str(prepared), load_external_data=False), backbone.precision)
    if typed_as(model) != "fp32" or tile_size(model) is None:
        return 0
    name_nodes(model)
    tiles = list(images(RANGE_TILES))
    _require_range(backbone, model, tiles, source.weights)
    return len(tiles)


def _require_range(
    backbone: Backbone, model: Any, probes: Iterable[NDArray[np.uint8]], weights: Path | None = None
) -> None:
    """Refuse fp16 for a model that makes values which fp16 cannot hold."""
    kept = kept_nodes(model, backbone.keep_fp32)
    found = overflows(model, probes, kept, custom_ops=backbone.custom_ops, weights=weights)
    if found:
        facts = {f"{overflow.node} -> {overflow.tensor}": f"{overflow.largest:.6g}" for overflow in found[:12]}
        raise EngineError(
            f"{backbone.name} overflows in fp16, whose largest number is {FP16_MAX:.0f}",
            file=backbone.onnx,
            key=f"backbone.{backbone.name}.precision",
            facts={**facts, "tensors in all": len(found)},
            next_step=_range_step(model, found),
        )


def _range_step(model: Any, found: tuple[Overflow, ...]) -> str:
    """Return the line to write: a tensor is safe where the node that makes it and all that read it stay in fp32."""
    tensors = {overflow.tensor for overflow in found}
    concerned = [n.name for n in model.graph.node if tensors.intersection((*n.input, *n.output))]
    if len(concerned) > LINE_NODES:
        return 'choose precision = "fp32", or scale the weights: too many nodes to keep in fp32'
    line = ", ".join(f'"{name}"' for name in concerned)
    return f'set keep_fp32 = [{line}], or choose precision = "fp32"'


def _extremes(size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Yield a black, a white and a noise image: the range must hold without a corpus too."""
    import numpy as np

    shape = (*size, 3)
    yield np.zeros(shape, np.uint8)
    yield np.full(shape, 255, np.uint8)
    yield np.random.default_rng(0).integers(0, 256, shape, np.uint8)
