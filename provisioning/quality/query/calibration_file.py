"""Camera calibration files: OpenCV's YAML, ROS camera_info, Kalibr's camchain. Only what a calibration writes is read.

A reader for a few numbers and lists; not a YAML parser, so that the aircraft needs none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import PhotoError
from provisioning.quality.query.camera import Camera, Model

LARGEST_BYTES = 1 << 20
BROWN_COUNTS = (0, 4, 5, 8)
NEXT_STEP = (
    "give a calibration of OpenCV (camera_matrix, distortion_coefficients, image_width), ROS or Kalibr (camchain)"
)
KALIBR_MODELS: Mapping[str, Model] = {"none": "brown", "radtan": "brown", "equidistant": "fisheye"}


def read_calibration(path: Path) -> Camera:
    """Return the camera in the file at `path`, the first one of several; PhotoError if it holds none that is known."""
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise PhotoError(f"the camera calibration cannot be read: {error.strerror}", file=path) from error
    if len(data) > LARGEST_BYTES:
        raise PhotoError("a camera calibration is no larger than 1 MiB", file=path, next_step=NEXT_STEP)
    text = re.sub(r"(?m)(^|\s)#.*$", "", data.decode("utf-8", "replace"))
    try:
        return _checked(_kalibr(text) if re.search(r"(?m)^\s*intrinsics\s*:", text) else _opencv(text))
    except ValueError as error:
        raise PhotoError(f"the camera calibration cannot be used: {error}", file=path, next_step=NEXT_STEP) from error


def _kalibr(text: str) -> Camera:
    model, lens = _word(text, "camera_model"), _word(text, "distortion_model") or "none"
    if model != "pinhole":
        raise ValueError(f"camera_model {model!r} is not known; pinhole is")
    if lens not in KALIBR_MODELS:
        raise ValueError(f"distortion_model {lens!r} is not known; {', '.join(KALIBR_MODELS)} are")
    fx, fy, cx, cy = _numbers(text, "intrinsics", 4)
    width, height = _numbers(text, "resolution", 2)
    distortion = _numbers(text, "distortion_coeffs", None) if lens != "none" else ()
    kind = KALIBR_MODELS[lens]
    return Camera(_whole(width), _whole(height), fx, fy, cx, cy, kind, distortion)


def _opencv(text: str) -> Camera:
    matrix = _matrix(text, "camera_matrix|cameraMatrix|K|Camera_Matrix")
    if len(matrix) != 9:
        raise ValueError("no camera_matrix of 3 x 3 numbers")
    if any(matrix[at] != 0 for at in (1, 3, 6, 7)) or matrix[8] != 1:
        raise ValueError("camera_matrix is not [fx, 0, cx, 0, fy, cy, 0, 0, 1]")
    names = "distortion_coefficients|dist_coeffs|distCoeffs|D|Distortion_Coefficients"
    distortion = _matrix(text, names)
    word = (_word(text, "distortion_model") or _word(text, "camera_model") or "").lower()
    fisheye = word in ("fisheye", "equidistant") or _word(text, "fisheye_model") == "1"
    width, height = (
        _numbers(text, f"(?:image|calibImage|image_)_?{side}", 1)[0] for side in ("(?i:width)", "(?i:height)")
    )
    kind: Model = "fisheye" if fisheye else "brown"
    return Camera(
        _whole(width),
        _whole(height),
        matrix[0],
        matrix[4],
        matrix[2],
        matrix[5],
        kind,
        distortion,
    )


def _checked(camera: Camera) -> Camera:
    values = (camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion)
    if not all(map(math.isfinite, values)) or min(camera.fx, camera.fy, camera.width, camera.height) <= 0:
        raise ValueError("focal lengths and image size must be above zero")
    lens = camera.distortion
    while camera.model == "brown" and len(lens) > 8 and lens[-1] == 0:
        lens = lens[:-1]
    if len(lens) not in ((0, 4) if camera.model == "fisheye" else BROWN_COUNTS):
        raise ValueError(f"{len(lens)} distortion coefficients: 4, 5 or 8 of Brown's model or 4 of a fisheye are known")
    return Camera(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy, camera.model, lens)


def _word(text: str, key: str) -> str | None:
    found = re.search(rf"(?m)^\s*(?:{key})\s*:\s*[\"']?([\w-]+)", text)
    return found[1] if found else None


def _numbers(text: str, key: str, count: int | None) -> tuple[float, ...]:
    """Return the number or the list of numbers behind `key`, in YAML's flow or block style."""
    found = re.search(rf"(?m)^\s*(?:{key})\s*:[ \t]*((?:\n\s*-[^\n]*)+|\s*\[[^\]]*\]|[^\s\[][^\n]*)", text)
    values = _floats(found[1]) if found else ()
    if found is None or (count is not None and len(values) != count):
        raise ValueError(f"no {re.sub('[^A-Za-z_|]', '', key)}" + (f" of {count} numbers" if count else ""))
    return values


def _matrix(text: str, keys: str) -> tuple[float, ...]:
    """Return the `data` of an OpenCV or ROS matrix, or a plain list; nothing where there is no such key."""
    found = re.search(
        rf"(?m)^\s*(?:{keys})\s*:([^\[]*?data\s*:\s*)?\s*(?:!!\S+\s*)?\[([^\]]*(?:\]\s*,\s*\[[^\]]*)*)", text
    )
    return _floats(found[2]) if found else ()


def _floats(text: str) -> tuple[float, ...]:
    words = [word for word in re.split(r"[\s,\[\]]+", re.sub(r"(?m)^\s*-\s+", " ", text)) if word]
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise ValueError(f"not numbers: {text.strip()[:60]!r}") from None


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(f"an image size of {value} pixels")
    return int(value)
