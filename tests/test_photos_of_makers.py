"""Photos and subtitles as the aircraft of several makers write them: each is read as it is meant.

Tags and lines are those of public samples: exiftool listings of DJI's H30T, Mini 2, M400 with P1 and Autel's XL715 in
issues of open projects, and the samples of open parsers of subtitles.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import IFDRational

from provisioning.base.geometry.angles import Origin
from provisioning.config.schema import Camera as Settings
from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from provisioning.quality.evaluate.subtitles import read_subtitles
from provisioning.quality.locate import Locator, Photo, Prior, Question, answer, look, read_photo
from provisioning.quality.locate.photo import gps_position
from provisioning.quality.query import Angles, Camera, declared, viewing
from provisioning.quality.query.metadata import Metadata, xmp_angles
from provisioning.quality.query.viewing import Known, Viewing
from tests import building
from tests.building import NORTH, WEST, ZOOM
from tests.delivery import trust_anything_by
from tests.photographing import metres_per_pixel, photograph, place_at, put_landscape

ORIENTATIONS = range(1, 9)
STORED = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_270}  # fmt: skip
"""What an upright photo is stored as, by the orientation that stands it up again."""


def xmp(**fields):
    return "".join(["<rdf:Description ", *(f'a:{name}="{value}" ' for name, value in fields.items()), "/>"]).encode()


def gimbal(yaw, pitch, roll, **more):
    angles = {"GimbalYawDegree": yaw, "GimbalPitchDegree": pitch, "GimbalRollDegree": roll}
    return xmp(**{name: f"{value:+.2f}" for name, value in angles.items()}, **more)


def axes_of(angles):
    """Return where camera and top of the photo point, in east, north, up."""
    known = viewing(declared(Settings(height_m=100, fov_deg=60)), Metadata(angles), width=40, height=30)
    turn = known.view(angles.yaw_deg or 0.0).rotation
    return turn[:, 2], -turn[:, 1]


def test_a_zenmuse_that_hangs_turned_about_sees_what_it_would_upright():
    """H30T straight down: pitch -90, roll 180, the yaw of the other side (orthority's issue 36)."""
    angles = xmp_angles(gimbal(-98, -90, 180))
    assert angles == Angles(82, -90, 0)
    for one, other in zip(axes_of(angles), axes_of(Angles(262, -90, 180)), strict=True):
        assert one == pytest.approx(other, abs=1e-9)
    for roll in (180, -180, 172):
        for one, other in zip(axes_of(xmp_angles(gimbal(30, -75, roll))), axes_of(Angles(30, -75, roll)), strict=True):
            assert one == pytest.approx(other, abs=1e-9)


def test_a_gimbal_that_was_not_measured_is_none():
    """The Mini 2 and an M400 with P1 write zeros; the airframe's heading is known."""
    assert xmp_angles(gimbal(0, 0, 0, FlightYawDegree="+179.90", FlightPitchDegree="-1.60")) == Angles(179.9)
    assert xmp_angles(gimbal(0, 0, 0)) == Angles()
    assert xmp_angles(gimbal(0, -90, 0)) == Angles(0, -90, 0)


def test_autel_gives_the_camera_s_pitch_where_pix4d_has_the_airframe_s():
    """An XL715 counts from the horizon under the names of a schema that counts from nadir."""
    xl715, evo = (b'<a Camera:Yaw="10" Camera:Pitch="%d" Camera:Roll="0"/>' % pitch for pitch in (-90, 0))
    for one, other in zip(axes_of(xmp_angles(xl715)), axes_of(xmp_angles(evo)), strict=True):
        assert one == pytest.approx(other, abs=1e-9)
    assert xmp_angles(b'<a Camera:Yaw="10" Camera:Pitch="-8.5" Camera:Roll="2"/>').of == "body"


def jpeg(path, *, gps=None, details=None, packet=b"", orientation=None, size=(60, 40)):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    if orientation:
        exif[0x0112] = orientation
    exif[0x8825] = gps or {}
    exif[0x8769] = details or {}
    Image.new("RGB", size, (90, 120, 60)).save(path, "JPEG", exif=exif, xmp=packet)
    return read_photo(path)


NADIR_0_0 = IFDRational(0, 0)


@pytest.mark.parametrize(
    ("packet", "gps", "relative_m", "altitude_m"),
    [
        (xmp(RelativeAltitude="+80.10", AbsoluteAltitude="-30.04"), {}, 80.1, -30.04),  # DJI below sea level
        (b"<Camera:AboveGroundAltitude>35.5</Camera:AboveGroundAltitude>", {}, 35.5, None),  # Parrot, Sentera
        (b'<a Camera:AboveGroundAltitude="355/10"/>', {}, 35.5, None),
        (xmp(RelativeAltitude="nan"), {5: b"\x01", 6: 12.5}, None, -12.5),
        (b"", {5: b"\x00", 6: 512.25}, None, 512.25),  # GoPro, Sony
        (b"", {5: b"\x01", 6: NADIR_0_0}, None, None),
        (b'<a Camera:AboveGroundAltitude="1/0"/>', {}, None, None),
    ],
)
def test_heights_are_above_take_off_or_on_a_datum(tmp_path, packet, gps, relative_m, altitude_m):
    found = jpeg(tmp_path / "a.jpg", packet=packet, gps=gps).metadata
    assert (found.relative_m, found.altitude_m) == (relative_m, altitude_m)


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        ({1: "S", 2: (33.0, 51.5, 0.0), 3: "W", 4: (70.0, 30.0, 36.0)}, Origin(-338_583_333, -705_100_000)),
        ({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, None),  # no fix
        ({1: "N", 2: (NADIR_0_0,) * 3, 3: "E", 4: (NADIR_0_0,) * 3}, None),
        ({1: "N", 2: (47.0, 23.862, 0.0), 3: "E", 4: (8.0, NADIR_0_0, 0.0)}, None),
    ],
)
def test_a_position_has_its_hemisphere_and_no_fix_is_no_position(tmp_path, gps, place):
    assert jpeg(tmp_path / "a.jpg", gps=gps).position == place
    assert gps_position(gps) == place


