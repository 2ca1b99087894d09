"""Precision lives in the ONNX: conversion to fp16 and int8, what is refused before, what is taken as it is."""

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provisioning.base.errors import EngineError
from provisioning.base.hashing import digest_of, sha256_file
from provisioning.config import Backbone
from provisioning.engines import OnnxNetwork
from provisioning.engines.accuracy.fidelity import measure_fidelity
from provisioning.network import backbone as backbones
from provisioning.network.backbone.graph.order import sort_nodes
from provisioning.network.typing.facts import typed_facts
from provisioning.network.typing.fp16 import to_fp16
from provisioning.network.typing.graph import dynamically_quantised, typed_as
from provisioning.network.typing.keep import kept_nodes, name_nodes
from provisioning.network.typing.ranges import overflows
from provisioning.network.typing.typed import make_typed
from tests import networks


def corpus(count):
    return networks.tiles(count, seed=5)


def typed(tmp_path, precision, *, name="m", images=corpus, **settings):
    """Return the path of the typed ONNX of the built-in backbone, or of `settings["onnx"]`."""
    backbone = Backbone(name="net", precision=precision, **settings)
    output = tmp_path / f"{name}_{precision}.onnx"
    make_typed(backbone, backbones.onnx_source(backbone, tmp_path, None), output, images)
    return output


def user(model, tmp_path, name="user"):
    return str(networks.save(model, tmp_path / f"{name}.onnx"))


def conv_model(*, gain=1.0):
    """Return a user's model float NCHW: conv, relu, pooling, matmul."""
    model = networks.network(gain=gain)
    del model.graph.node[:3]  # cast, scaling, planar: what `prepare` puts in front
    del model.graph.node[-3:]  # norm, atleast, unit: what it puts behind
    networks.node(model, "conv1").input[0] = "image"
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["n", networks.DIMENSION]))
    return model


def load(path):
    return OnnxNetwork.load(path.read_bytes())


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("fp16", 0.9999), ("int8", 0.99)])
def test_typed_network_computes_what_the_network_computes(tmp_path, precision, least):
    onnx_file = user(conv_model(), tmp_path)
    reference = load(typed(tmp_path, "fp32", name="reference", onnx=onnx_file))
    found = measure_fidelity(reference, load(typed(tmp_path, precision, onnx=onnx_file)), networks.tiles(16))
    assert found.cosine_min > least
    assert found.non_finite == 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_typed_onnx_has_the_same_bytes_each_time(tmp_path, precision):
    onnx_file = user(conv_model(), tmp_path)
    paths = [typed(tmp_path, precision, name=name, onnx=onnx_file) for name in ("one", "two")]
    assert sha256_file(paths[0]) == sha256_file(paths[1])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_typed_network_still_takes_bytes_and_gives_fp32(tmp_path, precision):
    model = onnx.load(str(typed(tmp_path, precision, onnx=user(conv_model(), tmp_path))))
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_fp16_halves_the_weights(tmp_path):
    model = onnx.load(str(typed(tmp_path, "fp16", onnx=user(conv_model(), tmp_path))))
    assert networks.weight(model, "kernel").data_type == TensorProto.FLOAT16


def test_unit_length_survives_fp16(tmp_path):
    descriptors = load(typed(tmp_path, "fp16", onnx=user(conv_model(), tmp_path)))(networks.tiles(8))
    assert np.abs(np.linalg.norm(descriptors, axis=1) - 1).max() < 1e-6


def test_network_computed_in_fp16_is_finite_on_true_half_precision(tmp_path):
    """Against onnx's reference evaluator, which rounds to fp16 as a GPU does; onnxruntime on a CPU does not."""
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(typed(tmp_path, "fp16", onnx=user(conv_model(), tmp_path))))
    (found,) = ReferenceEvaluator(model).run(None, {"tiles": networks.tiles(2)})
    assert np.isfinite(found).all()


def overflowing():
    return conv_model(gain=3e5)


def test_overflow_in_fp16_is_refused_with_tensor_and_node(tmp_path):
    with pytest.raises(EngineError, match="overflows in fp16") as caught:
        typed(tmp_path, "fp16", onnx=user(overflowing(), tmp_path))
    facts = "\n".join(caught.value.facts)
    assert "Conv conv1 -> c1" in facts
    assert "Relu relu1 -> r1" in facts
    assert "MatMul fc" in facts
    assert "keep_fp32" in caught.value.next_step


def test_overflow_is_hidden_by_onnxruntime_and_real_in_half_precision(tmp_path):
    """Why the range is looked at: the CPU's answer is finite, the one in half precision is not."""
    from onnx.reference import ReferenceEvaluator

    model = to_fp16(onnx.load(str(typed(tmp_path, "fp32", onnx=user(overflowing(), tmp_path)))), ())
    images = networks.tiles(2)
    with np.errstate(all="ignore"):
        (in_half,) = ReferenceEvaluator(model).run(None, {"tiles": images})
    assert not np.isfinite(in_half).all()


