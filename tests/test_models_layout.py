"""What the axes of a model's output mean: every layout gives the same descriptor, or is refused with its shapes."""

import logging
from decimal import Decimal

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from provisioning.base.hashing import digest_of
from provisioning.config import Backbone
from provisioning.network.backbone import onnx_source, prepared_facts
from tests import models
from tests.models import DIMENSION, FLOAT, KERNEL
from tests.test_backbone import images, nchw, prepared, refusal, run, unit

SIDE, STRIDE, GRID = 64, 8, 8


def output(shape, *nodes, stride=STRIDE, weights=(), free="n"):
    """Return image [n, 3, 64, 64] → map [n, 6, 8, 8] by a strided convolution → `nodes`, ending in `out` of `shape`."""
    kernel = np.zeros((DIMENSION, 3, stride, stride), np.float32)
    kernel[:, :, 0, 0] = KERNEL
    first = helper.make_node("Conv", ["image", "kernel"], ["map" if nodes else "out"], strides=[stride, stride])
    ports = ("image", FLOAT, [free, 3, SIDE, SIDE]), ("out", FLOAT, shape)
    return models._model([first, *nodes], *ports, {"kernel": kernel, **dict(weights)}, 17, 8)


def grid(tiles, stride=STRIDE):
    """Return the map [n, 6, h, w] by hand."""
    return np.einsum("nchw,dc->ndhw", nchw(tiles)[:, :, ::stride, ::stride] / 255, KERNEL)


def to_tokens(name, *, last, target="out"):
    """Return nodes from the map to [n, 6, 64] (`last`) or [n, 64, 6]."""
    flat = helper.make_node("Reshape", ["map", "flat_shape"], [target if last else f"{name}_flat"])
    turned = [] if last else [helper.make_node("Transpose", [f"{name}_flat"], [target], perm=[0, 2, 1])]
    return [flat, *turned]


FLAT = {"flat_shape": np.array([0, DIMENSION, -1])}
NHWC = helper.make_node("Transpose", ["map"], ["out"], perm=[0, 2, 3, 1])


def layouts():
    return {
        "nchw": output(["n", DIMENSION, GRID, GRID]),
        "nhwc": output(["n", GRID, GRID, DIMENSION], NHWC),
        "ntd": output(["n", GRID * GRID, DIMENSION], *to_tokens("t", last=False), weights=FLAT),
        "ndt": output(["n", DIMENSION, GRID * GRID], *to_tokens("t", last=True), weights=FLAT),
    }


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "ntd", "ndt"])
@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_every_declared_layout_gives_the_same_descriptor(tmp_path, layout, pooling):
    network = prepared(tmp_path, layouts()[layout], pooling=pooling, output_layout=layout)
    expected = grid(images(3, SIDE)).reshape(3, DIMENSION, -1)
    power = 3 if pooling == "gem" else 1
    expected = (np.maximum(expected, 0 if power == 3 else -np.inf) ** power).mean(2) ** (1 / power)
    np.testing.assert_allclose(run(network, images(3, SIDE)), unit(expected), atol=1e-5)


@pytest.mark.parametrize(("layout", "likely"), [("nhwc", "nhwc"), ("ndt", "ndt")])
@pytest.mark.parametrize("free", [False, True])
def test_a_layout_that_is_likely_another_is_refused_with_the_line_that_helps(tmp_path, layout, likely, free):
    """Also where the axes are free in the file: the shape is measured."""
    model = layouts()[layout]
    if free:
        rank = len(model.graph.output[0].type.tensor_type.shape.dim)
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", FLOAT, ["a", "b", "c", "d"][:rank]))
    error = refusal(tmp_path, model, pooling="avg")
    assert error.facts["likely"] == likely
    assert DIMENSION in error.facts["shape"]
    assert error.next_step == f'set output_layout = "{likely}"'
    network = prepared(tmp_path, model, pooling="avg", output_layout=likely)
    expected = grid(images(2, SIDE)).mean((2, 3))
    np.testing.assert_allclose(run(network, images(2, SIDE)), unit(expected), atol=1e-5)