def test_a_picture_of_several_parts_is_the_first(tmp_path):
    """DJI writes JPEGs that are multi-picture files, with a preview behind the photo."""
    large, small = Image.new("RGB", (80, 60), (200, 0, 0)), Image.new("RGB", (40, 30))
    large.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small])
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.pixels.shape == (60, 80, 3)
    assert photo.pixels[..., 0].min() > 150


def test_sixteen_bits_of_grey_keep_their_contrast(tmp_path):
    """A multispectral camera's TIFF, as of MicaSense and Parrot Sequoia."""
    ramp = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    Image.fromarray(ramp).save(tmp_path / "a.tif", "TIFF")
    grey = read_photo(tmp_path / "a.tif").pixels[..., 1]
    assert np.abs(grey.astype(int) - (ramp >> 8)).max() == 0


# EXIF's orientation


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_camera_is_turned_as_its_pixels_are(orientation):
    """Pillow stands a picture of pixel numbers up; each direction must land on the number that it had when stored."""
    stored = Camera(64, 48, 50.0, 51.0, 30.0, 25.5, "brown", (0.05, -0.02, 0.011, -0.007, 0.003))
    numbers = Image.fromarray(np.arange(64 * 48, dtype=np.int32).reshape(48, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    numbers.info["exif"] = exif.tobytes()
    upright = np.asarray(ImageOps.exif_transpose(numbers))
    shown = stored.shown(orientation)
    assert (shown.height, shown.width) == upright.shape
    pixels = np.array([[0, 0], [63, 0], [63, 47], [11, 37], [40, 5]])
    at = {tuple(pixel): tuple(np.argwhere(upright == pixel[1] * 64 + pixel[0])[0][::-1]) for pixel in pixels}
    corner, right, low = (np.array(at[each]) for each in ((0, 0), (63, 0), (63, 47)))
    across, down = (right - corner) / 63, (low - right) / 47  # stored right and down, as they are shown
    rng = np.random.default_rng(orientation)
    directions = np.column_stack([rng.uniform(-0.4, 0.4, (50, 2)), np.ones(50)])
    before, _ = stored.project(directions)
    turned = np.column_stack([directions[:, :1] * across + directions[:, 1:2] * down, np.ones(50)])
    after, _ = shown.project(turned)
    assert after == pytest.approx(corner + before[:, :1] * across + before[:, 1:] * down, abs=1e-9)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_lens_and_pixels_of_a_stored_photo_are_shown_alike(tmp_path, orientation):
    """A focal length from the sensor's width, and a calibration for the stored size, hold however it is shown."""
    details = {0x920A: 10.0, 0xA20E: 600.0, 0xA210: 3, 0xA002: 60, 0xA003: 40}
    photo = jpeg(tmp_path / "a.jpg", details=details, orientation=orientation)
    height, width = photo.pixels.shape[:2]
    assert (width, height) == ((40, 60) if orientation > 4 else (60, 40))
    plain = viewing(declared(Settings(height_m=9)), photo.metadata, width=width, height=height)
    assert (plain.camera.width, plain.camera.height) == (width, height)
    assert plain.camera.fx == plain.camera.fy == pytest.approx(600)
    lens = Settings(focal_px=70, width_px=60, height_px=40, height_m=9, principal_px=(20, 18))
    calibrated = viewing(declared(lens), photo.metadata, width=width, height=height)
    middle = {1: (20, 18), 2: (39, 18), 3: (39, 21), 4: (20, 21), 5: (18, 20), 6: (21, 20), 7: (21, 39), 8: (18, 39)}
    assert (calibrated.camera.cx, calibrated.camera.cy) == middle[orientation]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_the_lens_is_of_the_stored_pixels_whatever_the_format(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[700] = orientation, xmp(CalibratedFocalLength="55.5")
    Image.new("RGB", (60, 40)).save(tmp_path / "a", kind, exif=exif, xmp=exif[700])
    photo = read_photo(tmp_path / "a")
    assert photo.pixels.shape == ((60, 40, 3) if orientation == 6 else (40, 60, 3))
    assert (photo.metadata.camera.width, photo.metadata.camera.height) == (60, 40)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A locator over a square of fields, and the picture of it."""
    root = tmp_path_factory.mktemp("makers")
    cache = building.new_cache(root, side=5, network=building.GIST)
    ground = put_landscape(root / "tiles", ZOOM, WEST, NORTH, 5)
    assert building.build(cache).outcome == "SUCCESS"
    with verify(cache, trust_anything_by(load_public_key(root / "key.pub.pem"))) as verdict:
        return Locator.from_verdict(verdict), ground


SHOWN_OR_STORED = [(1, "as shown"), (6, "as shown"), (3, "as stored"), (7, "as stored")]
"""Of the eight, which the two tests above try without a cache: plain, on its side, upside down, a mirror image."""
OTHERS_SHOWN_OR_STORED = [
    (orientation, of)
    for orientation in ORIENTATIONS
    for of in ("as shown", "as stored")
    if (orientation > 2 or of == "as shown") and (orientation, of) not in SHOWN_OR_STORED
]


@pytest.mark.parametrize("pitch", [pytest.param(-90.0, marks=pytest.mark.slow), -60.0])
@pytest.mark.parametrize(
    ("orientation", "of"),
    [*SHOWN_OR_STORED, *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS_SHOWN_OR_STORED)],
)
def test_a_photo_is_found_whatever_its_orientation_and_whosever_its_angles_are(scene, orientation, of, pitch):
    """A tilted photo has a side of its own; one straight down, which is found by less, is the long form's."""
    locator, ground = scene
    yaw, height = 64.0, 5000.0
    mpp = metres_per_pixel(ZOOM, place_at(ZOOM, WEST + 2.5, NORTH + 2.5))
    ahead = height / math.tan(math.radians(-pitch)) / mpp / 256
    x, y = 2.5 - ahead * math.sin(math.radians(yaw)), 2.5 + ahead * math.cos(math.radians(yaw))
    pixels = photograph(ground, (x * 256, y * 256), mpp, height=height, yaw=yaw, pitch=pitch, fov=60.0)
    roll = 0.0
    if of == "as stored":  # the sensor, upright in the stored pixels, is turned against the photo
        roll = {3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}[orientation]
    focal = 480 / math.tan(math.radians(30))
    stored = Camera(*((720, 960) if orientation > 4 else (960, 720)), focal, focal,
                    *((359.5, 479.5) if orientation > 4 else (479.5, 359.5)))  # fmt: skip
    said = Metadata(Angles(yaw, pitch, roll), height, None, stored, orientation)
    place = place_at(ZOOM, WEST + x, NORTH + y)
    found = answer(
        locator, Photo(pixels, place, yaw, said), Question(patches=1), near=Prior(place, 6000), position=place
    )
    assert isinstance(found.viewing, Viewing)
    assert found.matches[0].distance_m < 700


@pytest.mark.parametrize("height", [4000.0, pytest.param(5000.0, marks=pytest.mark.slow)])
def test_a_photo_of_unknown_height_is_tried_from_several_and_found(scene, height):
    """Looking aside, the middle of the photo as it is is no tile's ground."""
    locator, ground = scene
    yaw, mpp = 20.0, metres_per_pixel(ZOOM, place_at(ZOOM, WEST + 2.5, NORTH + 2.5))
    ahead = height / mpp / 256
    x, y = 2.5 - ahead * math.sin(math.radians(yaw)), 2.5 + ahead * math.cos(math.radians(yaw))
    pixels = photograph(ground, (x * 256, y * 256), mpp, height=height, yaw=yaw, pitch=-45, fov=60.0)
    said = Metadata(Angles(yaw, -45, 0), camera=Camera.simple(960, 720, 480 / math.tan(math.radians(30))))
    place = place_at(ZOOM, WEST + x, NORTH + y)
    found = answer(locator, Photo(pixels, place, yaw, said), Question(), near=Prior(place, 8000), position=place)
    assert found.assumed.height_sought_m == pytest.approx(height, rel=0.4)
    assert found.matches[0].distance_m < 1700  # a tile is as wide
    plain = answer(
        locator, Photo(pixels, place, yaw, said), Question(patches=0), near=Prior(place, 8000), position=place
    )
    assert plain.matches[0].distance_m > 1700


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 6])
def large(request, scene, tmp_path_factory):
    """A JPEG of four times as many pixels as are looked at each way, stored upright or on its side."""
    _, ground = scene
    mpp = metres_per_pixel(ZOOM, place_at(ZOOM, WEST + 2.5, NORTH + 2.5))
    pixels = photograph(ground, (640, 640), mpp, height=4000.0, yaw=0.0, size=(1600, 1200), fov=60.0)
    exif = Image.Exif()
    exif[0x0112], exif[0x8769] = request.param, {0xA405: 43.267 * 1600 / math.tan(math.radians(30)) / 4000}
    stored = Image.fromarray(pixels if request.param == 1 else np.ascontiguousarray(np.rot90(pixels)))
    said = xmp(RelativeAltitude="+4000", GimbalYawDegree="+0.01", GimbalPitchDegree="-90", GimbalRollDegree="0")
    path = tmp_path_factory.mktemp("large") / "a.jpg"
    stored.save(path, quality=92, exif=exif, xmp=said)
    return path


@pytest.mark.parametrize(("patches", "decoded"), [(0, (300, 400, 3)), (9, (600, 800, 3))])
def test_a_large_jpeg_is_decoded_no_finer_than_it_is_looked_at_and_gives_the_same_answer(
    scene, large, patches, decoded
):
    locator, _ = scene
    place = place_at(ZOOM, WEST + 2.5, NORTH + 2.5)
    question = Question(patches=patches)
    whole, looked = read_photo(large), look(locator, large, question)
    assert whole.pixels.shape == (1200, 1600, 3)
    assert looked.pixels.shape == decoded
    one, other = (answer(locator, each, question, position=place).matches[0] for each in (whole, looked))
    assert one.name == other.name
    assert other.similarity == pytest.approx(one.similarity, abs=0.02)
    assert abs(one.distance_m - other.distance_m) < 60  # 6.5 m a pixel


def test_a_photo_compared_as_it_is_is_tried_under_both_tops(scene):
    locator, ground = scene
    place = place_at(ZOOM, WEST + 2.5, NORTH + 1.5)
    upright = np.ascontiguousarray(ground[256:512, 512:768])
    for heading in (0.0, 90.0):  # of the photo as shown, or of the sensor: it stands a quarter turn to the right
        said = Metadata(Angles(heading), orientation=6)
        (best, *_) = answer(locator, Photo(upright, place, heading, said), Question(), position=place).matches
        assert best.distance_m < 10
        assert best.heading_deg == 0


# subtitles


def frames(tmp_path, text):
    (tmp_path / "v.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n")
    return read_subtitles(tmp_path / "v.srt")[1]


MINI_2 = "F/2.8, SS 206.14, ISO 150, EV 0, DZOOM 1.000, GPS (-82.6669, 27.7716, 10), D 2.80m, H 21.50m, H.S 0.00m/s"
P4_RTK = (
    "F/6.3, SS 60, ISO 100, EV 0, RTK (120.083799, 30.213635, 28), HOME (120.084146, 30.214243, 103.55m), D 75.36m, "
    "H 76.19m, H.S 0.30m/s, V.S 0.00m/s, F.PRY (-5.3°, 2.1°, 28.3°), G.PRY (-40.0°, 0.0°, -28.2°)"
)
MAVIC_3 = (
    '<font size="28">FrameCnt: 1, DiffTime: 33ms\n2024-01-18 10:23:26.397\n[iso: 150] [fnum: 170] [focal_len: 24.00] '
    "[latitude: -22.724555] [longitude: -47.602414] [rel_alt: -0.300 abs_alt: 549.679] [ct: 5023] </font>"
)
M30T = (
    '<font size="28">FrameCnt: 1, DiffTime: 36ms\n[focal_len: 40.00][dzoom_ratio: 1.00], [latitude: -37.920295] '
    "[longitude: 176.456417] [rel_alt: 62.370 abs_alt: 227.373] [gb_yaw: -142.5 gb_pitch: -28.7 gb_roll: 0.0] </font>"
)
MAVIC_AIR_2 = "SrtCnt : 1, DiffTime : 16ms\n[latitude : 40.7128] [longtitude : -74.0060] [altitude: 150.0] </font>"
MAVIC_PRO = "HOME(149.0251,-20.2532) 2017.08.05 14:11:51\nGPS(149.0253,-20.2533,16) BAROMETER:1.9"
M300 = "2022.06.21 16:06:45\nGPS(36.6145,-6.1120,0.0M) BAROMETER:79.8M"
AUTEL = "HOME(W: 97.109879, N: 32.593616) 2025-08-27 13:21:35\nGPS(W: 97.109543, N: 32.593742, 174.21m)\nISO:100"


@pytest.mark.parametrize(
    ("text", "place", "relative_m", "altitude_m", "angles"),
    [
        (MINI_2, (27.7716, -82.6669), 21.5, None, Angles()),
        (P4_RTK, (30.213635, 120.083799), 76.19, None, Angles(331.8, -40, 0)),
        (MAVIC_3, (-22.724555, -47.602414), -0.3, 549.679, Angles()),
        (M30T, (-37.920295, 176.456417), 62.37, 227.373, Angles(217.5, -28.7, 0)),
        (MAVIC_AIR_2, (40.7128, -74.006), None, 150, Angles()),
        (MAVIC_PRO, (-20.2533, 149.0253), 1.9, None, Angles()),
        (M300, (36.6145, -6.112), 79.8, None, Angles()),
        (AUTEL, (32.593742, -97.109543), None, None, Angles()),
    ],
    ids=["Mini 2", "P4 RTK", "Mavic 3", "M30T", "Mavic Air 2", "Mavic Pro", "M300", "Autel"],
)
def test_a_subtitle_of_each_generation_gives_what_it_says(tmp_path, text, place, relative_m, altitude_m, angles):
    frame = frames(tmp_path, text)
    assert (frame.place.lat_e7 / 1e7, frame.place.lon_e7 / 1e7) == pytest.approx(place, abs=1e-7)
    assert (frame.known.relative_m, frame.known.altitude_m) == (relative_m, altitude_m)
    assert frame.known.angles[:3] == pytest.approx(angles[:3])


def test_a_subtitle_whose_gimbal_was_not_measured_gives_no_angles(tmp_path):
    frame = frames(tmp_path, M30T.replace("-142.5", "0.0").replace("-28.7", "0.0"))
    assert frame.known.angles == Angles()


AIR_2S = (
    '<font size="36">SrtCnt : 1, DiffTime : 33ms\n[focal_len : 240] [dzoom_ratio: 20000, delta:0],[latitude: 41.424724] '
    "[longitude: 2.234156] [altitude: 117.000000] </font>"
)


@pytest.mark.parametrize(
    ("text", "focal_mm", "zoom"),
    [
        (MAVIC_3, 24, 1),
        (M30T, 40, 1),
        (AIR_2S, 24, 2),
        (AIR_2S.replace("20000", "10000"), 24, 1),
        (MINI_2.replace("DZOOM 1.000", "DZOOM 2.500"), None, 2.5),
        (MAVIC_3.replace("24.00", "0.00"), None, 1),
        (M30T.replace("1.00]", "0.00]"), 40, 1),
        (MAVIC_PRO, None, 1),
    ],
)
def test_a_subtitle_gives_its_focal_length_and_digital_zoom(tmp_path, text, focal_mm, zoom):
    known = frames(tmp_path, text).known
    assert (known.equivalent_mm, known.zoom) == (focal_mm, zoom)


def lens_of(known, settings=None, own=None):
    said = viewing(declared(settings or Settings()), own or Metadata(), width=1920, height=1080, known=known)
    return said if isinstance(said, str) else said.camera


def test_a_frame_without_a_lens_takes_the_subtitles_and_every_other_goes_before_it():
    frame = Known(height_m=50.0, equivalent_mm=24.0)
    assert 2 * math.degrees(math.atan(960 / lens_of(frame).fx)) == pytest.approx(71.6, abs=0.1)  # 24 mm on a 4:3 sensor
    assert lens_of(frame, Settings(fov_deg=60)).fx == pytest.approx(960 / math.tan(math.radians(30)))
    assert lens_of(frame, own=Metadata(camera=Camera.simple(1920, 1080, 1500))).fx == 1500
    assert lens_of(frame._replace(fov_deg=60)).fx == pytest.approx(960 / math.tan(math.radians(30)))
    assert "no focal length" in lens_of(frame._replace(equivalent_mm=None))


def test_digital_zoom_lengthens_the_lens_that_is_not_the_frames_own():
    frame = Known(height_m=50.0, equivalent_mm=24.0, zoom=2.0)
    assert lens_of(frame).fx == pytest.approx(2 * lens_of(frame._replace(zoom=1.0)).fx)
    lens = Settings(focal_px=1500, principal_px=(980, 560), width_px=1920, height_px=1080)
    once, twice = (lens_of(frame._replace(zoom=zoom), lens) for zoom in (1.0, 2.0))
    middle = np.array([959.5, 539.5])
    for point in ([0.1, 0.05, 1.0], [-0.2, 0.1, 1.0]):
        seen, enlarged = (np.ravel(each.project(np.array([point]))[0]) for each in (once, twice))
        np.testing.assert_allclose(enlarged - middle, 2 * (seen - middle))
    assert lens_of(frame._replace(fov_deg=60)) == lens_of(frame._replace(fov_deg=60, zoom=1.0))


def test_what_stands_for_the_lens_is_said():
    frame = Known(height_m=50.0, equivalent_mm=24.0)
    assert viewing(declared(Settings()), Metadata(), width=1920, height=1080, known=frame).lens_mm == 24
    assert viewing(declared(Settings(fov_deg=60)), Metadata(), width=1920, height=1080, known=frame).lens_mm is None
