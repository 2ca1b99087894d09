"""Attitude angles as a rotation from the camera to east, north, up. Pure arithmetic."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Angles(NamedTuple):
    """Yaw clockwise from true north, pitch above the horizon, roll with the right side down; degree.

    `of` says whose angles they are. `camera`: of the optical axis, pitch -90 looks straight down (a gimbal's angles).
    `body`: of the airframe (aerospace order yaw, pitch, roll); the mounting then gives the camera's.
    """

    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    of: Literal["camera", "body"] = "camera"


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Matrix:
    """Return float64 [3, 3]: columns are the right, down and forward axes in east, north, up."""
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    forward = np.array([math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)])
    level = np.array([math.cos(yaw), -math.sin(yaw), 0.0])
    below = np.cross(forward, level)
    right = math.cos(roll) * level + math.sin(roll) * below
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def camera_rotation(angles: Angles, *, yaw_deg: float, mounting: tuple[float, float, float] = (0, -90, 0)) -> Matrix:
    """Return the camera's rotation, float64 [3, 3], for `angles` with their yaw taken as `yaw_deg`.

    mounting: yaw, pitch, roll of the camera relative to the airframe, degree; (0, -90, 0) looks straight down with the
    top of the photo towards the nose. For angles of the camera it gives only the pitch and roll that are not known.
    """
    if angles.of == "camera":
        pitch = mounting[1] if angles.pitch_deg is None else angles.pitch_deg
        return rotation(yaw_deg, pitch, mounting[2] if angles.roll_deg is None else angles.roll_deg)
    body = rotation(yaw_deg, angles.pitch_deg or 0.0, angles.roll_deg or 0.0)
    # the mounting's east, north, up are the airframe's right, forward, and the opposite of its down
    axes = np.stack([body[:, 0], body[:, 2], -body[:, 1]], axis=1)
    turned: Any = axes @ rotation(*mounting)
    return np.asarray(turned, np.float64)
