"""TensorRT-RTX compiles for real, on a machine without GPU: the same code that compiles with TensorRT on the target."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provisioning.base.errors import EngineError
from provisioning.base.hashing import sha256_bytes
from provisioning.config import Backbone, Engine
from provisioning.engines import Machine, TensorRT, engine_spec, select
from provisioning.engines.compile import compile_engine
from provisioning.engines.tensorrt.cuda import Gpu
from provisioning.engines.tensorrt.header import plan_version, require_plan
from provisioning.network.typing.fp16 import to_fp16
from provisioning.network.typing.int8 import to_int8
from tests import networks

try:
    RUNTIME = importlib.metadata.version("tensorrt_rtx")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("tensorrt_rtx is not installed: pip install 'flightcache[rtx]'", allow_module_level=True)


def build(model, tmp_path, *, sm="86", name="engine", **settings):
    """Return the bytes of the engine of `model` for `sm`, compiled in a process of its own as a build does it."""
    engine = Engine(backend="tensorrt_rtx", host={"sm": sm}, **settings)
    onnx_file = model if not hasattr(model, "graph") else networks.save(model, tmp_path / f"{name}.onnx")
    spec = engine_spec(onnx_file, select(engine).probe(), Backbone(name="net"), engine, state=tmp_path / "state")
    compile_engine(spec, tmp_path / name, log=tmp_path / "log")
    return (tmp_path / name).read_bytes()


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return build(networks.network(), tmp_path_factory.mktemp("plan"))


@pytest.mark.parametrize("sm", ["86", pytest.param("89", marks=pytest.mark.slow), "120"])
def test_engine_is_compiled_without_a_gpu(tmp_path, sm):
    assert plan_version(build(networks.network(), tmp_path, sm=sm), backend="tensorrt_rtx") == RUNTIME


def test_engine_has_the_same_bytes_from_two_processes(plan, tmp_path):
    again = build(networks.network(), tmp_path, name="renamed")
    assert sha256_bytes(again) == sha256_bytes(plan)


def test_engine_is_compiled_in_fp16_and_int8(plan, tmp_path):
    half = build(to_fp16(networks.network(), ()), tmp_path, name="half")
    source = networks.save(networks.network(), tmp_path / "fp32.onnx")
    to_int8(source, tmp_path / "int8.onnx", networks.tiles(8))
    eighth = build(tmp_path / "int8.onnx", tmp_path, name="int8")
    assert len({sha256_bytes(data) for data in (plan, half, eighth)}) == 3


def test_batch_profile_decides_the_engine(plan, tmp_path):
    assert build(networks.network(), tmp_path, batch=32) != plan


def test_builtin_descriptor_network_compiles(tmp_path):
    from provisioning.network import backbone as backbones

    backbone = Backbone(name="gist")
    backbones.prepare(backbone, backbones.onnx_source(backbone, tmp_path, None), tmp_path / "gist.onnx")
    assert build(tmp_path / "gist.onnx", tmp_path)


@pytest.mark.parametrize("sm", ["87", "90", "110"])
def test_target_that_rtx_cannot_compile_for_is_refused_with_those_it_can(tmp_path, sm):
    with pytest.raises(EngineError, match=f"does not compile for SM{sm}") as caught:
        build(networks.network(), tmp_path, sm=sm)
    assert "SM86" in caught.value.facts["it compiles for"]


def test_unsupported_operator_is_named_with_its_node_and_reason(tmp_path):
    with pytest.raises(EngineError, match="cannot take this model") as caught:
        build(networks.with_custom_operator(networks.network()), tmp_path)
    assert "Plugin not found" in caught.value.facts["Mystery odd_one"]


def test_type_that_the_gpu_does_not_have_is_named(tmp_path):
    """bfloat16 came with SM 80."""
    model = networks.network()
    mix = networks.weight(model, "mix")
    mix.CopyFrom(helper.make_tensor("mix", TensorProto.BFLOAT16, mix.dims, numpy_helper.to_array(mix).ravel()))
    down = helper.make_node("Cast", ["flat"], ["flat_b"], to=TensorProto.BFLOAT16, name="down")
    networks.insert_after(model, "flatten", down, output="flat_b")
    networks.node(model, "down").input[0] = "flat"
    up = helper.make_node("Cast", ["mixed"], ["mixed_f"], to=TensorProto.FLOAT, name="up")
    networks.insert_after(model, "fc", up, output="mixed_f")
    networks.node(model, "up").input[0] = "mixed"
    assert build(model, tmp_path, sm="80")
    with pytest.raises(EngineError, match="could not compile") as caught:
        build(model, tmp_path, sm="75")
    assert "HW-specific datatypes" in caught.value.facts["it says"]
    assert "another precision" in caught.value.next_step


def test_workspace_that_is_too_small_names_its_setting(tmp_path):
    with pytest.raises(EngineError, match="could not compile") as caught:
        build(networks.network(side=128), tmp_path, workspace_mb=1)
    assert "workspace limit" in caught.value.facts["it says"]
    assert caught.value.next_step == "raise engine.workspace_mb"


def test_input_with_a_free_side_says_to_give_a_size(tmp_path):
    model = networks.network()
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    with pytest.raises(EngineError, match="dynamic axis besides the batch") as caught:
        build(model, tmp_path)
    assert "size" in caught.value.next_step


def test_damaged_onnx_is_refused(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(networks.network().SerializeToString()[:-500])
    with pytest.raises(EngineError, match="cannot take this model"):
        build(path, tmp_path)


# a plan before it is loaded


def backend():
    return select(Engine(backend="tensorrt_rtx", host={"sm": "86"}))


def test_plan_of_another_version_is_refused(plan):
    stale = plan[:24] + bytes([1, 4, 0, 76]) + plan[28:]
    with pytest.raises(EngineError, match="built by another version") as caught:
        backend().load(stale)
    assert (caught.value.facts["built by"], caught.value.facts["here"]) == ("1.4.0.76", RUNTIME)


@pytest.mark.parametrize("size", [0, 3, 27])
def test_plan_cut_off_in_its_header_is_refused(plan, size):
    with pytest.raises(EngineError, match="cut off in its header"):
        backend().load(plan[:size])


@pytest.mark.parametrize(("head", "expected"), [(b"ftrt", "tensorrt"), (b"\x7fELF", None), (b"PK\x03\x04", None)])
def test_plan_with_the_magic_of_something_else_is_refused(plan, head, expected):
    with pytest.raises(EngineError, match="not a tensorrt_rtx plan") as caught:
        backend().load(head + plan[4:])
    assert caught.value.facts.get("looks like") == expected


def test_tensorrt_refuses_an_rtx_plan(plan):
    with pytest.raises(EngineError, match="not a tensorrt plan") as caught:
        require_plan(plan, backend="tensorrt", runtime="10.3.0.30")
    assert caught.value.facts["looks like"] == "tensorrt_rtx"


def test_plan_for_another_computer_is_not_loaded(plan):
    with pytest.raises(EngineError, match="cannot run here") as caught:
        backend().load(plan)
    assert caught.value.facts["compiled for"] == "86"


@pytest.mark.parametrize(
    ("wrote", "here", "accepted"),
    [
        ("10.3.0.30", "10.3.0.30", True),
        ("10.3.0.30", "10.3.0", True),
        ("10.3.0.26", "10.3.0.30", False),
        ("10.16.1.11", "10.1", False),
        ("10.16.1.11", "10.16.1.267", True),
        ("11.4.0.106", "11.4.0.106+cuda13.2", True),
    ],
)
def test_plan_is_of_this_version_or_refused(wrote, here, accepted):
    head = b"ftrt" + bytes(20) + bytes(map(int, wrote.split(".")))
    if accepted:
        require_plan(head, backend="tensorrt", runtime=here)
    else:
        with pytest.raises(EngineError, match="another version"):
            require_plan(head, backend="tensorrt", runtime=here)


def test_truncated_plan_is_refused_by_the_runtime(plan):
    """Behind the header it is TensorRT that looks; in a process of its own, since the first logger wins for good."""
    code = (
        "import sys, tensorrt_rtx as t\n"
        "data = sys.stdin.buffer.read()\n"
        "runtime = t.Runtime(t.Logger(t.Logger.ERROR))\n"
        "sys.exit(0 if runtime.deserialize_cuda_engine(data) is None else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=plan[: len(plan) // 2], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"size" in done.stdout + done.stderr


def test_runtime_says_why_it_refuses_a_plan():
    trt = pytest.importorskip("tensorrt_rtx")
    code = (
        "import tensorrt_rtx as t\n"
        "from provisioning.engines.tensorrt.trt_run import refusal\n"
        "print(refusal(t, t.Runtime(t.Logger(t.Logger.INTERNAL_ERROR)), b'junk' * 100))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert "MALFORMED_ENGINE" in done.stdout
    assert hasattr(trt.EngineInvalidityDiagnostics, "UNSUPPORTED_CC")


def test_plan_for_another_gpu_is_refused_before_it_is_loaded(plan):
    ada = Gpu("NVIDIA GeForce RTX 4090", "89", 13000)
    elsewhere = TensorRT("tensorrt_rtx", Machine(gpu=lambda: ada), target={"sm": "86"})
    with pytest.raises(EngineError, match="cannot run here") as caught:
        elsewhere.load(plan)
    assert caught.value.facts == {"compiled for": "86", "GPU here": ada.name}


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# stopping


def big_network(tmp_path, *, layers=2000, width=16):
    """Return the path of a network that takes RTX some 25 s: by the number of its layers, not by their size."""
    rng = np.random.default_rng(0)
    model = networks.network()
    weights = [rng.standard_normal((16, width)).astype(np.float32)]
    weights += [rng.standard_normal((width, width)).astype(np.float32) / 32 for _ in range(layers)]
    weights += [rng.standard_normal((width, networks.DIMENSION)).astype(np.float32)]
    nodes, value = [], "flat"
    for number, value_weights in enumerate(weights):
        model.graph.initializer.append(numpy_helper.from_array(value_weights, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{number}"], [f"h{number}"], name=f"deep{number}"))
        nodes.append(helper.make_node("Tanh", [f"h{number}"], [f"t{number}"], name=f"tanh{number}"))
        value = f"t{number}"
    place = list(model.graph.node).index(networks.node(model, "fc"))
    del model.graph.node[place]
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)
    nodes[-1].output[0] = "mixed"
    model.graph.node[place + len(nodes) - 1].output[0] = "mixed"
    path = tmp_path / "big.onnx"
    onnx.save(model, str(path))
    return path


def test_real_compile_is_stopped(tmp_path):
    path = big_network(tmp_path)
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from provisioning.config import Backbone, Engine\n"
        "from provisioning.engines import engine_spec, select\n"
        "from provisioning.engines.compile import compile_engine\n"
        'engine = Engine(backend="tensorrt_rtx", host={"sm": "86"})\n'
        f"root = Path({str(tmp_path)!r})\n"
        f'spec = engine_spec(Path({str(path)!r}), select(engine).probe(), Backbone(name="n"), engine, state=root / "s")\n'
        'compile_engine(spec, root / "engine", log=root / "log")\n'
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not ((tmp_path / "log").exists() and b"[" in (tmp_path / "log").read_bytes()) and time.monotonic() < end:
            time.sleep(0.01)
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=120)
        assert b"KeyboardInterrupt" in errors
        assert not (tmp_path / "engine").exists()
    finally:
        parent.kill()
        parent.wait()