@pytest.mark.parametrize("declared", ["nchw", "ntd", "ndt"])
def test_a_declared_layout_that_the_shape_contradicts_is_refused(tmp_path, declared):
    error = refusal(tmp_path, layouts()["nhwc"], pooling="avg", output_layout=declared)
    assert error.key == "backbone.output_layout"
    assert error.facts["shape"] == [2, GRID, GRID, DIMENSION]


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (37, 90)])
def test_maps_of_oblong_images_are_not_mistaken(tmp_path, size):
    model = output(["n", DIMENSION, "h", "w"])
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", FLOAT, ["n", 3, "h", "w"]))
    network = prepared(tmp_path, model, pooling="avg", size=size)
    tiles = np.random.default_rng(1).integers(0, 256, (2, *size, 3), np.uint8)
    steps = [(side - STRIDE) // STRIDE + 1 for side in size]
    expected = np.einsum("nchw,dc->ndhw", nchw(tiles)[:, :, ::STRIDE, ::STRIDE] / 255, KERNEL)
    expected = expected[:, :, : steps[0], : steps[1]].mean((2, 3))
    np.testing.assert_allclose(run(network, tiles), unit(expected), atol=1e-5)


def vector(*nodes, shape, weights=(), free="n"):
    """Return the average of the map as [n, 6], then `nodes`."""
    mean = helper.make_node("ReduceMean", ["map"], ["row"], axes=[2, 3], keepdims=0)
    return output(shape, mean, *nodes, weights=weights, free=free)


@pytest.mark.parametrize("free", ["n", 1])
def test_a_last_axis_of_one_is_taken_off(tmp_path, free):
    model = vector(
        helper.make_node("Unsqueeze", ["row", "axis"], ["out"]),
        shape=["n", DIMENSION, 1],
        weights={"axis": np.array([2])},
        free=free,
    )
    expected = unit(grid(images(2, SIDE)).mean((2, 3)))
    for pooling in ("none", "avg"):
        np.testing.assert_allclose(
            run(prepared(tmp_path, model, pooling=pooling), images(2, SIDE)), expected, atol=1e-5
        )


@pytest.mark.parametrize("axis", [0, 1])
def test_a_first_or_middle_axis_of_one_is_taken_off(tmp_path, axis):
    shape = [1, "n", DIMENSION] if axis == 0 else ["n", 1, DIMENSION]
    model = vector(
        helper.make_node("Unsqueeze", ["row", "axis"], ["out"]), shape=shape, weights={"axis": np.array([axis])}
    )
    expected = unit(grid(images(3, SIDE)).mean((2, 3)))
    np.testing.assert_allclose(run(prepared(tmp_path, model), images(3, SIDE)), expected, atol=1e-5)


@pytest.mark.parametrize("opset", [9, 17, 21])
def test_class_and_register_tokens_are_left_out(tmp_path, opset):
    """The sequence is the class token, two registers and 64 tokens of the image."""
    special = np.full((1, 3, DIMENSION), 9, np.float32)
    nodes = [
        *to_tokens("t", last=False, target="image_tokens"),
        helper.make_node("Concat", ["special", "image_tokens"], ["out"], axis=1),
    ]
    model = output([1, 3 + GRID * GRID, DIMENSION], *nodes, weights={**FLAT, "special": special}, free=1)
    model.opset_import[0].version = opset
    network = prepared(tmp_path, model, pooling="avg", skip_tokens=3)
    expected = unit(grid(images(2, SIDE)).mean((2, 3)))
    np.testing.assert_allclose(run(network, images(2, SIDE)), expected, atol=1e-5)


def test_more_tokens_to_skip_than_there_are_is_refused(tmp_path):
    model = layouts()["ntd"]
    assert "skip_tokens = 64" in refusal(tmp_path, model, pooling="avg", skip_tokens=64).what


@pytest.mark.parametrize("power", [1, 2.5, 4])
def test_gem_with_a_power_of_its_own(tmp_path, power):
    network = prepared(tmp_path, layouts()["nchw"], pooling="gem", gem_power=Decimal(str(power)))
    expected = ((np.maximum(grid(images(2, SIDE)), 0) + 1e-6) ** power).mean((2, 3)) ** (1 / power)
    np.testing.assert_allclose(run(network, images(2, SIDE)), unit(expected), atol=1e-5)


def with_temperature(*, read=True):
    """Return a model with a second input, a scale [1], which the descriptor or only another output reads."""
    model = models.linear(vector="row")
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("temperature", FLOAT, ["k"]))
    graph.node.append(helper.make_node("Add", ["row", "temperature"], ["out" if read else "side"]))
    if not read:
        graph.node.append(helper.make_node("Identity", ["row"], ["out"]))
        graph.output.append(helper.make_tensor_value_info("side", FLOAT, ["n", DIMENSION]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("out", FLOAT, ["n", DIMENSION]))
    return model


def test_a_further_input_gets_the_constant_declared(tmp_path):
    error = refusal(tmp_path, with_temperature(), input="image")
    assert error.next_step.startswith("set constants = {temperature = 0}")
    network = prepared(tmp_path, with_temperature(), constants={"temperature": Decimal("0.5")})
    cells = (nchw(images(2)) / 255).reshape(2, 3, 4, 4, 4, 4).mean((3, 5)).reshape(2, -1)
    np.testing.assert_allclose(run(network, images(2)), unit(cells @ models.MIX + 0.5), atol=1e-5)


def test_an_input_that_only_another_output_reads_is_dropped(tmp_path):
    network = prepared(tmp_path, with_temperature(read=False), output="out")
    assert [port.name for port in onnx.load(str(network)).graph.input] == ["tiles"]


def test_a_constant_for_no_input_is_refused(tmp_path):
    assert "temprature" in refusal(tmp_path, with_temperature(), constants={"temprature": Decimal(1)}).what


def test_later_keys_at_their_defaults_leave_the_key_of_a_network_alone(tmp_path):
    source = onnx_source(Backbone(name="m"), tmp_path, None)
    changes = [
        {"output_layout": "ntd"},
        {"gem_power": Decimal(2)},
        {"skip_tokens": 1},
        {"constants": {"a": Decimal(1)}},
    ]
    keys = {digest_of(prepared_facts(Backbone(name="m", **change), source)) for change in ({}, *changes)}
    assert len(keys) == 5
    assert not {"output_layout", "gem_power", "skip_tokens", "constants"} & set(
        prepared_facts(Backbone(name="m"), source)
    )


def test_sparse_weights_are_made_dense(tmp_path):
    model = models.linear()
    mix = numpy_helper.to_array(model.graph.initializer[0]).copy()
    mix[np.abs(mix) < 0.5] = 0
    where = np.argwhere(mix)
    values = numpy_helper.from_array(mix[tuple(where.T)], "mix")
    for indices in (where, np.ravel_multi_index(tuple(where.T), mix.shape)):
        sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64), "i"), mix.shape)
        del model.graph.initializer[:], model.graph.sparse_initializer[:]
        model.graph.sparse_initializer.append(sparse)
        cells = (nchw(images(2)) / 255).reshape(2, 3, 4, 4, 4, 4).mean((3, 5)).reshape(2, -1)
        np.testing.assert_allclose(run(prepared(tmp_path, model), images(2)), unit(cells @ mix), atol=1e-5)