def test_nodes_kept_in_fp32_may_be_large(tmp_path):
    from onnx.reference import ReferenceEvaluator

    kept = ("conv1", "Relu", "GlobalAveragePool", "Flatten", "fc")
    path = typed(tmp_path, "fp16", onnx=user(overflowing(), tmp_path), keep_fp32=kept)
    images = networks.tiles(4)
    (in_half,) = ReferenceEvaluator(onnx.load(str(path))).run(None, {"tiles": images})
    expected = load(typed(tmp_path, "fp32", onnx=user(overflowing(), tmp_path)))(images)
    assert np.allclose(in_half, expected, atol=2e-3)


def test_weights_above_the_range_are_refused(tmp_path):
    model = conv_model()
    mix = networks.weight(model, "mix")
    mix.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(mix) * np.float32(1e6), "mix"))
    with pytest.raises(EngineError, match="overflows in fp16") as caught:
        typed(tmp_path, "fp16", onnx=user(model, tmp_path))
    assert "weight -> mix" in caught.value.facts


def test_range_is_looked_at_without_a_corpus(tmp_path):
    with pytest.raises(EngineError, match="overflows in fp16"):
        typed(tmp_path, "fp16", onnx=user(overflowing(), tmp_path), images=lambda _count: ())


def test_range_check_counts_what_is_not_a_number():
    model = networks.network()
    networks.weight(model, "kernel").CopyFrom(
        numpy_helper.from_array(np.full((16, 3, 5, 5), np.inf, np.float32), "kernel")
    )
    assert "c1" in {found.tensor for found in overflows(model, networks.tiles(1), frozenset())}


def test_keep_fp32_that_names_nothing_is_refused(tmp_path):
    with pytest.raises(EngineError, match="neither a node nor an operator type") as caught:
        typed(tmp_path, "fp16", onnx=user(conv_model(), tmp_path), keep_fp32=("conv_1",))
    assert "conv_1" in caught.value.facts["not in the model"]


def test_final_pooling_and_norm_stay_in_fp32_and_the_convolution_does_not():
    kept = kept_nodes(networks.network(), ())
    assert {"norm", "atleast", "unit"} <= kept
    assert not {"conv1", "relu1", "fc", "pool"} & kept


def test_norm_in_the_middle_stays_alone_in_fp32():
    model = networks.network()
    square = helper.make_node("ReduceSumSquare", ["flat", "axis"], ["energy"], keepdims=1, name="energy")
    scaled = helper.make_node("Mul", ["flat", "energy"], ["weighted"], name="weighted")
    networks.insert_after(model, "flatten", square, scaled, output="weighted")
    networks.node(model, "energy").input[0] = networks.node(model, "weighted").input[0] = "flat"
    kept = kept_nodes(model, ())
    assert "energy" in kept
    assert "weighted" not in kept


def test_kept_neighbours_hand_over_fp32():
    """Between two kept nodes nothing is rounded to fp16: the converter alone would cast there and back."""
    model = to_fp16(networks.network(), ("fc",))
    makes = {output: node for node in model.graph.node for output in node.output}
    assert makes[networks.node(model, "norm").input[0]].name == "fc"
    assert makes[networks.node(model, "unit").input[1]].name == "atleast"
    onnx.checker.check_model(model, full_check=True)


def test_int8_puts_scales_into_the_onnx(tmp_path):
    model = onnx.load(str(typed(tmp_path, "int8", onnx=user(conv_model(), tmp_path))))
    operators = [node.op_type for node in model.graph.node]
    assert "QuantizeLinear" in operators
    assert "DequantizeLinear" in operators
    assert typed_as(model) == "int8"


def test_int8_is_symmetric_and_leaves_a_bit_of_headroom(tmp_path):
    """TensorRT takes no zero points, and eight-bit weights are another network on a CPU without VNNI."""
    model = onnx.load(str(typed(tmp_path, "int8", onnx=user(conv_model(), tmp_path))))
    integers = [numpy_helper.to_array(w) for w in model.graph.initializer if w.data_type == TensorProto.INT8]
    assert all(not value.any() for value in integers if value.size == 1)
    weights = [value for value in integers if value.ndim > 1]
    assert weights
    assert max(np.abs(value.astype(int)).max() for value in weights) <= 64


