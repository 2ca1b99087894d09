"""What a flight may see of a tile: from elsewhere, turned, tilted, on another day. The same pixels each time.

A view takes the tile within its surroundings, uint8 [2·H, 2·W, 3] with the tile in the middle, a number that decides
what it is seen like, and the colours of another source if there is one; it gives uint8 [H, W, 3].
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]


class Colours(NamedTuple):
    """Mean and standard deviation of a picture's levels, float32 [3] each: of another sensor or season."""

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]


Perturbation = Callable[[Pixels, int, "Colours | None"], Pixels]
MOST_TILT_DEG = 60.0
SCALES = (0.77, 1.3)
"""What a height wrong by 30 % makes of a tile's size."""
HEADING_ERROR_DEG = 5.0
NOISE_LEVELS = 4.0
"""Standard deviation of a camera's noise, of 255 levels."""


def colours_of(image: Pixels) -> Colours:
    """Return the colours of `image`, uint8 [H, W, 3]."""
    levels = image.reshape(-1, 3).astype(np.float32)
    return Colours(levels.mean(axis=0), levels.std(axis=0))


def view(
    scene: Pixels,
    size: tuple[int, int] | None = None,
    *,
    shift: tuple[float, float] = (0, 0),
    degrees: float = 0,
    scale: float = 1,
) -> Pixels:
    """Return the middle of `scene`, moved by `shift` (shares of half its side), turned, and magnified by `scale`.

    It is uint8 [height, width, 3]; of half the scene's side unless `size` says otherwise.
    """
    height, width = size or (scene.shape[0] // 2, scene.shape[1] // 2)
    cos, sin = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    x, y = scene.shape[1] / 2 * (1 + shift[0]), scene.shape[0] / 2 * (1 + shift[1])
    matrix = (cos, -sin, x - cos * width / 2 + sin * height / 2, sin, cos, y - sin * width / 2 - cos * height / 2)
    image = Image.fromarray(scene)
    return np.asarray(image.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def flown(*, any_heading: bool) -> Perturbation:
    """See the tile as a flight does.

    The middle is anywhere in the tile; the scale is 30 % off at most, as with a wrong height; the camera looks 0 to 60
    degrees aside, which costs sharpness along one axis; light, contrast and colour are of another day, or of another
    source; haze, and a shadow over a part; blur, noise and compression of a camera. Turned by up to HEADING_ERROR_DEG,
    or by any angle.
    """

    def seen(scene: Pixels, number: int, colours: Colours | None = None) -> Pixels:
        rng = np.random.default_rng([number, 77])  # the same views whether the heading is known or not
        height, width = scene.shape[0] // 2, scene.shape[1] // 2
        wide = np.pad(scene, ((height // 2, height // 2), (width // 2, width // 2), (0, 0)), mode="symmetric")
        right, down = rng.uniform(-0.5, 0.5, 2) * 2 / 3  # `wide` is half as large again as `scene`
        scale, error = float(rng.uniform(*SCALES)), float(rng.uniform(-1, 1)) * HEADING_ERROR_DEG
        turn = float(rng.uniform(0, 360))
        degrees = turn if any_heading else error
        middle = view(wide, (height, width), shift=(right, down), degrees=degrees, scale=scale)
        return _photographed(middle, rng, colours)

    return seen


def _photographed(image: Pixels, rng: np.random.Generator, colours: Colours | None) -> Pixels:
    """Return what a tilted camera makes of `image` on another day: less sharp one way, other light, haze, noise."""
    height, width = image.shape[:2]
    aside = max(1, round(height * math.cos(math.radians(rng.uniform(0, MOST_TILT_DEG)))))
    resized = Image.fromarray(image).resize((width, aside), Image.Resampling.BOX)
    unsharp = np.asarray(resized.resize((width, height), Image.Resampling.BILINEAR))
    bands = unsharp.transpose(2, 0, 1).astype(np.float32, order="C")
    bands[:, : round(height * rng.uniform(0, 0.4))] *= rng.uniform(0.5, 1)
    mean, spread = bands.mean(axis=(1, 2)), np.maximum(bands.std(axis=(1, 2)), 1)
    other = Colours(mean, spread) if colours is None else colours
    contrast = other.spread / spread * rng.uniform(0.6, 1.3)
    light = other.mean * rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
    haze = rng.uniform(0, 0.25)
    bands -= mean[:, None, None]
    bands *= (contrast * (1 - haze)).astype(np.float32)[:, None, None]
    bands += (light * (1 - haze) + 210 * haze).astype(np.float32)[:, None, None]
    bands += _noise(rng, bands.shape, NOISE_LEVELS)
    noisy = np.ascontiguousarray(np.clip(bands, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    return _compressed(_blurred(noisy, rng.uniform(0, 1.2)), 70)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray[np.float32]:
    """Return noise of a camera, float32: sums of four random bytes, normal enough and made five times as fast."""
    size = math.prod(shape)
    drawn = np.frombuffer(rng.bytes(4 * size), np.uint8).reshape(4, size).sum(axis=0, dtype=np.uint16)
    of_sum = math.sqrt(4 * (256**2 - 1) / 12)
    noise: NDArray[np.float32] = (drawn.astype(np.float32) - 4 * 127.5) * np.float32(spread / of_sum)
    return noise.reshape(shape)


def _blurred(image: Pixels, sigma: float) -> Pixels:
    """Return `image` blurred by a box of the standard deviation `sigma`, pixels, as by motion."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur((math.sqrt(12 * sigma * sigma + 1) - 1) / 2)))


def _compressed(image: Pixels, quality: int) -> Pixels:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data).convert("RGB"))


KNOWN_HEADING, ANY_HEADING = "heading known", "any heading"
VIEWS: Mapping[str, Perturbation] = MappingProxyType(
    {KNOWN_HEADING: flown(any_heading=False), ANY_HEADING: flown(any_heading=True)}
)
