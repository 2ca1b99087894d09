"""What only a GPU can show: engines of TensorRT and TensorRT-RTX that run. `pytest -m gpu tests/test_gpu.py -rs`."""

import importlib

import numpy as np
import pytest

from provisioning.base.errors import EngineError
from provisioning.config import Backbone, Engine
from provisioning.engines import OnnxNetwork, engine_spec, select
from provisioning.engines.accuracy.fidelity import batch_invariance, measure_fidelity
from provisioning.engines.compile import compile_engine
from provisioning.engines.tensorrt.cuda import query_gpu
from provisioning.network.typing.fp16 import to_fp16
from provisioning.network.typing.int8 import to_int8
from tests import networks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(query_gpu() is None, reason="not run: no NVIDIA GPU answers here (see docs/hardware.md)"),
]


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def engine(request):
    try:
        importlib.import_module(request.param)
    except (ImportError, OSError) as error:
        pytest.skip(f"not run: {request.param} does not import here: {error}")
    engine = Engine(backend=request.param)
    try:
        select(engine).probe()
    except EngineError as error:
        pytest.skip(f"not run: {error.what}")
    return engine


def built(engine, onnx, tmp_path, name="plan"):
    spec = engine_spec(onnx, select(engine).probe(), Backbone(name="net"), engine, state=tmp_path / "state")
    compiled = compile_engine(spec, tmp_path / name, log=tmp_path / f"{name}.log")
    return (tmp_path / name).read_bytes(), compiled


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("fp16", 0.999), ("int8", 0.97)])
def test_engine_computes_what_the_network_computes(engine, tmp_path, precision, least):
    source = networks.save(networks.network(side=128), tmp_path / "fp32.onnx")
    images = networks.tiles(24, side=128)
    typed = tmp_path / f"{precision}.onnx"
    if precision == "fp16":
        networks.save(to_fp16(networks.network(side=128), ()), typed)
    elif precision == "int8":
        to_int8(source, typed, images)
    data, _ = built(engine, typed if precision != "fp32" else source, tmp_path)
    found = measure_fidelity(OnnxNetwork.load(source.read_bytes(), reference=True), select(engine).load(data), images)
    assert found.non_finite == 0
    assert found.cosine_median > least


def test_descriptor_of_a_tile_does_not_depend_on_its_batch(engine, tmp_path):
    data, _ = built(engine, networks.save(networks.network(), tmp_path / "m.onnx"), tmp_path)
    assert batch_invariance(select(engine).load(data), networks.tiles(engine.batch)) < 1e-4


def test_clones_give_the_same_descriptors(engine, tmp_path):
    data, _ = built(engine, networks.save(networks.network(), tmp_path / "m.onnx"), tmp_path)
    network = select(engine).load(data)
    images = networks.tiles(11)
    assert np.array_equal(network.clone()(images), network(images))


def test_timing_cache_and_layers_are_reported(engine, tmp_path):
    if engine.backend == "tensorrt_rtx":
        pytest.skip("tensorrt_rtx does not time kernels at build time")
    onnx = networks.save(networks.network(), tmp_path / "m.onnx")
    _, first = built(engine, onnx, tmp_path)
    _, second = built(engine, onnx, tmp_path, "again")
    assert second.facts["timing_cache_before"] == first.facts["timing_cache_after"]
    assert first.facts["layers"]["count"] > 0


def test_truncated_plan_is_refused(engine, tmp_path):
    data, _ = built(engine, networks.save(networks.network(), tmp_path / "m.onnx"), tmp_path)
    with pytest.raises(EngineError):
        select(engine).load(data[: len(data) // 2])
