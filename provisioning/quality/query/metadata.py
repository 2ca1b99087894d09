"""What a photo's EXIF and XMP say of the camera and the flight. Nothing here is believed without a plausible value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from PIL import ExifTags

from provisioning.quality.query.attitude import Angles
from provisioning.quality.query.camera import Camera, focal_px_of_35mm

NUMBER = rb"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""EXIF FocalPlaneResolutionUnit: inch, centimetre, millimetre, micrometre."""
HEIGHTS_M = (-500.0, 100_000.0)
LEAST_PIX4D_PITCH_DEG = -30.0
"""No airframe photographs that far nose down; an Autel XL715 writes the camera's pitch there, -90 looks down."""


class Metadata(NamedTuple):
    """What a photo says of itself; None where it does not.

    relative_m: height above the take-off point. altitude_m: above sea level or the ellipsoid, as the maker writes it.
    camera: intrinsics from the photo alone, for the pixels as they are stored. orientation: by which EXIF says how
    they are to be shown, 1 to 8.
    """

    angles: Angles = Angles()
    relative_m: float | None = None
    altitude_m: float | None = None
    camera: Camera | None = None
    orientation: int = 1


def read_metadata(exif: Any, xmp: bytes, width: int, height: int) -> Metadata:
    """Return what the EXIF (a PIL.Image.Exif) and the XMP packet say of a photo stored as width x height pixels."""
    gps, details = exif.get_ifd(ExifTags.IFD.GPSInfo), exif.get_ifd(ExifTags.IFD.Exif)
    orientation = exif.get(ExifTags.Base.Orientation)
    return Metadata(
        xmp_angles(xmp),
        _height_m(xmp, b"RelativeAltitude", b"AboveGroundAltitude"),
        _height_m(xmp, b"AbsoluteAltitude") or _gps_altitude_m(gps),
        _calibrated(xmp, width, height) or _from_exif(details, width, height),
        orientation if orientation in range(1, 9) else 1,
    )


def _height_m(xmp: bytes, *names: bytes) -> float | None:
    """Return the first of some heights that is written and plausible; DJI's before Pix4D's `Camera:` property."""
    found = (_within(_number(xmp, name), *HEIGHTS_M) for name in names)
    return next((each for each in found if each is not None), None)


def _fields(xmp: bytes, name: bytes, value: bytes, prefix: bytes = rb"[\w.-]+") -> bytes | None:
    """Return the value of an XMP property written as an attribute or an element, whatever prefix its maker uses."""
    found = re.search(rb"(?:^|[<\s])" + prefix + b":" + name + rb"\s*(?:=\s*[\"']|>)\s*(" + value + rb")\s*[\"'<]", xmp)
    return found[1] if found else None


def _number(xmp: bytes, name: bytes, prefix: bytes = rb"[\w.-]+") -> float | None:
    """Return a property that is a number, or a rational as XMP writes those of EXIF: 800/10."""
    text = _fields(xmp, name, NUMBER + rb"(?:/\d+)?", prefix)
    if text is None:
        return None
    number, _, divisor = text.partition(b"/")
    return float(number) / float(divisor or 1) if float(divisor or 1) else None


