"""TensorRT 10.3, 10.16 and 11.4 as their bindings are: one implementation uses only what each of them has."""

import ast
import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import provisioning.engines
from provisioning.base.errors import EngineError
from provisioning.config import Backbone, Engine
from provisioning.engines import HostTuple, Machine, Profile, TensorRT, engine_spec
from provisioning.engines.accuracy.fidelity import batch_invariance
from provisioning.engines.tensorrt import trt, trt_run
from provisioning.engines.tensorrt.cuda import Gpu
from provisioning.engines.tensorrt.layers import layer_summary
from provisioning.engines.tensorrt.trt_build import build_plan
from tests import networks
from tests.surfaces import VERSIONS, Fake, Kind, TensorRTModule

PLAN = b"ftrt" + bytes(20) + bytes([10, 3, 0, 30]) + b"weights"
ORIN = Gpu("Orin", "87", 12060)
LAYERS = {
    "Layers": [
        {"Name": "conv1", "LayerType": "CaskConvolution", "Outputs": [{"Name": "c1", "Format/Datatype": "Half"}]},
        {
            "Name": "fc",
            "LayerType": "CaskGemmMatrixMultiply",
            "Outputs": [{"Name": "mixed", "Format/Datatype": "Float"}],
        },
        {"Name": "fc2", "LayerType": "CaskGemmMatrixMultiply", "Outputs": [{"Name": "d", "Format/Datatype": "Float"}]},
    ],
    "Bindings": ["tiles", "descriptors"],
}


class Vendor:
    """One release of TensorRT, put in place of the module, and the objects it hands out."""

    def __init__(self, version, monkeypatch):
        self.timings, self.plan, self.parses, self.shape = b"timings:", PLAN, True, (-1, 32, 32, 3)
        self.errors = []
        self.module = TensorRTModule(
            version,
            {
                "Builder": self.builder,
                "OnnxParser": lambda *_: self.parser(),
                "Runtime": lambda *_: self.runtime(),
                "Logger": lambda *_: self.fake("Logger"),
            },
        )
        monkeypatch.setitem(sys.modules, "tensorrt", self.module)

    def fake(self, kind, **answers):
        return Fake(self.module, kind, **answers)

    def builder(self, logger):
        def build(*_):
            for error in self.errors:
                logger.log(self.module.ILogger.Severity.ERROR, error)
            return self.plan

        return self.fake(
            "Builder",
            create_network=lambda *_: self.network(),
            create_builder_config=self.config,
            create_optimization_profile=lambda: self.fake("IOptimizationProfile"),
            build_serialized_network=build,
        )

    def network(self):
        tensor = self.fake("ITensor", name="tiles", shape=self.shape)
        return self.fake("INetworkDefinition", num_inputs=1, get_input=lambda _index: tensor)

    def config(self):
        def cache(content):
            taken = content == b"" or bytes(content).startswith(self.timings)
            return self.fake("ITimingCache", serialize=lambda: self.timings + b"more") if taken else None

        kept = []
        return self.fake(
            "IBuilderConfig",
            create_timing_cache=cache,
            set_timing_cache=lambda cache, **_: kept.append(cache) or True,
            get_timing_cache=lambda: kept[-1],
        )

    def parser(self):
        error = self.fake(
            "ParserError",
            node_operator=lambda: "Mystery",
            node_name=lambda: "odd_one",
            node=lambda: 7,
            desc=lambda: "Plugin not found",
            code=lambda: SimpleNamespace(name="UNSUPPORTED_NODE"),
        )
        return self.fake("OnnxParser", parse_from_file=lambda _: self.parses, num_errors=1, get_error=lambda _: error)

    def runtime(self):
        inspector = self.fake("EngineInspector", get_engine_information=lambda _format: json.dumps(LAYERS))
        engine = self.fake("ICudaEngine", create_engine_inspector=lambda: inspector)
        return self.fake("Runtime", deserialize_cuda_engine=lambda _: engine)


@pytest.fixture(params=VERSIONS)
def vendor(request, monkeypatch):
    monkeypatch.setattr("provisioning.engines.tensorrt.layers.query_gpu", lambda: ORIN)
    return Vendor(request.param, monkeypatch)


def build(tmp_path, **settings):
    host = HostTuple("tensorrt", "10.3.0.30", "sm87", "Orin", "l4t36.4.3")
    (tmp_path / "m.onnx").touch()
    spec = engine_spec(tmp_path / "m.onnx", host, Backbone(name="net"), Engine(**settings), state=tmp_path)
    return build_plan("tensorrt", spec, tmp_path / "plan")


