"""Any ONNX model becomes a network from tiles to unit descriptors, or an error that names the file."""

import json
import random
import subprocess
import sys
from decimal import Decimal as D
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import BackboneError
from provisioning.base.hashing import digest_of, sha256_file
from provisioning.config import Backbone
from provisioning.network.backbone import onnx_source, prepare, prepared_facts, resolved
from provisioning.sources.pixels.fitting import fit, turn
from tests import models
from tests.models import DIMENSION, FLOAT16, KERNEL, MIX, SIDE, UINT8


def images(count, side=SIDE):
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), np.uint8)


def run(path, tiles):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    fixed = session.get_inputs()[0].shape[0]
    chunks = [tiles] if isinstance(fixed, str) else np.split(tiles, len(tiles) // fixed)
    return np.concatenate([session.run(["descriptors"], {"tiles": chunk})[0] for chunk in chunks])


def prepared(tmp_path, model, **declared):
    """Prepare `model` under `declared` and return the path of the network."""
    path = tmp_path / "model.onnx"
    if isinstance(model, onnx.ModelProto):
        onnx.save(model, str(path))
    backbone = Backbone(name="m", onnx=str(path) if model is not None else declared.pop("onnx"), **declared)
    prepare(backbone, onnx_source(backbone, tmp_path, None), tmp_path / "network.onnx")
    return tmp_path / "network.onnx"


def refusal(tmp_path, model, **declared):
    with pytest.raises(BackboneError) as caught:
        prepared(tmp_path, model, **declared)
    assert not (tmp_path / "network.onnx").exists()
    return caught.value


def by_hand(pixels):
    """The linear model over float NCHW `pixels`, normalised."""
    side = pixels.shape[-1] // 4
    cells = pixels.reshape(*pixels.shape[:2], 4, side, 4, side).mean((3, 5))
    flat = cells.reshape(len(pixels), -1)
    return unit(flat @ MIX[: flat.shape[1]])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nchw(tiles):
    return tiles.astype(np.float64).transpose(0, 3, 1, 2)


def test_pixels_go_in_and_unit_vectors_come_out(tmp_path):
    network = prepared(tmp_path, models.linear())
    np.testing.assert_allclose(run(network, images(5)), by_hand(nchw(images(5)) / 255), atol=1e-5)


def test_scale_mean_and_std_are_inside_the_graph(tmp_path):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = prepared(tmp_path, models.linear(), mean=tuple(map(D, map(str, mean))), std=tuple(map(D, map(str, std))))
    pixels = (nchw(images(3)) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(run(network, images(3)), by_hand(pixels), atol=1e-5)


def test_bgr_models_see_bgr(tmp_path):
    network = prepared(tmp_path, models.linear(), channels="bgr")
    np.testing.assert_allclose(run(network, images(2)), by_hand(nchw(images(2)[..., ::-1]) / 255), atol=1e-5)


def test_gray_models_see_luma(tmp_path):
    network = prepared(tmp_path, models.linear(channels=1), channels="gray")
    luma = (images(2) @ np.array([0.299, 0.587, 0.114]))[:, None] / 255
    np.testing.assert_allclose(run(network, images(2)), by_hand(luma), atol=1e-5)


def test_nhwc_models_see_nhwc(tmp_path):
    model = models.linear()
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["hwc"], ["image"], perm=[0, 3, 1, 2]))
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("hwc", models.FLOAT, ["n", SIDE, SIDE, 3]))
    network = prepared(tmp_path, model, layout="nhwc", mean=(D("0.5"),))
    np.testing.assert_allclose(run(network, images(2)), by_hand(nchw(images(2)) / 255 - 0.5), atol=1e-5)


def test_fp16_input_is_cast_and_output_is_float32(tmp_path):
    found = run(prepared(tmp_path, models.linear(element=FLOAT16)), images(4))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(nchw(images(4)) / 255), atol=5e-3)


def test_uint8_models_get_the_pixels_as_they_are(tmp_path):
    model = models.linear(image="floats")
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["floats"], to=models.FLOAT))
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("image", UINT8, ["n", 3, SIDE, SIDE]))
    np.testing.assert_allclose(run(prepared(tmp_path, model), images(2)), by_hand(nchw(images(2))), atol=1e-5)


@pytest.mark.parametrize("opset", [7, 11, 13, 17, 18, 21])
def test_models_of_old_and_new_opsets_are_wrapped(tmp_path, opset):
    network = prepared(tmp_path, models.linear(opset=opset, ir=3 if opset == 7 else 8), mean=(D("0.25"),))
    np.testing.assert_allclose(run(network, images(2)), by_hand(nchw(images(2)) / 255 - 0.25), atol=1e-5)


