"""Whether an answer says anything: a photo of nothing gets its best tiles too, and two places may be as like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import E7
from provisioning.engines import Network
from provisioning.index.read import search
from provisioning.quality.locate.places import distances_m

LEAST_MARGIN = 0.2
"""Standard deviations by which the first place must stand out from the next (docs/evaluation.md says what it costs)."""
APART_SIDES = 2.0
MORE_THAN_NOISE = 1.1
"""Times the likeness that noise reaches which a photo must reach."""
DRAWN = 16
"""Images of noise that a network is asked, at once."""
COARSEST_CELLS = 4
FLAT = 0.01
"""Variance of the blocks below which a photo shows one colour, square levels."""
BLOCKS = 64
LEAST_STRUCTURE = 0.25
"""Least correlation of neighbouring blocks of a photo of the ground: of photos it is 0.5 and more, of noise 0.03."""


def least_likeness(index: Any, network: Network) -> float:
    """Return the similarity below which a photo is unlike all tiles: a little more than noise reaches.

    What tiles reach among each other is no measure: a photo of another day is less like its own tile than that.
    """
    scores, _ = search(index, network.clone()(noise(network.size)), 1)
    return MORE_THAN_NOISE * max(0.0, float(scores.max()))


def noise(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return DRAWN images of noise in grains from a pixel to a quarter of the image, uint8 [DRAWN, *size, 3]."""
    rng, (height, width) = np.random.default_rng(1), size
    grains = np.geomspace(1, max(size) / COARSEST_CELLS, DRAWN)
    cells = [(max(2, round(height / grain)), max(2, round(width / grain)), 3) for grain in grains]
    drawn = [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for shape in cells]
    return np.stack([np.asarray(each.resize((width, height), Image.Resampling.BICUBIC)) for each in drawn])


def structure(pixels: NDArray[np.uint8]) -> float:
    """Return the correlation of neighbouring blocks of a photo, uint8 [H, W, 3], without its slope: 0 for noise.

    BLOCKS to each side. A photo of one colour, or of a slope from one to another, has none.
    """
    side = max(2, min(BLOCKS, *(each // 2 for each in pixels.shape[:2])))
    shrunk = Image.fromarray(pixels).reduce(max(1, min(pixels.shape[:2]) // (4 * side)))
    grey = Image.fromarray(np.asarray(shrunk).mean(axis=2, dtype=np.float32))
    blocks = np.asarray(grey.resize((side, side), Image.Resampling.BOX), np.float64)
    steps = np.arange(side) - (side - 1) / 2
    blocks = blocks - blocks.mean()
    for slope in (steps[None, :] + 0 * blocks, steps[:, None] + 0 * blocks):
        blocks = blocks - slope * (blocks * slope).sum() / (slope * slope).sum()
    variance = float((blocks**2).mean())
    if variance < FLAT:
        return 0.0
    across, down = (blocks[:, 1:] * blocks[:, :-1]).mean(), (blocks[1:] * blocks[:-1]).mean()
    return float(min(across, down)) / variance


def doubt_of(
    standings: Sequence[float], positions: Sequence[Origin], *, side_m: float, likeness: float, least: float
) -> str | None:
    """Return why the first of some answers, the best first, is not to be relied on; None where nothing speaks against.

    standings: how far each stands out, standard deviations. side_m: of the first one's tile. likeness: how like some
    tile the photo is. least: as `least_likeness` returns it.
    """
    if likeness < least:
        return f"no tile is like it: similarity {likeness:.2f}, less than {least:.2f}, which noise may reach"
    first = positions[0]
    away = distances_m(
        np.array([each.lat_e7 for each in positions]) / E7, np.array([each.lon_e7 for each in positions]) / E7,
        first.lat_e7 / E7, first.lon_e7 / E7,
    )  # fmt: skip
    others = [standing for standing, apart in zip(standings, away > APART_SIDES * side_m, strict=True) if apart]
    if others and standings[0] - others[0] < LEAST_MARGIN:
        return f"another place is as like: it stands out by {standings[0]:.1f} deviations, the next by {others[0]:.1f}"
    return None
