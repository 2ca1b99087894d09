"""A backbone of role matcher: its points are the model's, everywhere in an image of any size, and locate uses them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from provisioning.base.errors import BackboneError, EngineError
from provisioning.config import Backbone
from provisioning.engines import OnnxNetwork, make_typed
from provisioning.network.backbone import onnx_source, prepare, prepared_facts
from provisioning.network.points import POINTS, points_of
from provisioning.quality.matching import learned
from tests import building, corners
from tests.photographing import textured
from tests.test_second_stage import assert_evaluate_counts_the_placed, located

SIDE = 352


@pytest.fixture(scope="module")
def harris(tmp_path_factory):
    """The prepared network of local features, which has no state."""
    return network(tmp_path_factory.mktemp("harris"), corners.points())


def declared(tmp_path, model, **settings):
    onnx.save(model, str(tmp_path / "points.onnx"))
    backbone = Backbone(name="points", role="matcher", onnx=str(tmp_path / "points.onnx"), **settings)
    return backbone, onnx_source(backbone, tmp_path, None)


def network(tmp_path, model, **settings):
    backbone, source = declared(tmp_path, model, **settings)
    prepare(backbone, source, tmp_path / "prepared.onnx")
    return OnnxNetwork.load((tmp_path / "prepared.onnx").read_bytes())


def by_itself(model, image):
    """Return what the model gives of an image uint8 [H, W, 3], by output."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = (image.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    return dict(zip((port.name for port in session.get_outputs()), session.run(None, {"image": given}), strict=True))


def squares(height, width, *, step=60, side=24):
    """Return grey squares on black, and their corners as points (x, y)."""
    image, found = np.zeros((height, width, 3), np.uint8), []
    for top in range(20, height - side - 8, step):
        for left in range(20, width - side - 8, step):
            image[top : top + side, left : left + side] = 200
            found += [(left + dx, top + dy) for dx in (0, side - 1) for dy in (0, side - 1)]
    return image, np.array(found)


def away(points, others):
    """Return how far each point is from the nearest of others, pixel."""
    return np.abs(points[:, None] - others[None]).max(axis=2).min(axis=1)


@pytest.mark.parametrize("names", [("keypoints", "scores", "descriptors"), ("mkpts", "conf", "feats")])
def test_the_points_of_an_engine_are_the_models(tmp_path, names):
    image, model = textured(2, 5)[:SIDE, :SIDE], corners.points(names=names)
    points, scores, descriptors = points_of(network(tmp_path, model)(image[None])[0])
    theirs = by_itself(model, image)
    count = int((theirs[names[1]] > 0).sum())
    assert len(points) == count > 100
    np.testing.assert_array_equal(points, theirs[names[0]][0, :count])
    np.testing.assert_allclose(scores, theirs[names[1]][0, :count], rtol=1e-4)
    unit = theirs[names[2]][0, :count]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    assert (unit * descriptors).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("reliability", [True, False])
