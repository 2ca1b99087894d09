"""How a tile is brought to the size of a network: the filter is declared, keyed, and the same wherever tiles are seen."""

import io

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from provisioning.base.errors import BackboneError, ConfigError
from provisioning.base.hashing import digest_of
from provisioning.config import Backbone
from provisioning.descriptors.facts import descriptor_facts
from provisioning.network.backbone import onnx_source, prepare, prepared_facts
from provisioning.sources.pixels import fitting
from provisioning.sources.pixels.fitting import fit
from provisioning.sources.pixels.image import decode
from tests import models
from tests.building import GIST, build, edit, new_cache


def picture(height, width):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def how(**settings):
    return Backbone(name="m", **settings).fit_how


@pytest.mark.parametrize("size", [(40, 30), (90, 130)])
def test_antialiased_and_bicubic_are_pillows(size):
    image = picture(64, 80)
    for resample, theirs in (("antialiased", "BILINEAR"), ("bicubic", "BICUBIC")):
        expected = Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, theirs))
        np.testing.assert_array_equal(fit(image, size, how(resample=resample)), np.asarray(expected))


@pytest.mark.parametrize("values", [256, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 2), (128, 128), (200, 301)])
def test_halving_four_bytes_a_pixel_is_pillows(size, values):
    shape = 2 * size[0], 2 * size[1], 4
    image = np.random.default_rng(5).integers(0, values, shape, np.uint8) * np.uint8(255 // (values - 1))
    expected = Image.fromarray(np.ascontiguousarray(image[..., :3])).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(fit(image, size, "resize"), np.asarray(expected))


def test_a_picture_that_is_kept_shows_the_last_image_alone(monkeypatch):
    images = [picture(64, 80), 255 - picture(64, 80), picture(80, 64), picture(64, 80)]
    expected = [np.asarray(Image.fromarray(each).resize((30, 40), Image.Resampling.BILINEAR)) for each in images]
    for kept_bytes in (fitting.KEPT_BYTES, 0):
        monkeypatch.setattr(fitting, "KEPT_BYTES", kept_bytes)
        found = [fit(each, (40, 30), "resize") for each in images]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("saved", [{"subsampling": n} for n in range(3)] + [{"progressive": True}])
@pytest.mark.parametrize("size", [(17, 21), (20, 30)])
def test_a_jpeg_that_is_fitted_has_the_same_pixels(mode, saved, size):
    file = io.BytesIO()
    Image.fromarray(picture(34, 42)).convert(mode).save(file, "JPEG", quality=90, **saved)
    decoded, spare = (decode(file.getvalue(), max_pixels=1 << 20, fitted_to=each) for each in (None, size))
    assert (decoded.shape[2], spare.shape[2]) == (3, 4)
    np.testing.assert_array_equal(fit(spare, size, "resize"), fit(decoded, size, "resize"))


@pytest.mark.parametrize("name", ["resize", "crop", "pad", "resize-bilinear", "crop-bicubic", "keep-aspect"])
@pytest.mark.parametrize("size", [(64, 80), (32, 40), (16, 20)])
def test_a_fourth_byte_says_nothing(name, size):
    image = np.random.default_rng(3).integers(0, 256, (64, 80, 4), np.uint8)
    found = fit(image, size, name)
    np.testing.assert_array_equal(found, fit(np.ascontiguousarray(image[..., :3]), size, name))
    assert found.flags.c_contiguous


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (11, 13)])
def test_bilinear_is_onnx_resize_without_antialiasing(size):
    """Resize of ONNX, mode linear with half pixels, is what OpenCV and PyTorch compute."""
    image = picture(8, 10)  # ONNX before 1.21 takes ten milliseconds a number
    port = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel"
    )
    sizes = onnx.numpy_helper.from_array(np.array([*size, 3]), "sizes")
    graph = helper.make_graph([node], "g", [port], [helper.make_tensor_value_info("y", 1, None)], [sizes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    (expected,) = ReferenceEvaluator(model).run(None, {"x": image.astype(np.float32)})
    assert np.abs(fit(image, size, how(resample="bilinear")) - expected).max() <= 1.5


@pytest.mark.parametrize("shape", ["crop", "pad"])
def test_the_filter_serves_every_fit(shape):
    image = picture(60, 80)
    found = {fit(image, (32, 32), how(fit=shape, resample=r)).tobytes() for r in ("antialiased", "bilinear", "bicubic")}
    assert len(found) == 3


def test_the_filter_keys_descriptors_and_not_the_network(tmp_path):
    source = onnx_source(Backbone(name="m"), tmp_path, None)
    backbones = [Backbone(name="m", resample=r) for r in ("antialiased", "bilinear", "bicubic")]
    assert len({digest_of(descriptor_facts("e", b, {}, "float32", "0")) for b in backbones}) == 3
    assert len({digest_of(prepared_facts(b, source)) for b in backbones}) == 1
    assert descriptor_facts("e", backbones[0], {}, "float32", 0)["fit"] == "resize"


def test_a_cache_says_how_its_tiles_were_resized(tmp_path):
    """Whoever looks a photo up must use the same filter: it stands in the Manifest."""
    cache = new_cache(tmp_path, side=2, network=GIST)
    edit(cache, "# resample = ", "resample = ")
    edit(cache, 'resample = "antialiased"', 'resample = "bicubic"')
    edit(cache, "[gates]", "[gates]\nrecognition = 0\nmax_degenerate = 1\n")
    for name in ("recognition", "max_degenerate"):
        edit(cache, f"# {name} = ", f"# was: {name} = ")
    done = build(cache)
    assert done.outcome == "SUCCESS", done.failure
    assert '"fit":"resize-bicubic"' in (cache / "current" / "Manifest.json").read_text().replace(" ", "")


def depth(height="h", width="w"):
    model = models.feature_map()
    shape = ["n", 3, height, width]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", models.FLOAT, shape))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("map", models.FLOAT, ["n", models.DIMENSION, "a", "b"])
    )
    return model


def written(tmp_path, model, **settings):
    onnx.save(model, str(tmp_path / "depth.onnx"))
    backbone = Backbone(name="depth", role="depth", onnx=str(tmp_path / "depth.onnx"), **settings)
    prepare(backbone, onnx_source(backbone, tmp_path, None), tmp_path / "out.onnx")
    return tmp_path / "out.onnx"


def test_a_network_of_another_role_is_fixed_at_the_size_declared(tmp_path):
    """What TensorRT asks for where height and width are free: its next step says to give size."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'flightcache[rtx]'")
    from provisioning.base.errors import EngineError
    from tests.test_rtx import build as compiled

    with pytest.raises(EngineError, match="dynamic axis besides the batch") as caught:
        compiled(written(tmp_path, depth()), tmp_path)
    assert "size" in caught.value.next_step
    assert compiled(written(tmp_path, depth(), size=(48, 64)), tmp_path)


def test_size_for_a_network_without_an_image_is_refused(tmp_path):
    model = depth()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", models.FLOAT, ["n", 3]))
    with pytest.raises(BackboneError, match="no image whose size is free"):
        written(tmp_path, model, size=(48, 64))


def test_tokens_are_skipped_where_tokens_are_pooled_only(tmp_path):
    cache = new_cache(tmp_path, side=2, network=GIST)
    edit(cache, "# skip_tokens = 0", "skip_tokens = 5")
    from provisioning.config.parse import read_flight

    with pytest.raises(ConfigError) as caught:
        read_flight(cache)
    assert "pooling" in caught.value.facts["backbone[0].skip_tokens"]
