"""Camera poses from an autopilot's log: ArduPilot's dataflash log (CAM, MNT), PX4's ULog (camera_capture).

The logs are read by pymavlink and pyulog (the extra `logs`), in the process that reads foreign input.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import PhotoError
from provisioning.base.geometry.angles import Origin
from provisioning.base.process import confined
from provisioning.quality.query.attitude import Angles, Matrix, angles_of
from provisioning.quality.query.viewing import Known

INSTALL = "pip install 'flightcache[logs]'"
LIMITS = confined.Limits(time_s=900.0)
"""For one log; one of a gigabyte takes minutes."""
MOUNT_FRESH_S = 1.0
"""Oldest attitude of a gimbal that still counts for a photo; ArduPilot logs it ten times a second."""
MOST_CAPTURES = 20_000
STARTS = {b"\xa3\x95": "ardupilot", b"FMT, ": "ardupilot", b"ULog\x01\x12\x35": "px4"}
"""First bytes of the logs that are known: dataflash as binary and as text, ULog."""


class Capture(NamedTuple):
    """One photo as the autopilot recorded it; the place is None where it had no position yet.

    camera: number of the camera, for aircraft with several. time_s: since the autopilot started.
    """

    place: Origin | None
    known: Known
    time_s: float
    camera: int


def is_flight_log(path: Path) -> bool:
    """Return whether the file at `path` begins as a log that `read_flight_log` reads."""
    return _kind_of(path) is not None


def _kind_of(path: Path) -> str | None:
    try:
        with open_regular(path) as file:
            head = file.read(8)
    except OSError as error:
        raise PhotoError(f"the flight log cannot be read: {error.strerror}", file=path) from error
    return next((kind for start, kind in STARTS.items() if head.startswith(start)), None)


def read_flight_log(path: Path) -> tuple[Capture, ...]:
    """Return the photos that the log at `path` records, in the order in which they were taken.

    PhotoError where the extra `logs` is not installed, the log is damaged, or records no photo.
    """
    subject = confined.Subject("the flight log", path, PhotoError)
    path = path.absolute()
    reads = {path.parent, Path(os.path.realpath(path)).parent}
    rows = confined.call(_read, path, subject=subject, reads=reads, limits=LIMITS)
    try:
        captures = tuple(_capture(*row) for row in rows)
    except (TypeError, ValueError, LookupError) as error:
        raise PhotoError("not a flight log that can be read", file=path) from error
    if not captures:
        raise PhotoError(
            "the flight log records no photo",
            file=path,
            next_step="ArduPilot: log CAM (LOG_BITMASK, CAM1_FEEDBAK_PIN); PX4: log camera_capture; "
            "or write a list file,lat,lon,yaw,pitch,height_m",
        )
    return captures


def _capture(time_s: float, camera: int, place: Sequence[float] | None, angles: Sequence[Any],
             relative_m: float | None, altitude_m: float | None) -> Capture:  # fmt: skip
    where = None if place is None else Origin(round(place[0] * 1e7), round(place[1] * 1e7))
    known = Known(Angles(*angles), relative_m=relative_m, altitude_m=altitude_m)
    return Capture(where, known, float(time_s), int(camera))


def for_photos(captures: Sequence[Capture], photos: int, log: Path) -> tuple[Capture, ...]:
    """Return the captures of the camera that took `photos` photos; PhotoError where no camera took as many, or several.

    The n-th photo is the n-th capture: no file name or clock is shared by camera and autopilot.
    """
    counts = Counter(each.camera for each in captures)
    fitting = [camera for camera, count in counts.items() if count == photos]
    if len(fitting) == 1:
        return tuple(each for each in captures if each.camera == fitting[0])
    raise PhotoError(
        "several cameras in the flight log took as many photos" if fitting else
        "the folder and the flight log do not hold the same number of photos",
        file=log,
        facts={"photos in the folder": photos,
               **{f"in the log, camera {camera}": count for camera, count in sorted(counts.items())}},
        next_step="keep only the photos of this log in the folder: photos of another flight or camera, or taken on "
        "the ground, go elsewhere; or write a list file,lat,lon,yaw,pitch,height_m",
    )  # fmt: skip


# in the process that reads foreign input


def _read(path: Path) -> list[tuple[object, ...]]:
    """Return a row for each capture: plain numbers in the order of `_capture`'s arguments."""
    readers: Mapping[str | None, Callable[[Path], Iterable[tuple[object, ...]]]] = {
        "ardupilot": _ardupilot,
        "px4": _px4,
    }
    reader = readers.get(_kind_of(path))
    if reader is None:
        raise PhotoError("not a flight log: neither ArduPilot's dataflash nor PX4's ULog", file=path)
    try:
        rows = list(islice(reader(path), MOST_CAPTURES + 1))
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # whatever the libraries raise of damaged bytes
        raise PhotoError(
            "the flight log is damaged",
            file=path,
            facts={"reason": f"{type(error).__name__}: {error}"[:300]},
            next_step="copy it from the autopilot again",
        ) from error
    if len(rows) > MOST_CAPTURES:
        raise PhotoError("the flight log records too many photos", file=path, facts={"limit": MOST_CAPTURES})
    return rows


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise PhotoError(
            f"{package} is needed to read this flight log", facts={"reason": error}, next_step=INSTALL
        ) from error


