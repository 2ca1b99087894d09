"""A camera: which pixel sees which direction. Pinhole with Brown or fisheye distortion, in OpenCV's conventions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Model = Literal["brown", "fisheye"]
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
SAMPLES = 4096
MOST_TANGENT = 20.0
"""Directions more than 87 degrees off the axis of a pinhole camera are not followed."""

SHOWN = {
    1: ((1, 0), (0, 1)), 2: ((-1, 0), (0, 1)), 3: ((-1, 0), (0, -1)), 4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)), 6: ((0, -1), (1, 0)), 7: ((0, -1), (-1, 0)), 8: ((0, 1), (-1, 0)),
}  # fmt: skip
"""EXIF's orientations: right and down of the photo as shown, each as shares of right and down of the stored pixels."""
SIDEWAYS = tuple(orientation for orientation, (right, _) in SHOWN.items() if not right[0])
"""Orientations of photos that are shown with width and height exchanged."""
TURNED_DEG = {3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}
"""By how much stored pixels are turned clockwise to be shown; 2, 4, 5 and 7 are mirrored left to right before."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics for photos of width x height pixels; pixel (0, 0) is the centre of the upper left one.

    fx, fy, cx, cy: focal lengths and principal point, pixel. `brown`: k1, k2, p1, p2[, k3[, k4, k5, k6]] as OpenCV's
    calibrateCamera orders them (Brown 1966; the rational form divides by 1 + k4 r² + k5 r⁴ + k6 r⁶). `fisheye`:
    k1 to k4 of OpenCV's fisheye module and Kalibr's `equidistant` (Kannala and Brandt 2006).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: Model = "brown"
    distortion: tuple[float, ...] = ()

    @classmethod
    def simple(cls, width: int, height: int, focal_px: float) -> Camera:
        """Return a camera without distortion whose principal point is the middle of the photo."""
        return cls(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)

    def resized(self, width: int, height: int) -> Camera:
        """Return the same camera for photos of another size and the same shape."""
        if (width, height) == (self.width, self.height):
            return self
        x, y = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * x, fy=self.fy * y,
            cx=(self.cx + 0.5) * x - 0.5, cy=(self.cy + 0.5) * y - 0.5,
        )  # fmt: skip

    def zoomed(self, times: float) -> Camera:
        """Return the camera of the middle of its photos, enlarged to their size: digital zoom."""
        x, y = (self.width - 1) / 2, (self.height - 1) / 2
        return replace(
            self, fx=self.fx * times, fy=self.fy * times, cx=x + (self.cx - x) * times, cy=y + (self.cy - y) * times
        )

    def shown(self, orientation: int) -> Camera:
        """Return the camera of the photo as EXIF's `orientation` has it shown; self is for the stored pixels."""
        (a, b), (c, d) = SHOWN[orientation]
        sides = np.array([[a, b], [c, d]]) @ [self.width - 1, self.height - 1]
        cx, cy = np.array([[a, b], [c, d]]) @ [self.cx, self.cy] - np.minimum(sides, 0)
        fx, fy = (self.fx, self.fy) if a else (self.fy, self.fx)
        lens = self.distortion
        if self.model == "brown" and len(lens) >= 4:  # p2, p1 is a vector of the image plane
            lens = (*lens[:2], c * lens[3] + d * lens[2], a * lens[3] + b * lens[2], *lens[4:])
        width, height = (round(abs(each)) + 1 for each in sides)
        return replace(self, width=width, height=height, fx=fx, fy=fy, cx=float(cx), cy=float(cy), distortion=lens)

    def project(self, directions: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return pixel coordinates (x, y) of directions, float64 [..., 2], and where the photo shows them, bool [...].

        directions: float64 [..., 3], right, down, forward of the camera; any length.
        """
        right, down, forward = np.moveaxis(directions, -1, 0)
        sideways = np.sqrt(right * right + down * down)
        if self.model == "fisheye":
            angle = np.arctan2(sideways, forward)
            ahead = angle < self._widest
            scale = np.where(ahead, angle, 0.0) / np.maximum(sideways, 1e-300)
        else:
            ahead = sideways < math.tan(self._widest) * forward
            length = np.where(ahead, forward, sideways / MOST_TANGENT)
            scale = 1 / np.maximum(length, 1e-300)
        x, y = self._distorted(right * scale, down * scale)
        pixels = np.stack([self.fx * x + self.cx, self.fy * y + self.cy], axis=-1)
        inside = np.abs(pixels + 0.5 - _half(self)) <= _half(self)
        return pixels, ahead & inside[..., 0] & inside[..., 1]

    def _distorted(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        if not self.distortion:
            return x, y
        squared = x * x + y * y
        radial = self._radial(squared)
        if self.model == "fisheye" or len(self.distortion) < 4:
            return x * radial, y * radial
        p1, p2 = self.distortion[2:4]
        return (
            x * radial + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
            y * radial + p1 * (squared + 2 * y * y) + 2 * p2 * x * y,
        )

    def _radial(self, squared: Any) -> Any:
        """Return the factor by which a point at squared radius r² (squared angle for a fisheye) moves outwards."""
        k = self.distortion
        if self.model == "fisheye":
            return 1 + sum(each * squared**power for power, each in enumerate(k, 1))
        k1, k2, _, _, k3, k4, k5, k6 = (*k, *(0.0,) * (8 - len(k)))
        above = 1 + squared * (k1 + squared * (k2 + squared * k3))
        return above / (1 + squared * (k4 + squared * (k5 + squared * k6)))

    @cached_property
    def _widest(self) -> float:
        """Angle from the axis up to which the distortion grows outwards, radian: beyond it a polynomial folds back."""
        angles = np.linspace(0, math.pi if self.model == "fisheye" else math.atan(MOST_TANGENT), SAMPLES)
        radius = angles if self.model == "fisheye" else np.tan(angles)
        steps = np.diff(radius * self._radial(radius**2))
        folds = np.flatnonzero(~(steps > 0))
        return float(angles[folds[0]] if len(folds) else angles[-1])


def _half(camera: Camera) -> Floats:
    return np.array([camera.width, camera.height]) / 2


def focal_px_of_35mm(focal_35mm: float, width: int, height: int) -> float:
    """Return the focal length in pixel of a 35-mm-equivalent one (CIPA DCG-001: equal angle over the diagonal)."""
    return focal_35mm * math.hypot(width, height) / FULL_FRAME_DIAGONAL_MM


def focal_px_of_video(focal_35mm: float, width: int) -> float:
    """Return the focal length in pixel of a video's frames, from the 35-mm-equivalent one of the stills.

    Taken as that of a 4:3 sensor of which the frame shows the whole width.
    """
    return focal_35mm * width / (0.8 * FULL_FRAME_DIAGONAL_MM)


def focal_px_of_fov(fov_deg: float, width: int) -> float:
    """Return the focal length in pixel of a horizontal field of view."""
    return width / 2 / math.tan(math.radians(fov_deg) / 2)