def test_recorded_releases_are_the_ones_promised():
    assert VERSIONS == ("10.3.0", "10.16.1.11", "11.4.0.106")


def test_recorded_releases_differ_where_the_api_changed():
    """What makes feature tests needed: if these were alike the record would be wrong."""
    gone = [("BuilderFlag", "FP16"), ("BuilderFlag", "INT8"), ("IBuilderConfig", "int8_calibrator")]
    for kind, name in gone:
        assert [name in TensorRTModule(v, {}).surface[kind] for v in VERSIONS] == [True, True, False]


def test_engine_is_built_with_what_each_release_has(vendor, tmp_path):
    facts = build(tmp_path)
    assert (tmp_path / "plan").read_bytes() == PLAN
    assert facts["plan_version"] == "10.3.0.30"


def test_network_is_always_strongly_typed(vendor, tmp_path):
    build(tmp_path)
    flag = vendor.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert vendor.module.called("Builder.create_network") == [(1 << int(flag),)]


def test_no_precision_is_ever_asked_of_the_builder(vendor, tmp_path):
    build(tmp_path)
    assert not vendor.module.called("IBuilderConfig.set_flag")
    assert not vendor.module.called("IBuilderConfig.int8_calibrator=")


def test_tf32_is_off(vendor, tmp_path):
    build(tmp_path)
    assert [flag.name for (flag,) in vendor.module.called("IBuilderConfig.clear_flag")] == ["TF32"]


def test_workspace_is_limited_in_mebibytes(vendor, tmp_path):
    build(tmp_path, workspace_mb=3)
    ((pool, size),) = vendor.module.called("IBuilderConfig.set_memory_pool_limit")
    assert (pool.name, size) == ("WORKSPACE", 3 * 1024 * 1024)


def test_dynamic_batch_gets_its_profile(vendor, tmp_path):
    build(tmp_path, batch=5)
    shapes = [("tiles", (1, 32, 32, 3), (5, 32, 32, 3), (5, 32, 32, 3))]
    assert vendor.module.called("IOptimizationProfile.set_shape") == shapes
    assert len(vendor.module.called("IBuilderConfig.add_optimization_profile")) == 1


def test_fixed_batch_gets_no_profile(vendor, tmp_path):
    vendor.shape = (1, 32, 32, 3)
    build(tmp_path)
    assert not vendor.module.called("IBuilderConfig.add_optimization_profile")


def test_timing_cache_is_kept_for_the_host_and_digested(vendor, tmp_path):
    first, second = build(tmp_path), build(tmp_path)
    assert [content for (content,) in vendor.module.called("IBuilderConfig.create_timing_cache")] == [
        b"",
        b"timings:more",
    ]
    assert first["timing_cache_after"] == second["timing_cache_before"] != first["timing_cache_before"]
    assert len(list(tmp_path.glob("timing-*.cache"))) == 1


def test_timing_cache_of_another_release_is_begun_again(vendor, tmp_path):
    build(tmp_path)
    (path,) = tmp_path.glob("timing-*.cache")
    path.write_bytes(b"foreign")
    build(tmp_path)
    assert path.read_bytes() == b"timings:more"


def test_timing_cache_can_be_left_alone(vendor, tmp_path):
    build(tmp_path, timing_cache=False)
    assert not vendor.module.called("IBuilderConfig.create_timing_cache")
    assert not list(tmp_path.glob("timing-*"))


def test_failed_compile_leaves_the_timing_cache_as_it_was(vendor, tmp_path):
    build(tmp_path)
    (path,) = tmp_path.glob("timing-*.cache")
    before, vendor.plan, vendor.timings = path.read_bytes(), None, b"timings:"
    with pytest.raises(EngineError):
        build(tmp_path)
    assert path.read_bytes() == before


def test_layers_are_reported_where_a_gpu_can_be_asked(vendor, tmp_path):
    assert build(tmp_path)["layers"] == {
        "count": 3,
        "types": {"CaskConvolution": 1, "CaskGemmMatrixMultiply": 2},
        "outputs": {"Float": 2, "Half": 1},
    }


def test_layers_without_detail_are_counted():
    assert layer_summary('{"Layers": ["conv1", "fc"]}') == {"count": 2, "types": {}, "outputs": {}}


def test_unsupported_operator_is_named(vendor, tmp_path):
    vendor.parses = False
    with pytest.raises(EngineError, match="cannot take this model") as caught:
        build(tmp_path)
    assert caught.value.facts["Mystery odd_one"] == "Plugin not found (UNSUPPORTED_NODE)"


