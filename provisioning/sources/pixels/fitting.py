"""A decoded tile becomes the image that a network takes: fit its size, turn it to a heading.

By default with Pillow's bilinear filter with support for shrinking, as torchvision's Resize(antialias=True): the filter
that most models were trained with.
"""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image

from provisioning.base.errors import TileError

KEEP_ASPECT = "keep-aspect"
KEPT_BYTES = 4 << 20
"""A larger picture is not kept for the next one."""
_last = threading.local()
Pixels = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], RGB. What `fit` takes may have a fourth byte a pixel, which says nothing."""


def fit(image: Pixels, size: tuple[int, int], how: str) -> Pixels:
    """Return `image` at `size` (height, width): resize both sides, crop what is over, or pad with black.

    `how` is `Backbone.fit_how`: resize, crop, pad or keep-aspect, and after a dash the filter if it is bilinear or
    bicubic. TileError: keep-aspect, and the image at its own aspect is not of `size`; it is never distorted.
    """
    height, width = size
    keeps, how = how.startswith(KEEP_ASPECT), how.replace(KEEP_ASPECT, "resize", 1)
    how, _, resample = how.partition("-")
    if keeps and _longer_side_to(max(size), image) != (height, width):
        raise TileError(
            f"the image is {image.shape[0]} x {image.shape[1]} pixels, and its aspect is to be kept",
            facts={"the network takes": f"{height} x {width}"},
            next_step='set [[backbone]] fit = "crop", "pad" or "resize", or a size of this aspect',
        )
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image[..., :3])
    if how == "resize":
        return _resize(image, height, width, resample)
    factors = Fraction(height, image.shape[0]), Fraction(width, image.shape[1])
    factor = max(factors) if how == "crop" else min(factors)
    inner = _resize(image, max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)), resample)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    if how == "crop":
        return np.ascontiguousarray(inner[-top : height - top, -left : width - left])
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return padded


def _longer_side_to(side: int, image: Pixels) -> tuple[int, int]:
    """Return height and width of `image` once its longer side is `side`."""
    factor = Fraction(side, max(image.shape[:2]))
    return round(image.shape[0] * factor), round(image.shape[1] * factor)


def _resize(image: Pixels, height: int, width: int, resample: str) -> Pixels:
    if not resample and image.shape == (2 * height, 2 * width, 4) and min(height, width) > 1:
        return _halved(image)
    picture = _picture(np.ascontiguousarray(image))
    if (
        resample == "bilinear"
    ):  # Pillow's transform looks at the four nearest pixels, its resize at all that are covered
        scale = image.shape[1] / width, image.shape[0] / height
        matrix = (scale[0], 0.0, 0.0, 0.0, scale[1], 0.0)
        fitted = picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    else:
        usual = Image.Resampling.BICUBIC if resample == "bicubic" else Image.Resampling.BILINEAR
        fitted = picture.resize((width, height), usual)
    return np.frombuffer(fitted.tobytes(), np.uint8).reshape(height, width, 3)


def _picture(image: Pixels) -> Image.Image:
    """Return `image` as Pillow's, for this thread and until its next one: a new one is filled with black first."""
    size = image.shape[1::-1]
    picture: Image.Image | None = getattr(_last, "picture", None)
    if picture is None or picture.size != size:
        picture = Image.new("RGB", size)
        _last.picture = picture if image.size <= KEPT_BYTES else None
    picture.frombytes(image.data, "raw", "RGBX" if image.shape[2] == 4 else "RGB")
    return picture


def _halved(image: Pixels) -> Pixels:
    """Return the pixels of Pillow's resize to half of both sides, in half its time: uint8 [2n, 2m, 4] to [n, m, 3]."""
    pixels = image.view(np.uint32)[..., 0]
    even, odd = (pixels[:, n::2].copy()[..., None].view(np.uint8).astype(np.uint16) for n in (0, 1))
    wide = _in_pairs(even.swapaxes(0, 1), odd.swapaxes(0, 1)).swapaxes(0, 1)
    small = _in_pairs(wide[::2], wide[1::2])
    half = np.empty((*small.shape[:2], 3), np.uint8)
    for band in range(3):  # three of four bytes in one go take six times as long
        half[..., band] = small[..., band]
    return half


def _in_pairs(even: npt.NDArray[np.uint16], odd: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return the triangle over each pair of rows: (1, 3, 3, 1) / 8, at the ends (3, 3, 1) / 7, rounded half up."""
    total: npt.NDArray[np.uint16] = even + odd
    total *= 3
    total[1:] += odd[:-1]
    total[:-1] += even[1:]
    ends = (2 * total[:: len(total) - 1] + 7) // 14
    total += 4
    total >>= 3
    total[:: len(total) - 1] = ends
    return total


def turn(image: Pixels, heading: Fraction) -> Pixels:
    """Return the tile as a camera sees it whose top points to `heading`, a fraction of a turn clockwise from north.

    Quarter turns are exact. Between them the corners, which lie outside the tile, are filled with its mirror image.
    """
    quarters = heading * 4
    if quarters.denominator == 1:
        return np.ascontiguousarray(np.rot90(image, int(quarters)))
    height, width = image.shape[:2]
    border = ((height // 2, height // 2), (width // 2, width // 2), (0, 0))
    wide = Image.fromarray(np.pad(image, border, mode="symmetric"))
    turned = wide.rotate(float(heading * 360), Image.Resampling.BILINEAR)
    left, top = width // 2, height // 2
    return np.asarray(turned.crop((left, top, left + width, top + height)))


def headings(rotations: int) -> tuple[Fraction, ...]:
    """Return the headings at which a tile is indexed `rotations` times, as fractions of a turn."""
    return tuple(Fraction(n, rotations) for n in range(rotations))
