"""The committed cases for readers in other languages are what the code computes."""

import json
from pathlib import Path

import numpy as np
import pytest

from provisioning.quality.query import Angles, Camera, View, camera_rotation, ground_to_pixels

CASES = json.loads((Path(__file__).parent / "vectors" / "camera.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_ground_lies_at_the_pixel_of_the_vector(case):
    camera = Camera(**{**case["camera"], "distortion": tuple(case["camera"]["distortion"])})
    angles = Angles(None, case["pitch_deg"], case["roll_deg"])
    view = View(camera, camera_rotation(angles, yaw_deg=case["yaw_deg"]), case["height_m"])
    for point in case["points"]:
        pixel, seen = ground_to_pixels(view, np.array(point["east_m"]), np.array(point["north_m"]))
        assert pixel == pytest.approx(point["pixel"], abs=1e-4)
        assert bool(seen) == point["seen"]
