"""Photos beside an autopilot's log: ArduPilot's and PX4's, in their own formats, read by pymavlink and pyulog."""

from __future__ import annotations

import builtins
import math
import struct

import numpy as np
import pytest

from provisioning.base.errors import PhotoError
from provisioning.base.geometry.angles import Origin
from provisioning.base.process import confined
from provisioning.quality.evaluate.flight_log import is_flight_log, read_flight_log
from provisioning.quality.evaluate.queries import find_queries
from provisioning.quality.query import Metadata, camera_rotation, viewing
from provisioning.quality.query.declaration import Declared

LAT, LON = 47.3977, -8.5456
CAM = ("CAM", "QBHIHLLfffccC", "TimeUS,I,Img,GPSTime,GPSWeek,Lat,Lng,Alt,RelAlt,GPSAlt,R,P,Y")
OLD_CAM = ("CAM", "QIHLLeeeccC", "TimeUS,GPSTime,GPSWeek,Lat,Lng,Alt,RelAlt,GPSAlt,Roll,Pitch,Yaw")
MNT = ("MNT", "QBffffffff", "TimeUS,I,DesRoll,Roll,DesPitch,Pitch,DesYawB,YawB,DesYawE,YawE")
GPS = ("GPS", "QBIHBcLLeffff", "TimeUS,Status,GMS,GWk,NSats,HDop,Lat,Lng,Alt,Spd,GCrs,VZ,Yaw")
CODES = {"Q": "Q", "B": "B", "H": "H", "I": "I", "L": "i", "e": "i", "f": "f", "c": "h", "C": "H"}
HEAD = b"\xa3\x95"


def dataflash(*messages):
    """Return the bytes of ArduPilot's log: a format (FMT) before the first message of each kind, then the messages."""
    kinds, log = {}, b""
    lengths = {code: struct.calcsize("<" + CODES[code]) for code in CODES}
    own = ("FMT", "BBnNZ", "Type,Length,Name,Format,Columns")

    def fmt(number, size, kind):
        texts = (text.encode().ljust(wide, b"\0") for text, wide in zip(kind, (4, 16, 64), strict=True))
        return HEAD + b"\x80" + bytes([number, size]) + b"".join(texts)

    log += fmt(0x80, 89, own)
    for kind, *values in messages:
        if kind not in kinds:
            kinds[kind] = 0x81 + len(kinds)
            log += fmt(kinds[kind], 3 + sum(lengths[code] for code in kind[1]), kind)
        log += HEAD + bytes([kinds[kind]]) + struct.pack("<" + "".join(CODES[each] for each in kind[1]), *values)
    return log


def cam(second, *, lat=LAT, lon=LON, camera=0, roll=2.0, pitch=-3.0, yaw=271.0, relative=101.5, alt=503.0):
    angles = round(roll * 100), round(pitch * 100), round(yaw * 100)
    place = round(lat * 1e7), round(lon * 1e7)
    return (CAM, round(second * 1e6), camera, 1, 1000, 2200, *place, alt, relative, alt, *angles)


def mnt(second, *, pitch=-90.0, yaw=100.0, body=190.0):
    return (MNT, round(second * 1e6), 0, 0.0, 0.5, pitch, pitch, 0.0, body, 0.0, yaw)


def folder_of(tmp_path, log, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ("a.ulg" if log.startswith(b"ULog") else "a.bin")).write_bytes(log)
    return tmp_path


def test_photos_beside_an_ardupilot_log_are_placed_in_the_order_of_its_captures(tmp_path):
    log = dataflash(cam(10), cam(12.5, lat=LAT + 0.001, yaw=90))
    first, second = find_queries(folder_of(tmp_path, log, ["IMG_9.JPG", "IMG_10.JPG"]))
    assert (first.name, second.name) == ("IMG_9.JPG", "IMG_10.JPG")
    assert first.place == Origin(473_977_000, -85_456_000)
    assert second.place.lat_e7 == 473_987_000
    assert first.known.angles == (271.0, -3.0, 2.0, "body")
    assert (first.known.relative_m, first.known.altitude_m) == (101.5, 503.0)
    assert (first.time_s, second.time_s) == (10.0, 12.5)


def test_an_older_log_without_numbers_of_cameras_is_read_alike(tmp_path):
    place = round(LAT * 1e7), round(LON * 1e7)
    old = (OLD_CAM, 10_000_000, 1000, 2200, *place, 50_300, 10_150, 50_300, 200, -300, 27_100)
    (tmp_path / "a.bin").write_bytes(dataflash(old))
    (found,) = read_flight_log(tmp_path / "a.bin")
    assert found.place == Origin(473_977_000, -85_456_000)
    assert found.known.angles == pytest.approx((271.0, -3.0, 2.0, "body"))
    assert (found.known.relative_m, found.known.altitude_m) == pytest.approx((101.5, 503.0))


