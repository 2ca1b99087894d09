"""Reading a photo as the aircraft took it: pixels, and what its metadata say of position and heading."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from provisioning.base.disk.files import open_regular, read_input
from provisioning.base.errors import PhotoError
from provisioning.base.geometry.angles import Origin
from provisioning.base.process import confined
from provisioning.quality.query.attitude import Angles
from provisioning.quality.query.camera import SIDEWAYS, Camera
from provisioning.quality.query.metadata import Metadata, read_metadata

MAX_PIXELS = 250_000_000
"""Largest photo read: aerial cameras reach 150 megapixels."""

LIMITS = confined.Limits(time_s=120.0)
"""For one photo; the largest take seconds."""

Made = TypeVar("Made")
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
"""The only parsers that a photo may reach: others start programs (EPS: Ghostscript) or read other files."""


class Photo(NamedTuple):
    """A photo: uint8 [H, W, 3] RGB, upright as displayed; where it was taken and which way its top points, if known.

    metadata: what EXIF and XMP say of the camera, its attitude and height.
    """

    pixels: np.ndarray[Any, Any]
    position: Origin | None
    heading_deg: float | None
    metadata: Metadata = Metadata()


def read_photo(path: Path, needed: Callable[[Unread], float] | None = None) -> Photo:
    """Return the photo at `path`; PhotoError if it is no image, damaged, larger than MAX_PIXELS or over LIMITS.

    needed: from what the photo says of itself to the share of its resolution that is looked at. A JPEG is then decoded
    at half, a quarter or an eighth of its size where that suffices, in a fraction of the time.
    """
    share = 1.0
    if needed is not None:
        said, size = _apart(_read_head, path)
        width, height = size
        share = needed(_checked(path, lambda: Unread(width, height, said["heading_deg"], _metadata(said))))
    said, pixels = _apart(_read, path, share)
    return _checked(path, lambda: Photo(pixels, _origin(said["position"]), said["heading_deg"], _metadata(said)))


class Unread(NamedTuple):
    """A photo before its pixels are decoded: its size as it is shown, its heading and what its metadata say."""

    width: int
    height: int
    heading_deg: float | None
    metadata: Metadata


def _checked(path: Path, made: Callable[[], Made]) -> Made:
    """Return what is made of another process's answer; PhotoError where that makes no sense."""
    try:
        return made()
    except (TypeError, ValueError, LookupError) as error:
        raise PhotoError("not a photo that can be read", file=path) from error


def read_position(path: Path) -> Origin | None:
    """Return where the photo at `path` says it was taken, without decoding its pixels; PhotoError if it is no image."""
    return _origin(_apart(_read_position, path))


def _apart(function: Callable[..., Any], path: Path, *arguments: float) -> Any:
    """Call `function` in a process that can read the photo's directory: one for all photos there."""
    path = path.absolute()
    reads = {path.parent, Path(os.path.realpath(path)).parent}
    subject = confined.Subject("the photo", path, PhotoError)
    return confined.call(function, path, *arguments, subject=subject, reads=reads, limits=LIMITS)


def _origin(said: Any) -> Origin | None:
    return None if said is None else Origin(*said)


def _metadata(said: dict[str, Any]) -> Metadata:
    camera = said["camera"]
    if camera is not None:
        camera = Camera(**{**camera, "distortion": tuple(camera["distortion"])})
    return Metadata(Angles(*said["angles"]), said["relative_m"], said["altitude_m"], camera, said["orientation"])


