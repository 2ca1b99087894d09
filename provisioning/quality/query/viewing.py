"""How a photo looked at the ground: what flight.toml declares, the photo says, and the caller knows, in one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from provisioning.base.errors import PhotoError
from provisioning.quality.query.attitude import MOUNTED_DOWN, Angles, Three, camera_rotation
from provisioning.quality.query.camera import SIDEWAYS, TURNED_DEG, Camera, focal_px_of_fov, focal_px_of_video
from provisioning.quality.query.declaration import Declared
from provisioning.quality.query.metadata import Metadata
from provisioning.quality.query.rendering import View

LEAST_HEIGHT_M = 2.0
SHAPE_TOLERANCE = 0.01
"""Largest difference of the ratio of sides at which photo and calibration are still of one shape."""


class Known(NamedTuple):
    """What is known of one photo beside its metadata: a row of a list, options of a command, a subtitle, a log.

    height_m: above ground. relative_m: above the take-off point; altitude_m: above sea level. Both go before what the
    photo says of them. equivalent_mm: 35-mm-equivalent focal length of a video's camera, for want of another
    lens. zoom: digital zoom of the frame, by which every lens is longer but the frame's own fov_deg.
    """

    angles: Angles = Angles()
    height_m: float | None = None
    fov_deg: float | None = None
    relative_m: float | None = None
    altitude_m: float | None = None
    equivalent_mm: float | None = None
    zoom: float = 1.0


NOTHING = Known()


class Viewing(NamedTuple):
    """A camera with its attitude and its height above ground, metre; `view` fixes the yaw.

    height_assumed: neither the photo nor the caller gave the height, so it is the declared one. height_sought: nor is
    one declared, so it is the least of those to try. turned_deg: by how much the stored pixels were turned clockwise to
    be shown; camera and angles are those of the photo as it is shown. lens_mm: the 35-mm-equivalent focal length that
    stands for the lens.
    """

    camera: Camera
    angles: Angles
    height_m: float
    mounting: Three = MOUNTED_DOWN
    height_assumed: bool = False
    turned_deg: int = 0
    height_sought: bool = False
    lens_mm: float | None = None

    def view(self, yaw_deg: float) -> View:
        """Return the view under a yaw, degree clockwise from true north."""
        return View(self.camera, camera_rotation(self.angles, yaw_deg=yaw_deg, mounting=self.mounting), self.height_m)

    def readings(self) -> tuple[Viewing, ...]:
        """Return what the angles may mean: those of the photo as shown, and, where it was turned, as it was stored.

        Few makers say which, and near nadir a camera's own guess of what is up is random; photogrammetry takes the
        sensor's.
        """
        return (self,) if not self.turned_deg else (self, self.rolled(-self.turned_deg))

    def rolled(self, degrees: float) -> Viewing:
        """Return the same camera turned about its axis, right side down."""
        yaw, pitch, roll = self.mounting
        if self.angles.of == "body":
            return self._replace(mounting=(yaw, pitch, roll + degrees))
        known = roll if self.angles.roll_deg is None else self.angles.roll_deg
        return self._replace(angles=self.angles._replace(roll_deg=known + degrees))


def viewing(
    declared: Declared,
    metadata: Metadata,
    *,
    width: int,
    height: int,
    known: Known = NOTHING,
    least_m: Callable[[Camera], float] | None = None,
) -> Viewing | str:
    """Return how a photo of width x height pixels looked at the ground, or a phrase that says what is not known.

    width, height: as it is shown; the lens is declared for the pixels as they are stored. The caller's knowledge goes
    first, then what is declared for the lens and the photo for attitude and height. Raises PhotoError where the photo
    is not of the shape of the camera declared. least_m: from the camera to the least height to try where none is known.
    """
    stored = (height, width) if metadata.orientation in SIDEWAYS else (width, height)
    own = camera_of(declared, metadata, width=stored[0], height=stored[1], fov_deg=known.fov_deg, zoom=known.zoom)
    camera, lens_mm = (own, None) if own else (_of_video(known, *stored), known.equivalent_mm)
    known_m = _height_m(declared, metadata, known)
    height_m = declared.height_m if known_m is None else known_m
    if camera is None:
        return "no focal length: declare [camera] in flight.toml and build, or give fov_deg in a list, --fov to locate"
    sought = height_m is None
    if height_m is None and least_m is not None:
        height_m = least_m(camera)
    if height_m is None:
        return (
            "no height above ground: declare camera.height_m and build, or give height_m in a list, --height to locate"
        )
    if height_m < LEAST_HEIGHT_M:
        return f"a height above ground of {height_m:.1f} m"
    angles = _angles(declared, metadata.angles, known.angles)
    turned_deg = TURNED_DEG.get(metadata.orientation, 0)
    shown = camera.shown(metadata.orientation)
    return Viewing(shown, angles, height_m, declared.mounting, known_m is None, turned_deg, sought, lens_mm)


def _angles(declared: Declared, own: Angles, given: Angles) -> Angles:
    if all(angle is None for angle in given[:3]):
        return own
    if given.of == "body" or declared.angles_of == "body":
        return given._replace(of="body")
    if own.of == "body":
        return given
    yaw, pitch, roll = (a if a is not None else b for a, b in zip(given[:3], own[:3], strict=True))
    return Angles(yaw, pitch, roll)


def _height_m(declared: Declared, metadata: Metadata, known: Known) -> float | None:
    altitude_m = metadata.altitude_m if known.altitude_m is None else known.altitude_m
    relative_m = metadata.relative_m if known.relative_m is None else known.relative_m
    if known.height_m is not None:
        return known.height_m
    if declared.ground_m is not None and altitude_m is not None:
        return altitude_m - declared.ground_m
    return relative_m


def camera_of(
    declared: Declared, metadata: Metadata, *, width: int, height: int, fov_deg: float | None = None, zoom: float = 1.0
) -> Camera | None:
    """Return the intrinsics for a photo stored as width x height pixels; None if nothing gives them.

    zoom: digital zoom, by which the lens of a declaration or of the photo is longer; fov_deg is that of the photo.
    """
    if fov_deg is not None:
        return Camera.simple(width, height, focal_px_of_fov(fov_deg, width))
    lens = declared.for_photo(width, height)
    if lens is None:
        camera = metadata.camera and metadata.camera.resized(width, height)
    else:
        camera = _of_shape(lens, width, height)
    return camera and camera.zoomed(zoom)


def _of_video(known: Known, width: int, height: int) -> Camera | None:
    if known.equivalent_mm is None:
        return None
    return Camera.simple(width, height, focal_px_of_video(known.equivalent_mm, width)).zoomed(known.zoom)


def _of_shape(camera: Camera, width: int, height: int) -> Camera:
    if abs(camera.width * height / (camera.height * width) - 1) > SHAPE_TOLERANCE:
        raise PhotoError(
            "the photo has not the shape of the camera that is declared",
            key="camera",
            facts={"photo": f"{width} x {height}", "camera": f"{camera.width} x {camera.height}"},
            next_step="declare the camera for this format: a video or a crop shows another part of the sensor",
        )
    return camera.resized(width, height)
