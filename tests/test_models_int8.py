"""int8 for any model on any backend: biases, attention, old opsets, optimal transport, calibration methods."""

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provisioning.base.hashing import digest_of
from provisioning.config import Backbone
from provisioning.engines import OnnxNetwork
from provisioning.engines.accuracy.fidelity import measure_fidelity
from provisioning.network import backbone as backbones
from provisioning.network.typing.facts import typed_facts
from provisioning.network.typing.keep import kept_from_int8, kept_nodes, log_domain, name_nodes
from provisioning.network.typing.typed import make_typed
from tests import networks

FLOAT, SIDE = TensorProto.FLOAT, networks.SIDE


def user(nodes, weights, output, *, opset=17, shape=None):
    """Return a user's model, image [n, 3, 32, 32] to `output`."""
    graph = helper.make_graph(
        nodes,
        "user",
        [helper.make_tensor_value_info("image", FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def normal(*shape, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.2).astype(np.float32)


def with_biases(*, opset=17):
    """Return convolutions, plain and grouped, and a Gemm, each with its bias."""
    weights = {
        "w": normal(8, 3, 3, 3),
        "b": normal(8),
        "dw": normal(8, 1, 3, 3),
        "db": normal(8),
        "g": normal(16, 8 * 13 * 13),
        "gb": normal(16),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], name="conv", strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "dw", "db"], ["d"], name="depthwise", group=8),
        helper.make_node("Flatten", ["d"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "g", "gb"], ["out"], name="gemm", transB=1),
    ]
    return user(nodes, weights, "out", opset=opset, shape=["n", 16])


def attention():
    """Return patches, one head of self-attention, the mean of the tokens: a Vision Transformer of one layer."""
    weights = {
        "w": normal(16, 3, 8, 8),
        "b": normal(16),
        "shape": np.array([0, 16, -1]),
        **{name: normal(16, 16, seed=seed) for seed, name in enumerate(("q", "k", "v", "o"))},
        "ob": normal(16),
        "quarter": np.float32(0.25),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["map"], name="patches", strides=[8, 8]),
        helper.make_node("Reshape", ["map", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["tokens"], perm=[0, 2, 1]),
        *(helper.make_node("MatMul", ["tokens", name], [name + "s"], name=name) for name in ("q", "k", "v")),
        helper.make_node("Transpose", ["ks"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["qs", "kt"], ["scores"], name="scores"),
        helper.make_node("Mul", ["scores", "quarter"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "vs"], ["mixed"], name="mixed"),
        helper.make_node("MatMul", ["mixed", "o"], ["product"], name="o"),
        helper.make_node("Add", ["product", "ob"], ["biased"]),
        helper.make_node("ReduceMean", ["biased"], ["out"], axes=[1], keepdims=0),
    ]
    return user(nodes, weights, "out", shape=["n", 16])


def transport(*, decomposed=False):
    """Return the head of SALAD in small: scores to a transport plan by Sinkhorn iterations, then the product with it."""
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["map"], name="patches", strides=[8, 8]),
        helper.make_node("Reshape", ["map", "shape"], ["f"], name="features"),
        helper.make_node("Conv", ["image", "s"], ["smap"], name="score", strides=[8, 8]),
        helper.make_node("Reshape", ["smap", "shape4"], ["z0"], name="flat"),
    ]
    for turn, axis in enumerate((1, 2, 1)):
        total = f"t{turn}"
        nodes += (
            [
                helper.make_node("ReduceMax", [f"z{turn}"], [f"m{turn}"], axes=[axis], name=f"top{turn}"),
                helper.make_node("Sub", [f"z{turn}", f"m{turn}"], [f"d{turn}"], name=f"down{turn}"),
                helper.make_node("Exp", [f"d{turn}"], [f"e{turn}"], name=f"exp{turn}"),
                helper.make_node("ReduceSum", [f"e{turn}", f"axis{axis}"], [f"s{turn}"], name=f"sum{turn}"),
                helper.make_node("Log", [f"s{turn}"], [f"l{turn}"], name=f"log{turn}"),
                helper.make_node("Add", [f"l{turn}", f"m{turn}"], [total], name=f"up{turn}"),
            ]
            if decomposed
            else [helper.make_node("ReduceLogSumExp", [f"z{turn}"], [total], axes=[axis], name=f"lse{turn}")]
        )
        nodes.append(helper.make_node("Sub", [f"z{turn}", total], [f"z{turn + 1}"], name=f"step{turn}"))
    nodes += [
        helper.make_node("Exp", ["z3"], ["plan"], name="plan"),
        helper.make_node("Transpose", ["plan"], ["turned"], perm=[0, 2, 1], name="turned"),
        helper.make_node("MatMul", ["f", "turned"], ["clusters"], name="aggregate"),
        helper.make_node("Flatten", ["clusters"], ["out"], name="flatten"),
    ]
    weights = {
        "w": normal(8, 3, 8, 8),
        "b": normal(8),
        "s": normal(4, 3, 8, 8, seed=1),
        "shape": np.array([0, 8, -1]),
        "shape4": np.array([0, 4, -1]),
        "axis1": np.array([1]),
        "axis2": np.array([2]),
    }
    return user(nodes, weights, "out", shape=["n", 32])