def test_models_older_than_broadcasting_are_converted(tmp_path):
    network = prepared(tmp_path, models.linear(opset=6))
    np.testing.assert_allclose(run(network, images(2)), by_hand(nchw(images(2)) / 255), atol=1e-5)


def test_a_fixed_batch_stays_fixed(tmp_path):
    network = prepared(tmp_path, models.linear(batch=1))
    assert onnx.load(str(network)).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    np.testing.assert_allclose(run(network, images(3)), by_hand(nchw(images(3)) / 255), atol=1e-5)


def test_a_squeezed_batch_of_one_comes_back(tmp_path):
    network = prepared(tmp_path, models.squeezed())
    np.testing.assert_allclose(run(network, images(3)), by_hand(nchw(images(3)) / 255), atol=1e-5)


def test_a_model_of_any_image_size_gets_the_declared_one(tmp_path):
    network = prepared(tmp_path, models.linear(size="side"), size=(SIDE,))
    dims = onnx.load(str(network)).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims][1:] == [SIDE, SIDE, 3]


def test_extra_outputs_are_cut_off(tmp_path):
    network = prepared(tmp_path, models.with_second_output(models.linear()), output="out")
    graph = onnx.load(str(network)).graph
    assert [o.name for o in graph.output] == ["descriptors"]
    assert "ReduceMean" not in {node.op_type for node in graph.node}


def test_names_that_are_ours_do_not_collide(tmp_path):
    network = prepared(tmp_path, models.linear(image="tiles", vector="descriptors"))
    np.testing.assert_allclose(run(network, images(2)), by_hand(nchw(images(2)) / 255), atol=1e-5)


@pytest.mark.parametrize("opset", [13, 18])
def test_average_pooling_of_a_map(tmp_path, opset):
    found = run(prepared(tmp_path, models.feature_map(opset=opset), pooling="avg"), images(2))
    maps = np.einsum("dc,nchw->ndhw", KERNEL, nchw(images(2)) / 255)
    np.testing.assert_allclose(found, unit(maps.mean((2, 3))), atol=1e-5)


def test_gem_pooling_of_a_map(tmp_path):
    found = run(prepared(tmp_path, models.feature_map(), pooling="gem"), images(2))
    maps = np.einsum("dc,nchw->ndhw", KERNEL, nchw(images(2)) / 255).clip(1e-6)
    np.testing.assert_allclose(found, unit(np.cbrt((maps**3).mean((2, 3)))), atol=1e-4)


def test_class_token_of_a_sequence(tmp_path):
    found = run(prepared(tmp_path, models.tokens(), pooling="cls"), images(2))
    np.testing.assert_allclose(found, unit(nchw(images(2))[:, :, 0, 0] / 255 @ KERNEL.T), atol=1e-5)


def test_unnormalised_descriptors_on_request(tmp_path):
    found = run(prepared(tmp_path, models.linear(), normalise="none"), images(2))
    assert not np.allclose(np.linalg.norm(found, axis=1), 1, atol=0.01)


def test_preparing_twice_gives_the_same_bytes(tmp_path):
    first = prepared(tmp_path, models.linear()).read_bytes()
    assert prepared(tmp_path, models.linear()).read_bytes() == first


def test_external_data_is_taken_in(tmp_path):
    path = models.with_external_data(models.linear(), tmp_path / "big.onnx")
    network = prepared(tmp_path, None, onnx=str(path))
    (tmp_path / "big.onnx.data").unlink()
    np.testing.assert_allclose(run(network, images(2)), by_hand(nchw(images(2)) / 255), atol=1e-5)


def test_other_roles_are_left_as_they_are(tmp_path):
    model = models.linear()
    network = prepared(tmp_path, model, role="segmentation")
    assert onnx.load(str(network)) == model


def test_real_fp16_model_of_batch_one(tmp_path, shared_data):
    """SqueezeNet in fp16, opset 7, IR 3, batch 1, BGR with a mean: as Microsoft ships it."""
    for name, dimension in (("squeezenet_gap512", 512), ("squeezenet1.0_fp16", 1000)):
        declared = {"channels": "bgr", "scale": D(1), "mean": (D(104), D(117), D(123))}
        network = prepared(tmp_path, None, onnx=str(shared_data / "models" / f"{name}.onnx"), **declared)
        found = run(network, images(2, 224))
        assert found.shape == (2, dimension)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        original = onnxruntime.InferenceSession(
            str(shared_data / "models" / f"{name}.onnx"), providers=["CPUExecutionProvider"]
        )
        bgr = (images(2, 224)[..., ::-1].astype(np.float32) - [104, 117, 123]).transpose(0, 3, 1, 2)
        by_itself = [original.run(None, {"data_0": x[None].astype(np.float16)})[0].ravel() for x in bgr]
        assert (unit(np.stack(by_itself).astype(np.float32)) * found).sum(1).min() > 0.9999


