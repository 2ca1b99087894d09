"""A batch that does not fit into memory is halved and tried again, said once; other faults are not taken for that."""

import ctypes
import logging
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from provisioning.base.errors import EngineError
from provisioning.engines.halving import Batches, MemoryShortError, means_out_of_memory
from provisioning.engines.ort.onnx_network import OnnxNetwork
from provisioning.engines.tensorrt import trt_run
from tests import networks
from tests.surfaces import VERSIONS
from tests.test_engines_tensorrt import DRIVER, PLAN, Flown, quarters

IMAGES = networks.tiles(11, side=8)
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc:376 AllocateRawInternal "
    "Failed to allocate memory for requested buffer of size 1073741824"
)
OTHERS = (
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc((void**)&p, size);",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    "std::bad_alloc",
)


class Session:
    """A session of ONNX Runtime that has memory for `room` images."""

    def __init__(self, room: int, text: str = ARENA) -> None:
        self.room, self.text, self.calls = room, text, []

    def get_inputs(self):
        return [type("Port", (), {"name": "tiles", "shape": ["batch", 8, 8, 3]})]

    def get_outputs(self):
        return [type("Port", (), {"name": "descriptors", "shape": ["batch", 12]})]

    def run(self, _outputs, inputs):
        self.calls.append(len(inputs["tiles"]))
        if self.calls[-1] > self.room:
            raise RuntimeError(self.text)
        return [quarters(inputs["tiles"])]


def halved(caplog) -> list[tuple[int, int]]:
    return [(r.kv["asked"], r.kv["fits"]) for r in caplog.records if r.kind.endswith("engine.batch_halved")]


@pytest.mark.parametrize(("room", "fits"), [(11, None), (10, 5), (5, 5), (4, 2), (1, 1)])
def test_every_image_is_described_in_its_place(room, fits, caplog):
    network = OnnxNetwork(Session(room))
    for _ in range(2):
        assert np.array_equal(network(IMAGES), quarters(IMAGES))
    assert halved(caplog) == ([] if fits is None else [(11, fits)])


def test_the_batch_that_fits_is_kept_for_later_calls():
    session = Session(5)
    network = OnnxNetwork(session)
    network(IMAGES)
    session.calls.clear()
    network(IMAGES)
    assert session.calls == [5, 5, 1]


@pytest.mark.parametrize("text", [ARENA, *OTHERS])
def test_one_image_that_does_not_fit_is_an_error_about_memory(text):
    with pytest.raises(MemoryShortError) as refusal:
        OnnxNetwork(Session(0, text))(IMAGES)
    assert "free memory" in refusal.value.next_step


def test_another_fault_is_not_tried_again():
    session = Session(0, "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: tiles")
    with pytest.raises(EngineError) as refusal:
        OnnxNetwork(session)(IMAGES)
    assert not isinstance(refusal.value, MemoryShortError)
    assert session.calls == [11]


def test_the_real_arena_says_what_is_looked_for():
    """ONNX Runtime itself, asked for 8 TiB."""
    import onnxruntime
    from onnx import TensorProto, helper

    shape = helper.make_node("Constant", [], ["shape"], value_ints=[1 << 41])
    grown = helper.make_node("ConstantOfShape", ["shape"], ["grown"])
    ports = [helper.make_tensor_value_info("grown", TensorProto.FLOAT, [None])]
    graph = helper.make_graph([shape, grown], "g", [], ports)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=r"(?i)alloc") as refusal:
        session.run(None, {})
    assert means_out_of_memory(refusal.value)


def test_threads_that_share_a_network_say_it_once(caplog):
    batches, room = Batches(), 3

    def call(part):
        if len(part) > room:
            raise MemoryShortError("short")
        return quarters(part)

    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, batches.run(call, IMAGES[n:]))) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[n], quarters(IMAGES[n:])) for n in range(4))
    fits = [fit for _, fit in halved(caplog)]
    assert fits
    assert len(set(fits)) == len(fits)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make a CUDA driver of")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    subprocess.run(["gcc", "-shared", "-fPIC", str(Path(DRIVER)), "-o", str(library)], check=True)
    return library


@pytest.fixture
def flown(monkeypatch, driver):
    monkeypatch.setattr(trt_run, "LIBCUDA", str(driver))
    return Flown(VERSIONS[0], monkeypatch)


def test_buffers_on_a_gpu_that_do_not_fit_are_halved(flown, driver, caplog):
    """The driver has 1 GiB at most for one allocation: 2**22 tiles of 8 x 8 x 3."""
    flown.largest = 1 << 26
    live = ctypes.CDLL(str(driver)).live_allocations
    before = live()
    network = trt_run.TrtNetwork.load("tensorrt", PLAN)
    assert np.array_equal(network(IMAGES), quarters(IMAGES))
    copy = network.clone()
    assert np.array_equal(copy(IMAGES), quarters(IMAGES))
    assert halved(caplog) == [(1 << 26, 1 << 22)]
    del network, copy
    assert live() == before


def test_memory_that_runs_out_while_a_plan_runs_halves_the_batch(flown, monkeypatch, caplog):
    flown.largest = 8
    network = trt_run.TrtNetwork.load("tensorrt", PLAN)
    wait, room = network._device.wait, 3

    def short(stream):
        shape = flown.module.called("IExecutionContext.set_input_shape")[-1][1]
        if shape[0] > room:
            raise MemoryShortError("the CUDA driver refused cuStreamSynchronize: out of GPU memory")
        wait(stream)

    monkeypatch.setattr(network._device, "wait", short)
    assert np.array_equal(network(IMAGES), quarters(IMAGES))
    assert halved(caplog) == [(8, 2)]


@pytest.fixture(autouse=True)
def _events(caplog):
    caplog.set_level(logging.WARNING, logger="c10.provision")
