"""What an engine is made of, as TensorRT's EngineInspector reports it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from provisioning.base.words import counted
from provisioning.engines.tensorrt.cuda import query_gpu


def layers(trt: Any, plan: Any, logger: Any) -> dict[str, object]:
    """Return what the engine's layers are, as EngineInspector has them; nothing where there is no GPU to ask it on."""
    if query_gpu() is None:
        return {}
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return {}
    inspector = engine.create_engine_inspector()
    return {"layers": layer_summary(inspector.get_engine_information(trt.LayerInformationFormat.JSON))}


def layer_summary(text: str) -> dict[str, object]:
    """Return how many layers of each type there are, and how many outputs of each data type, from the inspector's JSON.

    Without detailed profiling information a layer is only a name.
    """
    layers = json.loads(text).get("Layers", [])
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    types = Counter(str(layer.get("LayerType", "?")) for layer in detailed)
    outputs = [out for layer in detailed for out in layer.get("Outputs", [])]
    formats = Counter(str(out.get("Format/Datatype", "?")) for out in outputs)
    return {"count": len(layers), "types": dict(sorted(types.items())), "outputs": dict(sorted(formats.items()))}


def layers_note(model: str, facts: Mapping[str, object]) -> str | None:
    """Return one sentence on the layers of an engine, or None where the compiler reported none."""
    reported = facts.get("layers")
    if not isinstance(reported, dict):
        return None
    kinds = [f"{count} {name}" for part in ("types", "outputs") for name, count in dict(reported.get(part, {})).items()]
    return f"{model}: {counted(int(reported.get('count') or 0), 'layer')}" + (f" ({', '.join(kinds)})" if kinds else "")
