"""DJI's subtitles: for each frame of a video, where and how the camera was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from provisioning.base.disk.files import read_input
from provisioning.base.errors import PhotoError
from provisioning.base.geometry.angles import Origin
from provisioning.quality.query.attitude import Angles
from provisioning.quality.query.metadata import measured, upright
from provisioning.quality.query.viewing import Known

NUMBER = r"([+-]?\d+(?:\.\d+)?)"
PLACE = re.compile(
    rf"(?:GPS|RTK)\s*\(\s*(?:[EW]:\s*)?{NUMBER}\s*,\s*(?:[NS]:\s*)?{NUMBER}\s*,\s*{NUMBER}\s*(M?)m?\s*\)"
)
"""Without names: longitude, latitude, and the number of satellites or an altitude; the height stands elsewhere. The
M300 writes latitude first, and its third number with an M; Autel names the hemispheres."""
HEMISPHERES = re.compile(r"(?:GPS|RTK)\s*\(\s*([EW]):[^,]*,\s*([NS]):")
GIMBAL = re.compile(rf"G\.PRY\s*\(\s*{NUMBER}[^\d,)]*,\s*{NUMBER}[^\d,)]*,\s*{NUMBER}")
"""Phantom 4 Pro and RTK: pitch, roll, yaw of the gimbal."""


FOCALS_MM = (8.0, 2000.0)
MOST_ZOOM = 100.0


class Frame(NamedTuple):
    """Where a frame was taken, what else its subtitle says, and when: seconds since the video began."""

    place: Origin
    known: Known
    time_s: float | None = None


def read_subtitles(path: Path) -> dict[int, Frame]:
    """Return the frames of the subtitle at `path` by their number, from 1; those without a position are left out.

    Read are `[latitude: …] [longitude: …] [rel_alt: …] [gb_yaw: …]` of newer models, `GPS (lon, lat, …), H …m`,
    `G.PRY (…)` and `BAROMETER:…` of older ones and of Autel, `focal_len` and digital zoom of both. PhotoError if no
    frame has a position.
    """
    try:
        text = read_input(path).decode("utf-8", "replace")
    except OSError as error:
        raise PhotoError(f"the subtitle cannot be read: {error.strerror}", file=path) from error
    frames = dict(_frames(text))
    if not frames:
        raise PhotoError(
            "the subtitle gives no position",
            file=path,
            next_step="record with the aircraft's subtitles on and GPS fixed",
        )
    return frames


def _frames(text: str) -> Iterator[tuple[int, Frame]]:
    for number, block in enumerate(re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip()), 1):
        counted = re.search(r"(?:FrameCnt|SrtCnt)\s*:\s*(\d+)", block)
        place = _place(block)
        if place is not None:
            yield int(counted[1]) if counted else number, Frame(place, _known(block), _time_s(block))


def _time_s(block: str) -> float | None:
    """Return when the frame begins to be shown: `00:01:02,033 -->`."""
    found = re.search(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->", block)
    if found is None:
        return None
    hours, minutes, seconds = map(int, found.groups()[:3])
    return hours * 3600 + minutes * 60 + seconds + int(found[4].ljust(3, "0")) / 1000


def _place(block: str) -> Origin | None:
    lat, lon = _value(block, "latitude"), _value(block, "longt?itude")
    if lat is None:
        lon, lat = _unnamed(block)
    if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180 or lat == lon == 0:
        return None
    return Origin(round(lat * 1e7), round(lon * 1e7))


def _unnamed(block: str) -> tuple[float | None, float | None]:
    """Return longitude and latitude of `GPS(…)`."""
    found = PLACE.search(block)
    if found is None:
        return None, None
    first, second = float(found[1]), float(found[2])
    sides = HEMISPHERES.search(block)
    if sides:
        return (-first if sides[1] == "W" else first), (-second if sides[2] == "S" else second)
    return (second, first) if found[4] else (first, second)


def _known(block: str) -> Known:
    heights = (_value(block, "rel_alt"), _value(block, "H", unit=r"\s*m"), _value(block, r"BAROMETER\s*[:(]"))
    altitudes = (_value(block, "abs_alt"), _value(block, "altitude"))
    return Known(
        upright(measured(_gimbal(block))),
        relative_m=_first(heights),
        altitude_m=_first(altitudes),
        equivalent_mm=_focal_mm(block),
        zoom=_zoom(block),
    )


def _focal_mm(block: str) -> float | None:
    """Return the 35-mm-equivalent focal length: `focal_len: 24.00`, of older models in tenths, `focal_len : 240`."""
    found = re.search(rf"focal_len\s*:\s*{NUMBER}", block)
    value = 0.0 if found is None else float(found[1]) / (1 if "." in found[1] else 10)
    return value if FOCALS_MM[0] <= value <= FOCALS_MM[1] else None


def _zoom(block: str) -> float:
    """Return the digital zoom: `dzoom_ratio: 1.00`, of older models in ten-thousandths, `DZOOM 1.000`; 1 without."""
    found = re.search(rf"(?i:dzoom)(?:_ratio)?\s*:?\s*{NUMBER}", block)
    value = 1.0 if found is None else float(found[1])
    value = value / 10_000 if value >= 10_000 else value
    return value if 1 <= value <= MOST_ZOOM else 1.0


def _gimbal(block: str) -> Angles:
    older = GIMBAL.search(block)
    if older:
        return Angles(float(older[3]) % 360, float(older[1]), float(older[2]))
    yaw, pitch, roll = (_value(block, f"gb_{axis}") for axis in ("yaw", "pitch", "roll"))
    return Angles(None if yaw is None else yaw % 360, pitch, roll)


def _first(values: Iterable[float | None]) -> float | None:
    return next((each for each in values if each is not None), None)


def _value(block: str, name: str, *, unit: str = "") -> float | None:
    found = re.search(rf"(?<![A-Za-z]){name}\s*:?\s*{NUMBER}{unit}", block)
    return float(found[1]) if found else None


def frame_number(path: Path) -> int | None:
    """Return the number at the end of an image's name, or None."""
    found = re.search(r"(\d+)$", path.stem)
    return int(found[1]) if found else None
