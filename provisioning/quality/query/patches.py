"""Which squares of ground a photo shows well enough to be asked for, and of what size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from provisioning.quality.query.camera import Floats
from provisioning.quality.query.rendering import View, ground_to_pixels

PROBES = 9
LEAST_SEEN = 0.9
"""Share of a patch that the photo must show."""
COARSEST = 2.5
"""Ground pixels of the photo may be this many times as large as where its axis meets the ground: farther is haze."""
REACH = 4
STEP = 0.5
"""Patches lie half a side apart: whatever the tile grid, one is within a quarter of a side of a tile's centre."""


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

    They lie half a side apart around the middle of the photo, the nearest to it first. Where none is seen well enough,
    the one at the middle; none at all where the photo shows no ground.
    """
    middle = anchor(view)
    if middle is None:
        return ()
    places = sorted(
        ((i * STEP * side_m, j * STEP * side_m) for i in range(-REACH, REACH + 1) for j in range(-REACH, REACH + 1)),
        key=lambda each: (math.hypot(*each), each),
    )
    found = []
    for east, north in places:
        centre = middle[0] + east, middle[1] + north
        if _near_enough(view, centre, middle) and seen_share(view, *centre, side_m) >= LEAST_SEEN:
            found.append(centre)
            if len(found) == most:
                break
    return tuple(found) or (middle,)


def _near_enough(view: View, centre: tuple[float, float], middle: tuple[float, float]) -> bool:
    farthest = max(COARSEST * view.height_m, math.hypot(*middle, view.height_m) * 1.2)
    return math.hypot(*centre, view.height_m) <= farthest


def preferred_sides(view: View, sides_m: Sequence[float], *, most: int) -> tuple[int, ...]:
    """Return the numbers of the tile sides in `sides_m` in the order in which they are worth asking for.

    First the largest of which the photo shows `most` patches, as a large patch is more distinct; then those of which
    it shows fewer.
    """
    counts = [
        sum(seen_share(view, *centre, side) >= LEAST_SEEN for centre in patch_centres(view, side_m=side, most=most))
        for side in sides_m
    ]
    worth = [(-count, -side if count == most else side) for count, side in zip(counts, sides_m, strict=True)]
    return tuple(sorted(range(len(sides_m)), key=worth.__getitem__))
