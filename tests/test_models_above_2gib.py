"""Weights that one ONNX file cannot hold: they stay in their file until the network is in fp16.

The limit is lowered here, so that a small model takes the same way; the slow form has 2.2 GiB in truth.
"""

from __future__ import annotations

import importlib.util
import struct
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from provisioning.base.errors import BackboneError, EngineError
from provisioning.config import Backbone, Engine
from provisioning.engines import HostTuple, OnnxNetwork, OnnxRuntime, engine_spec
from provisioning.engines.accuracy.fidelity import reference_network
from provisioning.engines.compile import compile_engine
from provisioning.network import large as packed
from provisioning.network.backbone import onnx_source, prepare, source, wrap
from provisioning.network.shape import measure
from provisioning.network.typing.typed import check_range, make_typed
from tests import models, networks
from tests.test_precision import conv_model

TILES = networks.tiles(6, seed=3)


def images(count):
    return list(TILES[:count])


def save(folder, width=64):
    """Write a user's model with its weights beside it; return the folder."""
    folder.mkdir()
    onnx.save(conv_model(), folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return folder


@pytest.fixture
def large(monkeypatch, tmp_path):
    """A model above the limit."""
    folder = save(tmp_path / "model")
    total = sum(file.stat().st_size for file in folder.iterdir())
    monkeypatch.setattr(source, "LARGEST_FILE_BYTES", total - 1)
    monkeypatch.setattr(wrap, "SMALL_WEIGHT_BYTES", 16)
    return folder


def declared(folder, precision="fp16"):
    backbone = Backbone(name="m", onnx=str(folder / "m.onnx"), precision=precision)
    return backbone, onnx_source(backbone, folder, None)


def test_it_becomes_the_same_fp16_as_a_small_model(large, tmp_path, monkeypatch):
    backbone, held = declared(large)
    make_typed(backbone, held, tmp_path / "large.onnx", images)
    with monkeypatch.context() as small:
        small.setattr(source, "LARGEST_FILE_BYTES", 1 << 31)
        backbone, held = declared(large)
        make_typed(backbone, held, tmp_path / "small.onnx", images)
    one, other = (OnnxNetwork.load((tmp_path / name).read_bytes())(TILES) for name in ("large.onnx", "small.onnx"))
    assert np.array_equal(one, other)


def test_its_weights_are_not_in_the_prepared_network(large, tmp_path):
    backbone, held = declared(large)
    prepare(backbone, held, tmp_path / "prepared.onnx")
    graph = onnx.load(tmp_path / "prepared.onnx", load_external_data=False).graph
    assert any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer)


def test_shape_range_and_reference_read_them_where_they_are(large, tmp_path, monkeypatch):
    backbone, held = declared(large)
    found = measure(backbone, held), check_range(backbone, held, images), reference_network(backbone, held)(TILES)
    monkeypatch.setattr(source, "LARGEST_FILE_BYTES", 1 << 31)
    backbone, held = declared(large)
    assert found[:2] == (measure(backbone, held), check_range(backbone, held, images))
    assert np.array_equal(found[2], reference_network(backbone, held)(TILES))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_one_message_cannot_hold_is_one_file_that_gives_the_same_descriptors(
    large, tmp_path, monkeypatch, precision
):
    backbone, held = declared(large, precision)
    monkeypatch.setattr(source, "LARGEST_FILE_BYTES", 1000)
    monkeypatch.setattr(packed, "SMALLEST_BYTES", 64)
    make_typed(backbone, held, tmp_path / "large.onnx", images)
    compiled(tmp_path / "large.onnx", tmp_path / "large.engine")
    assert packed.is_packed((tmp_path / "large.onnx").read_bytes())
    assert packed.is_packed((tmp_path / "large.engine").read_bytes())
    monkeypatch.setattr(source, "LARGEST_FILE_BYTES", 1 << 31)
    backbone, held = declared(large, precision)
    make_typed(backbone, held, tmp_path / "small.onnx", images)
    compiled(tmp_path / "small.onnx", tmp_path / "small.engine")
    for kind in ("onnx", "engine"):
        one, other = (OnnxNetwork.load((tmp_path / f"{size}.{kind}").read_bytes()) for size in ("large", "small"))
        assert np.array_equal(one(TILES), other(TILES))


