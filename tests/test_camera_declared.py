"""The camera of flight.toml and the one signed in a Manifest are the same camera."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import PhotoError
from provisioning.config.schema import Camera as Settings
from provisioning.flight.manifest import Distortion
from provisioning.quality.query import declared, from_manifest, to_manifest
from provisioning.quality.query.attitude import MOUNTED_DOWN, mounting_of_nadir, nadir_of_mounting, rotation
from provisioning.quality.query.declaration import UNDECLARED

CALIBRATION = """image_width: 4056
image_height: 3040
camera_matrix: {rows: 3, cols: 3, data: [3124.117, 0, 2027.5, 0, 3124.002, 1519.25, 0, 0, 1]}
distortion_coefficients: {rows: 1, cols: 5, data: [-0.28, 0.071, 1.5e-05, -0.0001, 0]}
"""


def approximately(camera):
    """Return the fields of a Declared with its numbers as approximate ones."""
    return {
        name: pytest.approx(value, abs=1e-3) if isinstance(value, (int, float, tuple)) else value
        for name, value in camera._asdict().items()
        if name != "lens"
    }


@pytest.mark.parametrize(
    "settings",
    [
        Settings(fov_deg=Decimal("69.5"), height_m=Decimal(120)),
        Settings(fov_deg=Decimal(70), width_px=4000, height_px=3000, ground_m=Decimal("-3.5")),
        Settings(focal_mm=Decimal("8.4"), sensor_width_mm=Decimal("13.2"), distortion=tuple(map(Decimal, "1234"))),
        Settings(focal_px=Decimal(900), width_px=1280, height_px=960, principal_px=(Decimal(633), Decimal(471)),
                 distortion_model="fisheye", distortion=tuple(map(Decimal, ("0.1", "-0.02", "0.003", "-0.0004")))),
        Settings(angles_of="body", mounting_yaw_deg=Decimal(90), mounting_pitch_deg=Decimal(-60)),
        Settings(ground_m=Decimal(380)),
    ],
    ids=["fov", "fov for a size", "sensor", "fisheye", "mounted", "ground alone"],
)  # fmt: skip
def test_what_is_signed_is_what_was_declared(settings):
    one = declared(settings)
    other = from_manifest(to_manifest(one))
    assert {name: value for name, value in other._asdict().items() if name != "lens"} == approximately(one)
    for size in ((1280, 960), (4000, 3000)):
        first, second = one.for_photo(*size), other.for_photo(*size)
        assert (first is None) == (second is None)
        if first is not None:
            assert (second.fx, second.cx, second.cy) == pytest.approx((first.fx, first.cx, first.cy), abs=1e-3)
            assert (second.model, second.distortion) == (first.model, first.distortion)


def test_a_calibration_file_is_signed_to_a_thousandth_of_a_pixel(tmp_path: Path):
    (tmp_path / "c.yml").write_text(CALIBRATION)
    signed = to_manifest(declared(Settings(calibration=tmp_path / "c.yml")))
    assert signed[:6] == (4056, 3040, 3_124_117, 3_124_002, 2_028_000, 1_519_750)
    assert signed.distortion == Distortion("opencv-5", ("-0.28", "0.071", "0.000015", "-0.0001", "0.0"))


def test_where_nothing_is_declared_nothing_is_signed():
    assert to_manifest(declared(Settings())) is None
    assert from_manifest(None) == UNDECLARED


def test_a_distortion_of_a_later_version_is_refused_and_not_left_out(tmp_path: Path):
    (tmp_path / "c.yml").write_text(CALIBRATION)
    signed = to_manifest(declared(Settings(calibration=tmp_path / "c.yml")))
    for model, coefficients in (("scaramuzza-5", ("1",) * 5), ("opencv-5", ("1",) * 4), ("opencv-14", ("0",) * 14)):
        with pytest.raises(PhotoError, match="distortion"):
            from_manifest(signed._replace(distortion=Distortion(model, coefficients)))


def about(axis, degrees):
    """Return the rotation about axis 0, 1 or 2 (forward, right, down) by the right hand."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turn[one, one], turn[one, two], turn[two, one], turn[two, two] = cos, -sin, sin, cos
    return turn


@given(yaw=st.floats(-180, 180), pitch=st.floats(-180, 90), roll=st.floats(-180, 180))
def test_a_mounting_is_the_same_rotation_in_the_manifest(yaw, pitch, roll):
    """The Manifest turns a camera that looks down about down, right, forward; flight.toml names its optical axis."""
    nadir = nadir_of_mounting((yaw, pitch, roll))
    top, right, axis = (about(2, nadir[0]) @ about(1, nadir[1]) @ about(0, nadir[2])).T
    ours = rotation(yaw, pitch, roll)  # columns right, down, forward of the camera in right, forward, up
    for found, expected in ((right, ours[:, 0]), (top, -ours[:, 1]), (axis, ours[:, 2])):
        assert [found[1], found[0], -found[2]] == pytest.approx(expected, abs=1e-5)
    assert rotation(*mounting_of_nadir(nadir)) == pytest.approx(ours, abs=1e-5)
    assert nadir_of_mounting(MOUNTED_DOWN) == pytest.approx((0, 0, 0), abs=1e-9)
