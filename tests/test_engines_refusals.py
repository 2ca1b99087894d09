"""Engines that cannot be made or run, here or on the computer that will fly them: the reason, and what to do."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from provisioning.base.errors import EngineError
from provisioning.base.hashing import sha256_bytes
from provisioning.config import Backbone, Engine
from provisioning.engines import HostTuple, OnnxRuntime, TensorRT, engine_spec, select, worker
from provisioning.engines.host import Machine, _cpu_flags, _dpkg_version
from provisioning.engines.ort.onnx_network import OnnxNetwork
from provisioning.engines.tensorrt import cuda, trt_run
from provisioning.engines.tensorrt.trt_build import build_plan
from provisioning.engines.vehicle.remote import GREETING, There, compile_there, local_backend, serve
from provisioning.network.typing.graph import tile_size
from tests import networks
from tests.test_engines_tensorrt import PLAN, VERSIONS, Vendor
from tests.test_host import FAKE_DRIVER, ORIN, fake_driver

__all__ = ["FAKE_DRIVER", "fake_driver"]
ORIN_HOST = HostTuple("tensorrt", "10.3.0.30", "sm87", "Orin", "l4t36.4.3")


@pytest.fixture
def spec(tmp_path):
    """A spec of a small network for this computer."""
    onnx_file = networks.save(networks.network(), tmp_path / "m.onnx")
    return engine_spec(onnx_file, OnnxRuntime().probe(), Backbone(name="net"), Engine(), state=tmp_path / "state")


# another computer


def test_the_backend_of_another_computer_speaks_for_it(spec, tmp_path):
    away, here = There(ORIN_HOST), There(OnnxRuntime().probe())
    assert (away.name, away.probe(), away.runs_here) == ("tensorrt", ORIN_HOST, False)
    assert here.runs_here
    assert here.options(Backbone(name="net"), Engine()) == OnnxRuntime().options(Backbone(name="net"), Engine())
    with pytest.raises(EngineError, match="compiled on its target, not here"):
        here.build(spec, tmp_path / "engine")


def test_an_engine_for_this_very_computer_is_read_and_run_here(spec, tmp_path):
    OnnxRuntime().build(spec, tmp_path / "engine")
    data, here = (tmp_path / "engine").read_bytes(), There(OnnxRuntime().probe())
    assert here.inspect(data) == OnnxRuntime().inspect(data)
    tiles = networks.tiles(2)
    np.testing.assert_array_equal(here.load(data)(tiles), OnnxRuntime().load(data)(tiles))


def test_a_backend_that_cannot_be_asked_here_is_the_one_of_elsewhere(monkeypatch):
    def refuse(_self):
        raise EngineError("no GPU")

    monkeypatch.setattr(TensorRT, "probe", refuse)
    assert There(ORIN_HOST).runs_here is False
    assert local_backend("tensorrt").name == "tensorrt"


def test_a_command_without_the_whole_host_tuple_is_refused_with_where_to_get_it():
    with pytest.raises(EngineError, match="needs the whole host tuple") as caught:
        select(Engine(command=("ssh", "drone"), host={"arch": "sm87"}))
    assert "flightcache host --json" in caught.value.next_step


def ask(spec, tmp_path, script):
    return compile_there(["sh", "-c", script], spec, tmp_path / "engine", log=tmp_path / "log" / "net.log")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('cat > /dev/null; echo \'{"error": "no memory"}\'', "the target could not compile net: no memory"),
        ("cat > /dev/null; echo welcome to drone 7", "no engine of net came from the target"),
        ("cat > /dev/null; echo '[]'", "no engine of net came from the target"),
        ("cat > /dev/null; exit 3", "no engine of net came from the target"),
        (
            'cat > /dev/null; printf \'{"bytes": 3, "sha256": "0", "elapsed_s": 1, "facts": {}, "descriptors": [0, 0]}\\nabc\'',
            "another engine arrived",
        ),
    ],
)
def test_what_comes_from_the_target_is_no_engine_unless_it_is_one(spec, tmp_path, script, reason):
    with pytest.raises(EngineError, match=reason):
        ask(spec, tmp_path, script)
    assert not (tmp_path / "engine").exists()


def test_a_target_that_cannot_be_reached_is_reported(spec, tmp_path):
    with pytest.raises(EngineError, match=r"cannot be compiled there: .*No such file"):
        compile_there([str(tmp_path / "none")], spec, tmp_path / "engine", log=tmp_path / "net.log")


def test_custom_operators_stay_on_their_computer(spec, tmp_path):
    import dataclasses

    with pytest.raises(EngineError, match="custom operators are not carried"):
        ask(dataclasses.replace(spec, custom_ops=tmp_path / "ops.so"), tmp_path, "true")


def served(line: bytes, onnx_bytes: bytes = b"") -> str:
    answers = io.BytesIO()
    with pytest.raises(EngineError):
        serve(io.BytesIO(line + onnx_bytes), answers)
    return json.loads(answers.getvalue())["error"]


def request(spec, data: bytes, **changed) -> bytes:
    asked = {"spec": json.loads(spec.to_json()), "onnx_bytes": len(data), "onnx_sha256": sha256_bytes(data)}
    asked["tiles"] = [0, 1, 1, 3]
    return (GREETING + json.dumps(asked | changed) + "\n").encode()


def test_the_target_refuses_what_it_does_not_understand_or_what_is_not_for_it(spec):
    import dataclasses

    assert "does not speak flightcache-compile/2" in served(b"GET / HTTP/1.1\r\n")
    assert "arrived damaged" in served(request(spec, b"model", onnx_sha256="0"), b"model")
    other = dataclasses.replace(spec, host=spec.host._replace(device="another"))
    assert "another host" in served(request(other, b"model"), b"model")


# onnxruntime


def test_onnxruntime_that_is_not_installed_is_named():
    with pytest.raises(EngineError, match="not installed") as caught:
        OnnxRuntime(Machine(installed=lambda *_names: None)).probe()
    assert caught.value.next_step == "pip install onnxruntime"


def test_a_network_that_does_not_say_its_size_asks_for_it():
    model = networks.network()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[1].ClearField("dim_value")
    dims[1].dim_param = "height"
    with pytest.raises(EngineError, match="does not say the size of its tiles") as caught:
        OnnxNetwork.load(model.SerializeToString())
    assert "size = [height, width]" in caught.value.next_step


def test_tiles_of_another_size_are_an_error_in_our_words():
    network = OnnxNetwork.load(networks.network().SerializeToString())
    with pytest.raises(EngineError):
        network(np.zeros((1, 5, 5, 3), np.uint8))


def test_a_model_of_two_inputs_takes_no_tiles():
    model = networks.network()
    assert tile_size(model) == (networks.SIDE, networks.SIDE)
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    assert tile_size(onnx.load_from_string(model.SerializeToString())) is None


# the compile's own process


def test_a_compile_whose_parent_is_gone_already_ends_itself(monkeypatch):
    class Ended(BaseException):
        pass

    def leave(code):
        raise Ended(code)

    monkeypatch.setattr(worker.os, "_exit", leave)
    monkeypatch.setattr(
        worker, "_PR_SET_PDEATHSIG", 2
    )  # PR_GET_PDEATHSIG would crash; nothing may be set in this process
    monkeypatch.setattr(worker.ctypes, "CDLL", lambda *_a, **_k: SimpleNamespace(prctl=lambda *_words: 0))
    with pytest.raises(Ended):
        worker.die_with_parent(0)


# the driver and the host


@pytest.mark.parametrize(("init", "count", "found"), [(0, 1, ORIN), (35, 1, None), (0, 0, None)])
def test_the_driver_is_understood_where_it_is_asked(fake_driver, init, count, found):
    assert cuda._ask(fake_driver(INIT=init, COUNT=count)) == found


def test_a_library_that_is_no_driver_describes_no_gpu(fake_driver, monkeypatch):
    assert cuda._ask("libcuda-which-is-not-there.so.1") is None
    refusing = SimpleNamespace(
        cuDeviceGet=lambda *_a: 0, cuDeviceGetName=lambda *_a: 0, cuDeviceGetAttribute=lambda *_a: 1,
        cuDriverGetVersion=lambda *_a: 0,
    )  # fmt: skip
    assert cuda._describe(refusing) is None


def test_a_system_without_dpkg_has_no_debian_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _dpkg_version("nvidia-l4t-core") is None


@pytest.mark.parametrize(("code", "expected"), [(0, "36.4.3"), (1, None)])
def test_a_debian_package_is_asked_for_its_version(monkeypatch, tmp_path, code, expected):
    program = tmp_path / "dpkg-query"
    program.write_text(f"#!/bin/sh\necho 36.4.3\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _dpkg_version("nvidia-l4t-core") == expected


@pytest.mark.parametrize("text", [None, "processor: 0\n"])
def test_a_processor_that_reports_no_features_has_none(tmp_path, text):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert _cpu_flags(tmp_path / "cpuinfo") == set()


# TensorRT


@pytest.fixture(params=VERSIONS[:1])
def vendor(request, monkeypatch):
    monkeypatch.setattr("provisioning.engines.tensorrt.layers.query_gpu", lambda: ORIN)
    return Vendor(request.param, monkeypatch)


def plan_of(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    spec = engine_spec(tmp_path / "m.onnx", ORIN_HOST, Backbone(name="net"), Engine(), state=tmp_path)
    return build_plan("tensorrt", spec, tmp_path / "plan")


def test_a_builder_that_does_not_start_is_reported(vendor, tmp_path, monkeypatch):
    monkeypatch.setattr(vendor, "builder", lambda _logger: None)
    vendor.module.objects["Builder"] = lambda *_a: None
    with pytest.raises(EngineError, match="could not start its builder"):
        plan_of(tmp_path)


def test_layers_of_a_plan_that_cannot_be_loaded_are_left_out(vendor, tmp_path):
    vendor.module.objects["Runtime"] = lambda *_a: vendor.fake("Runtime", deserialize_cuda_engine=lambda _plan: None)
    assert "layers" not in plan_of(tmp_path)
    assert (tmp_path / "plan").read_bytes() == PLAN


class Stub:
    """An engine or context of TensorRT that answers what a test gave it."""

    def __init__(self, **answers):
        self.__dict__.update(answers)


def network_on(*, context):
    engine = Stub(
        num_io_tensors=2,
        get_tensor_name=("tiles", "descriptors").__getitem__,
        get_tensor_mode=lambda name: "in" if name == "tiles" else "out",
        get_tensor_dtype=lambda name: name,
        get_tensor_profile_shape=lambda *_a: ((1, 8, 8, 3),) * 3,
        get_tensor_shape=lambda name: (-1, 8, 8, 3) if name == "tiles" else (-1, 4),
        create_execution_context=lambda: context,
    )
    device = Stub(
        stream=lambda: 0,
        allocate=lambda _size: 64,
        free=lambda _pointer: None,
        enter=lambda: None,
        upload=lambda *_a: None,
    )
    module = Stub(TensorIOMode=Stub(INPUT="in", OUTPUT="out"))
    return trt_run.TrtNetwork(module, None, engine, device)


def test_no_memory_for_a_context_is_reported_with_what_to_free():
    with pytest.raises(EngineError, match="execution context") as caught:
        network_on(context=None)
    assert "free memory" in caught.value.next_step


def test_a_network_that_does_not_run_is_an_error():
    context = Stub(
        set_tensor_address=lambda *_a: True, set_input_shape=lambda *_a: True, execute_async_v3=lambda _stream: False
    )
    with pytest.raises(EngineError, match="could not run"):
        network_on(context=context)(np.zeros((1, 8, 8, 3), np.uint8))