def test_the_log_as_text_says_the_same(tmp_path):
    (tmp_path / "a.log").write_text(
        "FMT, 128, 89, FMT, BBnNZ, Type,Length,Name,Format,Columns\n"
        f"FMT, 129, 52, {', '.join(CAM[:2])}, {CAM[2]}\n"
        f"CAM, 10000000, 0, 1, 1000, 2200, {LAT}, {LON}, 503.0, 101.5, 503.0, 2.0, -3.0, 271.0\n"
    )
    (tmp_path / "b.bin").write_bytes(dataflash(cam(10)))
    assert read_flight_log(tmp_path / "a.log") == read_flight_log(tmp_path / "b.bin")


def test_the_gimbal_goes_before_the_airframe_while_its_attitude_is_fresh(tmp_path):
    log = dataflash(cam(1), mnt(9.9), cam(10), cam(20), mnt(29.9, yaw=float("nan")), cam(30, yaw=271.0))
    (tmp_path / "a.bin").write_bytes(log)
    before, fresh, stale, of_body = (each.known.angles for each in read_flight_log(tmp_path / "a.bin"))
    assert (before.of, stale.of) == ("body", "body")
    assert fresh == (100.0, -90.0, 0.5, "camera")
    assert of_body == (pytest.approx((271 + 190) % 360), -90.0, 0.5, "camera")


def test_a_capture_without_a_position_keeps_its_place_in_the_order(tmp_path):
    log = dataflash(cam(1, lat=0, lon=0), cam(2))
    (found,) = find_queries(folder_of(tmp_path, log, ["1.jpg", "2.jpg"]))
    assert (found.name, found.time_s) == ("2.jpg", 2.0)


def test_of_two_cameras_the_one_with_as_many_photos_is_taken(tmp_path):
    log = dataflash(cam(1), cam(1, camera=1, yaw=45.0), cam(2))
    (found,) = find_queries(folder_of(tmp_path, log, ["1.jpg"]))
    assert found.known.angles.yaw_deg == 45.0


@pytest.mark.parametrize(
    ("log", "photos", "said"),
    [
        (dataflash(cam(1), cam(2)), 3, "same number"),
        (dataflash(cam(1), cam(1, camera=1)), 1, "several cameras"),
        (dataflash((GPS, 1000, 3, 1000, 2200, 12, 80, 1, 1, 1, 0, 0, 0, 0)), 1, "records no photo"),
        (b"ULog\x01\x12\x35", 1, "damaged"),
        (b"no log", 1, "no photo in the folder|not a"),
    ],
)
def test_a_log_that_does_not_fit_is_refused_with_what_to_do(tmp_path, log, photos, said):
    from tests import building

    for number in range(photos):
        (tmp_path / f"{number}.jpg").write_bytes(building.tile_image(number))
    (tmp_path / ("a.ulg" if log.startswith(b"ULog") else "a.bin")).write_bytes(log)
    with pytest.raises(PhotoError, match=said) as refusal:
        find_queries(tmp_path)
    assert refusal.value.file
    assert refusal.value.next_step


def test_two_logs_in_a_folder_are_refused_by_name(tmp_path):
    (tmp_path / "b.ulg").write_bytes(ulog(capture(1)))
    with pytest.raises(PhotoError, match="several") as refusal:
        find_queries(folder_of(tmp_path, dataflash(cam(1)), ["1.jpg"]))
    assert "a.bin, b.ulg" in refusal.value.facts["files"]


def test_a_file_that_only_has_the_ending_is_no_log(tmp_path):
    (tmp_path / "a.log").write_text("started\n")
    assert not is_flight_log(tmp_path / "a.log")


@pytest.mark.parametrize("missing", ["pymavlink", "pyulog"])
def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch, missing):
    import importlib

    real = importlib.import_module

    def absent(name, *rest):
        if name.startswith(missing):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    path = tmp_path / "a.log"
    path.write_bytes(dataflash(cam(1)) if missing == "pymavlink" else ulog(capture(1)))
    with pytest.raises(PhotoError, match=missing) as refusal:
        read_flight_log(path)
    assert "flightcache[logs]" in refusal.value.next_step


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pymavlink leaves a refused file open
def test_every_truncated_log_is_read_or_refused(tmp_path):
    whole = {"a.bin": dataflash(mnt(0.9), cam(1), cam(2)), "a.ulg": ulog(capture(1), capture(2))}
    for name, data in whole.items():
        for length in range(0, len(data), 7):
            (tmp_path / name).write_bytes(data[:length])
            try:
                found = read_flight_log(tmp_path / name)
            except PhotoError:
                continue
            assert 0 < len(found) <= 2
            assert found[0].place == Origin(473_977_000, -85_456_000)


# PX4

CAPTURE = (
    "uint64_t timestamp;uint64_t timestamp_utc;uint32_t seq;double lat;double lon;float alt;float ground_distance;"
    "float[4] q;int8_t result;uint8_t[7] _padding0"
)
HOME = "uint64_t timestamp;double lat;double lon;float alt"
GIMBAL = "uint64_t timestamp;float[4] q"
LAYOUT = {"camera_capture": "<QQIddff4fb", "home_position": "<Qddf", "gimbal_device_attitude_status": "<Q4f"}