def test_maps_are_decoded_as_by_hand(tmp_path, reliability):
    image, model = textured(2, 6)[:SIDE, :SIDE], corners.maps(reliability=reliability)
    points, scores, descriptors = points_of(network(tmp_path, model)(image[None])[0])
    theirs = by_itself(model, image)
    shares = np.exp(theirs["semi"][0]) / np.exp(theirs["semi"][0]).sum(axis=0)
    cells = SIDE // 8
    score = shares[:64].reshape(8, 8, cells, cells).transpose(2, 0, 3, 1).reshape(SIDE, SIDE)
    score = np.where(score == cv2.dilate(score, np.ones((5, 5))), score, 0)
    if reliability:
        score *= cv2.resize(theirs["trust"][0, 0], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    best = np.sort(score.ravel())[::-1][: len(scores)]
    np.testing.assert_allclose(scores, best, rtol=1e-3)
    x, y = points.astype(int).T
    np.testing.assert_allclose(score[y, x], scores, rtol=1e-3)
    for number in (0, 50, 100):
        at = ((points[number] + 0.5) / 8 - 0.5).astype(np.float32)
        mean = np.array([cv2.remap(m, *(a.reshape(1, 1) for a in at), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                         for m in theirs["desc"][0]]).ravel()  # fmt: skip
        assert descriptors[number] @ (mean / np.linalg.norm(mean)) > 0.999


@pytest.mark.parametrize("size", [(200, 150), (352, 352), (700, 500), (1000, 380)])
def test_corners_are_found_once_everywhere_in_an_image_of_any_size(harris, size):
    image, true = squares(*size)
    found = learned(harris)(image, np.ones(size, bool))
    assert away(true, found.points).max() <= 4
    assert away(found.points, true).max() <= 8
    apart = np.abs(found.points[:, None] - found.points[None]).max(axis=2) + 99 * np.eye(len(found.points))
    assert apart.min() > 2


def test_what_is_not_shown_has_no_points(harris):
    image, _ = squares(500, 500)
    shown = np.ones((500, 500), bool)
    shown[:, 250:] = False
    found = learned(harris)(image, shown)
    assert len(found.points) > 20
    assert found.points[:, 0].max() <= 250 - 8


def test_an_image_without_corners_has_none(harris):
    found = learned(harris)(np.zeros((300, 300, 3), np.uint8), np.ones((300, 300), bool))
    assert len(found.points) == 0
    assert found.descriptors.shape == (0, 25)


def test_more_points_than_a_row_holds_leave_the_best(tmp_path):
    """A model that gives 1,200 points; the row holds 1,000."""
    before, corners.POINTS = corners.POINTS, POINTS + 200
    try:
        model = corners.points()
    finally:
        corners.POINTS = before
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    _, scores, _ = points_of(network(tmp_path, model)(image[None])[0])
    theirs = by_itself(model, image)["scores"][0]
    np.testing.assert_allclose(scores, theirs[theirs > 0][:POINTS], rtol=1e-3)


def test_a_free_size_is_fixed_as_declared(tmp_path):
    model = corners.points((256, 320))
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "any"
    with pytest.raises(BackboneError, match="images of any size") as refused:
        network(tmp_path, model)
    assert "size = [height, width]" in refused.value.next_step
    assert network(tmp_path, model, size=(256, 320)).size == (256, 320)


def without_scores(model):
    del model.graph.output[1]
    return model


def two_images(model):
    model.graph.input.append(onnx.helper.make_tensor_value_info("image1", 1, [1, 3, SIDE, SIDE]))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["image1"], ["other"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("other", 1, None))
    return model


def two_scores(model):
    model.graph.node.append(onnx.helper.make_node("Neg", [model.graph.output[1].name], ["rank"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("rank", 1, None))
    return model


def test_of_two_outputs_of_one_form_the_usual_name_counts(tmp_path):
    assert network(tmp_path, two_scores(corners.points())).dimension == POINTS * 28


@pytest.mark.parametrize(
    ("model", "said", "step"),
    [
        (lambda: without_scores(corners.points()), "no local features of a form", "another role"),
        (lambda: corners.points(wide=True), "no local features of a form", "these outputs"),
        (lambda: two_scores(corners.points(names=("keypoints", "conf", "descriptors"))), "no local features", "names"),
        (lambda: corners.points(shares=True), "shares of the image", "in pixels"),
        (lambda: corners.points(shift=500.0), "outside of its image", "in pixels"),
        (lambda: corners.points(gain=-1.0), "finds no point", "scores"),
        (lambda: corners.points(gain=float("inf")), "non-finite", "scale"),
        (lambda: corners.points((96, 96)), "too small an image", "128 pixels"),
        (lambda: corners.points(batch=2), "2 images at a time", "batch of 1"),
        (lambda: two_images(corners.points()), "reads 2 inputs", "local features of one image"),
    ],
)
def test_a_model_that_is_no_matcher_is_refused_with_what_to_do(tmp_path, model, said, step):
    with pytest.raises(BackboneError, match=said) as refused:
        network(tmp_path, model())
    assert refused.value.file.endswith("points.onnx")
    assert step in refused.value.next_step


def test_the_image_of_another_size_than_it_was_traced_with_is_refused(tmp_path):
    """Its places are counted by a width of 320; declared is another."""
    model = corners.points((256, 320))
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "any"
    with pytest.raises(BackboneError, match="outside of its image") as refused:
        network(tmp_path, model, size=(352, 200))
    assert refused.value.key == "backbone.points"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_points_are_not_rounded(tmp_path, precision):
    backbone, source = declared(tmp_path, corners.points(), precision=precision)
    with pytest.raises(EngineError) as refused:
        make_typed(backbone, source, tmp_path / "typed.onnx", lambda _: iter(()), backend="onnxruntime")
    assert "matcher" in refused.value.what
    assert refused.value.next_step


def test_preprocessing_keys_a_matcher_and_pooling_does_not(tmp_path):
    backbone, source = declared(tmp_path, corners.points())

    def key(**settings):
        return dict(prepared_facts(Backbone(name="m", role="matcher", onnx=backbone.onnx, **settings), source))

    assert key() == key(pooling="avg")
    assert key() != key(channels="bgr")
    assert key() != key(size=(352, 352))


def test_the_engine_of_descriptors_is_no_matcher():
    class Descriptors:
        dimension = 512

    with pytest.raises(EngineError, match="no table of points"):
        learned(Descriptors())


# as commands


def with_matcher(cache, name):
    """Build the cache of a copied site with one more matcher."""
    onnx.save(corners.points(), str(cache.parent / "points.onnx"))
    table = f'[[backbone]]\nname = "{name}"\nrole = "matcher"\nonnx = "{cache.parent}/points.onnx"\n\n[engine]'
    building.edit(cache, "[engine]", table)
    return building.build(cache)


@pytest.fixture(scope="module")
def matching(flown, tmp_path_factory):
    cache = building.copy_site(flown[0].parent, tmp_path_factory.mktemp("matching") / "site")
    assert with_matcher(cache, "harris").outcome == "SUCCESS"
    return cache, flown[1]


@pytest.mark.parametrize("name", ["matcher", pytest.param("harris", marks=pytest.mark.slow)])
def test_locate_gives_the_position_by_the_network_on_board(matching, capsys, name):
    code, said = located(matching[0], capsys, "--fov", "65", "--second-stage", name, "--rerank", "1", "--json")
    assert code == 0, said.err
    (row,) = json.loads(said.out)
    assert row["fix"]["features"] >= 12
    assert row["matches"][0]["distance_m"] < 60  # tiles are 2.4 km wide, a pixel 6.5 m


@pytest.mark.slow  # test_second_stage.py counts what features placed; that a network places them is the test above
def test_evaluate_counts_what_the_network_placed(matching, capsys):
    assert_evaluate_counts_the_placed(*matching, capsys, "matcher")


def test_a_name_that_is_no_matcher_says_which_there_are(matching, flown, capsys):
    code, said = located(matching[0], capsys, "--second-stage", "xfeat")
    assert code != 0
    assert "harris" in said.err
    code, said = located(flown[0], capsys, "--second-stage", "matcher")
    assert code != 0
    assert 'role = "matcher"' in said.err


def test_of_several_matchers_one_is_to_be_named(matching, tmp_path, capsys):
    cache = building.copy_site(matching[0].parent, tmp_path / "site")
    assert with_matcher(cache, "two").outcome == "SUCCESS"
    code, said = located(cache, capsys, "--second-stage", "matcher")
    assert code != 0
    assert "--second-stage harris" in said.err
    assert located(cache, capsys, "--fov", "65", "--second-stage", "two", "--rerank", "1")[0] == 0


def test_a_build_with_a_model_that_is_no_matcher_fails_and_names_it(flown, tmp_path):
    cache = building.copy_site(flown[0].parent, tmp_path / "site")
    onnx.save(corners.points(wide=True), str(tmp_path / "points.onnx"))
    building.edit(
        cache, "[engine]", f'[[backbone]]\nname = "m"\nrole = "matcher"\nonnx = "{tmp_path}/points.onnx"\n\n[engine]'
    )
    built = building.build(cache)
    assert built.outcome == "FAILURE"
    assert built.failure.file.endswith("points.onnx")
