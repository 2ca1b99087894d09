"""A camera as it is declared before any photo: in flight.toml, and signed in a Manifest. One value for both."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from provisioning.base.errors import PhotoError
from provisioning.config.schema import Camera as CameraSettings
from provisioning.flight import manifest
from provisioning.quality.query.attitude import MOUNTED_DOWN, mounting_of_nadir, nadir_of_mounting
from provisioning.quality.query.calibration_file import read_calibration
from provisioning.quality.query.camera import Camera, Model, focal_px_of_fov

E7 = 10**7
FISHEYE = "kannala-brandt"
BROWN = "opencv"


NOT_KNOWN = "the signed camera has a distortion that this version does not know"


class Declared(NamedTuple):
    """What is known of a camera beside its photos.

    lens: for photos of its size, or of its shape. fov_deg: instead of it, horizontally, for photos of any size; the
    model and coefficients of the distortion go with it. height_m: above ground, where a photo does not say it.
    ground_m: elevation of the ground on the datum of the photos' absolute altitude.
    """

    lens: Camera | None = None
    fov_deg: float | None = None
    model: Model = "brown"
    distortion: tuple[float, ...] = ()
    angles_of: Literal["camera", "body"] = "camera"
    mounting: tuple[float, float, float] = MOUNTED_DOWN
    height_m: float | None = None
    ground_m: float | None = None

    def for_photo(self, width: int, height: int) -> Camera | None:
        """Return the intrinsics for a photo of width x height pixels, or None; the lens must be of its shape."""
        if self.lens is not None or self.fov_deg is None:
            return self.lens
        simple = Camera.simple(width, height, focal_px_of_fov(self.fov_deg, width))
        return dataclasses.replace(simple, model=self.model, distortion=self.distortion)


UNDECLARED = Declared()


def declared(settings: CameraSettings) -> Declared:
    """Return what [camera] of flight.toml declares; PhotoError where its calibration cannot be used."""
    lens, fov_deg = _lens(settings)
    return Declared(
        lens,
        fov_deg,
        settings.distortion_model if lens is None else "brown",
        tuple(float(each) for each in settings.distortion) if lens is None else (),
        settings.angles_of,
        (float(settings.mounting_yaw_deg), float(settings.mounting_pitch_deg), float(settings.mounting_roll_deg)),
        None if settings.height_m is None else float(settings.height_m),
        None if settings.ground_m is None else float(settings.ground_m),
    )


def _lens(settings: CameraSettings) -> tuple[Camera | None, float | None]:
    """Return the lens, or the field of view where no size of photos is declared with it."""
    if settings.calibration is not None:
        return read_calibration(settings.calibration), None
    width, height = settings.width_px, settings.height_px
    fov_deg = None if settings.fov_deg is None else float(settings.fov_deg)
    if settings.focal_mm is not None and settings.sensor_width_mm is not None:
        fov_deg = math.degrees(2 * math.atan(float(settings.sensor_width_mm / settings.focal_mm) / 2))
    if width is None or height is None:
        return None, fov_deg
    if settings.focal_px is not None:
        camera = Camera.simple(width, height, float(settings.focal_px))
    elif fov_deg is not None:
        camera = Camera.simple(width, height, focal_px_of_fov(fov_deg, width))
    else:
        return None, None
    cx, cy = settings.principal_px or (camera.cx, camera.cy)
    lens = tuple(float(each) for each in settings.distortion)
    return dataclasses.replace(
        camera, cx=float(cx), cy=float(cy), model=settings.distortion_model, distortion=lens
    ), None


def to_manifest(camera: Declared) -> manifest.Camera | None:
    """Return `camera` as a Manifest holds it; None where nothing is declared."""
    if camera == UNDECLARED:
        return None
    lens = camera.lens
    model, coefficients = (camera.model, camera.distortion) if lens is None else (lens.model, lens.distortion)
    return manifest.Camera(
        **({} if lens is None else _sizes(lens)),
        distortion=_distortion(model, coefficients) if coefficients else None,
        mounting=None if camera.mounting == MOUNTED_DOWN else _mounting(camera.mounting),
        fov_e7=None if camera.fov_deg is None else round(camera.fov_deg * E7),
        angles_of="body" if camera.angles_of == "body" else None,
        height_mm=None if camera.height_m is None else round(camera.height_m * 1000),
        ground_mm=None if camera.ground_m is None else round(camera.ground_m * 1000),
    )


def _sizes(lens: Camera) -> dict[str, Any]:
    """Return the lens in 1e-3 pixel; the principal point from the outer corner of the first pixel."""
    return {
        "width": lens.width,
        "height": lens.height,
        "focal_x_mpx": round(lens.fx * 1000),
        "focal_y_mpx": round(lens.fy * 1000),
        "principal_x_mpx": round((lens.cx + 0.5) * 1000),
        "principal_y_mpx": round((lens.cy + 0.5) * 1000),
    }


def _distortion(model: Model, coefficients: tuple[float, ...]) -> manifest.Distortion:
    name = f"{FISHEYE if model == 'fisheye' else BROWN}-{len(coefficients)}"
    return manifest.Distortion(name, tuple(f"{Decimal(repr(each)):f}" for each in coefficients))


def _mounting(mounting: tuple[float, float, float]) -> manifest.Mounting:
    return manifest.Mounting(*(round(angle * E7) for angle in nadir_of_mounting(mounting)))


def from_manifest(camera: manifest.Camera | None) -> Declared:
    """Return the camera that a Manifest holds, nothing declared where it holds none.

    PhotoError for a distortion model that is not known here.
    """
    if camera is None:
        return UNDECLARED
    model, coefficients = _read_distortion(camera.distortion)
    return Declared(
        _read_lens(camera, model, coefficients),
        None if camera.fov_e7 is None else camera.fov_e7 / E7,
        model if camera.width is None else "brown",
        coefficients if camera.width is None else (),
        "body" if camera.angles_of == "body" else "camera",
        MOUNTED_DOWN if camera.mounting is None else mounting_of_nadir(tuple(each / E7 for each in camera.mounting)),
        None if camera.height_mm is None else camera.height_mm / 1000,
        None if camera.ground_mm is None else camera.ground_mm / 1000,
    )


def _read_lens(camera: manifest.Camera, model: Model, coefficients: tuple[float, ...]) -> Camera | None:
    width, height, *milli = camera[:6]
    if width is None or height is None:
        return None
    fx, fy, cx, cy = (float(each or 0) / 1000 for each in milli)
    return Camera(width, height, fx, fy, cx - 0.5, cy - 0.5, model, coefficients)


def _read_distortion(distortion: manifest.Distortion | None) -> tuple[Model, tuple[float, ...]]:
    if distortion is None:
        return "brown", ()
    name, _, count = distortion.model.rpartition("-")
    allowed = {BROWN: ("4", "5", "8"), FISHEYE: ("4",)}.get(name, ())
    if count not in allowed or len(distortion.coefficients) != int(count):
        raise PhotoError(
            NOT_KNOWN,
            key="camera.distortion",
            facts={"model": distortion.model, "coefficients": len(distortion.coefficients)},
            next_step="use the version that built the cache, or newer",
        )
    return "fisheye" if name == FISHEYE else "brown", tuple(float(each) for each in distortion.coefficients)
