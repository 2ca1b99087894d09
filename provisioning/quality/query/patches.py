"""Which squares of ground a photo shows well enough to be asked for, and of what size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from provisioning.quality.query.camera import Floats
from provisioning.quality.query.rendering import View, ground_to_pixels

PROBES = 9
LEAST_SEEN = 0.9
"""Share of a patch that the photo must show."""
COARSEST = 2.5
"""Ground pixels of the photo may be this many times as large as where its axis meets the ground: farther is haze."""
REACH = 4
STEPS = (0.5, 0.375, 0.25)
"""Shares of a side by which patches lie apart, the first that gives enough of them. At a half, whatever the tile grid,
one is within a quarter of a side of a tile's centre; closer ones are for photos little wider than a tile."""


def seen_share(view: View, east_m: float, north_m: float, side_m: float) -> float:
    """Return the share of a square of ground that the photo shows, from a grid of probes."""
    steps = np.linspace(-0.5, 0.5, PROBES) * side_m
    _, seen = ground_to_pixels(view, east_m + steps[None, :], north_m + steps[:, None])
    return float(seen.mean())


def anchor(view: View) -> tuple[float, float] | None:
    """Return the ground at the middle of the lowest part of the photo that is not too far, east and north, metre.

    For a camera that looks down this is where the middle of the photo meets the ground. None if no pixel does.
    """
    best: tuple[float, float] | None = None
    for share in np.linspace(0.5, 1, 11):
        found = _ground_at(view, (view.camera.width - 1) / 2, float(share) * (view.camera.height - 1))
        if found is not None:
            distance = math.hypot(*found, view.height_m)
            if distance <= COARSEST * view.height_m:
                return found
            best = best or found
    return best


def _ground_at(view: View, x: float, y: float) -> tuple[float, float] | None:
    """Return the ground that a pixel shows, without regard to distortion."""
    camera = view.camera
    ray: Floats = view.rotation @ np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0])
    if ray[2] >= -1e-3 * float(np.linalg.norm(ray)):
        return None
    return float(ray[0] / -ray[2] * view.height_m), float(ray[1] / -ray[2] * view.height_m)


def patch_centres(view: View, *, side_m: float, most: int) -> tuple[tuple[float, float], ...]:
    """Return centres of up to `most` squares of `side_m` that the photo shows, east and north of the camera, metre.

    They lie on a grid around the middle of the photo, the nearest to it first. Where none is seen well enough, the one
    at the middle; none at all where the photo shows no ground.
    """
    middle = anchor(view)
    if middle is None:
        return ()
    found: tuple[tuple[float, float], ...] = ()
    for step in STEPS:
        found = max(tuple(islice(_seen_around(view, middle, side_m, step * side_m), most)), found, key=len)
        if len(found) == most:
            break
    return found or (middle,)


def _seen_around(
    view: View, middle: tuple[float, float], side_m: float, step_m: float
) -> Iterator[tuple[float, float]]:
    numbers = range(-REACH, REACH + 1)
    grid = sorted(((i, j) for i in numbers for j in numbers), key=lambda each: (math.hypot(*each), each))
    for i, j in grid:
        centre = middle[0] + i * step_m, middle[1] + j * step_m
        if _near_enough(view, centre, middle) and seen_share(view, *centre, side_m) >= LEAST_SEEN:
            yield centre


def _near_enough(view: View, centre: tuple[float, float], middle: tuple[float, float]) -> bool:
    farthest = max(COARSEST * view.height_m, math.hypot(*middle, view.height_m) * 1.2)
    return math.hypot(*centre, view.height_m) <= farthest


def preferred_sides(view: View, sides_m: Sequence[float], *, most: int) -> tuple[int, ...]:
    """Return the numbers of the tile sides in `sides_m` in the order in which they are worth asking for.

    First the largest of which the photo shows `most` patches half a side apart, as a large patch is more distinct;
    then those of which it shows fewer. Patches closer together are worth less than smaller ones (docs/camera.md).
    """
    middle = anchor(view)
    if middle is None:
        return tuple(range(len(sides_m)))
    counts = [sum(1 for _ in islice(_seen_around(view, middle, side, STEPS[0] * side), most)) for side in sides_m]
    worth = [(-count, -side if count == most else side) for count, side in zip(counts, sides_m, strict=True)]
    return tuple(sorted(range(len(sides_m)), key=worth.__getitem__))