def test_memory_that_runs_out_inside_tensorrt_is_reported(vendor, tmp_path):
    vendor.plan, vendor.errors = None, ["[defaultAllocator.cpp::allocate] Error Code 1: Cuda Runtime (out of memory)"]
    with pytest.raises(EngineError, match="could not compile net") as caught:
        build(tmp_path)
    assert "free memory" in caught.value.next_step
    assert "out of memory" in caught.value.facts["it says"]


def test_plan_of_an_unexpected_kind_is_refused_at_birth(vendor, tmp_path):
    vendor.plan = b"vtrt" + PLAN[4:]
    with pytest.raises(EngineError, match="not a tensorrt plan"):
        build(tmp_path)


# every attribute that the source uses, also on paths no fake comes to

CLASS_OF = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "_context": "IExecutionContext",
    "_engine": "ICudaEngine",
}
SOURCES = ("trt_build", "trt_run", "timing", "layers")
ASKED_FOR_FIRST = {
    ("Runtime", "get_engine_validity"),
    ("trt", "EngineInvalidityDiagnostics"),
    ("EngineInvalidityDiagnostics", "__members__"),
    ("trt", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
"""Used only where `hasattr` found them: TensorRT-RTX has them, TensorRT does not."""


def used():
    """Return every (class, member) of TensorRT that our source names."""
    found = set()
    for module in SOURCES:
        tree = ast.parse((Path(provisioning.engines.__file__).parent / "tensorrt" / f"{module}.py").read_text())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            inner = node.value
            if isinstance(inner, ast.Name) and inner.id == "trt":
                found.add(("trt", node.attr))
            elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "trt":
                found.add((inner.attr, node.attr))
            elif (name := _variable(inner)) in CLASS_OF:
                found.add((CLASS_OF[name], node.attr))
    return found - ASKED_FOR_FIRST


def _variable(expression):
    """Return the name of a variable or of an attribute of self, else None."""
    if isinstance(expression, ast.Name):
        return expression.id
    own = isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name)
    return expression.attr if own and expression.value.id == "self" else None


def test_source_is_read_for_what_it_uses():
    assert {
        ("Builder", "build_serialized_network"),
        ("IExecutionContext", "execute_async_v3"),
        ("trt", "Runtime"),
    } <= used()
    assert len(used()) > 35


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_used_is_in_the_real_bindings(version):
    module = TensorRTModule(version, {})
    lacking = {
        f"{kind}.{name}" for kind, name in used() if not hasattr(module if kind == "trt" else Kind(module, kind), name)
    }
    assert lacking == set()


def test_everything_used_is_in_tensorrt_rtx():
    rtx = pytest.importorskip("tensorrt_rtx")
    wanted = used() | ASKED_FOR_FIRST
    assert {
        f"{kind}.{name}" for kind, name in wanted if not hasattr(rtx if kind == "trt" else getattr(rtx, kind), name)
    } == set()


# running a plan: a driver whose device memory is host memory

DRIVER = Path(__file__).parent / "vendor" / "driver.c"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make a CUDA driver of")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    subprocess.run(["gcc", "-shared", "-fPIC", str(DRIVER), "-o", str(library)], check=True)
    return library


class Flown(Vendor):
    """A release of TensorRT with an engine that gives the mean colour of each quarter of a tile."""

    batch, largest, side = -1, 4, 8

    def runtime(self):
        return self.fake("Runtime", deserialize_cuda_engine=lambda data: None if b"broken" in data else self.engine())

    def engine(self):
        member = lambda name: Kind(self.module, "TensorIOMode").__getattr__(name)  # noqa: E731
        shapes = {"tiles": (self.batch, self.side, self.side, 3), "descriptors": (self.batch, 12)}
        return self.fake(
            "ICudaEngine",
            num_io_tensors=2,
            get_tensor_name=lambda index: ("tiles", "descriptors")[index],
            get_tensor_mode=lambda name: member("INPUT" if name == "tiles" else "OUTPUT"),
            get_tensor_shape=shapes.__getitem__,
            get_tensor_profile_shape=lambda *_: [(n, self.side, self.side, 3) for n in (1, 2, self.largest)],
            create_execution_context=self.context,
        )

    def context(self):
        state = {}

        def execute(_stream):
            count = state["shape"][0]
            pixels = (ctypes.c_uint8 * (count * self.side**2 * 3)).from_address(state["tiles"])
            images = np.frombuffer(pixels, np.uint8).reshape(count, self.side, self.side, 3)
            result = (ctypes.c_float * (count * 12)).from_address(state["descriptors"])
            np.frombuffer(result, np.float32).reshape(count, 12)[:] = quarters(images)
            return True

        return self.fake(
            "IExecutionContext",
            set_tensor_address=lambda name, address: state.__setitem__(name, address) or True,
            set_input_shape=lambda _name, shape: state.__setitem__("shape", shape) or True,
            execute_async_v3=execute,
        )


def quarters(images):
    count, side = images.shape[:2]
    return images.reshape(count, 2, side // 2, 2, side // 2, 3).mean((2, 4)).reshape(count, 12).astype(np.float32)


@pytest.fixture(params=VERSIONS)
def flown(request, monkeypatch, driver):
    monkeypatch.setattr(trt_run, "LIBCUDA", str(driver))
    return Flown(request.param, monkeypatch)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_plan_runs_for_any_number_of_tiles(flown, count):
    network = trt_run.TrtNetwork.load("tensorrt", PLAN)
    images = networks.tiles(count or 1, side=8)[:count]
    assert np.array_equal(network(images), quarters(images))
    assert (network.size, network.dimension) == ((8, 8), 12)


def test_fixed_batch_of_a_plan_is_filled_up(flown):
    flown.batch = 4
    images = networks.tiles(6, side=8)
    assert np.array_equal(trt_run.TrtNetwork.load("tensorrt", PLAN)(images), quarters(images))


def test_host_code_in_a_plan_is_never_allowed(flown):
    trt_run.TrtNetwork.load("tensorrt", PLAN)
    assert flown.module.called("Runtime.engine_host_code_allowed=") == [(False,)]
    names = [call[0] for call in flown.module.calls]
    assert names.index("Runtime.engine_host_code_allowed=") < names.index("Runtime.deserialize_cuda_engine")


def test_clones_share_weights_and_not_buffers(flown):
    network = trt_run.TrtNetwork.load("tensorrt", PLAN)
    other = network.clone()
    images = networks.tiles(4, side=8)
    assert np.array_equal(other(images), network(images))
    assert len(flown.module.called("Runtime.deserialize_cuda_engine")) == 1
    assert batch_invariance(other, images) == 0


def test_device_memory_is_given_back(flown, driver):
    live = ctypes.CDLL(str(driver)).live_allocations
    before = live()
    network = trt_run.TrtNetwork.load("tensorrt", PLAN)
    assert live() == before + 2
    del network
    assert live() == before


def test_plan_that_tensorrt_refuses_says_to_rebuild(flown):
    with pytest.raises(EngineError, match="will not load this plan") as caught:
        trt_run.TrtNetwork.load("tensorrt", PLAN + b"broken")
    assert "doit engine" in caught.value.next_step


def test_a_fixed_batch_beyond_device_memory_is_refused(flown):
    flown.batch = flown.largest = 1 << 26
    with pytest.raises(EngineError, match=r"refused cuMemAlloc.*out of GPU memory"):
        trt_run.TrtNetwork.load("tensorrt", PLAN)


@pytest.mark.usefixtures("flown")
def test_header_is_read_before_anything_else(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    here = Machine(gpu=lambda: ORIN, installed=lambda *_: "10.16.1.11")
    with pytest.raises(EngineError, match="another version"):
        TensorRT("tensorrt", here).load(PLAN)
    same = Machine(gpu=lambda: ORIN, installed=lambda *_: "10.3.0.30")
    assert TensorRT("tensorrt", same).load(PLAN).dimension == 12


def test_library_reports_the_version_that_a_package_cuts_short(tmp_path, monkeypatch):
    """JetPack's package says 10.3.0; two builds of it exist, and plans of one are refused by the other."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make a library of")
    parts = {"Major": 10, "Minor": 3, "Patch": 0, "Build": 30}
    code = "".join(f"int getInferLib{part}Version(void) {{ return {value}; }}\n" for part, value in parts.items())
    library = tmp_path / "libnvinfer.so.10"
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=code, text=True, check=True)
    real = ctypes.CDLL
    monkeypatch.setattr(
        trt.ctypes, "CDLL", lambda name, *a: real(str(library) if name == "libnvinfer.so.10" else name, *a)
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    here = Machine(gpu=lambda: ORIN, installed=lambda *_: "10.3.0", etc=tmp_path, proc=tmp_path, dpkg=lambda _: None)
    assert TensorRT("tensorrt", here).probe().runtime == "10.3.0.30"


def test_default_profile_is_the_batch():
    from provisioning.engines import batch_profile

    assert batch_profile(Backbone(name="n"), Engine(batch=6)) == Profile(1, 6, 6)
