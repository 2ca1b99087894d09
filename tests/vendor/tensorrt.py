"""A TensorRT that compiles by keeping the ONNX and runs it with ONNX Runtime on the "device" memory it is given.

Put on the path of a build together with `driver.c`, it lets the whole of a GPU host's build be run on a machine without
GPU: selection, host tuple, compile in its own process, plan header, device memory, descriptors, gates, Manifest.
"""

import ctypes
import enum
import json
import os
import time

VERSION = (10, 3, 0, 30)
__version__ = "10.3.0.30"


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self):
        """Be a base class, as pybind11's is."""


class Logger(ILogger):
    WARNING = Severity.WARNING

    def __init__(self, severity=Severity.WARNING):
        super().__init__()
        self.severity = severity


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.Enum):
    DETAILED = 2


class LayerInformationFormat(enum.Enum):
    JSON = 1


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = 1, 2


def _session(onnx):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def _shape(port):
    return tuple(size if isinstance(size, int) else -1 for size in port.shape)


class Tensor:
    def __init__(self, port):
        self.name, self.shape = port.name, _shape(port)


class Network:
    num_inputs = 1

    def get_input(self, _index):
        return Tensor(_session(self.onnx).get_inputs()[0])


class OnnxParser:
    num_errors = 0

    def __init__(self, network, _logger):
        self.network = network

    def parse_from_file(self, path):
        with open(path, "rb") as file:
            self.network.onnx = file.read()
        return True


class TimingCache:
    def __init__(self, known):
        self.known = bytes(known)

    def serialize(self):
        return self.known or b"what kernels took"


class Config:
    profiling_verbosity = None
    largest = 0

    def set_memory_pool_limit(self, pool, size):
        assert pool is MemoryPoolType.WORKSPACE
        assert size > 0

    def clear_flag(self, flag):
        self.cleared = flag

    def add_optimization_profile(self, profile):
        self.largest = profile.largest[0]

    def create_timing_cache(self, known):
        return TimingCache(known)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Profile:
    def set_shape(self, _name, _smallest, _usual, largest):
        self.largest = largest


class Builder:
    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        assert config.cleared is BuilderFlag.TF32
        if started := os.environ.get("TRT_TEST_COMPILES_SLOWLY"):
            with open(started + ".new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(started + ".new", started)
            time.sleep(600)
        return b"ftrt" + bytes(20) + bytes(VERSION) + config.largest.to_bytes(4, "little") + network.onnx


class Inspector:
    def get_engine_information(self, _format):
        return json.dumps({"Layers": [{"LayerType": "Everything", "Outputs": [{"Format/Datatype": "Float"}]}]})


class Engine:
    num_io_tensors = 2

    def __init__(self, data):
        self.largest = int.from_bytes(data[28:32], "little")
        self.session = _session(data[32:])
        self.ports = {p.name: p for p in (*self.session.get_inputs(), *self.session.get_outputs())}

    def get_tensor_name(self, index):
        return list(self.ports)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == self.session.get_inputs()[0].name else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return _shape(self.ports[name])

    def get_tensor_profile_shape(self, name, _profile):
        return [(count, *_shape(self.ports[name])[1:]) for count in (1, self.largest, self.largest)]

    def create_execution_context(self):
        return Context(self)

    def create_engine_inspector(self):
        return Inspector()


class Context:
    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def set_input_shape(self, _name, shape):
        assert shape[0] <= self.engine.largest, "more than the profile holds"
        self.shape = shape
        return True

    def execute_async_v3(self, _stream):
        import numpy as np

        source, target = self.engine.session.get_inputs()[0].name, self.engine.session.get_outputs()[0].name
        size = int(np.prod(self.shape))
        pixels = np.frombuffer((ctypes.c_uint8 * size).from_address(self.addresses[source]), np.uint8)
        (result,) = self.engine.session.run([target], {source: pixels.reshape(self.shape)})
        ctypes.memmove(self.addresses[target], np.ascontiguousarray(result).ctypes.data, result.nbytes)
        return True


class Runtime:
    engine_host_code_allowed = True

    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, data):
        return Engine(bytes(data))
