"""Engines: a backbone compiled for exactly one host, by ONNX Runtime, TensorRT or TensorRT-RTX.

Here is what names an engine and runs it, which a build with nothing to do asks for. `compile` and `there` compile,
`fidelity` measures.
"""

from typing import TYPE_CHECKING

from provisioning.base.demand import on_demand
from provisioning.engines.facts import engine_facts, engine_spec
from provisioning.engines.host import THIS_MACHINE, HostTuple, Machine
from provisioning.engines.names import EngineName, engine_name, parse_engine_name
from provisioning.engines.ort.ort import OnnxRuntime
from provisioning.engines.selection import select
from provisioning.network.typing.facts import RANGE_TILES, Images, range_facts, typed_facts

if TYPE_CHECKING:
    from provisioning.engines.ort.onnx_network import OnnxNetwork
    from provisioning.engines.spec import Backend, EngineInfo, EngineSpec, Network, Profile, batch_profile
    from provisioning.engines.tensorrt.trt import TensorRT
    from provisioning.network.apart import check_range, make_typed
else:
    __getattr__ = on_demand(
        __name__,
        {
            "provisioning.engines.ort.onnx_network": ["OnnxNetwork"],
            "provisioning.engines.spec": [
                "Backend", "EngineInfo", "EngineSpec", "Network", "Profile", "batch_profile",
            ],
            "provisioning.engines.tensorrt.trt": ["TensorRT"],
            "provisioning.network.apart": ["check_range", "make_typed"],
        },
    )  # fmt: skip

__all__ = [
    "RANGE_TILES",
    "THIS_MACHINE",
    "Backend",
    "EngineInfo",
    "EngineName",
    "EngineSpec",
    "HostTuple",
    "Images",
    "Machine",
    "Network",
    "OnnxNetwork",
    "OnnxRuntime",
    "Profile",
    "TensorRT",
    "batch_profile",
    "check_range",
    "engine_facts",
    "engine_name",
    "engine_spec",
    "make_typed",
    "parse_engine_name",
    "range_facts",
    "select",
    "typed_facts",
]
