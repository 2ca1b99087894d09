"""Models as exporters leave them: subgraphs, ports without shapes, opsets of long ago."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from provisioning.base.errors import BackboneError
from provisioning.base.hashing import sha256_bytes
from provisioning.config import Backbone
from provisioning.network.backbone import onnx_source, prepared_facts
from provisioning.network.backbone.source import OnnxSource
from provisioning.network.backbone.wrap import _serialised
from tests import models
from tests.models import DIMENSION, FLOAT, SIDE
from tests.test_backbone import by_hand, images, nchw, prepared, refusal, run, unit

DOUBLE = onnx.TensorProto.DOUBLE


def with_branches(*, image="image", vector="out", read=None):
    """A model whose descriptor is chosen by an If: its branches read values of the graph around them."""
    model = models.linear(image=image, vector="row")
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.initializer.append(numpy_helper.from_array(np.array(2, "float32"), "two"))
    branches = {}
    for name, factor in (("then_branch", "two"), ("else_branch", "two")):
        node = helper.make_node("Mul", [read or "row", factor], [f"{name}_out"])
        made = helper.make_tensor_value_info(f"{name}_out", FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [made])
    graph.node.append(helper.make_node("If", ["yes"], [vector], **branches))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(vector, FLOAT, ["n", DIMENSION]))
    return model


def test_what_only_a_branch_reads_is_kept(tmp_path):
    network = prepared(tmp_path, with_branches())
    assert {tensor.name for tensor in onnx.load(str(network)).graph.initializer} >= {"mix", "two"}
    np.testing.assert_allclose(run(network, images(2)), by_hand(nchw(images(2)) / 255), atol=1e-5)


def test_a_name_that_is_ours_is_given_back_inside_branches_too(tmp_path):
    """`tiles` is the name of our input; here it is the model's own value, read by the branches of an If."""
    model = with_branches(read="tiles")
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    product.output[0] = "tiles"
    np.testing.assert_allclose(run(prepared(tmp_path, model), images(2)), by_hand(nchw(images(2)) / 255), atol=1e-5)


def test_nodes_out_of_order_are_sorted_also_behind_what_their_branches_read(tmp_path):
    model = with_branches()
    *others, last = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([last, *others])
    np.testing.assert_allclose(run(prepared(tmp_path, model), images(2)), by_hand(nchw(images(2)) / 255), atol=1e-5)


def test_average_pooling_of_a_sequence(tmp_path):
    network = prepared(tmp_path, models.tokens(), pooling="avg")
    expected = np.einsum("nchw,dc->nd", nchw(images(2)) / 255, models.KERNEL) / SIDE**2
    np.testing.assert_allclose(run(network, images(2)), unit(expected), atol=1e-5)


def test_a_feature_map_with_its_channels_last_is_pooled(tmp_path):
    model = models.feature_map()
    graph = model.graph
    graph.node.insert(0, helper.make_node("Transpose", ["hwc"], ["image"], perm=[0, 3, 1, 2]))
    graph.node.append(helper.make_node("Transpose", ["map"], ["out"], perm=[0, 2, 3, 1]))
    graph.input[0].CopyFrom(helper.make_tensor_value_info("hwc", FLOAT, ["n", SIDE, SIDE, 3]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("out", FLOAT, ["n", SIDE, SIDE, DIMENSION]))
    network = prepared(tmp_path, model, layout="nhwc", pooling="avg")
    expected = np.einsum("nchw,dc->nd", nchw(images(2)) / 255, models.KERNEL) / SIDE**2
    np.testing.assert_allclose(run(network, images(2)), unit(expected), atol=1e-5)


def test_one_vector_for_a_whole_batch_is_refused(tmp_path):
    model = models.squeezed()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    assert "one vector for a whole batch" in refusal(tmp_path, model).what


def test_an_output_without_a_shape_takes_the_inferred_one(tmp_path):
    model = models.linear()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    np.testing.assert_allclose(run(prepared(tmp_path, model), images(2)), by_hand(nchw(images(2)) / 255), atol=1e-5)


def scalar_output(model):
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", FLOAT, []))


def shapeless_image(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def flat_image(model):
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", FLOAT, ["n", 768]))


def image_of_doubles(model):
    model.graph.input[0].type.tensor_type.elem_type = DOUBLE


def whole_numbers_out(model):
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (scalar_output, "no shape that a descriptor can be taken from"),
        (shapeless_image, "must have four dimensions"),
        (flat_image, "must have four dimensions"),
        (image_of_doubles, "is of type DOUBLE"),
        (whole_numbers_out, "is of type INT64"),
    ],
)
def test_ports_that_are_no_image_and_no_descriptor_are_named(tmp_path, change, reason):
    model = models.linear()
    change(model)
    assert reason in refusal(tmp_path, model).what