def test_nodes_kept_in_fp32_are_not_quantised(tmp_path):
    model = onnx.load(str(typed(tmp_path, "int8", onnx=user(conv_model(), tmp_path), keep_fp32=("conv1",))))
    makers = {output: node for node in model.graph.node for output in node.output}
    feeds = {name: makers[networks.node(model, name).input[0]].op_type for name in ("conv1", "fc")}
    assert feeds["fc"] == "DequantizeLinear"
    assert feeds["conv1"] != "DequantizeLinear"


def test_int8_is_calibrated_on_as_many_tiles_as_asked(tmp_path):
    asked = []

    def images(count):
        asked.append(count)
        return corpus(count)

    typed(tmp_path, "int8", onnx=user(conv_model(), tmp_path), images=images, calibration_tiles=5)
    assert asked == [5]


def test_one_glaring_tile_does_not_widen_the_ranges_for_all(tmp_path):
    dark = [tile // 16 for tile in networks.tiles(15)]
    white = np.full_like(dark[0], 255)

    def scale_of_pixels(images):
        path = typed(tmp_path, "int8", onnx=user(conv_model(), tmp_path), images=lambda _count: iter(images))
        model = onnx.load(str(path))
        makers = {output: node for node in model.graph.node for output in node.output}
        return float(
            numpy_helper.to_array(networks.weight(model, makers[networks.node(model, "conv1").input[0]].input[1]))
        )

    assert scale_of_pixels([*dark, white]) < 0.2 * scale_of_pixels([white])


def test_int8_without_tiles_says_to_scan_them_first(tmp_path):
    with pytest.raises(EngineError, match="needs tiles to calibrate") as caught:
        typed(tmp_path, "int8", onnx=user(conv_model(), tmp_path), images=lambda _count: ())
    assert "run `doit`" in caught.value.next_step


def test_calibration_tiles_decide_the_typed_onnx_of_int8_only(tmp_path):
    source = backbones.onnx_source(Backbone(name="n"), tmp_path, None)

    def keys(precision):
        backbone = Backbone(name="n", precision=precision)
        return len({digest_of(typed_facts(backbone, source, coverage)) for coverage in (None, "a" * 64, "b" * 64)})

    assert (keys("fp32"), keys("fp16"), keys("int8")) == (1, 1, 3)


def test_precision_decides_the_typed_onnx(tmp_path):
    source = backbones.onnx_source(Backbone(name="n"), tmp_path, None)
    settings = [
        {"precision": "fp32"},
        {"precision": "fp16"},
        {"precision": "fp16", "keep_fp32": ("Conv",)},
        {"precision": "int8"},
    ]
    keys = {digest_of(typed_facts(Backbone(name="n", **setting), source, None)) for setting in settings}
    assert len(keys) == len(settings)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_model_that_arrives_typed_is_taken_as_it_is(tmp_path, precision):
    first = onnx.load(str(typed(tmp_path, precision, onnx=user(conv_model(), tmp_path))))
    model = conv_model()
    arriving = to_fp16(model, ()) if precision == "fp16" else _quantised(model, tmp_path)
    path = user(arriving, tmp_path, "arriving")
    output = typed(tmp_path, precision, name="as_is", onnx=path)
    plain = typed(tmp_path, precision, name="as_is_again", onnx=path, images=lambda _count: pytest.fail("converted"))
    assert sha256_file(output) == sha256_file(plain)
    assert typed_as(onnx.load(str(output))) == typed_as(first) == precision


def _quantised(model, tmp_path):
    """Return a user's model float NCHW with Q/DQ around its matrix product."""
    scale = numpy_helper.from_array(np.float32(0.02), "q_scale")
    zero = numpy_helper.from_array(np.int8(0), "q_zero")
    model.graph.initializer.extend([scale, zero])
    nodes = (
        helper.make_node("QuantizeLinear", ["flat", "q_scale", "q_zero"], ["flat_q"], name="q"),
        helper.make_node("DequantizeLinear", ["flat_q", "q_scale", "q_zero"], ["flat_dq"], name="dq"),
    )
    networks.insert_after(model, "flatten", *nodes, output="flat_dq")
    networks.node(model, "q").input[0] = "flat"
    return model


def test_half_weights_declared_fp32_are_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "c10.provision"):
        typed(tmp_path, "fp32", onnx=user(to_fp16(conv_model(), ()), tmp_path))
    (record,) = (r for r in caplog.records if r.kind == "c10.provision.engine.precision")
    assert record.kv == {"model": "net", "declared": "fp32", "arrives": "fp16"}


def test_types_that_contradict_flight_toml_are_refused(tmp_path):
    with pytest.raises(EngineError, match="arrives as fp16 and cannot become int8") as caught:
        typed(tmp_path, "int8", onnx=user(to_fp16(conv_model(), ()), tmp_path))
    assert caught.value.next_step == 'set precision = "fp16", or export the model in fp32'


