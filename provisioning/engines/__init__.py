"""Engines: a backbone compiled for exactly one host, by ONNX Runtime, TensorRT or TensorRT-RTX."""

from provisioning.engines.compile import Compiled, compile_engine, compiled_path, read_compiled
from provisioning.engines.facts import engine_facts, engine_spec
from provisioning.engines.fidelity import Fidelity, batch_invariance, measure_fidelity, reference_network
from provisioning.engines.host import THIS_MACHINE, HostTuple, Machine
from provisioning.engines.layers import layers_note
from provisioning.engines.names import EngineName, engine_name, parse_engine_name
from provisioning.engines.onnx_network import OnnxNetwork
from provisioning.engines.ort import OnnxRuntime
from provisioning.engines.selection import select
from provisioning.engines.spec import Backend, EngineInfo, EngineSpec, Network, Profile, batch_profile
from provisioning.engines.there import There, compile_there
from provisioning.engines.trt import TensorRT
from provisioning.engines.typed import Images, make_typed, typed_facts

__all__ = [
    "THIS_MACHINE",
    "Backend",
    "Compiled",
    "EngineInfo",
    "EngineName",
    "EngineSpec",
    "Fidelity",
    "HostTuple",
    "Images",
    "Machine",
    "Network",
    "OnnxNetwork",
    "OnnxRuntime",
    "Profile",
    "TensorRT",
    "There",
    "batch_invariance",
    "batch_profile",
    "compile_engine",
    "compile_there",
    "compiled_path",
    "engine_facts",
    "engine_name",
    "engine_spec",
    "layers_note",
    "make_typed",
    "measure_fidelity",
    "parse_engine_name",
    "read_compiled",
    "reference_network",
    "select",
    "typed_facts",
]
