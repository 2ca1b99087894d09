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


def ground_to_pixels(view: View, east_m: Floats, north_m: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return where the photo shows points of the ground: float64 [..., 2] (x, y) and whether it does, bool [...]."""
    world = np.stack(np.broadcast_arrays(east_m, north_m, -view.height_m), axis=-1)
    return view.camera.project(world @ view.rotation)


def grid(east_m: float, north_m: float, side_m: float, size: int) -> tuple[Floats, Floats]:
    """Return east and north of the pixel centres of a patch, float64 [1, size] and [size, 1]; north is up."""
    steps = ((np.arange(size) + 0.5) / size - 0.5) * side_m
    return east_m + steps[None, :], north_m - steps[:, None]


def render_patch(photo: Pixels, view: View, *, east_m: float, north_m: float, side_m: float, size: int = 256) -> Patch:
    """Return the square of ground around (east_m, north_m) as `photo`, uint8 [H, W, 3], shows it, size x size pixels.

    The photo is shrunk first where it is finer than the patch, so that nothing is skipped; then sampled bilinearly.
    Ground beyond the photo's edges is filled with its mirror image, as tiles at other headings are; ground behind the
    camera with the photo's mean. ValueError if the photo has not the size of the camera.
    """
    camera = view.camera
    if photo.shape != (camera.height, camera.width, 3):
        raise ValueError(f"a photo of shape {photo.shape} is not of a camera of {camera.width} x {camera.height}")
    pixels, seen = ground_to_pixels(view, *grid(east_m, north_m, side_m, size))
    small, factor = _shrunk(photo, _finer(pixels, seen))
    filled = _bilinear(small, (pixels + 0.5) / factor - 0.5)
    behind = _behind(view, *grid(east_m, north_m, side_m, size))
    filled[behind] = small.mean(axis=(0, 1))
    return Patch(np.rint(filled).astype(np.uint8), seen, east_m, north_m, side_m)


def _behind(view: View, east_m: Floats, north_m: Floats) -> NDArray[np.bool_]:
    """Return which points lie behind the camera or so far aside that no pixel stands for them."""
    world = np.stack(np.broadcast_arrays(east_m, north_m, -view.height_m), axis=-1)
    toward = world @ view.rotation
    return np.asarray(toward[..., 2] < 0.05 * np.linalg.norm(toward, axis=-1))


def _finer(pixels: Floats, seen: NDArray[np.bool_]) -> float:
    """Return how many pixels of the photo one of the patch spans: the median of what is seen."""
    across = np.linalg.norm(np.diff(pixels, axis=1)[:-1], axis=-1)
    down = np.linalg.norm(np.diff(pixels, axis=0)[:, :-1], axis=-1)
    spans = np.sqrt(across * down)[seen[:-1, :-1]]
    return float(np.median(spans)) if spans.size else 1.0


def _shrunk(photo: Pixels, finer: float) -> tuple[NDArray[np.float32], int]:
    factor = max(1, min(round(finer), *(side // 2 for side in photo.shape[:2])))
    image = Image.fromarray(photo)
    return np.asarray(image.reduce(factor) if factor > 1 else image, np.float32), factor


def _bilinear(image: NDArray[np.float32], at: Floats) -> NDArray[np.float32]:
    """Return `image` at the coordinates (x, y), float32 [..., 3]; outside of it its mirror image."""
    height, width = image.shape[:2]
    x, y = _mirrored(at[..., 0], width), _mirrored(at[..., 1], height)
    left, top = np.minimum(x.astype(int), max(0, width - 2)), np.minimum(y.astype(int), max(0, height - 2))
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    dx, dy = (x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32)
    upper = image[top, left] * (1 - dx) + image[top, right] * dx
    lower = image[below, left] * (1 - dx) + image[below, right] * dx
    return np.asarray(upper * (1 - dy) + lower * dy, np.float32)


def _mirrored(at: Floats, count: int) -> Floats:
    """Return coordinates folded into 0 to count - 1, edges repeated once as numpy's `symmetric` padding does."""
    folded = np.abs((np.nan_to_num(at, posinf=0, neginf=0) + 0.5) % (2 * count) - count)
    return np.clip(count - folded - 0.5, 0, count - 1)
