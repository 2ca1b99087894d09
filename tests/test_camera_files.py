"""Calibration files that are odd, read or refused without OpenCV at hand."""

from __future__ import annotations

import pytest

from provisioning.base.errors import PhotoError
from provisioning.quality.query.calibration_file import LARGEST_BYTES, read_calibration

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
