"""The back of a matcher: what a network of local features gives, as one table of points.

Two forms are known. *Points*: keypoints [1, n, 2], scores [1, n], descriptors [1, n, d], as exports of XFeat, ALIKED,
DISK and SuperPoint with their selection inside have them. *Maps*: logits [1, 65, H/8, W/8] of 8 x 8 pixels and of none,
descriptors [1, d, H/8, W/8] and perhaps a reliability [1, 1, H/8, W/8], as the bare networks of SuperPoint (DeTone,
Malisiewicz, Rabinovich, CVPRW 2018) and XFeat (Potje et al., CVPR 2024) give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from provisioning.network.backbone.graph.back import NORM_FLOOR
from provisioning.network.backbone.graph.stitch import Stitch
from provisioning.network.points import BESIDE, POINTS

CELL = 8
"""Pixels to a side of a cell of the maps."""
ALONE = 5
"""Pixels to a side of the square in which a point has the greatest score (XFeat's)."""
LEAST_OPSET = 16
"""The first with GridSample, which reads descriptors between the cells."""

Shapes = Mapping[str, tuple[int, ...]]


class Sparse(NamedTuple):
    """Names of the outputs of a network that gives points."""

    keypoints: str
    scores: str
    descriptors: str
    length: int


class Maps(NamedTuple):
    """Names of the outputs of a network that gives maps; `reliability` may be empty."""

    logits: str
    descriptors: str
    reliability: str
    length: int


def form_of(shapes: Shapes, size: tuple[int, int]) -> Sparse | Maps | None:
    """Return which outputs are what, by the shapes that they have for an image of `size`; None where they do not fit.

    Where several have the same form, the one with the usual name counts: keypoints, scores, descriptors.
    """
    cells = size[0] // CELL, size[1] // CELL
    maps = {
        name: shape[1] for name, shape in shapes.items() if len(shape) == 4 and (shape[0], *shape[2:]) == (1, *cells)
    }
    logits = [name for name, channels in maps.items() if channels == CELL * CELL + 1]
    described = [name for name, channels in maps.items() if channels not in (1, CELL * CELL + 1)]
    if len(logits) == len(described) == 1:
        reliability = next((name for name, channels in maps.items() if channels == 1), "")
        return Maps(logits[0], described[0], reliability, maps[described[0]])
    points = _only("keypoints", [name for name, shape in shapes.items() if _rows(shape) and shape[-1] == 2])
    if points is None:
        return None
    count = _rows(shapes[points])
    scores = _only("scores", [name for name, shape in shapes.items() if shape in ((count,), (1, count), (1, count, 1))])
    described_at = _only(
        "descriptors", [name for name, shape in shapes.items() if _rows(shape) == count and shape[-1] > 2]
    )
    return Sparse(points, scores, described_at, shapes[described_at][-1]) if scores and described_at else None


def _rows(shape: tuple[int, ...]) -> int:
    """Return n of a shape [n, d] or [1, n, d], 0 of any other."""
    return shape[-2] if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1) else 0


