"""fit = "keep-aspect": the longer side is brought to that of `size`, and nothing is distorted, cut or padded."""

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from provisioning.base.errors import BackboneError, TileError
from provisioning.config import Backbone
from provisioning.network.backbone import onnx_source, prepare
from provisioning.sources.pixels.fitting import fit
from tests import models


def picture(height, width):
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


def how(**settings):
    return Backbone(name="m", fit="keep-aspect", **settings).fit_how


@pytest.mark.parametrize(("shape", "size"), [((64, 64), (32, 32)), ((60, 80), (24, 32)), ((101, 50), (64, 32))])
@pytest.mark.parametrize(("resample", "theirs"), [("antialiased", "BILINEAR"), ("bicubic", "BICUBIC")])
def test_an_image_of_this_aspect_is_pillows_resize(shape, size, resample, theirs):
    image = picture(*shape)
    expected = Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, theirs))
    np.testing.assert_array_equal(fit(image, size, how(resample=resample)), np.asarray(expected))


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (32, 31)])
def test_an_image_of_another_aspect_is_refused(shape):
    with pytest.raises(TileError, match=f"{shape[0]} x {shape[1]} pixels") as refusal:
        fit(picture(*shape), (32, 32), how())
    assert 'fit = "crop"' in refusal.value.next_step


def prepared(tmp_path, height, width):
    model = models.feature_map()
    port = helper.make_tensor_value_info("image", models.FLOAT, ["n", 3, height, width])
    model.graph.input[0].CopyFrom(port)
    free = helper.make_tensor_value_info("map", models.FLOAT, ["n", models.DIMENSION, "a", "b"])
    model.graph.output[0].CopyFrom(free)
    onnx.save(model, str(tmp_path / "m.onnx"))
    settings = {"size": (16, 16), "pooling": "avg", "fit": "keep-aspect"}
    backbone = Backbone(name="m", onnx=str(tmp_path / "m.onnx"), **settings)
    prepare(backbone, onnx_source(backbone, tmp_path, None), tmp_path / "out.onnx")


def test_a_model_of_free_size_is_taken(tmp_path):
    prepared(tmp_path, "h", "w")
    assert [d.dim_value for d in onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim[1:]] == [
        16, 16, 3,
    ]  # fmt: skip


@pytest.mark.parametrize(("height", "width"), [(16, 16), ("h", 16)])
def test_a_model_of_one_size_is_refused_with_the_reason(tmp_path, height, width):
    with pytest.raises(BackboneError, match="cannot keep their aspect") as refusal:
        prepared(tmp_path, height, width)
    assert "free height and width" in refusal.value.next_step