# Bad input: each a clear error that names the file


def test_missing_file_is_named(tmp_path):
    error = refusal(tmp_path, None, onnx="absent.onnx")
    assert error.file == str(tmp_path / "absent.onnx")


def test_git_lfs_pointer_is_told_from_a_model(tmp_path):
    (tmp_path / "m.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    error = refusal(tmp_path, None, onnx="m.onnx")
    assert "git-LFS pointer" in error.what
    assert error.file == str(tmp_path / "m.onnx")
    assert "git lfs pull" in error.next_step


@pytest.mark.parametrize(
    "data", [b"", b"not a model", b"\x08\x08\x12\x00", b"<html>404</html>", random.Random(1).randbytes(512)]
)
def test_unreadable_onnx_is_named(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    assert refusal(tmp_path, None, onnx="m.onnx").file == str(tmp_path / "m.onnx")


def test_truncated_onnx_is_named(tmp_path):
    onnx.save(models.linear(), str(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:-40])
    assert refusal(tmp_path, None, onnx="m.onnx").file == str(tmp_path / "m.onnx")


def test_missing_external_data_is_named(tmp_path):
    path = models.with_external_data(models.linear(), tmp_path / "big.onnx")
    (tmp_path / "big.onnx.data").unlink()
    error = refusal(tmp_path, None, onnx=str(path))
    assert error.file == str(tmp_path / "big.onnx.data")
    assert "external data is missing" in error.what


def test_external_data_that_is_an_lfs_pointer_is_named(tmp_path):
    path = models.with_external_data(models.linear(), tmp_path / "big.onnx")
    (tmp_path / "big.onnx.data").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert refusal(tmp_path, None, onnx=str(path)).file == str(tmp_path / "big.onnx.data")


def test_truncated_external_data_is_refused(tmp_path):
    path = models.with_external_data(models.linear(), tmp_path / "big.onnx")
    (tmp_path / "big.onnx.data").write_bytes(b"short")
    assert refusal(tmp_path, None, onnx=str(path)).file == str(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret"])
def test_external_data_elsewhere_is_not_read(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(4096))
    (tmp_path / "in").mkdir()
    path = models.with_external_data(models.linear(), tmp_path / "in" / "big.onnx")
    model = onnx.load(str(path), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    error = refusal(tmp_path, None, onnx=str(path))
    assert "outside its own directory" in error.what


def test_two_outputs_and_none_named(tmp_path):
    error = refusal(tmp_path, models.with_second_output(models.linear()))
    assert "2 outputs" in error.what
    assert error.facts["outputs"] == "out, extra"


def test_an_output_that_is_not_there(tmp_path):
    assert refusal(tmp_path, models.linear(), output="pooled").key == "backbone.output"


def test_a_feature_map_without_pooling(tmp_path):
    error = refusal(tmp_path, models.feature_map())
    assert error.key == "backbone.pooling"
    assert error.file == str(tmp_path / "model.onnx")


@pytest.mark.parametrize("frozen", ["reduced", "reshaped"])
def test_a_batch_that_is_free_in_name_only_is_fixed_at_one(tmp_path, frozen, caplog):
    """Traced with the batch as a Python number: the export says "n" and means 1."""
    model = models.linear(vector="rows")
    if frozen == "reduced":
        model.graph.node.append(onnx.helper.make_node("ReduceMean", ["rows"], ["out"], axes=[0], keepdims=1))
    else:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, DIMENSION]), "shape"))
        model.graph.node.append(onnx.helper.make_node("Reshape", ["rows", "shape"], ["out"]))
    model.graph.output[0].name = "out"
    network = prepared(tmp_path, model)
    np.testing.assert_allclose(run(network, images(3)), by_hand(nchw(images(3)) / 255), atol=1e-5)
    assert caplog.records[-1].kv["batch"] == 1


@pytest.mark.parametrize("traced", [2, 4])
def test_a_batch_that_the_graph_holds_is_fixed_whatever_it_declares(tmp_path, traced, caplog):
    """SALAD as torch's older exporter writes it: a parameter expanded to the batch of the trace."""
    model = models.linear(vector="rows")
    ones = np.ones((traced, 1), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(ones, "dustbin"))
    model.graph.node.append(onnx.helper.make_node("Concat", ["rows", "dustbin"], ["out"], axis=1))
    model.graph.output[0].name = "out"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = DIMENSION + 1
    network = prepared(tmp_path, model)
    found = run(network, np.resize(images(3), (traced, *images(1).shape[1:])))
    assert found.shape == (traced, DIMENSION + 1)
    assert caplog.records[-1].kv["batch"] == traced


