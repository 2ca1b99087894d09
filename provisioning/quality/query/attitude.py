"""Attitude angles as a rotation from the camera to east, north, up. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Three = tuple[float, float, float]
LOCKED_DEG = 1e-4
MOUNTED_DOWN: Three = (0.0, -90.0, 0.0)
"""Yaw, pitch, roll of a camera in the floor, the top of its photos towards the nose."""


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


def camera_rotation(angles: Angles, *, yaw_deg: float, mounting: Three = MOUNTED_DOWN) -> Matrix:
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


def nadir_of_mounting(mounting: Three) -> Three:
    """Return a mounting as a Manifest writes it: yaw, pitch, roll, degree, from a camera that looks straight down.

    Zero there: optical axis down, top of the photo forward. Turned about down, then right, then forward (the aerospace
    order); where the photo's top points up or down roll and yaw are one, and roll is 0.
    """
    east_north_up = rotation(*mounting)
    # columns: top, right, axis of the camera; rows: forward, right, down of the airframe
    turn = np.stack([-east_north_up[:, 1], east_north_up[:, 0], east_north_up[:, 2]], axis=1)[[1, 0, 2]]
    turn[2] *= -1
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -float(turn[2, 0])))))
    if abs(pitch) > 90 - LOCKED_DEG:
        return math.degrees(math.atan2(-turn[0, 1], turn[1, 1])), pitch, 0.0
    yaw = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
    return yaw, pitch, math.degrees(math.atan2(turn[2, 1], turn[2, 2]))


def mounting_of_nadir(nadir: Sequence[float]) -> Three:
    """Return the mounting, yaw, pitch, roll of the optical axis, of what `nadir_of_mounting` returns."""
    yaw, pitch, roll = (math.radians(angle) for angle in nadir)
    about_down = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    about_right = np.array([[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]])
    about_top = np.array([[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]])
    forward, right, down = about_down @ about_right @ about_top  # rows; columns: top, right, axis of the camera
    axis = np.array([right[2], forward[2], -down[2]])
    across = np.array([right[1], forward[1], -down[1]])
    return angles_of(axis, across)


def angles_of(axis: Matrix, across: Matrix) -> Three:
    """Return yaw, pitch, roll, degree, from the forward and the right axis, float64 [3] each in east, north, up.

    The inverse of `rotation`, of a camera or an airframe; looking straight up or down the roll is 0.
    """
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, float(axis[2])))))
    if abs(pitch) > 90 - LOCKED_DEG:
        return math.degrees(math.atan2(-across[1], across[0])), math.copysign(90.0, pitch), 0.0
    yaw = math.atan2(axis[0], axis[1])
    level = np.array([math.cos(yaw), -math.sin(yaw), 0.0])
    below = np.cross(axis, level)
    return math.degrees(yaw), pitch, math.degrees(math.atan2(float(across @ below), float(across @ level)))