def _only(usual: str, names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else next((name for name in names if name.lower() == usual), None)


def append_points(
    model: onnx.ModelProto, form: Sparse | Maps, size: tuple[int, int], *, unit_length: bool, features: str
) -> None:
    """Put the selection behind the outputs of `form`, giving `features` float32 [1, POINTS * (3 + d)].

    A row of the table is x, y, score, descriptor; the best scored first, rows of zeros where there are fewer.
    """
    stitch = Stitch(model, "back")
    table = (
        _of_points(stitch, form, unit_length) if isinstance(form, Sparse) else _of_maps(stitch, form, size, unit_length)
    )
    stitch.add("Reshape", table, stitch.constant([1, -1], "int64"))
    stitch.nodes[-1].output[0] = features
    model.graph.node.extend(stitch.nodes)


def _of_points(stitch: Stitch, form: Sparse, unit_length: bool) -> str:  # noqa: FBT001 - one of two forms
    columns = ((form.keypoints, 2), (form.scores, 1), (form.descriptors, form.length))
    points, scores, descriptors = (
        stitch.add("Reshape", stitch.add("Cast", name, to=TensorProto.FLOAT), stitch.constant([-1, width], "int64"))
        for name, width in columns
    )
    none = stitch.constant(np.zeros((POINTS, BESIDE + form.length)))
    found = stitch.add("Concat", points, scores, _unit(stitch, descriptors, unit_length), axis=1)
    table = stitch.add("Concat", found, none, axis=0)
    score = stitch.add("Gather", table, stitch.constant(BESIDE - 1, "int64"), axis=1)
    return stitch.add("Gather", table, _best(stitch, score)[1], axis=0)


def _of_maps(stitch: Stitch, form: Maps, size: tuple[int, int], unit_length: bool) -> str:  # noqa: FBT001 - as above
    height, width = size
    shares = stitch.add("Softmax", stitch.add("Cast", form.logits, to=TensorProto.FLOAT), axis=1)
    bounds = (stitch.constant([bound], "int64") for bound in (0, CELL * CELL, 1))
    score = stitch.add("DepthToSpace", stitch.add("Slice", shares, *bounds), blocksize=CELL, mode="CRD")
    around = ALONE // 2
    highest = stitch.add("MaxPool", score, kernel_shape=[ALONE, ALONE], pads=[around] * 4)
    score = stitch.add("Where", stitch.add("Equal", score, highest), score, stitch.constant(0.0))
    if form.reliability:
        trust = stitch.add("Cast", form.reliability, to=TensorProto.FLOAT)
        whole = stitch.constant([1, 1, height, width], "int64")
        score = stitch.add("Mul", score, stitch.add("Resize", trust, "", "", whole, mode="linear"))
    scores, places = _best(stitch, stitch.add("Reshape", score, stitch.constant([-1], "int64")))
    across = stitch.constant(width, "int64")
    x, y = (
        stitch.add("Reshape", stitch.add("Cast", each, to=TensorProto.FLOAT), stitch.constant([-1, 1], "int64"))
        for each in (stitch.add("Mod", places, across), stitch.add("Div", places, across))
    )
    points = stitch.add("Concat", x, y, axis=1)
    shift = stitch.add("Add", points, stitch.constant(0.5))  # from -1 to 1 between the edges of the image
    grid = stitch.add("Sub", stitch.add("Mul", shift, stitch.constant([2 / width, 2 / height])), stitch.constant(1.0))
    grid = stitch.add("Reshape", grid, stitch.constant([1, 1, POINTS, 2], "int64"))
    described = stitch.add(
        "GridSample", stitch.add("Cast", form.descriptors, to=TensorProto.FLOAT), grid, padding_mode="border"
    )
    rows = stitch.add("Reshape", described, stitch.constant([form.length, POINTS], "int64"))
    descriptors = _unit(stitch, stitch.add("Transpose", rows, perm=[1, 0]), unit_length)
    scores = stitch.add("Reshape", scores, stitch.constant([-1, 1], "int64"))
    return stitch.add("Concat", points, scores, descriptors, axis=1)


def _best(stitch: Stitch, scores: str) -> tuple[str, str]:
    """Append TopK over `scores` [m]; return the scores and the places of the POINTS best, the best first."""
    values = stitch.add("TopK", scores, stitch.constant([POINTS], "int64"), axis=0)
    places = f"{values}/places"
    stitch.nodes[-1].output.append(places)
    return values, places


def _unit(stitch: Stitch, descriptors: str, unit_length: bool) -> str:  # noqa: FBT001 - as declared
    if not unit_length:
        return descriptors
    length = stitch.reduce("ReduceL2", descriptors, 1, keepdims=1)
    return stitch.add("Div", descriptors, stitch.add("Add", length, stitch.constant(NORM_FLOOR)))