def ulog(*rows):
    """Return the bytes of a ULog (https://docs.px4.io/main/en/dev_log/ulog_file_format): definitions, then data."""
    formats = {"camera_capture": CAPTURE, "home_position": HOME, "gimbal_device_attitude_status": GIMBAL}
    topics = list(dict.fromkeys(name for name, *_ in rows))

    def message(kind, body):
        return struct.pack("<HB", len(body), ord(kind)) + body

    log = b"ULog\x01\x12\x35\x01" + struct.pack("<Q", 0) + message("B", bytes(40))
    log += b"".join(message("F", f"{name}:{formats[name]};".encode()) for name in topics)
    log += b"".join(message("A", struct.pack("<BH", 0, n) + name.encode()) for n, name in enumerate(topics))
    for name, *values in rows:
        log += message("D", struct.pack("<H", topics.index(name)) + struct.pack(LAYOUT[name], *values))
    return log


def quaternion(yaw, pitch, roll):
    """Return w, x, y, z of the aerospace order, from half angles as textbooks write it."""
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in np.radians([yaw, pitch, roll]) / 2)
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def capture(second, *, q=(1.0, 0.0, 0.0, 0.0), alt=503.0, ground=-1.0, result=1):
    return ("camera_capture", round(second * 1e6), 0, 1, LAT, LON, alt, ground, *q, result)


def read_ulog(tmp_path, *rows):
    (tmp_path / "a.ulg").write_bytes(ulog(*rows))
    return read_flight_log(tmp_path / "a.ulg")


@pytest.mark.parametrize("angles", [(271.0, -3.0, 2.0), (10.0, 20.0, -30.0), (180.0, -45.0, 0.0)])
def test_px4_gives_the_airframe_as_a_quaternion(tmp_path, angles):
    (found,) = read_ulog(tmp_path, capture(10, q=quaternion(*angles)))
    assert found.place == Origin(473_977_000, -85_456_000)
    assert found.known.angles[:3] == pytest.approx(angles, abs=1e-4)
    assert found.known.angles.of == "body"
    assert (found.time_s, found.known.altitude_m, found.known.relative_m) == (10.0, 503.0, None)


def test_a_gimbal_that_looks_straight_down_has_a_heading(tmp_path):
    gimbal = ("gimbal_device_attitude_status", 9_900_000, *quaternion(77, -90, 0))
    (found,) = read_ulog(tmp_path, gimbal, capture(10, q=quaternion(77, -90, 0)))
    assert found.known.angles[:3] == pytest.approx((77, -90, 0), abs=1e-3)
    assert found.known.angles.of == "camera"


def test_the_height_is_above_the_ground_where_px4_knew_it_else_above_home(tmp_path):
    home = [("home_position", round(t * 1e6), LAT, LON, alt) for t, alt in ((5, 400.0), (15, 410.0))]
    found = read_ulog(tmp_path, *home, capture(1), capture(10), capture(20), capture(21, ground=88.0))
    assert [each.known.relative_m for each in found] == [103.0, 103.0, 93.0, 88.0]


def test_a_capture_that_failed_is_no_photo(tmp_path):
    assert len(read_ulog(tmp_path, capture(1, result=0), capture(2), capture(3, result=-1))) == 2


def test_pyulog_writes_what_is_read(tmp_path):
    from pyulog import ULog

    (tmp_path / "a.ulg").write_bytes(ulog(capture(1, q=quaternion(30, 0, 0)), capture(2)))
    ULog(str(tmp_path / "a.ulg")).write_ulog(str(tmp_path / "b.ulg"))
    assert read_flight_log(tmp_path / "b.ulg") == read_flight_log(tmp_path / "a.ulg")


# into the rendering


def test_an_airframe_with_its_camera_in_the_floor_sees_the_ground_below_it(tmp_path):
    (tmp_path / "a.bin").write_bytes(dataflash(cam(10, roll=0, pitch=0, yaw=30)))
    (found,) = read_flight_log(tmp_path / "a.bin")
    seen = viewing(Declared(fov_deg=60.0, ground_m=380.0), Metadata(), width=40, height=30, known=found.known)
    assert seen.height_m == 123.0
    axis = camera_rotation(seen.angles, yaw_deg=30, mounting=seen.mounting)[:, 2]
    assert axis == pytest.approx([0, 0, -1], abs=1e-9)


def test_logs_are_read_in_the_process_that_reads_foreign_input(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(dataflash(mnt(9.9), cam(10)))
    here = read_flight_log(tmp_path / "a.bin")
    real = builtins.__import__

    def refused(name, *rest, **given):
        assert not name.startswith("pymavlink"), "read in this process"
        return real(name, *rest, **given)

    with confined.apart(tmp_path / "beside"):
        monkeypatch.setattr(builtins, "__import__", refused)
        assert read_flight_log(tmp_path / "a.bin") == here