def test_non_finite_output_is_refused(tmp_path):
    error = refusal(tmp_path, models.linear(gain=1e38), scale=D(255))
    assert "non-finite" in error.what
    assert error.file == str(tmp_path / "model.onnx")


def test_constant_descriptor_is_refused(tmp_path):
    assert "constant descriptor" in refusal(tmp_path, models.linear(gain=0.0)).what


def test_a_size_against_the_model(tmp_path):
    assert refusal(tmp_path, models.linear(), size=(24, 24)).key == "backbone.size"


def test_no_size_at_all(tmp_path):
    assert refusal(tmp_path, models.linear(size="side")).key == "backbone.size"


def test_channels_against_the_model(tmp_path):
    assert "channels" in refusal(tmp_path, models.linear(), channels="gray").what


def test_a_model_that_cannot_run(tmp_path):
    model = models.linear()
    model.graph.node[2].op_type = "NoSuchOperator"
    error = refusal(tmp_path, model)
    assert error.file == str(tmp_path / "model.onnx")
    assert "NoSuchOperator" in error.facts["onnxruntime says"]


# Presets


def test_preset_fills_what_is_left_at_its_default():
    full = resolved(Backbone(name="m", onnx="m.onnx", preset="imagenet"))
    assert full.mean == (D("0.485"), D("0.456"), D("0.406"))
    assert full.scale == D("0.00392156862745098")


def test_a_key_that_is_set_wins_over_the_preset():
    full = resolved(Backbone(name="m", onnx="m.onnx", preset="netvlad", mean=(D(1), D(2), D(3))))
    assert full.mean == (D(1), D(2), D(3))
    assert full.scale == 1


def test_preset_refuses_a_model_of_another_length(tmp_path):
    error = refusal(tmp_path, models.linear(), preset="megaloc")
    assert error.key == "backbone.preset"
    assert "8448" in error.facts["it knows"]


def test_preset_size_serves_a_model_of_any_size(tmp_path):
    model = models.linear(size="side")
    cells = 320 // 4
    for attribute in model.graph.node[0].attribute:
        attribute.ints[:] = [cells, cells]
    del model.graph.output[0].type.tensor_type.shape.dim[1:]
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 128
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((48, 128)).astype(np.float32), "mix")
    )
    network = prepared(tmp_path, model, preset="mixvpr")
    assert run(network, images(1, 320)).shape == (1, 128)


# Digests


def test_digest_of_a_plain_model_is_that_of_its_file(tmp_path):
    onnx.save(models.linear(), str(tmp_path / "m.onnx"))
    source = onnx_source(Backbone(name="m", onnx="m.onnx"), tmp_path, None)
    assert source.sha256 == sha256_file(tmp_path / "m.onnx")


def test_external_data_is_in_the_digest(tmp_path):
    path = models.with_external_data(models.linear(), tmp_path / "big.onnx")
    backbone = Backbone(name="m", onnx="big.onnx")
    before = onnx_source(backbone, tmp_path, tmp_path / "memo.json")
    data = bytearray((tmp_path / "big.onnx.data").read_bytes())
    data[7] ^= 1
    (tmp_path / "big.onnx.data").write_bytes(data)
    after = onnx_source(backbone, tmp_path, tmp_path / "memo.json")
    assert after.sha256 != before.sha256
    assert after.files == (path, tmp_path / "big.onnx.data")


def test_fresh_memo_needs_no_onnx(tmp_path):
    models.with_external_data(models.linear(), tmp_path / "big.onnx")
    onnx.save(models.linear(), str(tmp_path / "m.onnx"))
    script = (
        "import sys, pathlib; from provisioning.network.backbone import onnx_source; from provisioning.config import Backbone\n"
        "from provisioning.base.disk.lock import build_lock\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "with build_lock(root):\n"
        "    for name in ('big.onnx', 'm.onnx', 'builtin:gist-color'):\n"
        "        print(onnx_source(Backbone(name='m', onnx=name), root, root / 'memo.json').sha256)\n"
        "print([m for m in ('onnx', 'onnxruntime', 'numpy', 'PIL') if m in sys.modules])\n"
    )

    def digests():
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    first, second = digests(), digests()
    assert first[:3] == second[:3]
    assert "onnx" in first[3]
    assert second[3] == "[]"


