"""Calibration files that are odd, read or refused without OpenCV at hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from provisioning.base.errors import PhotoError
from provisioning.config.schema import Camera as Settings
from provisioning.quality.query.calibration_file import LARGEST_BYTES, read_calibration
from provisioning.quality.query.declaration import UNDECLARED, declared
from provisioning.quality.query.metadata import Metadata
from provisioning.quality.query.viewing import Viewing, viewing

OPENCV = """%YAML:1.0
image_width: {width}
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 500., 0., 320., 0., 500., 240., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 1
   cols: {count}
   dt: d
   data: [ {lens} ]
"""


def test_trailing_zeros_of_a_longer_model_are_none(tmp_path):
    lens = ["0.1", "0.01", "0", "0", "0.001", "0", "0", "0", *["0"] * 4]
    (tmp_path / "c.yml").write_text(OPENCV.format(width=640, count=12, lens=", ".join(lens)))
    assert read_calibration(tmp_path / "c.yml").distortion[:5] == (0.1, 0.01, 0.0, 0.0, 0.001)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OPENCV.format(width=640.5, count=4, lens="0, 0, 0, 0"), "an image size of 640.5 pixels"),
        (OPENCV.format(width=640, count=3, lens="0.1, 0.1, 0.1"), "3 distortion coefficients"),
        (OPENCV.format(width=640, count=4, lens="a, b, c, d"), "cannot be used"),
        (OPENCV.format(width=0, count=4, lens="0, 0, 0, 0"), "above zero"),
        ("#" * (LARGEST_BYTES + 1), "no larger than 1 MiB"),
    ],
    ids=range(5),
)
def test_a_calibration_that_cannot_be_meant_is_refused(tmp_path, text, reason):
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(PhotoError, match=reason) as refused:
        read_calibration(tmp_path / "c.yml")
    assert refused.value.file


def test_a_lens_may_be_declared_by_sensor_pixels_angle_or_file(tmp_path):
    (tmp_path / "c.yml").write_text(OPENCV.format(width=640, count=4, lens="0, 0, 0, 0"))
    lenses = {
        "sensor": Settings(focal_mm=Decimal(5), sensor_width_mm=Decimal("6.4")),
        "pixels": Settings(focal_px=Decimal(500), width_px=640, height_px=480),
        "file": Settings(calibration=tmp_path / "c.yml"),
    }
    for name, settings in lenses.items():
        seen = viewing(declared(replace(settings, height_m=Decimal(100))), Metadata(), width=640, height=480)
        assert isinstance(seen, Viewing), name
        assert seen.camera.fx == pytest.approx(500), name
    assert "no height" in viewing(declared(lenses["pixels"]), Metadata(), width=640, height=480)
    assert "no focal length" in viewing(UNDECLARED, Metadata(), width=640, height=480)
    with pytest.raises(PhotoError):
        viewing(declared(replace(lenses["file"], height_m=Decimal(100))), Metadata(), width=640, height=640)
