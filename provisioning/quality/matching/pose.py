"""Where the camera was, from points of the photo and the ground that they show: least squares with what was known.

Gauss-Newton over position, height and three small turns; attitude and height as they were given are observations
among the others, as a photo of a plane tells little of a tilt from a shift. The covariance is that of the estimate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.quality.query.rendering import View

Doubles = NDArray[np.float64]
ATTITUDE_SIGMA_DEG = 3.0
HEIGHT_SIGMA = 0.15
"""How well attitude and height are known, one standard deviation; a gimbal's angles and a barometer's height."""
LEAST_PIXELS = 1.0
"""Standard deviation of a point in the photo, at least, in pixels of the map: what a map is cut from has errors too."""
STEPS = 8
FAR = 1e-5


class Pose(NamedTuple):
    """The camera east and north of the origin, metre; its covariance, [2, 2], square metre."""

    east_m: float
    north_m: float
    covariance: Doubles


def solved(view: View, pixels: Doubles, ground: Doubles, start: tuple[float, float], *, map_pixel_m: float) -> Pose:
    """Return the pose of a camera that shows `ground`, float64 [n, 2], metre, at `pixels`, float64 [n, 2].

    view: attitude and height as given. start: where it is sought from, east and north, metre. map_pixel_m: size of a
    pixel of the map on the ground.
    """
    state = np.array([*start, 0.0, 0.0, 0.0, 0.0])
    turn = math.radians(ATTITUDE_SIGMA_DEG)
    known = np.array([math.inf, math.inf, HEIGHT_SIGMA, turn, turn, turn])
    least = LEAST_PIXELS * map_pixel_m * view.camera.fx / view.height_m
    for _ in range(STEPS):
        off = _residuals(view, state, pixels, ground)
        spread = max(least, 1.4826 * float(np.median(np.abs(off))))
        slope = np.stack([_slope(view, state, pixels, ground, number, off) for number in range(6)], axis=1)
        weight = np.minimum(1.0, 1.5 * spread / np.maximum(np.abs(off), 1e-9))  # Huber
        normal = (slope.T * weight) @ slope / spread**2 + np.diag(known**-2.0)
        step = np.linalg.solve(normal, -(slope.T @ (weight * off)) / spread**2 - state * known**-2.0)
        state = state + step
        if np.abs(step[:2]).max() < FAR * view.height_m:
            break
    return Pose(float(state[0]), float(state[1]), np.linalg.inv(normal)[:2, :2])


def _residuals(view: View, state: Doubles, pixels: Doubles, ground: Doubles) -> Doubles:
    """Return by how many pixels the photo of `state` shows the ground elsewhere, float64 [2n]."""
    height = view.height_m * math.exp(float(state[2]))
    world = np.column_stack([ground - state[:2], np.full(len(ground), -height)])
    shown, _ = view.camera.project(world @ (_turned(state[3:]) @ view.rotation))
    return np.asarray((shown - pixels).ravel())


def _slope(view: View, state: Doubles, pixels: Doubles, ground: Doubles, number: int, off: Doubles) -> Doubles:
    """Return the change of the residuals with one part of the state, by difference."""
    moved = state.copy()
    step = 1e-4 * view.height_m if number < 2 else 1e-4
    moved[number] += step
    return np.asarray((_residuals(view, moved, pixels, ground) - off) / step)


def _turned(angles: Doubles) -> Doubles:
    """Return the rotation by a small vector, radian (Rodrigues 1840)."""
    angle = float(np.linalg.norm(angles))
    x, y, z = angles / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)
