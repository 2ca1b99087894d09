"""What a camera may see of a tile: shifted, turned, scaled, darker, blurred, compressed. The same pixels each time.

Each perturbation takes the tile within its surroundings, uint8 [2·H, 2·W, 3] with the tile in the middle, and a number
that picks a direction, and gives uint8 [H, W, 3].
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Perturbation = Callable[[Pixels, int], Pixels]


def view(scene: Pixels, *, shift: tuple[float, float] = (0, 0), degrees: float = 0, scale: float = 1) -> Pixels:
    """Return the tile-sized view of `scene` moved by `shift` (shares of a side), turned, and magnified by `scale`."""
    height, width = scene.shape[0] // 2, scene.shape[1] // 2
    cos, sin = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    x, y = width * (1 + shift[0]), height * (1 + shift[1])
    matrix = (cos, -sin, x - cos * width / 2 + sin * height / 2, sin, cos, y - sin * width / 2 - cos * height / 2)
    size = (width, height)
    return np.asarray(Image.fromarray(scene).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def _signs(number: int) -> tuple[int, int]:
    return 1 - 2 * (number & 1), 1 - (number & 2)


def shifted(share: float) -> Perturbation:
    """Move along both axes by `share` of a side, in one of four directions."""
    return lambda scene, number: view(scene, shift=(share * _signs(number)[0], share * _signs(number)[1]))


def turned(degrees: float) -> Perturbation:
    """Turn by `degrees`, one way or the other."""
    return lambda scene, number: view(scene, degrees=degrees * _signs(number)[0])


def scaled(share: float) -> Perturbation:
    """Come nearer or go farther by `share`."""
    return lambda scene, number: view(scene, scale=1 + share * _signs(number)[0])


def lit(image: Pixels, gain: float) -> Pixels:
    """Return `image` with its levels multiplied by `gain`."""
    table = np.clip(np.rint(np.arange(256) * gain), 0, 255).astype(np.uint8)
    brighter: Pixels = table[image]
    return brighter


def blurred(image: Pixels, sigma: float) -> Pixels:
    """Return `image` under a Gaussian blur of `sigma` pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def compressed(image: Pixels, quality: int) -> Pixels:
    """Return `image` after JPEG compression of `quality`."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data).convert("RGB"))


def _combined(scene: Pixels, number: int) -> Pixels:
    across, down = _signs(number)
    seen = view(scene, shift=(0.1 * across, 0.1 * down), degrees=7.0 * down, scale=1 + 0.1 * across)
    return compressed(blurred(lit(seen, 1 - 0.2 * across), 1.0), 50)


PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        "shift 5 %": shifted(0.05),
        "shift 10 %": shifted(0.10),
        "shift 15 %": shifted(0.15),
        "rotation 5 deg": turned(5),
        "rotation 10 deg": turned(10),
        "scale 10 %": scaled(0.1),
        "brightness 30 %": lambda scene, number: lit(view(scene), 1 + 0.3 * _signs(number)[0]),
        "blur 2 px": lambda scene, _: blurred(view(scene), 2.0),
        "jpeg 20": lambda scene, _: compressed(view(scene), 20),
        "combined": _combined,
    }
)
"""`combined`: shift 10 %, 7 degrees, scale 10 %, brightness 20 %, blur 1 px, JPEG 50."""


def flown(draw: int, *, any_heading: bool) -> Perturbation:
    """See the tile as a flight does: the `draw`-th of such views, one of four by the number that picks a direction.

    The middle is anywhere in the tile; the scale is 30 % off at most, as with a wrong height; the camera looks 0 to 60
    degrees aside, which costs sharpness along one axis; light, contrast, colour and haze are of another day; a shadow
    lies over a part; blur, noise and compression are a camera's. Turned by up to 5 degrees, or by any angle.
    """

    def seen(scene: Pixels, number: int) -> Pixels:
        rng = np.random.default_rng([draw, number & 3, 77])  # the same views whether the heading is known or not
        half = (scene.shape[0] // 4, scene.shape[1] // 4)
        wide = np.pad(scene, ((half[0], half[0]), (half[1], half[1]), (0, 0)), mode="symmetric")
        shift, scale = tuple(rng.uniform(-0.5, 0.5, 2).tolist()), float(rng.uniform(0.77, 1.3))
        small, turn = float(rng.uniform(-5, 5)), float(rng.uniform(0, 360))
        middle = view(wide, shift=(shift[0] * 2 / 3, shift[1] * 2 / 3), degrees=turn if any_heading else small,
                      scale=scale)  # fmt: skip
        return _photographed(_central(middle, scene.shape[0] // 2, scene.shape[1] // 2), rng)

    return seen


def _central(image: Pixels, height: int, width: int) -> Pixels:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _photographed(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return what a tilted camera makes of `image` on another day: less sharp one way, other light, haze, noise."""
    height, width = image.shape[:2]
    aside = max(1, round(height * math.cos(math.radians(rng.uniform(0, 60)))))
    resized = Image.fromarray(image).resize((width, aside), Image.Resampling.BOX)
    levels = np.asarray(resized.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    levels[: round(height * rng.uniform(0, 0.4))] *= rng.uniform(0.5, 1)
    mean = levels.mean(axis=(0, 1))
    levels = (levels - mean) * rng.uniform(0.6, 1.3) + mean * rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
    haze = rng.uniform(0, 0.25)
    noisy = levels * (1 - haze) + 210 * haze + rng.normal(0, 4, levels.shape)
    return compressed(blurred(np.clip(noisy, 0, 255).astype(np.uint8), rng.uniform(0, 1.2)), 70)


DRAWS = 3
KNOWN_HEADING = tuple(f"flight, heading known, {n}" for n in range(1, DRAWS + 1))
ANY_HEADING = tuple(f"flight, any heading, {n}" for n in range(1, DRAWS + 1))
FLIGHT_VIEWS: Mapping[str, Perturbation] = MappingProxyType(
    {name: flown(n, any_heading=name in ANY_HEADING) for names in (KNOWN_HEADING, ANY_HEADING)
     for n, name in enumerate(names)}
)  # fmt: skip
VIEWS: Mapping[str, Perturbation] = MappingProxyType({**PERTURBATIONS, **FLIGHT_VIEWS})
