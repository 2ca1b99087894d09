"""A user's model is opened in another process: the same result, and a hostile one ends that process and nothing else."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from provisioning.base.errors import BackboneError
from provisioning.base.process import confined
from provisioning.config import Backbone
from provisioning.network import apart
from provisioning.network.backbone import onnx_source
from provisioning.network.shape import measure
from provisioning.network.typing.typed import check_range, make_typed
from tests import building, models, networks
from tests.test_fleet_returned import looping
from tests.test_precision import conv_model


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    with confined.apart(tmp_path_factory.mktemp("beside")):
        yield


def declared(path, **keys):
    return Backbone(name="m", onnx=str(path), **keys)


def images(count):
    return list(networks.tiles(min(count, 4), seed=5))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_network_is_the_same_as_if_it_were_made_here(scope, tmp_path, precision):
    path = networks.save(conv_model(), tmp_path / "m.onnx")
    backbone = declared(path, precision=precision, calibration_tiles=4)
    source = onnx_source(backbone, tmp_path, None)
    apart.make_typed(backbone, source, tmp_path / "there.onnx", images, backend="onnxruntime")
    make_typed(backbone, source, tmp_path / "here.onnx", images)
    assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()
    assert apart.measured(backbone, source) == tuple(measure(backbone, source))
    assert apart.image_size(backbone, source) == apart.measured(backbone, source)[:2]
    if precision == "fp16":
        assert apart.check_range(backbone, source, images) == check_range(backbone, source, images) == 4


def test_tiles_of_the_size_that_the_model_asks_for_calibrate_it(scope, tmp_path):
    """What gives the tiles opens the model again, while its process waits for them."""
    path = networks.save(conv_model(), tmp_path / "m.onnx")
    backbone = declared(path, precision="fp16")
    source = onnx_source(backbone, tmp_path, None)

    def sized(count):
        return networks.tiles(min(count, 3), seed=5, side=apart.image_size(backbone, source)[0])

    assert apart.check_range(backbone, source, sized) == 3


def test_weights_in_a_second_file_are_found_there(scope, tmp_path):
    path = tmp_path / "m.onnx"
    models.with_external_data(models.linear(), path)
    source = onnx_source(declared(path), tmp_path, None)
    assert len(source.files) == 2
    assert apart.measured(declared(path, scale=Decimal(1)), source)[2] > 0


def test_a_model_that_loops_for_ever_is_ended(scope, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "TIME_S", 1.0)
    (tmp_path / "m.onnx").write_bytes(looping())
    backbone = declared(tmp_path / "m.onnx", layout="nhwc")
    with pytest.raises(BackboneError, match="had not been read in time") as caught:
        apart.measured(backbone, onnx_source(backbone, tmp_path, None))
    assert caught.value.file == str(tmp_path / "m.onnx")


def test_a_model_that_takes_all_memory_is_refused(scope, tmp_path):
    big = helper.make_tensor("big", TensorProto.INT64, [1], np.array([1 << 40], np.int64))
    model = models.linear()
    graph = model.graph
    nodes = [
        helper.make_node("ConstantOfShape", ["big"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
        helper.make_node("Add", [graph.output[0].name, "nothing"], ["sum"]),
    ]
    graph.initializer.append(big)
    graph.node.extend(nodes)
    graph.output[0].name = "sum"
    onnx.save(model, str(tmp_path / "m.onnx"))
    backbone = declared(tmp_path / "m.onnx", scale=Decimal(1))
    with pytest.raises(BackboneError) as caught:
        apart.measured(backbone, onnx_source(backbone, tmp_path, None))
    assert caught.value.file


@pytest.mark.parametrize("data", [b"", b"\x08", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f", b"\x0a\x03abc" * 1000])
def test_bytes_that_are_no_model_are_refused_as_before(scope, tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(BackboneError) as caught:
        onnx_source(declared(tmp_path / "m.onnx"), tmp_path, None)
    assert caught.value.file == str(tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_doit_itself_calibrates_a_users_model(tmp_path, precision):
    """The command, not the code in this process: only there models are opened apart."""
    cache = building.new_cache(tmp_path, network=building.GIST)
    networks.save(conv_model(), tmp_path / "m.onnx")
    building.edit(cache, 'onnx = "builtin:gist-color"', 'onnx = "../m.onnx"')
    building.edit(cache, '# precision = "fp32"', f'precision = "{precision}"')
    building.edit(cache, "# fidelity_cosine = {}", "fidelity_cosine = {int8 = 0.9}")
    ran = subprocess.run(
        [sys.executable, "-m", "doit"], cwd=cache, capture_output=True, text=True, timeout=100, check=False
    )
    assert list((cache / ".build/store").glob(f"*/*_{precision}.engine")), ran.stdout + ran.stderr