def test_gray_bytes_are_rounded_luma(tmp_path):
    """A model that takes uint8 with one channel gets what Pillow's convert("L") gives, within one grey level."""
    model = models.linear(channels=1)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("bytes", onnx.TensorProto.UINT8, ["n", 1, 16, 16]))
    model.graph.node.insert(0, helper.make_node("Cast", ["bytes"], ["image"], to=FLOAT))
    tiles = images(3)
    luma = np.rint(tiles @ np.array([0.299, 0.587, 0.114]))[:, None]
    cells = luma.reshape(3, 1, 4, 4, 4, 4).mean((3, 5)).reshape(3, -1)
    network = prepared(tmp_path, model, channels="gray")
    np.testing.assert_allclose(run(network, tiles), unit(cells @ models.MIX[:16]), atol=1e-3)


def test_normalisation_declared_for_a_model_of_bytes_is_warned_of(tmp_path, caplog):
    model = models.linear()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("bytes", onnx.TensorProto.UINT8, ["n", 3, 16, 16]))
    model.graph.node.insert(0, helper.make_node("Cast", ["bytes"], ["image"], to=FLOAT))
    for settings, said in (({}, []), ({"mean": (Decimal("0.5"),), "std": (Decimal("0.5"),)}, ["mean, std"])):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "c10.provision"):
            prepared(tmp_path, model, **settings)
        assert [r.kv["unused"] for r in caplog.records if r.kind.endswith("backbone.normalisation")] == said
