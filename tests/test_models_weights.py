"""Models as people have them: links of a Hugging Face cache, weights in folders, branches and loops, no ONNX at all."""

import os
import pickle
import subprocess
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provisioning.base.errors import BackboneError
from provisioning.base.hashing import Sha256
from provisioning.config import Backbone
from provisioning.engines import OnnxNetwork
from provisioning.network.backbone import OnnxSource, onnx_source, prepare
from provisioning.network.typing.typed import make_typed
from tests import models
from tests.models import DIMENSION, FLOAT
from tests.test_backbone import by_hand, images, nchw, run
from tests.test_backbone_odd_models import with_branches

EXPECTED = by_hand(nchw(images(2)) / 255)


def prepared(tmp_path, path):
    backbone = Backbone(name="m", onnx=str(path))
    prepare(backbone, onnx_source(backbone, tmp_path, None), tmp_path / "network.onnx")
    return run(tmp_path / "network.onnx", images(2))


def hugging_face(root, *, location="model.onnx_data"):
    """Write a model and its weights as huggingface_hub caches them: links from snapshots into blobs; return the model."""
    blobs, snapshot = root / "models--acme--vpr" / "blobs", root / "models--acme--vpr" / "snapshots" / "abc" / "onnx"
    blobs.mkdir(parents=True)
    (snapshot / location).parent.mkdir(parents=True)
    model = models.linear()
    for tensor in model.graph.initializer:
        tensor.raw_data = numpy_helper.to_array(tensor).tobytes()
    onnx.save(model, str(root / "m.onnx"), save_as_external_data=True, location="weights", size_threshold=0)
    graph = onnx.load(str(root / "m.onnx"), load_external_data=False)
    for tensor in graph.graph.initializer:
        next(pair for pair in tensor.external_data if pair.key == "location").value = location
    (blobs / "aaaa").write_bytes(graph.SerializeToString())
    os.rename(root / "weights", blobs / "bbbb")
    for link, blob in (("model.onnx", "aaaa"), (location, "bbbb")):
        path = snapshot / link
        path.symlink_to(os.path.relpath(blobs / blob, path.parent))
    return snapshot / "model.onnx"


@pytest.mark.parametrize("location", ["model.onnx_data", "weights/part-1.bin"])
def test_links_of_a_hugging_face_cache_are_followed(tmp_path, location):
    np.testing.assert_allclose(prepared(tmp_path, hugging_face(tmp_path, location=location)), EXPECTED, atol=1e-5)


def test_a_link_to_the_model_alone_finds_its_weights_beside_it(tmp_path):
    path = hugging_face(tmp_path)
    (tmp_path / "link.onnx").symlink_to(path.parent)
    np.testing.assert_allclose(prepared(tmp_path, tmp_path / "link.onnx" / "model.onnx"), EXPECTED, atol=1e-5)


def test_a_link_out_of_the_model_is_refused_until_it_is_a_copy(tmp_path):
    (tmp_path / "here").mkdir()
    path = models.with_external_data(models.linear(), tmp_path / "here" / "model.onnx")
    data = path.with_name("model.onnx.data")
    elsewhere = tmp_path / "elsewhere"
    data.rename(elsewhere)
    data.symlink_to(elsewhere)
    with pytest.raises(BackboneError, match="leads out of the model's directory") as caught:
        prepared(tmp_path, path)
    assert caught.value.next_step == "replace the link by a copy of the file"
    data.unlink()
    data.write_bytes(elsewhere.read_bytes())
    np.testing.assert_allclose(prepared(tmp_path, path), EXPECTED, atol=1e-5)


@pytest.mark.parametrize("change", [{"offset": "1000000"}, {"offset": "-4"}, {"length": "8"}, {"offset": "x"}])
def test_external_data_that_is_not_as_announced_is_refused(tmp_path, change):
    path = models.with_external_data(models.linear(), tmp_path / "model.onnx")
    model = onnx.load(str(path), load_external_data=False)
    entries = {pair.key: pair.value for pair in model.graph.initializer[0].external_data} | change
    del model.graph.initializer[0].external_data[:]
    for key, value in entries.items():
        model.graph.initializer[0].external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BackboneError, match="external data cannot be read") as caught:
        prepared(tmp_path, path)
    assert caught.value.next_step


def test_int8_above_2_gib_is_refused_before_it_is_read(tmp_path):
    """The weights are a sparse file: nothing of three gigabytes is read, or written."""
    path = models.with_external_data(models.linear(), tmp_path / "model.onnx")
    os.truncate(path.with_name("model.onnx.data"), 3 << 30)
    backbone = Backbone(name="m", onnx=str(path), precision="int8")
    source = OnnxSource(path, Sha256("0" * 64), (path, path.with_name("model.onnx.data")))
    with pytest.raises(BackboneError, match="above 2 GiB") as caught:
        prepare(backbone, source, tmp_path / "network.onnx")
    assert caught.value.next_step == 'set precision = "fp16" or "fp32" for backbone.m'


