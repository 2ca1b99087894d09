"""A user's network of local features becomes one from an image to a table of points (`network/points.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from provisioning.base.errors import BackboneError
from provisioning.config import Backbone
from provisioning.network.backbone.graph.adapt import plain
from provisioning.network.backbone.graph.front import prepend_front
from provisioning.network.backbone.graph.points import LEAST_OPSET, Maps, Sparse, append_points, form_of
from provisioning.network.backbone.graph.ports import find_image, image_size, require_opset
from provisioning.network.backbone.graph.stitch import drop_dead_nodes, free_name
from provisioning.network.backbone.presets import preset_of, resolved
from provisioning.network.backbone.trial import TRIAL_S, running, session_of
from provisioning.network.points import BESIDE, MATCHER, POINTS, points_of
from provisioning.network.session import run_limited

IMAGE, FEATURES = "tiles", "features"
LEAST_SIDE = 128
"""Pixels; a window of the photo must be wider than its margins, in which nothing is taken."""
FORMS = "keypoints [1, n, 2], scores [1, n], descriptors [1, n, d]; or maps [1, 65, H/8, W/8] and [1, d, H/8, W/8]"
OTHER_ROLE = f'give it another role than "{MATCHER}" if it is to be compiled only'
Outputs = dict[str, NDArray[Any]]


def matcher(backbone: Backbone, model: onnx.ModelProto, file: str, weights: Path | None) -> onnx.ModelProto:
    """Return `model` as a matcher: "tiles" uint8 [1, H, W, 3] RGB to "features" float32 [1, POINTS * (3 + d)].

    It is run here on two images. weights: the directory of external data that is not loaded. BackboneError: no one
    image input, no size, outputs of no known form, points that are no pixels, nothing found, not finite.
    """
    full = resolved(backbone)
    model = plain(require_opset(model, file, least=LEAST_OPSET), full.constants, "", file)
    _require_one_image(full, model, file)
    image = find_image(full, model, file)
    if image.batch not in (None, 1):
        raise _refusal(backbone, file, f"takes {image.batch} images at a time", "export it with a batch of 1")
    size = image_size(full, image, preset_of(backbone), file)
    if min(size) < LEAST_SIDE:
        step = (
            f"export it for images of {LEAST_SIDE} pixels or more to each side; 352 hold a tile of 256 with its border"
        )
        raise _refusal(backbone, file, "takes too small an image", step, pixels=list(size))
    theirs = [port.name for port in model.graph.output]
    for name in (IMAGE, FEATURES):
        image = free_name(model.graph, name, image)
    renamed = dict(zip((port.name for port in model.graph.output), theirs, strict=True))
    for part in (model.graph.input, model.graph.value_info):
        del part[:]
    prepend_front(full, model, image, tiles=IMAGE)
    model.graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, *size, 3]))
    form = _form(backbone, model, renamed, size, file, weights)
    del model.graph.output[:]
    append_points(model, form, size, unit_length=full.normalise == "l2", features=FEATURES)
    length = POINTS * (BESIDE + form.length)
    model.graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [1, length]))
    drop_dead_nodes(model.graph)
    _try(backbone, model, size, file, weights)
    return model


def _require_one_image(backbone: Backbone, model: onnx.ModelProto, file: str) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [port.name for port in model.graph.input if port.name not in weights]
    if len(inputs) > 1 and not backbone.input:
        raise _refusal(
            backbone, file, f"reads {len(inputs)} inputs: networks that match a pair are not used here",
            f"export the part that gives the local features of one image; or {OTHER_ROLE}", inputs=", ".join(inputs),
        )  # fmt: skip


def _form(
    backbone: Backbone, model: onnx.ModelProto, theirs: dict[str, str], size: tuple[int, int], file: str,
    weights: Path | None,
) -> Sparse | Maps:  # fmt: skip
    """Return which outputs are what; BackboneError with their shapes where that is not clear."""
    (found,) = _run(backbone, model, _images(size)[:1], file, weights)
    form = form_of({name: value.shape for name, value in found.items()}, size)
    if form is None:
        raise _refusal(
            backbone, file, "gives no local features of a form that is known here",
            f"export it with these outputs, by these names if it has more, for one image; or {OTHER_ROLE}",
            gives=", ".join(f"{theirs[name]} {list(value.shape)}" for name, value in found.items()), needed=FORMS,
        )  # fmt: skip
    if isinstance(form, Sparse):
        _require_pixels(backbone, found[form.keypoints].reshape(-1, 2), size, file)
    return form


def _require_pixels(backbone: Backbone, points: NDArray[Any], size: tuple[int, int], file: str) -> None:
    facts = {"least": points.min(initial=0), "greatest": points.max(initial=0), "pixels": list(size)}
    if len(points) >= 10 and np.abs(points).max() <= 1:
        raise _refusal(
            backbone, file, "gives its keypoints as shares of the image", "export them in pixels (x, y)", **facts
        )
    if (points < -1).any() or (points > np.array(size[::-1])).any():
        raise _refusal(
            backbone,
            file,
            "gives keypoints outside of its image",
            "export them in pixels of the input, (x, y)",
            **facts,
        )


def _try(backbone: Backbone, model: onnx.ModelProto, size: tuple[int, int], file: str, weights: Path | None) -> None:
    """Refuse a matcher that finds nothing, the same in unlike images, or what is no number."""
    rows = [found[FEATURES][0] for found in _run(backbone, model, _images(size), file, weights)]
    if not np.isfinite(rows).all():
        raise _refusal(backbone, file, "gives non-finite numbers", "check scale, mean and std")
    if not all(len(points_of(row)[0]) for row in rows):
        step = "check scale, mean and std, and that scores of points are above 0"
        raise _refusal(backbone, file, "finds no point in an image full of corners", step)
    if np.array_equal(*rows):
        raise _refusal(backbone, file, "finds the same in unlike images", "check backbone.input and the weights")


def _images(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return two images of random squares, uint8 [1, H, W, 3]: corners of several sizes."""
    rng = np.random.Generator(np.random.PCG64(1))
    whole = np.zeros((2, *size, 3))
    for side in (8, 24):
        coarse = rng.integers(0, 256, (2, size[0] // side + 1, size[1] // side + 1, 3))
        whole += coarse.repeat(side, axis=1).repeat(side, axis=2)[:, : size[0], : size[1]] / 2
    first, second = whole.astype(np.uint8)
    return first[None], second[None]


def _run(
    backbone: Backbone, model: onnx.ModelProto, images: Iterable[NDArray[np.uint8]], file: str, weights: Path | None
) -> list[Outputs]:
    """Return what the model gives of each image, by output."""
    names = [port.name for port in model.graph.output]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    step = "export it for one image of this size, or set size to the one that it was exported for"
    with running(file, next_step=step, image=shape[1:3]):
        session = session_of(model, backbone.custom_ops, weights)
        given = [run_limited(session, names, {IMAGE: image}, within_s=TRIAL_S) for image in images]
    return [dict(zip(names, found, strict=True)) for found in given]


def _refusal(backbone: Backbone, file: str, what: str, next_step: str, **facts: object) -> BackboneError:
    return BackboneError(
        f"the matcher {backbone.name} {what}", file=file, key=f"backbone.{backbone.name}", facts=facts,
        next_step=next_step,
    )  # fmt: skip