def compiled(model, engine):
    """Compile `model` with ONNX Runtime into `engine`."""
    spec = SimpleNamespace(onnx=model, custom_ops=None)
    OnnxRuntime().build(spec, engine)


def test_tensorrt_compiles_the_same_engine_from_it(large, tmp_path, monkeypatch):
    """Its parser reads external data from files alone."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed: pip install 'flightcache[rtx]'")
    backbone, held = declared(large, "fp32")
    plans = []
    for limit in (1000, 1 << 31):
        monkeypatch.setattr(source, "LARGEST_FILE_BYTES", limit)
        monkeypatch.setattr(packed, "SMALLEST_BYTES", 64)
        backbone, held = declared(large, "fp32")
        make_typed(backbone, held, tmp_path / f"{limit}.onnx", images)
        host = HostTuple("tensorrt_rtx", "1.7.1.116", "sm86", "x86_64", "linux")
        spec = engine_spec(tmp_path / f"{limit}.onnx", host, backbone, Engine(), state=tmp_path / "state")
        compile_engine(spec, tmp_path / "plan", log=tmp_path / "log")
        plans.append((tmp_path / "plan").read_bytes())
    assert packed.is_packed((tmp_path / "1000.onnx").read_bytes())
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("entry", "value"), [("offset", "-1"), ("offset", "99999999"), ("length", "7"), ("location", "other")]
)
def test_weights_that_are_not_in_the_file_are_refused(large, tmp_path, monkeypatch, entry, value):
    backbone, held = declared(large, "fp32")
    monkeypatch.setattr(source, "LARGEST_FILE_BYTES", 1000)
    monkeypatch.setattr(packed, "SMALLEST_BYTES", 64)
    make_typed(backbone, held, tmp_path / "large.onnx", images)
    data = (tmp_path / "large.onnx").read_bytes()
    model = onnx.load_model_from_string(packed.graph_of(data))
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(pair for pair in tensor.external_data if pair.key == entry).value = value
    with pytest.raises(EngineError, match="outside its file"):
        packed.weights_of(model, data)


@pytest.mark.parametrize("end", [struct.pack("<Q8s", 1 << 40, packed.MAGIC), packed.MAGIC])
def test_a_file_that_is_cut_off_is_no_engine(end):
    with pytest.raises(EngineError, match="no ONNX model"):
        OnnxNetwork.load(b"graph" + end)


def test_int8_above_the_limit_is_refused_with_the_line_to_set(large, tmp_path):
    backbone, held = declared(large, "int8")
    with pytest.raises(BackboneError, match="above 2 GiB") as caught:
        make_typed(backbone, held, tmp_path / "typed.onnx", images)
    assert caught.value.next_step == 'set precision = "fp16" or "fp32" for backbone.m'


def test_weights_cut_off_are_found_before_they_are_read(large, tmp_path):
    data = large / "m.data"
    data.write_bytes(data.read_bytes()[:-8])
    backbone, _ = declared(large)
    held = source.OnnxSource(large / "m.onnx", "0" * 64, (large / "m.onnx", data))
    object.__setattr__(held, "size_bytes", source.LARGEST_FILE_BYTES + 1)
    with pytest.raises((BackboneError, EngineError), match="external data cannot be read"):
        make_typed(backbone, held, tmp_path / "typed.onnx", images)


@pytest.mark.slow
def test_a_network_of_2_gib_is_built_and_runs_as_onnx_runtime_runs_it(tmp_path):
    """6 GB of memory and 8 of disk, for a minute."""
    path = models.vast(tmp_path / "vast.onnx")
    backbone = Backbone(name="m", onnx=str(path))
    held = onnx_source(backbone, tmp_path, None)
    assert held.size_bytes > 1 << 31
    make_typed(backbone, held, tmp_path / "typed.onnx", images)
    compiled(tmp_path / "typed.onnx", tmp_path / "engine")
    small = networks.tiles(2, side=models.SIDE)
    found = OnnxNetwork.load((tmp_path / "engine").read_bytes())(small)
    assert np.allclose(found, reference_network(backbone, held)(small), atol=1e-5)
