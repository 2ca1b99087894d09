"""What cameras write into their photos is read as they mean it."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from provisioning.config.schema import Camera as Settings
from provisioning.quality.locate import read_photo
from provisioning.quality.query import Angles, Camera, declared, viewing
from provisioning.quality.query.metadata import Metadata, read_metadata, xmp_angles
from provisioning.quality.query.viewing import Known, Viewing

DJI = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <rdf:Description rdf:about="DJI Meta Data" xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"
   drone-dji:AbsoluteAltitude="+516.72" drone-dji:RelativeAltitude="+80.10" drone-dji:GimbalRollDegree="+0.00"
   drone-dji:GimbalYawDegree="-136.30" drone-dji:GimbalPitchDegree="-45.00" drone-dji:FlightRollDegree="+2.70"
   drone-dji:FlightYawDegree="-135.50" drone-dji:FlightPitchDegree="+6.30"
   drone-dji:CalibratedFocalLength="3666.666504" drone-dji:CalibratedOpticalCenterX="2736.000000"
   drone-dji:CalibratedOpticalCenterY="1824.000000"/></rdf:RDF></x:xmpmeta>"""
PARROT = b"""<rdf:Description><drone-parrot:CameraRollDegree>-0.5</drone-parrot:CameraRollDegree>
 <drone-parrot:CameraPitchDegree>-90.0</drone-parrot:CameraPitchDegree>
 <drone-parrot:CameraYawDegree>12.5</drone-parrot:CameraYawDegree></rdf:Description>"""
AUTEL = b"""<rdf:Description Camera:Pitch="66.040000" Camera:Roll="0.000000" Camera:Yaw="2.420000" />"""
SENSEFLY = b"""<rdf:Description Camera:Yaw="272.1" Camera:Pitch="4.2" Camera:Roll="-3.1" xmlns:a="http://www.sensefly.com/x/" />"""
FLIR = b"""<Camera:Yaw>900/100</Camera:Yaw> <Camera:Pitch>0/100</Camera:Pitch> <Camera:Roll>50/100</Camera:Roll>"""
SKYDIO = b"<x drone-skydio:CameraOrientationNED='0.2, -84.0, 146.5' />"


def metadata(xmp=b"", exif=None, width=5472, height=3648):
    return read_metadata(exif or Image.Exif(), xmp, width, height)


def test_dji_gives_gimbal_heights_and_focal_length():
    found = metadata(DJI)
    assert found.angles == Angles(pytest.approx(223.7), -45, 0)
    assert (found.relative_m, found.altitude_m) == (80.1, 516.72)
    assert found.camera == Camera(5472, 3648, 3666.666504, 3666.666504, 2736, 1824)


@pytest.mark.parametrize(
    ("xmp", "angles"),
    [
        (PARROT, Angles(12.5, -90, -0.5)),
        (AUTEL, Angles(2.42, 66.04, 0, "body")),
        (SENSEFLY, Angles(272.1, 4.2, 3.1, "body")),
        (FLIR, Angles(9, 0, 0.5, "body")),
        (SKYDIO, Angles(146.5, -84, 0.2)),
        (b'<x drone-dji:FlightYawDegree="-90" />', Angles(270)),
        (b'<x drone-dji:GimbalPitchDegree="" />', Angles()),
    ],
)
def test_each_maker_s_attitude_is_read_in_its_own_convention(xmp, angles):
    assert xmp_angles(xmp) == angles


def looks_at(xmp):
    """Return the depression of the optical axis, degree."""
    known = viewing(declared(Settings(height_m=100, fov_deg=60)), metadata(xmp), width=400, height=300)
    return math.degrees(math.asin(-known.view(known.angles.yaw_deg or 0).rotation[2, 2]))


@pytest.mark.parametrize(("xmp", "depression"), [(DJI, 45), (PARROT, 90), (AUTEL, 23.96), (SKYDIO, 84), (b"", 90)])
def test_the_same_look_down_whatever_the_maker_counts_from(xmp, depression):
    assert looks_at(xmp) == pytest.approx(depression, abs=1e-6)


def test_dji_s_dewarp_data_give_the_whole_lens():
    lens = b'<x drone-dji:DewarpData="2022-06-08;3713.29,3713.29,7.02,-8.72,-0.1126,0.0149,0.0001,-0.0002,-0.0271"/>'
    camera = metadata(lens, width=5280, height=3956).camera
    assert (camera.fx, camera.cx, camera.cy) == (3713.29, 2639.5 + 7.02, 1977.5 - 8.72)
    assert camera.distortion == (-0.1126, 0.0149, 0.0001, -0.0002, -0.0271)


