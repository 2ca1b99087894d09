"""The ground as a map shows it, from the photo of a tilted camera: north-up, of one resolution, with what was not seen.

The ground is a plane. Coordinates are metres east and north of the point below the camera. For other languages the
steps of `ground_to_pixels` are in docs/camera.md, with vectors in tests/vectors/camera.json.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from provisioning.quality.query.attitude import Matrix
from provisioning.quality.query.camera import Camera, Floats

Pixels = NDArray[np.uint8]


class View(NamedTuple):
    """A camera over the ground: `rotation` float64 [3, 3] as `camera_rotation` gives it, height above ground, metre."""

    camera: Camera
    rotation: Matrix
    height_m: float


class Patch(NamedTuple):
    """A square of ground, north up.

    pixels: uint8 [n, n, 3]; seen: bool [n, n], False where the pixel was filled in. east_m, north_m: its centre from
    the point below the camera. side_m: its side.
    """

    pixels: Pixels
    seen: NDArray[np.bool_]
    east_m: float
    north_m: float
    side_m: float


class Shrinking:
    """A photo, uint8 [H, W, 3], and the same shrunk by whole numbers, each made once: patches share them."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self._by = {1: pixels}

    def by(self, factor: int) -> Pixels:
        """Return the photo with each square of `factor` pixels as one, their mean."""
        if factor not in self._by:
            self._by[factor] = np.asarray(Image.fromarray(self.pixels).reduce(factor))
        return self._by[factor]


def ground_to_pixels(view: View, east_m: Floats, north_m: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return where the photo shows points of the ground: float64 [..., 2] (x, y) and whether it does, bool [...]."""
    return view.camera.project(_toward(view, east_m, north_m))


def _toward(view: View, east_m: Floats, north_m: Floats) -> Floats:
    """Return the directions to points of the ground in the camera: right, down, forward."""
    east, north, up = view.rotation
    return np.asarray(np.multiply.outer(east_m, east) + (np.multiply.outer(north_m, north) - view.height_m * up))


def grid(east_m: float, north_m: float, side_m: float, size: int) -> tuple[Floats, Floats]:
    """Return east and north of the pixel centres of a patch, float64 [1, size] and [size, 1]; north is up."""
    steps = ((np.arange(size) + 0.5) / size - 0.5) * side_m
    return east_m + steps[None, :], north_m - steps[:, None]


def render_patch(
    photo: Pixels | Shrinking, view: View, *, east_m: float, north_m: float, side_m: float, size: int = 256
) -> Patch:
    """Return the square of ground around (east_m, north_m) as `photo`, uint8 [H, W, 3], shows it, size x size pixels.

    The photo is shrunk first where it is finer than the patch, so that nothing is skipped; then sampled bilinearly.
    Ground beyond the photo's edges is filled with its mirror image, as tiles at other headings are; ground behind the
    camera with the photo's mean. ValueError if the photo has not the size of the camera.
    """
    camera, shrinking = view.camera, photo if isinstance(photo, Shrinking) else Shrinking(photo)
    shape = shrinking.pixels.shape
    if shape != (camera.height, camera.width, 3):
        raise ValueError(f"a photo of shape {shape} is not of a camera of {camera.width} x {camera.height}")
    toward = _toward(view, *grid(east_m, north_m, side_m, size))
    pixels, seen = camera.project(toward)
    factor = max(1, min(round(_finer(pixels, seen)), *(side // 2 for side in shape[:2])))
    small = shrinking.by(factor)
    filled = _bilinear(small, (pixels + 0.5) / factor - 0.5, within=bool(seen.all()))
    if not seen.all():
        filled[_behind(toward)] = small.mean(axis=(0, 1))
    return Patch(np.rint(filled).astype(np.uint8), seen, east_m, north_m, side_m)


def _behind(toward: Floats) -> NDArray[np.bool_]:
    """Return which directions point behind the camera or so far aside that no pixel stands for them."""
    return np.asarray(toward[..., 2] < 0.05 * np.linalg.norm(toward, axis=-1))


def _finer(pixels: Floats, seen: NDArray[np.bool_]) -> float:
    """Return how many pixels of the photo one of the patch spans: the median of what is seen."""
    across, down = np.diff(pixels, axis=1)[:-1], np.diff(pixels, axis=0)[:, :-1]
    squared = [each[..., 0] ** 2 + each[..., 1] ** 2 for each in (across, down)]
    fourth = (squared[0] * squared[1])[seen[:-1, :-1]]
    return float(np.median(fourth)) ** 0.25 if fourth.size else 1.0


def _bilinear(image: Pixels, at: Floats, *, within: bool) -> NDArray[np.float32]:
    """Return `image` at the coordinates (x, y), float32 [..., 3]; outside of it its mirror image.

    within: no coordinate lies more than half a pixel outside.
    """
    height, width = image.shape[:2]
    x, y = (
        (_clipped if within else _mirrored)(at[..., 0], width),
        (_clipped if within else _mirrored)(at[..., 1], height),
    )
    left, top = np.minimum(x.astype(np.int32), max(0, width - 2)), np.minimum(y.astype(np.int32), max(0, height - 2))
    first, flat = top * width + left, image.reshape(-1, 3)
    aside, below = min(1, width - 1), width * min(1, height - 1)
    dx, dy = (x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32)
    upper, lower = (
        _between(flat.take(first + row, axis=0), flat.take(first + row + aside, axis=0), dx) for row in (0, below)
    )
    lower -= upper
    lower *= dy
    lower += upper
    return lower


def _between(one: Pixels, other: Pixels, share: NDArray[np.float32]) -> NDArray[np.float32]:
    result = other.astype(np.float32)
    start = one.astype(np.float32)
    result -= start
    result *= share
    result += start
    return result


def _clipped(at: Floats, count: int) -> Floats:
    return np.clip(at, 0, count - 1)


def _mirrored(at: Floats, count: int) -> Floats:
    """Return coordinates folded into 0 to count - 1, edges repeated once as numpy's `symmetric` padding does."""
    folded = np.abs((np.nan_to_num(at, posinf=0, neginf=0) + 0.5) % (2 * count) - count)
    return np.clip(count - folded - 0.5, 0, count - 1)