def _ardupilot(path: Path) -> Iterator[tuple[object, ...]]:
    """Yield the CAM messages; a gimbal's attitude (MNT) goes before the airframe's, which CAM gives."""
    reader = _library("pymavlink.DFReader")
    open_log = reader.DFReader_text if _is_text(path) else reader.DFReader_binary
    with contextlib.closing(open_log(str(path))) as log:
        mounts: dict[int, Any] = {}
        while (message := log.recv_match(type=["CAM", "MNT"])) is not None:
            number = int(getattr(message, "I", 0))
            if message.get_type() == "MNT":
                mounts[number] = message
            else:
                yield _of_cam(message, number, mounts.get(number, mounts.get(0) if len(mounts) == 1 else None))


def _of_cam(cam: Any, number: int, mount: Any) -> tuple[object, ...]:
    newer = hasattr(cam, "Y")
    yaw, pitch, roll = _finite(*(getattr(cam, name[0] if newer else name) for name in ("Yaw", "Pitch", "Roll")))
    return (
        cam.TimeUS / 1e6,
        number,
        _place(cam.Lat, cam.Lng),
        _mounted(cam, yaw, mount) or [None if yaw is None else yaw % 360, pitch, roll, "body"],
        *_finite(getattr(cam, "RelAlt", None), cam.Alt),
    )


def _is_text(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(3) == b"FMT"


def _mounted(cam: Any, airframe_deg: float | None, mount: Any) -> list[object] | None:
    """Return the camera's angles as its gimbal gave them: pitch and roll against the earth, yaw against either."""
    if mount is None or not 0 <= (cam.TimeUS - mount.TimeUS) / 1e6 <= MOUNT_FRESH_S:
        return None
    yaw, body_yaw, pitch, roll = _finite(*(getattr(mount, name, None) for name in ("YawE", "YawB", "Pitch", "Roll")))
    if yaw is None and airframe_deg is not None:
        yaw = airframe_deg + (body_yaw or 0.0)
    return None if pitch is None else [None if yaw is None else yaw % 360, pitch, roll, "camera"]


def _px4(path: Path) -> Iterator[tuple[object, ...]]:
    """Yield the topics camera_capture; the attitude is the gimbal's where the log has one, else the airframe's."""
    core = _library("pyulog.core")
    topics = ["camera_capture", "home_position", "gimbal_device_attitude_status"]
    with open_regular(path) as file:
        log = core.ULog(file, topics)
    data = {each.name: each.data for each in log.data_list}
    found = data.get("camera_capture")
    if found is None:
        return
    of = "camera" if "gimbal_device_attitude_status" in data else "body"
    home = data.get("home_position")
    for row in range(len(found["timestamp"])):
        if "result" in found and found["result"][row] == 0:
            continue  # no photo was taken
        time_us, altitude_m = int(found["timestamp"][row]), float(found["alt"][row])
        yield (
            time_us / 1e6,
            0,
            _place(found["lat"][row], found["lon"][row]),
            [*_of_quaternion([float(found[f"q[{n}]"][row]) for n in range(4)]), of],
            *_finite(_relative_m(found, row, _home_m(home, time_us)), altitude_m),
        )


def _home_m(home: Any, time_us: int) -> float | None:
    """Return the altitude of the take-off point as it was known at a time, or first became known."""
    if home is None or not len(home["timestamp"]):
        return None
    return float(home["alt"][max(0, bisect_right(home["timestamp"].tolist(), time_us) - 1)])


def _relative_m(found: Any, row: int, home_m: float | None) -> float | None:
    """Return the height above the ground where the autopilot knew it (it writes -1 where not), else above home."""
    ground_m = float(found["ground_distance"][row]) if "ground_distance" in found else -1.0
    if ground_m > 0:
        return ground_m
    return None if home_m is None else float(found["alt"][row]) - home_m


def _of_quaternion(q: Sequence[float]) -> Sequence[float | None]:
    """Return yaw, pitch, roll, degree, of a rotation from forward, right, down to north, east, down."""
    length = math.sqrt(sum(each * each for each in q))
    if not 0.9 < length < 1.1:
        return None, None, None
    w, x, y, z = (each / length for each in q)
    forward = _east_north_up(1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    right = _east_north_up(2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    yaw, pitch, roll = angles_of(forward, right)
    return yaw % 360, pitch, roll


def _east_north_up(north: float, east: float, down: float) -> Matrix:
    import numpy as np

    return np.array([east, north, -down])


def _place(lat: Any, lon: Any) -> list[float] | None:
    lat, lon = float(lat), float(lon)
    known = abs(lat) <= 90 and abs(lon) <= 180 and (lat, lon) != (0, 0)
    return [lat, lon] if known else None


def _finite(*values: Any) -> list[float | None]:
    """Return numbers as floats, None for what is none."""
    return [float(each) if each is not None and math.isfinite(each) else None for each in values]