def dynamic():
    model = networks.dynamically_quantised(networks.network())
    del model.graph.node[:3]
    del model.graph.node[-3:]
    networks.node(model, "conv1").input[0] = "image"
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["n", networks.DIMENSION]))
    return model


def test_dynamically_quantised_model_is_refused_with_its_node(tmp_path):
    with pytest.raises(EngineError, match="depends on the tiles beside it") as caught:
        typed(tmp_path, "int8", onnx=user(dynamic(), tmp_path))
    assert caught.value.facts["nodes"] == "DynamicQuantizeLinear on_the_fly"


def test_dynamically_quantised_model_that_runs_alone_is_taken(tmp_path):
    """With its batch fixed at 1 there are no neighbours to depend on."""
    model = dynamic()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    path = typed(tmp_path, "int8", onnx=user(model, tmp_path))
    assert dynamically_quantised(onnx.load(str(path)))


def test_precision_of_a_real_fp16_network(shared_data, tmp_path):
    model = shared_data / "models/squeezenet_gap512.onnx"
    assert typed_as(onnx.load(str(model))) == "fp16"
    path = typed(tmp_path, "fp16", onnx=str(model), channels="bgr", scale=1)
    assert load(path).dimension == 512


def test_model_with_unsorted_nodes_is_taken(tmp_path):
    """What onnxruntime's fp16 converter writes: casts at the end of the list, far behind their readers."""
    model = conv_model()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    found = load(typed(tmp_path, "fp32", onnx=user(model, tmp_path)))
    expected = load(typed(tmp_path, "fp32", name="sorted", onnx=user(conv_model(), tmp_path)))
    assert np.array_equal(found(networks.tiles(3)), expected(networks.tiles(3)))


def test_sorting_nodes_keeps_a_sorted_list_and_survives_depth():
    chain = [helper.make_node("Neg", [str(i)], [str(i + 1)]) for i in range(3000)]
    graph = helper.make_graph(chain, "deep", [], [])
    before = [node.output[0] for node in graph.node]
    sort_nodes(graph)
    assert [node.output[0] for node in graph.node] == before
    backwards = helper.make_graph(chain[::-1], "deep", [], [])
    sort_nodes(backwards)
    assert [node.output[0] for node in backwards.node] == before


def with_layer_norm(model, *, gain):
    """Return `model` with its vector normalised by mean and variance, taken apart as exports before opset 17 do."""
    for name, value in (("gain", gain), ("two", 2.0), ("eps", 1e-6)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "last"))
    nodes = (
        helper.make_node("Mul", ["flat", "gain"], ["loud"], name="ln_in"),
        helper.make_node("ReduceMean", ["loud", "last"], ["mean"], name="ln_mean"),
        helper.make_node("Sub", ["loud", "mean"], ["centred"], name="ln_sub"),
        helper.make_node("Pow", ["centred", "two"], ["squares"], name="ln_pow"),
        helper.make_node("ReduceMean", ["squares", "last"], ["variance"], name="ln_var"),
        helper.make_node("Add", ["variance", "eps"], ["variance_eps"], name="ln_eps"),
        helper.make_node("Sqrt", ["variance_eps"], ["deviation"], name="ln_sqrt"),
        helper.make_node("Div", ["centred", "deviation"], ["normed"], name="ln_div"),
    )
    networks.insert_after(model, "flatten", *nodes, output="normed")
    networks.node(model, "ln_in").input[0] = "flat"
    return model


def test_layer_norm_taken_apart_stays_in_fp32_up_to_its_division():
    kept = kept_nodes(with_layer_norm(networks.network(), gain=1), ())
    assert {"ln_pow", "ln_var", "ln_eps", "ln_sqrt", "ln_div"} <= kept
    assert not {"ln_in", "ln_mean", "ln_sub", "fc", "conv1"} & kept


def test_variance_above_the_range_of_fp16_does_no_harm(tmp_path):
    """Activations of some thousands have squares of some millions; transformers have them."""
    from onnx.reference import ReferenceEvaluator

    model = with_layer_norm(conv_model(), gain=3000)
    path = typed(tmp_path, "fp16", onnx=user(model, tmp_path))
    images = networks.tiles(4)
    (in_half,) = ReferenceEvaluator(onnx.load(str(path))).run(None, {"tiles": images})
    expected = load(typed(tmp_path, "fp32", onnx=user(model, tmp_path)))(images)
    assert np.sum(in_half * expected, axis=1).min() > 0.999


def test_every_node_gets_a_name_of_its_own():
    model = networks.network()
    for node in model.graph.node:
        node.name = "" if node.op_type == "Relu" else "same"
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert "" not in names
    assert len(set(names)) == len(names)
