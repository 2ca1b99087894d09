"""The camera sees what OpenCV says it sees: distortion, attitude, calibration files, the ground."""

from __future__ import annotations

import math

import numpy as np
import pytest

from provisioning.base.errors import PhotoError
from provisioning.quality.query import Angles, Camera, View, camera_rotation, ground_to_pixels, render_patch
from provisioning.quality.query.calibration_file import read_calibration
from provisioning.quality.query.camera import focal_px_of_35mm, focal_px_of_fov
from provisioning.quality.query.patches import patch_centres, preferred_sides, seen_share

cv2 = pytest.importorskip("cv2", reason="OpenCV is the oracle")

BROWN = (-0.28, 0.09, 0.0011, -0.0007, -0.013)
RATIONAL = (0.4, -0.2, 0.0005, 0.0003, 0.02, 0.7, -0.15, 0.01)
FISHEYE = (-0.03, 0.012, -0.008, 0.002)


def directions(count=200, widest=0.55):
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-widest, widest, (2, count))
    return np.stack([x, y, np.ones(count)], axis=1) * rng.uniform(0.5, 9, (count, 1))


def matrix(camera):
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])


@pytest.mark.parametrize("lens", [(), BROWN[:4], BROWN, RATIONAL])
def test_brown_distortion_is_that_of_opencv(lens):
    camera = Camera(1280, 960, 900.0, 905.0, 633.0, 471.0, "brown", lens)
    expected, _ = cv2.projectPoints(
        directions(), np.zeros(3), np.zeros(3), matrix(camera), np.array(lens or (0.0,) * 4)
    )
    pixels, seen = camera.project(directions())
    assert np.abs(pixels - expected[:, 0]).max() < 1e-6
    assert seen.sum() > 50


def test_fisheye_distortion_is_that_of_opencv():
    camera = Camera(1280, 960, 400.0, 402.0, 640.0, 480.0, "fisheye", FISHEYE)
    points = directions(widest=1.2)
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), matrix(camera), np.array(FISHEYE)
    )
    assert np.abs(camera.project(points)[0] - expected[:, 0]).max() < 1e-6


def test_a_fisheye_sees_beyond_ninety_degrees_and_a_pinhole_does_not():
    aside = np.array([[1.0, 0.0, -0.1]])
    assert Camera(2000, 2000, 400, 400, 1000, 1000, "fisheye").project(aside)[1].all()
    assert not Camera(2000, 2000, 400, 400, 1000, 1000).project(aside)[1].any()


def test_where_the_distortion_folds_back_nothing_is_seen():
    camera = Camera(1000, 1000, 300.0, 300.0, 499.5, 499.5, "brown", (-0.5, 0, 0, 0))
    folded = np.array([[1.35, 0.0, 1.0]])  # 1.35 (1 - 0.5 · 1.35²) = 0.12: in the middle of the photo
    opencv, _ = cv2.projectPoints(folded, np.zeros(3), np.zeros(3), matrix(camera), np.array(camera.distortion))
    assert 0 < opencv[0, 0, 0] < 1000
    assert not camera.project(folded)[1][0]


def written(path, camera, *, fisheye=False):
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.write("image_width", camera.width)
    file.write("image_height", camera.height)
    if fisheye:
        file.write("distortion_model", "fisheye")
    file.write("camera_matrix", matrix(camera))
    file.write("distortion_coefficients", np.array([camera.distortion]))
    file.release()
    return path


@pytest.mark.parametrize("lens", [BROWN[:4], BROWN, RATIONAL])
def test_a_calibration_that_opencv_wrote_is_read(tmp_path, lens):
    camera = Camera(1280, 960, 900.25, 905.5, 633.125, 471.0, "brown", lens)
    assert read_calibration(written(tmp_path / "c.yml", camera)) == camera


def test_a_fisheye_calibration_says_so(tmp_path):
    camera = Camera(1280, 960, 400.0, 402.0, 640.0, 480.0, "fisheye", FISHEYE)
    assert read_calibration(written(tmp_path / "c.yml", camera, fisheye=True)) == camera


KALIBR = """\
cam0:
  cam_overlaps: []
  camera_model: pinhole
  distortion_coeffs: [-0.29, 0.08, 0.0002, 1.7e-05]   # radtan
  distortion_model: radtan
  intrinsics: [461.5, 460.25, 362.75, 246.5]
  resolution: [752, 480]
  rostopic: /cam0/image_raw
cam1:
  camera_model: pinhole
  distortion_coeffs: [1, 2, 3, 4]
  distortion_model: radtan
  intrinsics: [1, 2, 3, 4]
  resolution: [10, 10]
"""
ROS = """\
image_width: 640
image_height: 480
camera_name: down
camera_matrix:
  rows: 3
  cols: 3
  data: [438.5, 0.000000, 305.25, 0.0, 437.5, 245.75, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.145, -0.325, 0.001, -0.003, 0.0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
"""