def test_an_opset_that_cannot_be_converted_is_named_with_the_next_step(tmp_path):
    model = models.linear(opset=6, ir=3)
    model.graph.node.append(helper.make_node("Mystery", ["image"], ["odd"]))
    error = refusal(tmp_path, model)
    assert "opset 6 and cannot be converted" in error.what
    assert "opset 13 or later" in error.next_step


def test_a_model_of_fixed_batch_that_cannot_run_is_refused_at_once(tmp_path):
    model = models.linear(batch=1)
    model.graph.node[1].op_type = "Mystery"
    assert refusal(tmp_path, model).file.endswith("model.onnx")


def test_custom_operators_that_cannot_be_loaded_are_named(tmp_path):
    (tmp_path / "ops.so").write_bytes(b"no library")
    assert refusal(tmp_path, models.linear(), custom_ops=tmp_path / "ops.so").file.endswith("model.onnx")


def test_only_the_model_keys_a_backbone_of_another_role():
    source = OnnxSource(None, sha256_bytes(b"model"), ())
    depth = Backbone(name="d", onnx="depth.onnx", role="depth")
    assert set(prepared_facts(depth, source)) == {"prepared_format", "onnx_sha256"}


def test_a_model_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(BackboneError, match="cannot be read: not a regular file but a directory"):
        onnx_source(Backbone(name="m", onnx=str(tmp_path / "model.onnx")), tmp_path, None)


def test_external_data_that_went_away_costs_a_look_and_names_the_file(tmp_path):
    from provisioning.base.disk.lock import build_lock

    path = models.with_external_data(models.linear(), tmp_path / "model.onnx")
    backbone, memo = Backbone(name="m", onnx=str(path)), tmp_path / ".build" / "memo.json"
    with build_lock(tmp_path):
        onnx_source(backbone, tmp_path, memo)
        (tmp_path / "model.onnx.data").unlink()
        with pytest.raises(BackboneError, match=r"model\.onnx\.data"):
            onnx_source(backbone, tmp_path, memo)


def test_a_network_above_what_one_file_holds_is_refused_with_the_next_step():
    class Vast:
        def SerializeToString(self, *, deterministic):
            raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB")

    with pytest.raises(BackboneError, match="above 2 GiB") as caught:
        _serialised(Vast(), "m.onnx")
    assert "external data" in caught.value.next_step


def training_dropout(constant):
    """Return a model whose Dropout is set to drop: by a weight, or by a Constant as torch writes it."""
    model = models.linear(vector="row", opset=13)
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    if constant:
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["yes"], value=yes))
    else:
        model.graph.initializer.append(yes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.node.append(onnx.helper.make_node("Dropout", ["row", "half", "yes"], ["out"], name="drop"))
    model.graph.output[0].name = "out"
    return model


def noisy():
    model = models.linear(vector="row")
    model.graph.node.append(onnx.helper.make_node("RandomNormalLike", ["row"], ["noise"], name="noise"))
    model.graph.node.append(onnx.helper.make_node("Add", ["row", "noise"], ["out"]))
    model.graph.output[0].name = "out"
    return model


@pytest.mark.parametrize(
    ("model", "node"),
    [
        (training_dropout(constant=True), "Dropout drop"),
        (training_dropout(constant=False), "Dropout drop"),
        (noisy(), "RandomNormalLike noise"),
    ],
)
def test_what_is_not_the_same_for_the_same_image_is_refused(tmp_path, model, node):
    error = refusal(tmp_path, model)
    assert error.facts["nodes"] == node
    assert "model.eval()" in error.next_step


@pytest.mark.parametrize(
    ("shape", "declared", "step"),
    [
        (["n", 3, 16, 16], {"layout": "nhwc"}, 'set layout = "nchw"'),
        (["n", 16, 16, 3], {}, 'set layout = "nhwc"'),
        (["n", 1, 16, 16], {}, 'set channels = "gray"'),
        (["n", 3, 16, 16], {"channels": "gray"}, 'set channels = "rgb"'),
    ],
)
def test_channels_elsewhere_are_refused_with_the_line_that_fits(tmp_path, shape, declared, step):
    model = models.linear()
    for dim, length in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        setattr(dim, "dim_param" if isinstance(length, str) else "dim_value", length)
    assert refusal(tmp_path, model, **declared).next_step == step
