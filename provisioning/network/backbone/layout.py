"""What the axes of a model's output mean: declared, or read off its measured shape; refused where the two disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioning.base.errors import BackboneError
from provisioning.config import Backbone

Axes = Sequence[int | None]
"""Lengths of the axes; None where it is not known."""
STRIDES = (4, 7, 8, 14, 16, 28, 32)
"""Pixels between two tokens of common Vision Transformers and convolutional networks."""
FEWEST_TOKENS = 16
SPECIAL_TOKENS = 8
"""Most class, distillation and register tokens before those of the image."""


def output_layout(shape: Axes, batch: int, size: tuple[int, int], backbone: Backbone, *, output: str, file: str) -> str:
    """Return the layout of an output of `shape` that `batch` images of `size` (height, width, pixel) gave.

    One of d, nd, 1nd, ntd, ndt, nchw, nhwc; d is a component, t a token. BackboneError with the shapes where the
    declared layout, or the usual one, contradicts the shape.
    """
    rank, declared = len(shape), backbone.output_layout
    if declared != "auto" and rank != len(declared):
        raise _refused("is not of the layout declared", shape, size, backbone, output, file, likely=None)
    if rank <= 2:
        return "d" if rank == 1 else "nd"
    if rank == 3 and batch > 1 and tuple(shape[:2]) == (1, batch):
        return "1nd"
    if shape[0] not in (None, batch):
        raise _refused("has no row for each tile", shape, size, backbone, output, file, likely=None)
    return (_of_tokens if rank == 3 else _of_map)(shape, size, backbone, output, file)


def _of_tokens(shape: Axes, size: tuple[int, int], backbone: Backbone, output: str, file: str) -> str:
    declared, (first, second) = backbone.output_layout, shape[1:]
    if declared != "auto":
        return declared
    if 1 in (first, second):
        return "ntd" if first == 1 else "ndt"
    if _counts_tokens(second, size, STRIDES) and not _counts_tokens(first, size, range(1, max(size) + 1)):
        raise _refused("has its tokens last", shape, size, backbone, output, file, likely="ndt")
    return "ntd"


def _counts_tokens(count: int | None, size: tuple[int, int], strides: Iterable[int]) -> bool:
    """Return whether `count` can be the number of tokens of an image of `size`, with a few special ones."""
    if count is None:
        return True
    grids = [(size[0] // stride) * (size[1] // stride) for stride in strides]
    return any(grid >= FEWEST_TOKENS and 0 <= count - grid <= SPECIAL_TOKENS for grid in grids)


def _of_map(shape: Axes, size: tuple[int, int], backbone: Backbone, output: str, file: str) -> str:
    declared = backbone.layout if backbone.output_layout == "auto" else backbone.output_layout
    fits = {"nchw": _is_small_image(shape[2:], size), "nhwc": _is_small_image(shape[1:3], size)}
    other = "nhwc" if declared == "nchw" else "nchw"
    if fits[other] and not fits[declared]:
        raise _refused(f"is not {declared}", shape, size, backbone, output, file, likely=other)
    return declared


def _is_small_image(axes: Axes, size: tuple[int, int]) -> bool:
    """Return whether `axes` are height and width of an image of `size` made smaller by one stride, within a cell."""
    height, width = axes
    if height is None or width is None:
        return True
    if size[0] == size[1]:
        return height == width <= size[1]
    least = max(size[0] / (height + 1), size[1] / (width + 1))
    most = min(size[0] / max(height - 1, 1e-9), size[1] / max(width - 1, 1e-9))
    return height <= size[0] and width <= size[1] and least <= most


def _refused(
    why: str, shape: Axes, size: tuple[int, int], backbone: Backbone, output: str, file: str, *, likely: str | None
) -> BackboneError:
    return BackboneError(
        f"the output {output!r} {why}",
        file=file,
        key="backbone.output_layout",
        facts={
            "shape": list(shape),
            "image": f"{size[0]} x {size[1]}",
            "declared": backbone.output_layout,
            "layout of the input": backbone.layout,
            **({"likely": likely} if likely else {}),
        },
        next_step=f'set output_layout = "{likely}"' if likely else "correct backbone.output_layout or backbone.output",
    )