def typed(tmp_path, model, precision="int8", *, backend="onnxruntime", **settings):
    """Return the path of the typed ONNX of `model`."""
    path = networks.save(model, tmp_path / "user.onnx")
    backbone = Backbone(name="net", onnx=str(path), precision=precision, **settings)
    output = tmp_path / f"{precision}_{backend}.onnx"
    source = backbones.onnx_source(backbone, tmp_path, None)
    make_typed(backbone, source, output, lambda count: networks.tiles(min(count, 8), seed=5), backend=backend)
    return output


def cosine(tmp_path, model, **settings):
    reference, engine = (
        OnnxNetwork.load(typed(tmp_path, model, precision, **settings).read_bytes()) for precision in ("fp32", "int8")
    )
    return measure_fidelity(reference, engine, networks.tiles(12)).cosine_median


MODELS = {"biases": with_biases, "attention": attention, "transport": transport}


@pytest.mark.parametrize("name", MODELS)
def test_tensorrt_takes_int8_of_every_kind_of_layer(tmp_path, name):
    """Parsed and compiled for real by TensorRT-RTX, which has the parser of TensorRT."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'flightcache[rtx]'")
    from tests.test_rtx import build

    assert build(typed(tmp_path, MODELS[name](), backend="tensorrt_rtx"), tmp_path)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("name", MODELS)
def test_int8_computes_what_the_network_computes(tmp_path, name, backend):
    assert cosine(tmp_path, MODELS[name](), backend=backend) > 0.99


def integers(path):
    return {w.data_type for w in onnx.load(str(path)).graph.initializer}


def test_biases_are_integers_for_onnxruntime_alone(tmp_path):
    assert TensorProto.INT32 in integers(typed(tmp_path, with_biases()))
    for backend in ("tensorrt", "tensorrt_rtx"):
        path = typed(tmp_path, with_biases(), backend=backend)
        assert TensorProto.INT32 not in integers(path)
        makers = {output: node for node in onnx.load(str(path)).graph.node for output in node.output}
        conv = networks.node(onnx.load(str(path)), "conv")
        assert [makers[source].op_type for source in conv.input[:2]] == ["DequantizeLinear"] * 2


def test_the_backend_keys_int8_and_nothing_else(tmp_path):
    source = backbones.onnx_source(Backbone(name="n"), tmp_path, None)

    def keys(precision):
        backbone = Backbone(name="n", precision=precision)
        backends = ("onnxruntime", "tensorrt", "tensorrt_rtx")
        return len({digest_of(typed_facts(backbone, source, None, backend=backend)) for backend in backends})

    assert (keys("fp32"), keys("fp16"), keys("int8")) == (1, 1, 2)


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_an_old_opset_is_converted_and_said(tmp_path, opset, caplog):
    with caplog.at_level(logging.WARNING, "c10.provision"):
        assert cosine(tmp_path, with_biases(opset=opset)) > 0.99
    (record,) = (r for r in caplog.records if r.kind == "c10.provision.backbone.opset")
    assert record.kv == {"model": "net", "opset": opset, "converted_to": 13}


@pytest.mark.parametrize("name", ["attention", "transport"])
@pytest.mark.parametrize("opset", [18, 21, 22, 23])
def test_a_new_opset_opens_after_a_reshape(tmp_path, name, opset):
    """ONNX Runtime moves a QuantizeLinear past a Reshape, and from opset 21 cannot open what it made of it."""
    assert cosine(tmp_path, onnx.version_converter.convert_version(MODELS[name](), opset)) > 0.99


def quantised_by_its_author(*, opset):
    """Return a convolution, a reshape and a product, with Q/DQ pairs as exporters of trained int8 write them."""
    weights = {
        "scale": np.float32(0.02),
        "zero": np.int8(0),
        "w": (normal(16, 3, 8, 8) / 0.02).astype(np.int8),
        "p": (normal(16, 16, seed=1) / 0.02).astype(np.int8),
        "shape": np.array([0, 16, -1]),
    }

    def pair(tensor):
        return [
            helper.make_node("QuantizeLinear", [tensor, "scale", "zero"], [f"{tensor}_q"]),
            helper.make_node("DequantizeLinear", [f"{tensor}_q", "scale", "zero"], [f"{tensor}_d"]),
        ]

    nodes = [
        *(helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"{name}_d"]) for name in ("w", "p")),
        *pair("image"),
        helper.make_node("Conv", ["image_d", "w_d"], ["map"], strides=[8, 8]),
        *pair("map"),
        helper.make_node("Reshape", ["map_d", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["tokens"], perm=[0, 2, 1]),
        *pair("tokens"),
        helper.make_node("MatMul", ["tokens_d", "p_d"], ["product"]),
        helper.make_node("Flatten", ["product"], ["out"]),
    ]
    return user(nodes, weights, "out", opset=opset, shape=["n", 256])


def test_a_model_that_arrives_in_int8_opens_whatever_its_opset(tmp_path):
    tiles = np.stack(list(networks.tiles(4)))
    found = [
        OnnxNetwork.load(typed(tmp_path, quantised_by_its_author(opset=opset)).read_bytes())(tiles)
        for opset in (17, 21)
    ]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_calibration_methods_give_other_ranges_and_other_keys(tmp_path):
    source = backbones.onnx_source(Backbone(name="n"), tmp_path, None)
    found, keys = set(), set()
    for method in ("minmax", "entropy", "percentile"):
        found.add(typed(tmp_path, with_biases(), calibration_method=method).read_bytes())
        keys.add(digest_of(typed_facts(Backbone(name="n", precision="int8", calibration_method=method), source, None)))
    assert len(found) == len(keys) == 3


def test_histograms_take_one_tile_at_a_time(tmp_path, monkeypatch):
    """onnxruntime keeps every tensor of all tiles that it is given at once."""
    from onnxruntime.quantization.calibrate import HistogramCalibrater

    fed, collect = [], HistogramCalibrater.collect_data

    def counted(self, reader):
        before = len(fed)
        original = reader.get_next
        reader.get_next = lambda: (value := original()) and (fed.append(1), value)[1]
        collect(self, reader)
        assert len(fed) - before == 1

    monkeypatch.setattr(HistogramCalibrater, "collect_data", counted)
    typed(tmp_path, with_biases(), calibration_method="percentile")
    assert len(fed) == 8


@pytest.mark.parametrize("decomposed", [False, True])
def test_optimal_transport_stays_in_fp32(decomposed):
    model = transport(decomposed=decomposed)
    name_nodes(model)
    iterations = {"step0", "step1", "step2", "plan"} | ({"top1", "up1"} if decomposed else {"lse0", "lse1", "lse2"})
    assert iterations <= kept_nodes(model, ())
    assert not {"patches", "score", "aggregate"} & log_domain(model.graph)
    assert kept_from_int8(model, ()) == {"aggregate"}


def test_a_swish_taken_apart_is_no_transport():
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        helper.make_node("Neg", ["c"], ["n"], name="neg"),
        helper.make_node("Exp", ["n"], ["e"], name="exp"),
        helper.make_node("Flatten", ["e"], ["out"], name="flatten"),
    ]
    assert log_domain(user(nodes, {"w": normal(4, 3, 3, 3)}, "out").graph) == set()


@pytest.mark.parametrize("decomposed", [False, True])
def test_optimal_transport_in_fp16_keeps_its_digits(tmp_path, decomposed):
    """Against onnx's reference evaluator, which rounds to fp16 as a GPU does."""
    from onnx.reference import ReferenceEvaluator

    tiles = networks.tiles(2)
    half, full = (
        ReferenceEvaluator(onnx.load(str(typed(tmp_path, transport(decomposed=decomposed), p)))).run(
            None, {"tiles": tiles}
        )[0]
        for p in ("fp16", "fp32")
    )
    assert np.sum(half * full, axis=1).min() > 0.99999
