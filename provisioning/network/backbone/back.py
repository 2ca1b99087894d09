"""The back of a network: pooling, float32, unit length."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from provisioning.base.errors import BackboneError
from provisioning.config import Backbone
from provisioning.network.backbone.ports import Ports
from provisioning.network.backbone.stitch import Stitch

GEM_POWER, GEM_FLOOR = 3.0, 1e-6
NORM_FLOOR = 1e-12


def append_back(backbone: Backbone, model: onnx.ModelProto, ports: Ports, *, descriptors: str, file: str) -> None:
    """Put cast, pooling and normalisation behind `ports.vector`, giving `descriptors` float32 [batch, D].

    A map is [N, D, h, w] (or [N, h, w, D] for layout nhwc), a sequence [N, tokens, D] whose first token is "cls".
    GeM: F. Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation", p = 3.
    """
    stitch = Stitch(model, "back")
    value = stitch.add("Cast", ports.vector, to=TensorProto.FLOAT)
    value = _pooled(stitch, value, backbone, ports, file)
    if backbone.normalise == "l2":
        norm = stitch.reduce("ReduceL2", value, 1, keepdims=1)
        value = stitch.add("Div", value, stitch.add("Add", norm, stitch.constant(NORM_FLOOR)))
    stitch.add("Identity", value)
    stitch.nodes[-1].output[0] = descriptors
    model.graph.node.extend(stitch.nodes)


def _pooled(stitch: Stitch, value: str, backbone: Backbone, ports: Ports, file: str) -> str:
    rank, pooling = len(ports.vector_shape), backbone.pooling
    if rank <= 2:
        _refuse_unless(pooling == "none", "is a vector already: there is nothing to pool", ports, backbone, file)
        return _with_batch(stitch, value, ports, file) if rank == 1 else value
    if rank == 3:
        _refuse_unless(pooling != "none", "is a sequence of tokens: choose avg, gem or cls", ports, backbone, file)
        if pooling == "cls":
            return stitch.add("Gather", value, stitch.constant(0, "int64"), axis=1)
        return _mean(stitch, value, pooling)
    _refuse_unless(pooling != "cls", "is a feature map without a class token", ports, backbone, file)
    if backbone.layout == "nhwc":
        value = stitch.add("Transpose", value, perm=[0, 3, 1, 2])
    if pooling == "none":
        spatial = ports.vector_shape[2:] if backbone.layout == "nchw" else ports.vector_shape[1:3]
        _refuse_unless(spatial == (1, 1), "is a feature map: choose avg or gem", ports, backbone, file)
        return stitch.add("Flatten", value)
    flat = stitch.add("Reshape", value, stitch.constant([0, 0, -1], "int64"))
    return _mean(stitch, stitch.add("Transpose", flat, perm=[0, 2, 1]), pooling)


def _mean(stitch: Stitch, tokens: str, pooling: str) -> str:
    """Average [N, tokens, D] over the tokens, for gem after a power and before its root."""
    if pooling == "avg":
        return stitch.reduce("ReduceMean", tokens, 1, keepdims=0)
    positive = stitch.add("Add", stitch.add("Relu", tokens), stitch.constant(GEM_FLOOR))
    powered = stitch.add("Pow", positive, stitch.constant(GEM_POWER))
    return stitch.add("Pow", stitch.reduce("ReduceMean", powered, 1, keepdims=0), stitch.constant(1 / GEM_POWER))


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