def exif(**tags):
    names = {"focal_mm": 0x920A, "per_unit": 0xA20E, "unit": 0xA210, "in_35mm": 0xA405}
    written, out = Image.Exif(), io.BytesIO()
    written[0x8769] = {names[name]: value for name, value in tags.items()}
    Image.new("RGB", (8, 8)).save(out, "JPEG", exif=written)
    return Image.open(out).getexif()


def test_a_sony_s_focal_length_comes_from_its_sensor():
    # RX1R II: 35 mm on 35.9 mm of 7952 pixels
    camera = metadata(
        exif=exif(focal_mm=35.0, per_unit=7952 / 3.59, unit=3, in_35mm=35), width=7952, height=5304
    ).camera
    assert camera.fx == pytest.approx(35 / 35.9 * 7952)


def test_an_equivalent_focal_length_counts_over_the_diagonal():
    camera = metadata(exif=exif(in_35mm=24), width=4000, height=3000).camera
    assert camera.fx == pytest.approx(24 * 5000 / math.hypot(36, 24))


def test_a_focal_length_that_no_lens_has_is_not_believed():
    assert metadata(b'<x drone-dji:CalibratedFocalLength="4.5"/>').camera is None
    assert metadata(exif=exif(in_35mm=0)).camera is None


@given(st.binary(max_size=200))
def test_any_bytes_for_xmp_are_read_or_ignored(noise):
    for name in (b"GimbalPitchDegree", b"DewarpData", b"CalibratedFocalLength", b"RelativeAltitude"):
        found = metadata(b"<x drone-dji:" + name + b'="' + noise + b'"/>')
        assert found.angles.pitch_deg is None or abs(found.angles.pitch_deg) <= 360


def test_a_jpeg_carries_it_all(tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.zeros((36, 54, 3), np.uint8)).save(out, "JPEG", xmp=DJI.replace(b"3666.666504", b"36.6"))
    (tmp_path / "a.jpg").write_bytes(out.getvalue())
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.heading_deg == pytest.approx(223.7)
    assert photo.metadata.relative_m == 80.1
    assert photo.metadata.camera.fx == 36.6


def seen(settings=None, own=None, known=None):
    return viewing(
        declared(settings or Settings()), own or Metadata(), width=400, height=300, known=known or Known(),
    )  # fmt: skip


def test_height_is_above_ground_where_the_ground_is_known():
    own = Metadata(relative_m=80.0, altitude_m=500.0)
    assert seen(Settings(fov_deg=60), own).height_m == 80
    assert seen(Settings(fov_deg=60, ground_m=380), own).height_m == 120
    assert seen(Settings(fov_deg=60, height_m=70), own).height_m == 80
    assert seen(Settings(fov_deg=60, height_m=70)).height_m == 70
    assert seen(Settings(fov_deg=60, height_m=70), own, Known(height_m=55.0)).height_m == 55


def test_what_is_not_known_is_said():
    assert "focal length" in seen(Settings(height_m=70))
    assert "height" in seen(Settings(fov_deg=60))
    assert "height" in seen(Settings(fov_deg=60), Metadata(relative_m=0.3))


def test_a_declared_lens_goes_before_the_photo_s_own():
    own = Metadata(relative_m=80.0, camera=Camera.simple(400, 300, 999.0))
    assert seen(own=own).camera.fx == 999
    assert seen(Settings(fov_deg=90), own).camera.fx == pytest.approx(200)
    assert seen(Settings(fov_deg=90), own, Known(fov_deg=60)).camera.fx == pytest.approx(200 / math.tan(math.pi / 6))


def test_a_lens_is_scaled_to_the_photo_and_refused_for_another_shape():
    from provisioning.base.errors import PhotoError

    settings = Settings(focal_px=1000, principal_px=(799.5, 599.5), width_px=1600, height_px=1200, height_m=50)
    camera = seen(settings).camera
    assert (camera.fx, camera.cx, camera.cy) == (250, 199.5, 149.5)
    with pytest.raises(PhotoError, match="shape"):
        viewing(declared(settings), Metadata(), width=1920, height=1080)


def test_a_list_s_angles_fill_in_the_photo_s(tmp_path):
    own = Metadata(Angles(10, -80, 1), relative_m=50, camera=Camera.simple(400, 300, 300.0))
    assert seen(own=own, known=Known(Angles(None, -45))).angles == Angles(10, -45, 1)
    body = seen(Settings(angles_of="body"), own, Known(Angles(90, 3, -2)))
    assert isinstance(body, Viewing)
    assert body.angles == Angles(90, 3, -2, "body")
