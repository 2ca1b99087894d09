"""The back of a network: pooling, float32, unit length."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from provisioning.base.errors import BackboneError
from provisioning.config import Backbone
from provisioning.network.backbone.graph.ports import Ports
from provisioning.network.backbone.graph.stitch import Stitch

GEM_FLOOR = 1e-6
NORM_FLOOR = 1e-12
END = (1 << 63) - 1


def append_back(
    backbone: Backbone, model: onnx.ModelProto, ports: Ports, *, layout: str, descriptors: str, file: str
) -> None:
    """Put cast, pooling and normalisation behind `ports.vector`, giving `descriptors` float32 [batch, D].

    `layout` is that of `layout.output_layout`. The first token of a sequence is "cls".
    GeM: F. Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation", with p = `gem_power`.
    """
    stitch = Stitch(model, "back")
    value = stitch.add("Cast", ports.vector, to=TensorProto.FLOAT)
    value = _pooled(stitch, value, backbone, ports, layout, file)
    if backbone.normalise == "l2":
        norm = stitch.reduce("ReduceL2", value, 1, keepdims=1)
        value = stitch.add("Div", value, stitch.add("Add", norm, stitch.constant(NORM_FLOOR)))
    stitch.add("Identity", value)
    stitch.nodes[-1].output[0] = descriptors
    model.graph.node.extend(stitch.nodes)


def _pooled(stitch: Stitch, value: str, backbone: Backbone, ports: Ports, layout: str, file: str) -> str:
    if layout in ("d", "nd", "1nd"):
        alone = backbone.pooling == "none" and not backbone.skip_tokens
        _refuse_unless(alone, "is a vector already: there is nothing to pool", ports, backbone, file)
        return _with_batch(stitch, value, ports, file) if layout == "d" else _rows(stitch, value, layout)
    if layout in ("ntd", "ndt"):
        return _pooled_tokens(stitch, value, backbone, ports, layout, file)
    return _pooled_map(stitch, value, backbone, ports, layout, file)


def _rows(stitch: Stitch, value: str, layout: str) -> str:
    return stitch.add("Flatten", value, axis=2) if layout == "1nd" else value


def _pooled_tokens(stitch: Stitch, value: str, backbone: Backbone, ports: Ports, layout: str, file: str) -> str:
    count = ports.vector_shape[1 if layout == "ntd" else 2]
    if backbone.pooling == "none":
        _refuse_unless(count == 1, "is a sequence of tokens: choose avg, gem or cls", ports, backbone, file)
        return stitch.add("Flatten", value)
    enough = count is None or count > backbone.skip_tokens
    _refuse_unless(enough, f"has no more than skip_tokens = {backbone.skip_tokens} tokens", ports, backbone, file)
    if layout == "ndt":
        value = stitch.add("Transpose", value, perm=[0, 2, 1])
    if backbone.pooling == "cls":
        return stitch.add("Gather", value, stitch.constant(0, "int64"), axis=1)
    return _mean(stitch, _without_first(stitch, value, backbone.skip_tokens), backbone)


def _pooled_map(stitch: Stitch, value: str, backbone: Backbone, ports: Ports, layout: str, file: str) -> str:
    _refuse_unless(backbone.pooling != "cls", "is a feature map without a class token", ports, backbone, file)
    _refuse_unless(not backbone.skip_tokens, "is a feature map: it has no tokens to skip", ports, backbone, file)
    if layout == "nhwc":
        value = stitch.add("Transpose", value, perm=[0, 3, 1, 2])
    if backbone.pooling == "none":
        spatial = ports.vector_shape[2:] if layout == "nchw" else ports.vector_shape[1:3]
        _refuse_unless(spatial == (1, 1), "is a feature map: choose avg or gem", ports, backbone, file)
        return stitch.add("Flatten", value)
    flat = stitch.add("Reshape", value, stitch.constant([0, 0, -1], "int64"))
    return _mean(stitch, stitch.add("Transpose", flat, perm=[0, 2, 1]), backbone)


def _without_first(stitch: Stitch, tokens: str, count: int) -> str:
    """Leave out the first `count` tokens; what Slice cuts became an input in opset 10."""
    if not count:
        return tokens
    if stitch.opset < 10:
        return stitch.add("Slice", tokens, starts=[count], ends=[END], axes=[1])
    return stitch.add("Slice", tokens, *(stitch.constant([bound], "int64") for bound in (count, END, 1)))


def _mean(stitch: Stitch, tokens: str, backbone: Backbone) -> str:
    """Average [N, tokens, D] over the tokens, for gem after a power and before its root."""
    if backbone.pooling == "avg":
        return stitch.reduce("ReduceMean", tokens, 1, keepdims=0)
    power = float(backbone.gem_power)
    positive = stitch.add("Add", stitch.add("Relu", tokens), stitch.constant(GEM_FLOOR))
    powered = stitch.add("Pow", positive, stitch.constant(power))
    return stitch.add("Pow", stitch.reduce("ReduceMean", powered, 1, keepdims=0), stitch.constant(1 / power))


def _with_batch(stitch: Stitch, value: str, ports: Ports, file: str) -> str:
    """Give back the batch dimension that a traced `.squeeze()` dropped; only right for a batch fixed at 1."""
    if ports.batch != 1:
        raise BackboneError("the output is one vector for a whole batch", file=file, facts={"output": ports.vector})
    return stitch.add("Reshape", value, stitch.constant([1, -1], "int64"))


def _refuse_unless(holds: bool, why: str, ports: Ports, backbone: Backbone, file: str) -> None:  # noqa: FBT001 - a guard
    if not holds:
        raise BackboneError(
            f"the output {ports.vector!r} {why}",
            file=file,
            key="backbone.pooling",
            facts={"shape": list(ports.vector_shape), "pooling": backbone.pooling},
        )
