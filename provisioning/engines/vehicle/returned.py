"""An engine that another computer made: what its bytes are, and whether it computes what was asked for.

Looked at before it is kept, let alone signed. It proves that the engine is of this network and works on its target; a
target that lies about its own flight is not stopped by it (docs/threat-model.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provisioning.base.errors import EngineError
from provisioning.engines.ort.onnx_info import describe_onnx
from provisioning.engines.ort.onnx_network import OnnxNetwork
from provisioning.engines.spec import Backend, EngineSpec
from provisioning.engines.tensorrt.header import require_plan
from provisioning.engines.vehicle.apart import describe_apart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Floats = NDArray[np.float32]

GOLDEN_TILES = 4
GOLDEN_COSINE = {"fp32": 0.999, "fp16": 0.99, "int8": 0.9}
"""Least cosine of a golden tile's descriptor to that of the typed ONNX, by precision: kernels round differently,
another network gives anything. The gate `fidelity.target` records it."""


def golden_tiles(onnx: bytes, tiles: Images | None) -> Images:
    """Return at most GOLDEN_TILES of `tiles`, or noise and a ramp of the network's size: uint8 [n, H, W, 3].

    No tile (n = 0) for a network that takes no tiles of a known size.
    """
    import numpy as np

    if tiles is not None and len(tiles):
        return np.ascontiguousarray(tiles[:GOLDEN_TILES])
    info = describe_onnx(onnx, backend="onnxruntime")
    size = info.input_shape[1:3]
    if info.input_type != "uint8" or len(info.input_shape) != 4 or None in size or info.dimension is None:
        return np.zeros((0, 1, 1, 3), np.uint8)
    height, width = (int(side or 0) for side in size)
    noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (height, width, 3), np.uint8)
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    return np.stack([noise, ramp])


def describe(backend: Backend, engine: bytes, golden: Images) -> Floats:
    """Return the descriptors float32 [n, d] that `engine` gives the golden tiles on this computer."""
    import numpy as np

    return backend.load(engine)(golden) if len(golden) else np.zeros((0, 0), np.float32)


def inspect_returned(engine: bytes, onnx: bytes, spec: EngineSpec) -> None:
    """Refuse bytes that are no engine of the backend and version asked for, or take or give other than the network.

    EngineError. A plan does not list its inputs before it is loaded on its GPU; what it computed there is compared.
    """
    if spec.host.backend != "onnxruntime":
        require_plan(engine, backend=spec.host.backend, runtime=spec.host.runtime)
        return
    asked, got = (describe_onnx(data, backend="onnxruntime") for data in (onnx, engine))
    for name in ("inputs", "outputs", "input_shape", "input_type", "dimension"):
        if getattr(asked, name) != getattr(got, name):
            raise _foreign(spec, {name: getattr(got, name), "asked for": getattr(asked, name)})


def compare_returned(engine: bytes, onnx: bytes, golden: Images, found: Floats, spec: EngineSpec) -> dict[str, object]:
    """Return how the golden descriptors `found` on the target agree with the ONNX run here; EngineError if badly.

    An engine of ONNX Runtime runs on any CPU, so it is run here too: then nobody's word is taken.
    """
    if not len(golden):
        return {"tiles": 0}
    expected = OnnxNetwork.load(onnx)(golden)
    cosines = _cosines(expected, found, spec, "on the target")
    if spec.host.backend == "onnxruntime":
        cosines += _cosines(expected, describe_apart(engine, golden), spec, "here")
    return {"tiles": len(golden), "cosine_min": f"{min(cosines):.5f}"}


def _cosines(expected: Floats, found: Floats, spec: EngineSpec, where: str) -> list[float]:
    import numpy as np

    if found.shape != expected.shape or not np.isfinite(found).all():
        raise _foreign(spec, {f"descriptors {where}": list(found.shape), "asked for": list(expected.shape)})
    a, b = (rows.astype(np.float64) for rows in (expected, found))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: list[float] = ((a * b).sum(axis=1) / np.maximum(norms, 1e-30)).tolist()
    if min(cosines) < GOLDEN_COSINE[spec.precision]:
        raise _foreign(spec, {f"cosine {where}": f"{min(cosines):.5f}", "at least": GOLDEN_COSINE[spec.precision]})
    return cosines


def _foreign(spec: EngineSpec, facts: dict[str, object]) -> EngineError:
    return EngineError(
        f"the engine that came back is not one of {spec.model}",
        key="engine.command",
        facts=facts,
        next_step="find out what answers for that computer before you trust it again",
    )