def test_the_first_camera_of_kalibr_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text(KALIBR)
    expected = Camera(752, 480, 461.5, 460.25, 362.75, 246.5, "brown", (-0.29, 0.08, 0.0002, 1.7e-05))
    assert read_calibration(tmp_path / "c.yaml") == expected
    (tmp_path / "f.yaml").write_text(KALIBR.replace("radtan", "equidistant"))
    assert read_calibration(tmp_path / "f.yaml").model == "fisheye"


def test_kalibr_in_block_style_as_a_yaml_library_writes_it(tmp_path):
    yaml = pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(yaml.safe_load(KALIBR), default_flow_style=False))
    assert read_calibration(tmp_path / "c.yaml").distortion == (-0.29, 0.08, 0.0002, 1.7e-05)


def test_a_ros_calibration_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text(ROS)
    expected = Camera(640, 480, 438.5, 437.5, 305.25, 245.75, "brown", (0.145, -0.325, 0.001, -0.003, 0.0))
    assert read_calibration(tmp_path / "c.yaml") == expected


@pytest.mark.parametrize(
    "text",
    [
        "focal_px: 812.5\n",
        "",
        KALIBR.replace("pinhole", "omni"),
        KALIBR.replace("radtan", "fov"),
        KALIBR.replace("[752, 480]", "[752]"),
        KALIBR.replace("461.5", "-461.5"),
        KALIBR.replace("461.5", "nan"),
        KALIBR.replace("-0.29, 0.08", "-0.29, abc"),
        ROS.replace("438.5, 0.000000", "438.5, 3.0"),
        ROS.replace("data: [0.145, -0.325, 0.001, -0.003, 0.0]", "data: [0.1, 0.2]"),
        ROS.replace("image_width: 640", ""),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(PhotoError) as refusal:
        read_calibration(tmp_path / "c.yaml")
    assert refusal.value.file == str(tmp_path / "c.yaml")
    assert refusal.value.next_step


def test_a_missing_calibration_is_refused(tmp_path):
    with pytest.raises(PhotoError, match="cannot be read"):
        read_calibration(tmp_path / "none.yaml")


def test_focal_lengths_of_data_sheets():
    # Phantom 4 Pro: 24 mm equivalent, 84° over the diagonal; Mavic 2 Pro: 28 mm and 77°
    for equivalent, diagonal_deg in ((24, 84), (28, 77)):
        focal = focal_px_of_35mm(equivalent, 5472, 3648)
        assert math.degrees(2 * math.atan(math.hypot(5472, 3648) / 2 / focal)) == pytest.approx(diagonal_deg, abs=2)
    assert focal_px_of_fov(90, 1000) == pytest.approx(500)


def test_straight_down_and_level_the_top_points_to_the_yaw():
    view = View(Camera.simple(1001, 1001, 500.0), camera_rotation(Angles(None, -90, 0), yaw_deg=90), 100.0)
    assert ground_to_pixels(view, np.array(0.0), np.array(0.0))[0] == pytest.approx((500, 500))
    assert ground_to_pixels(view, np.array(50.0), np.array(0.0))[0] == pytest.approx((500, 250))  # east is up
    assert ground_to_pixels(view, np.array(0.0), np.array(50.0))[0] == pytest.approx((250, 500))  # north is left


def test_an_oblique_camera_looks_where_it_points():
    view = View(Camera.simple(1001, 1001, 500.0), camera_rotation(Angles(None, -45, 0), yaw_deg=180), 100.0)
    pixel, seen = ground_to_pixels(view, np.array(0.0), np.array(-100.0))
    assert pixel == pytest.approx((500, 500))
    assert seen


def test_a_camera_in_the_airframe_leans_with_it():
    level = camera_rotation(Angles(None, 0, 0, of="body"), yaw_deg=33)
    assert level == pytest.approx(camera_rotation(Angles(None, -90, 0), yaw_deg=33))
    up = camera_rotation(Angles(None, 10, 0, of="body"), yaw_deg=0)[:, 2]
    assert up == pytest.approx((0, math.sin(math.radians(10)), -math.cos(math.radians(10))))  # nose up looks ahead
    right = camera_rotation(Angles(None, 0, 10, of="body"), yaw_deg=0)[:, 2]
    assert right == pytest.approx(
        (-math.sin(math.radians(10)), 0, -math.cos(math.radians(10)))
    )  # right wing down: left
    ahead = camera_rotation(Angles(None, 0, 0, of="body"), yaw_deg=90, mounting=(0, -30, 0))
    assert ahead == pytest.approx(camera_rotation(Angles(None, -30, 0), yaw_deg=90))


def ground_texture(side=1200):
    coarse = np.random.default_rng(9).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def photographed(ground, view, metres_per_px):
    """Return what the camera sees of `ground` (north up, its middle below the camera), by OpenCV's homography."""
    middle = (len(ground) - 1) / 2
    corners = np.array([[-50.0, 40], [60, 70], [70, -20], [-40, -50]])
    seen, _ = ground_to_pixels(view, corners[:, 0], corners[:, 1])
    at = np.stack([middle + corners[:, 0] / metres_per_px, middle - corners[:, 1] / metres_per_px], axis=1)
    h = cv2.getPerspectiveTransform(at.astype(np.float32), seen.astype(np.float32))
    size = (view.camera.width, view.camera.height)
    return cv2.warpPerspective(ground, h, size, flags=cv2.INTER_LINEAR)


@pytest.mark.parametrize(("pitch", "yaw", "roll"), [(-90, 0, 0), (-90, 217, 0), (-70, 40, 5), (-50, 300, -8)])
def test_a_rendered_patch_is_the_ground_it_shows(pitch, yaw, roll):
    ground = ground_texture()
    view = View(Camera.simple(900, 700, 700.0), camera_rotation(Angles(None, pitch, roll), yaw_deg=yaw), 100.0)
    photo = photographed(ground, view, 0.25)
    east, north = patch_centres(view, side_m=40, most=1)[0]
    patch = render_patch(photo, view, east_m=east, north_m=north, side_m=40, size=160)
    column, row = 599.5 + east / 0.25 - 80, 599.5 - north / 0.25 - 80
    expected = cv2.warpAffine(ground, np.array([[1, 0, -column - 0.5], [0, 1, -row - 0.5]]), (160, 160))
    difference = np.abs(patch.pixels.astype(float) - expected)[patch.seen]
    assert patch.seen.mean() > 0.85
    assert difference.mean() < 3


def test_ground_that_is_not_seen_is_masked_and_filled():
    view = View(Camera.simple(200, 200, 200.0), camera_rotation(Angles(None, -90, 0), yaw_deg=0), 100.0)
    photo = np.full((200, 200, 3), 77, np.uint8)
    patch = render_patch(photo, view, east_m=50, north_m=0, side_m=100, size=64)
    assert patch.seen[:, :31].all()
    assert not patch.seen[:, 33:].any()
    assert (patch.pixels == 77).all()


def test_a_fine_photo_is_averaged_and_not_skipped_through():
    board = (np.indices((800, 800)).sum(axis=0) % 2 * 255).astype(np.uint8)
    view = View(Camera.simple(800, 800, 800.0), camera_rotation(Angles(None, -90, 0), yaw_deg=0), 100.0)
    patch = render_patch(np.stack([board] * 3, axis=2), view, east_m=0, north_m=0, side_m=80, size=64)
    assert np.abs(patch.pixels.astype(int) - 128).max() <= 2


def test_a_photo_of_another_size_than_the_camera_is_refused():
    view = View(Camera.simple(200, 200, 200.0), camera_rotation(Angles(), yaw_deg=0), 100.0)
    with pytest.raises(ValueError, match="200"):
        render_patch(np.zeros((100, 200, 3), np.uint8), view, east_m=0, north_m=0, side_m=9)


def test_patches_of_a_wide_photo_are_seen_and_half_a_side_apart():
    view = View(Camera.simple(1000, 800, 600.0), camera_rotation(Angles(None, -60, 0), yaw_deg=20), 120.0)
    centres = patch_centres(view, side_m=40, most=9)
    assert len(centres) == 9
    assert all(seen_share(view, *centre, 40) >= 0.9 for centre in centres)
    steps = (np.array(centres) - centres[0]) / 20
    assert steps == pytest.approx(np.rint(steps))


def test_a_camera_that_sees_no_ground_has_no_patches():
    view = View(Camera.simple(1000, 800, 2000.0), camera_rotation(Angles(None, 30, 0), yaw_deg=0), 120.0)
    assert patch_centres(view, side_m=40, most=9) == ()


def nadir_view(height):
    return View(Camera.simple(800, 800, 800.0), camera_rotation(Angles(), yaw_deg=0), height)


def test_the_tile_size_follows_the_height():
    sides = [160.0, 80.0, 40.0, 20.0]
    chosen = [sides[preferred_sides(nadir_view(h), sides, most=9)[0]] for h in (50.0, 100.0, 200.0, 400.0)]
    assert chosen == [20, 40, 80, 160]