def _read_head(path: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return what the photo says of itself, and its width and height as it is shown, without decoding it."""
    with _opened(path) as image:
        said, size = _said(image), _stored_size(image)
        return said, size[::-1] if said["orientation"] in SIDEWAYS else size


def _read(path: Path, share: float = 1.0) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return what the photo says of itself, as plain data, and its pixels uint8 [H, W, 3], a share of them at least."""
    with _opened(path) as image:
        said = _said(image)
        image.draft("RGB", (math.ceil(image.width * share), math.ceil(image.height * share)))
        return said, np.asarray(_rgb(image if said["orientation"] == 1 else ImageOps.exif_transpose(image)))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Yield the image at `path`; PhotoError for whatever is wrong with it, also while it is decoded."""
    try:
        with Image.open(io.BytesIO(read_input(path)), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PhotoError(
                    "the photo is too large",
                    file=path,
                    facts={"pixels": image.width * image.height, "limit": MAX_PIXELS},
                )
            yield image
    except UnidentifiedImageError as error:
        raise PhotoError(
            "not an image in a format that is known", file=path, next_step="give JPEG, PNG, TIFF or WebP"
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(f"not a photo that can be read: {error}", file=path) from error


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as stored; a reader of TIFF gives them as they are shown."""
    tags = image.getexif()
    return (tags[256], tags[257]) if image.format == "TIFF" else image.size


def _said(image: Image.Image) -> dict[str, Any]:
    """Return what an image says of itself before it is decoded: TIFF's reader applies the orientation and drops it."""
    exif, xmp = image.getexif(), image.info.get("xmp", b"")
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    packet = xmp if isinstance(xmp, bytes) else str(xmp).encode()
    metadata = read_metadata(exif, packet, *_stored_size(image))
    if metadata.angles.yaw_deg is None:
        metadata = metadata._replace(angles=metadata.angles._replace(yaw_deg=gps_heading_deg(gps)))
    camera = None if metadata.camera is None else asdict(metadata.camera)
    return {
        **metadata._asdict(),
        "camera": camera,
        "position": gps_position(gps),
        "heading_deg": metadata.angles.yaw_deg,
    }


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8 bits of red, green, blue; of 16 bits, as of multispectral cameras, the upper ones."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _read_position(path: Path) -> Origin | None:
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
            return gps_position(image.getexif().get_ifd(ExifTags.IFD.GPSInfo))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(f"not a photo that can be read: {error}", file=path) from error


def gps_position(gps: dict[int, Any]) -> Origin | None:
    """Return the position in an EXIF GPS block, or None if there is none that makes sense."""
    lat = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "NS")
    lon = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "EW")
    if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180 or lat == lon == 0:
        return None  # 0, 0 is what a camera without a fix writes
    return Origin(round(lat * 1e7), round(lon * 1e7))


def _degrees(parts: Any, reference: Any, signs: str) -> float | None:
    """Return degrees, minutes, seconds as one signed number; `signs` are the letters of plus and minus."""
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
        value = degrees + minutes / 60 + seconds / 3600
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if reference not in tuple(signs) or not math.isfinite(value):
        return None
    return value if reference == signs[0] else -value


def gps_heading_deg(gps: dict[int, Any]) -> float | None:
    """Return EXIF's image direction, degree from true north, or None: a magnetic one would need the declination."""
    try:
        heading = float(gps[ExifTags.GPS.GPSImgDirection])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    true = gps.get(ExifTags.GPS.GPSImgDirectionRef, "T") == "T"
    return heading % 360 if true and math.isfinite(heading) else None


def turned_north_up(pixels: np.ndarray[Any, Any], heading_deg: float) -> np.ndarray[Any, Any]:
    """Return the central square of a photo whose top points to `heading_deg`, turned so that north is up.

    pixels: uint8 [H, W, 3]. Quarter turns are exact. Between them, corners that the photo does not reach are filled
    with its mirror image, as tiles at other headings are: the square keeps its scale, which finds more (measured in
    docs/evaluation.md) than a smaller square without them.
    """
    side = min(pixels.shape[:2])
    quarter, rest = divmod(heading_deg % 360, 90)
    if rest == 0:
        return np.ascontiguousarray(np.rot90(_centre(pixels, side), k=-int(quarter)))
    reach = side // 4  # half the diagonal of the square less half its side, and a little more
    wide = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    needed = min(*wide.shape[:2], math.ceil(side * math.sqrt(2)) + 2)
    middle = Image.fromarray(np.ascontiguousarray(_centre(wide, needed)))
    turned = middle.rotate(-heading_deg, Image.Resampling.BILINEAR)
    return np.ascontiguousarray(_centre(np.asarray(turned), side))


def _centre(pixels: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]