def test_a_link_that_was_copied_as_text_is_named_and_can_be_made_again(tmp_path, monkeypatch):
    """What git without links, or a plain copy, makes of a Hugging Face cache."""
    path = hugging_face(tmp_path)
    target = os.readlink(path)
    path.unlink()
    path.write_text(target)
    with pytest.raises(BackboneError, match="the text of a symbolic link") as caught:
        prepared(tmp_path, path)
    monkeypatch.chdir(path.parent)
    subprocess.run(caught.value.next_step.partition(": ")[2].split(), check=True)
    np.testing.assert_allclose(prepared(tmp_path, path), EXPECTED, atol=1e-5)


def pytorch(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))


FILES = {
    "model.pt": (pytorch, "ZIP archive, as PyTorch's"),
    "old.pth": (lambda path: path.write_bytes(pickle.dumps({"w": 1}, protocol=2)), "pickle"),
    "net.engine": (lambda path: path.write_bytes(b"ftrt" + bytes(60)), "TensorRT engine"),
    "rtx.engine": (lambda path: path.write_bytes(b"vtrt" + bytes(60)), "TensorRT-RTX engine"),
    "page.onnx": (lambda path: path.write_text("\n  <!DOCTYPE html><html>Sign in</html>"), "HTML"),
    "error.onnx": (lambda path: path.write_text('{"error": "Invalid username"}'), "JSON"),
    "net.safetensors": (lambda path: path.write_bytes((60).to_bytes(8, "little") + b'{"w": {}}'), "safetensors"),
    "net.tflite": (lambda path: path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(40)), "TensorFlow Lite"),
    "keras.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40)), "HDF5"),
    "net.onnx.gz": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(40)), "gzip"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_onnx_is_named_for_what_it_is(tmp_path, name):
    write, what = FILES[name]
    write(tmp_path / name)
    with pytest.raises(BackboneError) as caught:
        prepared(tmp_path, tmp_path / name)
    assert what in caught.value.what
    assert caught.value.next_step not in (None, "export it again")


def typed(tmp_path, model, precision):
    onnx.save(model, str(tmp_path / "m.onnx"))
    backbone = Backbone(name="m", onnx=str(tmp_path / "m.onnx"), precision=precision)
    output = tmp_path / f"{precision}.onnx"
    make_typed(backbone, onnx_source(backbone, tmp_path, None), output, lambda _count: images(4))
    return onnx.load(str(output))


def with_output(model):
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", FLOAT, ["n", DIMENSION]))
    return model


def with_loop():
    """Return a model that refines its descriptor three times in a Loop, which reads it from outside."""
    model = models.linear(vector="row")
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["acc", "half"], ["less"]),
            helper.make_node("Add", ["less", "row"], ["more"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("acc", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("more", FLOAT, None)],
        [numpy_helper.from_array(np.float32(0.5), "half")],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(3), "turns"))
    model.graph.node.append(helper.make_node("Loop", ["turns", "", "row"], ["out"], body=body))
    return with_output(model)


def with_function():
    """Return a model that calls a function of its own, as the newer exporter of PyTorch writes."""
    model = models.linear(vector="row")
    twice = helper.make_function(
        "my", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 13)]
    )
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("my", 1))
    model.graph.node.append(helper.make_node("Twice", ["row"], ["out"], domain="my"))
    return with_output(model)


def with_choice(*, constant):
    """Return a map that an If puts through one of two convolutions with a weight of the graph around it, pooled."""
    model = models.feature_map()
    graph = model.graph
    graph.node[0].output[0] = "seen"
    graph.initializer.append(numpy_helper.from_array(np.eye(DIMENSION, dtype=np.float32)[:, :, None, None], "eye"))
    branches = {}
    for name, factor in (("then_branch", 1), ("else_branch", 3)):
        nodes = [
            helper.make_node("Conv", ["seen", "eye"], ["c"]),
            helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.float32(factor))),
            helper.make_node("Mul", ["c", "k"], ["o"]),
        ]
        branches[name] = helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("o", FLOAT, None)])
    if constant:
        graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    else:
        graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
        graph.node.append(helper.make_node("ReduceMean", ["seen"], ["mean"], keepdims=0))
        graph.node.append(helper.make_node("Greater", ["mean", "zero"], ["yes"]))
    graph.node.append(helper.make_node("If", ["yes"], ["map"], **branches))
    graph.node.append(helper.make_node("GlobalAveragePool", ["map"], ["pooled"]))
    graph.node.append(helper.make_node("Flatten", ["pooled"], ["out"]))
    return with_output(model)


CONTROL = {
    "if": with_branches,
    "loop": with_loop,
    "function": with_function,
    "choice": lambda: with_choice(constant=True),
    "open choice": lambda: with_choice(constant=False),
}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", CONTROL)
def test_branches_loops_and_functions_are_converted(tmp_path, name, precision):
    tiles = images(4)
    full, less = (
        OnnxNetwork.load(typed(tmp_path, CONTROL[name](), p).SerializeToString())(tiles) for p in ("fp32", precision)
    )
    assert np.sum(full * less, axis=1).min() > (0.99999 if precision == "fp16" else 0.99)


def test_a_branch_that_is_always_taken_is_in_fp16_too(tmp_path):
    model = typed(tmp_path, with_choice(constant=True), "fp16")
    assert "If" not in {node.op_type for node in model.graph.node}
    assert {w.name: w.data_type for w in model.graph.initializer}["eye"] == TensorProto.FLOAT16
