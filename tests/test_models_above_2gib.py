"""Weights that one ONNX file cannot hold: they stay in their file until the network is in fp16.

The limit is lowered here, so that a small model takes the same way; the slow form has 2.2 GiB in truth.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from provisioning.base.errors import BackboneError, EngineError
from provisioning.config import Backbone
from provisioning.engines import OnnxNetwork
from provisioning.engines.accuracy.fidelity import reference_network
from provisioning.network.backbone import onnx_source, prepare, source, wrap
from provisioning.network.shape import measure
from provisioning.network.typing.typed import check_range, make_typed
from tests import networks
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
    """A model above the limit, and below twice the limit."""
    folder = save(tmp_path / "model")
    total = sum(file.stat().st_size for file in folder.iterdir())
    for module in (source, wrap):
        monkeypatch.setattr(module, "LARGEST_FILE_BYTES", total - 1)
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_in_another_precision_the_line_to_set_is_said(large, tmp_path, precision):
    backbone, held = declared(large, precision)
    with pytest.raises(BackboneError, match="above 2 GiB") as caught:
        make_typed(backbone, held, tmp_path / "typed.onnx", images)
    assert caught.value.next_step == 'set precision = "fp16" for backbone.m'


def test_twice_the_limit_is_refused_with_the_reason(large, tmp_path, monkeypatch):
    backbone, held = declared(large)
    monkeypatch.setattr(wrap, "LARGEST_FILE_BYTES", held.size_bytes // 2 - 1)
    with pytest.raises(BackboneError, match="above 2 GiB") as caught:
        make_typed(backbone, held, tmp_path / "typed.onnx", images)
    assert "fp16 either" in str(caught.value.next_step)


def test_weights_cut_off_are_found_before_they_are_read(large, tmp_path):
    data = large / "m.data"
    data.write_bytes(data.read_bytes()[:-8])
    backbone, _ = declared(large)
    held = source.OnnxSource(large / "m.onnx", "0" * 64, (large / "m.onnx", data))
    object.__setattr__(held, "size_bytes", source.LARGEST_FILE_BYTES + 1)
    with pytest.raises((BackboneError, EngineError), match="external data cannot be read"):
        make_typed(backbone, held, tmp_path / "typed.onnx", images)