def _within(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and math.isfinite(value) and low <= value <= high else None


def xmp_angles(xmp: bytes) -> Angles:
    """Return the attitude that the makers' XMP gives, the camera's own before the airframe's.

    DJI, Autel: Gimbal…Degree; Parrot: Camera…Degree; Skydio: CameraOrientationNED; pitch -90 looks down. senseFly,
    Autel, MicaSense and Parrot Sequoia write Pix4D's Camera:Yaw, Pitch, Roll: angles of an airframe under which the
    camera looks down, so pitch 0 is nadir. senseFly's roll has the opposite sign (as OpenDroneMap corrects it).
    """
    for reading in (_gimbal(b"Gimbal"), _gimbal(b"Camera"), _skydio, _pix4d, _airframe):
        angles = reading(xmp)
        if angles is not None:
            return upright(angles)
    return Angles()


def upright(angles: Angles) -> Angles:
    """Return the same attitude with the top of the photo where its yaw points: a roll of 180 is the other yaw.

    DJI's Zenmuse cameras write pitch -90, roll 180 and the opposite yaw for a photo taken straight down.
    """
    yaw, pitch, roll, of = angles
    if of == "body" or roll is None or not 135 < abs(roll) <= 180:
        return angles
    return Angles(_compass(None if yaw is None else yaw + 180), None if pitch is None else -180 - pitch,
                  roll - math.copysign(180, roll))  # fmt: skip


def measured(angles: Angles) -> Angles:
    """Return `angles`, or none where all three are exactly 0: so DJI's Mini 2 and M400 write a gimbal not measured."""
    return Angles() if angles[:3] == (0, 0, 0) else angles


def _gimbal(whose: bytes) -> Callable[[bytes], Angles | None]:
    def reading(xmp: bytes) -> Angles | None:
        yaw, pitch, roll = (_angle(_number(xmp, whose + axis + b"Degree")) for axis in (b"Yaw", b"Pitch", b"Roll"))
        angles = measured(Angles(_compass(yaw), pitch, roll))
        return None if angles.yaw_deg is None and angles.pitch_deg is None else angles

    return reading


def _skydio(xmp: bytes) -> Angles | None:
    three = _fields(xmp, b"CameraOrientationNED", rb"\s*,\s*".join([NUMBER] * 3))
    if three is None:
        return None
    roll, pitch, yaw = (_angle(float(each)) for each in three.split(b","))
    return Angles(_compass(yaw), pitch, roll)


def _pix4d(xmp: bytes) -> Angles | None:
    yaw, pitch, roll = (_angle(_number(xmp, axis, rb"Camera")) for axis in (b"Yaw", b"Pitch", b"Roll"))
    if yaw is None and pitch is None:
        return None
    if pitch is not None and pitch < LEAST_PIX4D_PITCH_DEG:
        return Angles(_compass(yaw), pitch, roll)
    mirrored = roll is not None and re.search(rb"sense\s?fly", xmp, re.IGNORECASE)
    return Angles(_compass(yaw), pitch, -roll if mirrored and roll is not None else roll, of="body")


def _airframe(xmp: bytes) -> Angles | None:
    """Return the heading of the airframe alone: what a gimbal does below it is not said."""
    yaw = _angle(_number(xmp, b"FlightYawDegree"))
    return None if yaw is None else Angles(_compass(yaw))


def _angle(value: float | None) -> float | None:
    return _within(value, -360, 360)


def _compass(yaw: float | None) -> float | None:
    return None if yaw is None else yaw % 360


def _gps_altitude_m(gps: dict[int, Any]) -> float | None:
    altitude = _within(_real(gps.get(ExifTags.GPS.GPSAltitude)), 0, HEIGHTS_M[1])
    below = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01", 3, b"\x03")
    return -altitude if altitude is not None and below else altitude


def _real(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _calibrated(xmp: bytes, width: int, height: int) -> Camera | None:
    """Return DJI's own calibration: DewarpData, or else the calibrated focal length.

    DewarpData is a date and fx, fy, cx, cy (from the middle), k1, k2, p1, p2, k3.
    """
    text = _fields(xmp, b"DewarpData", rb"[^\"'<]*")
    numbers = [_real(each) for each in text.rpartition(b";")[2].split(b",")] if text else []
    if len(numbers) == 9 and None not in numbers and _plausible(numbers[0], width) and _plausible(numbers[1], width):
        fx, fy, cx, cy, *lens = (float(each) for each in numbers if each is not None)
        return Camera(width, height, fx, fy, (width - 1) / 2 + cx, (height - 1) / 2 + cy, "brown", tuple(lens))
    focal = _number(xmp, b"CalibratedFocalLength")
    if focal is None or not _plausible(focal, width):
        return None
    x, y = (_number(xmp, b"CalibratedOpticalCenter" + axis) for axis in (b"X", b"Y"))
    known = x is not None and y is not None and abs(x / width - 0.5) < 0.1 and abs(y / height - 0.5) < 0.1
    return Camera(
        width, height, focal, focal, x if known and x else (width - 1) / 2, y if known and y else (height - 1) / 2
    )


def _plausible(focal_px: float | None, width: int) -> bool:
    return focal_px is not None and 0.2 * width <= focal_px <= 50 * width


def _from_exif(details: dict[int, Any], width: int, height: int) -> Camera | None:
    """Return a camera from EXIF: focal length with the sensor's resolution, or else the 35-mm-equivalent one."""
    for focal_px in _exif_focals_px(details, width, height):
        if _plausible(focal_px, width):
            return Camera.simple(width, height, focal_px)
    return None


def _exif_focals_px(details: dict[int, Any], width: int, height: int) -> Iterator[float]:
    focal_mm, per_unit = (
        _real(details.get(tag)) for tag in (ExifTags.Base.FocalLength, ExifTags.Base.FocalPlaneXResolution)
    )
    unit_mm = MM_PER_UNIT.get(details.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    full_width = _real(details.get(ExifTags.Base.ExifImageWidth)) or width
    if focal_mm and per_unit and unit_mm:
        yield focal_mm * per_unit / unit_mm * width / full_width
    equivalent = _real(details.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent:
        yield focal_px_of_35mm(equivalent, width, height)