def test_memo_is_written_under_the_build_lock_only(tmp_path):
    onnx.save(models.linear(), str(tmp_path / "m.onnx"))
    onnx_source(Backbone(name="m", onnx="m.onnx"), tmp_path, tmp_path / "memo.json")
    assert not (tmp_path / "memo.json").exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"x": 1}'])
def test_damaged_memo_costs_a_rehash_only(tmp_path, damage):
    onnx.save(models.linear(), str(tmp_path / "m.onnx"))
    (tmp_path / "memo.json").write_bytes(damage)
    with build_lock(tmp_path):
        source = onnx_source(Backbone(name="m", onnx="m.onnx"), tmp_path, tmp_path / "memo.json")
    assert source.sha256 == sha256_file(tmp_path / "m.onnx")
    assert str(tmp_path / "m.onnx") in json.loads((tmp_path / "memo.json").read_text())


@pytest.mark.parametrize(
    "change",
    [
        {"fit": "crop"}, {"layout": "nhwc"}, {"channels": "bgr"}, {"scale": D(1)}, {"mean": (D(1),)}, {"std": (D(2),)},
        {"pooling": "avg"}, {"normalise": "none"}, {"size": (32, 32)}, {"output": "other"}, {"preset": "netvlad"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_part_of_the_preprocessing_is_in_the_key(tmp_path, change):
    onnx.save(models.linear(), str(tmp_path / "m.onnx"))
    plain, changed = Backbone(name="m", onnx="m.onnx"), Backbone(name="m", onnx="m.onnx", **change)
    source = onnx_source(plain, tmp_path, None)
    assert digest_of(prepared_facts(plain, source)) != digest_of(prepared_facts(changed, source))


def test_a_preset_and_the_same_numbers_are_one_key(tmp_path):
    onnx.save(models.linear(), str(tmp_path / "m.onnx"))
    preset = Backbone(name="m", onnx="m.onnx", preset="imagenet", size=(16, 16))
    spelt = resolved(Backbone(name="n", onnx="m.onnx", preset="imagenet", size=(16, 16)))
    source = onnx_source(preset, tmp_path, None)
    assert digest_of(prepared_facts(preset, source)) == digest_of(prepared_facts(spelt, source))


# Fitting and turning


def test_fit_gives_the_size_and_keeps_what_fits():
    tile = images(1, 64)[0]
    assert fit(tile, (64, 64), "resize").tobytes() == tile.tobytes()
    for how in ("resize", "crop", "pad"):
        for size in ((32, 32), (17, 40), (96, 51)):
            assert fit(tile, size, how).shape == (*size, 3), how


def test_resize_is_pillows_bilinear():
    tile = images(1, 64)[0]
    for size in ((24, 32), (33, 40), (96, 70)):
        expected = np.asarray(Image.fromarray(tile).resize(size[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(fit(tile, size, "resize"), expected)


def test_crop_takes_the_middle_and_pad_adds_black():
    tile = np.zeros((8, 16, 3), np.uint8)
    tile[:, 4:12] = 255
    assert (fit(tile, (8, 8), "crop") == 255).all()
    padded = fit(tile, (16, 16), "pad")
    assert (padded[:4] == 0).all()
    np.testing.assert_array_equal(padded[4:12], tile)


def test_turning_east_brings_the_east_edge_up():
    tile = np.zeros((8, 8, 3), np.uint8)
    tile[:, -1] = 255
    assert (turn(tile, Fraction(1, 4))[0] == 255).all()
    assert (turn(tile, Fraction(3, 4))[-1] == 255).all()


def test_turns_between_quarters_agree_with_quarters():
    """A smooth image turned by 44 and by 46 degrees brackets the same content; no corner is left empty."""
    ramp = np.repeat(np.linspace(50, 200, 64).astype(np.uint8)[:, None, None], 64, axis=1).repeat(3, axis=2)
    near = turn(ramp, Fraction(89, 360)).astype(int), turn(ramp, Fraction(1, 4)).astype(int)
    assert np.abs(near[0] - near[1])[8:-8, 8:-8].max() <= 4
    assert turn(ramp, Fraction(1, 8)).min() >= 45


def test_four_quarter_turns_are_the_tile():
    tile = images(1, 32)[0]
    for _ in range(4):
        tile = turn(tile, Fraction(1, 4))
    np.testing.assert_array_equal(tile, images(1, 32)[0])


def test_dimension_is_stated(tmp_path):
    output = onnx.load(str(prepared(tmp_path, models.linear()))).graph.output[0]
    assert output.type.tensor_type.shape.dim[1].dim_value == DIMENSION
