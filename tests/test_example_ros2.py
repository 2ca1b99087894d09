"""The ROS 2 node does what its page says, with stand-ins for rclpy and the messages."""

from __future__ import annotations

import importlib
import math
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image as Images

from provisioning.base.errors import VerificationError
from provisioning.base.geometry.geo import tile_centre
from tests import building
from tests.building import NORTH, WEST, ZOOM
from tests.shell import quote

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass
class Time:
    sec: int = 0
    nanosec: int = 0


@dataclass
class Header:
    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
class NavSatStatus:
    STATUS_NO_FIX = -1
    STATUS_FIX = 0
    status: int = 0


@dataclass
class NavSatFix:
    COVARIANCE_TYPE_APPROXIMATED = 1
    header: Header = field(default_factory=Header)
    status: NavSatStatus = field(default_factory=NavSatStatus)
    latitude: float = 0.0
    longitude: float = 0.0
    altitude: float = 0.0
    position_covariance: list[float] = field(default_factory=lambda: [0.0] * 9)
    position_covariance_type: int = 0


@dataclass
class Image:
    header: Header = field(default_factory=Header)
    height: int = 0
    width: int = 0
    encoding: str = "rgb8"
    step: int = 0
    data: bytes = b""


@dataclass
class Float64:
    data: float = 0.0


class Node:
    """What the node uses of rclpy.node.Node; parameters come from `given`."""

    given: ClassVar[dict[str, object]] = {}

    def __init__(self, name):
        self.name, self.heard, self.published, self.said = name, {}, [], []

    def declare_parameter(self, name, default):
        return types.SimpleNamespace(value=self.given.get(name, default))

    def create_publisher(self, kind, topic, depth):
        return types.SimpleNamespace(publish=lambda message: self.published.append((topic, message)))

    def create_subscription(self, kind, topic, callback, depth):
        self.heard[topic] = callback

    def get_logger(self):
        return types.SimpleNamespace(info=self.said.append, warning=self.said.append)


@pytest.fixture(scope="module")
def module():
    """The node's module, imported over the stand-ins."""
    fakes = {
        "rclpy": {"init": lambda: None, "spin": lambda node: None, "try_shutdown": lambda: None},
        "rclpy.node": {"Node": Node},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Image, "NavSatFix": NavSatFix, "NavSatStatus": NavSatStatus},
        "std_msgs": {},
        "std_msgs.msg": {"Float64": Float64},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, members in fakes.items():
            fake = types.ModuleType(name)
            vars(fake).update(members)
            patch.setitem(sys.modules, name, fake)
        for folder in ("flight", "ros2"):
            patch.syspath_prepend(EXAMPLES / folder)
        yield importlib.import_module("flightcache_node")
        for name in ("flightcache_node", "startup"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("ros")
    cache = building.new_cache(root, side=3, network=building.GIST)
    assert building.build(cache).outcome == "SUCCESS"
    (root / "floor").write_text("1\n")
    return root, cache


@pytest.fixture
def node(module, scene, monkeypatch):
    root, cache = scene
    expect = f"--public-key {quote(root / 'key.pub.pem')} --flight F-1 --floor {quote(root / 'floor')}"
    monkeypatch.setattr(Node, "given", {"cache": str(cache), "expect": expect})
    return module.FlightCache()


def frame(scene, x, *, stamp=100, encoding="rgb8", padding=0):
    """An image message of a tile, its rows padded as drivers pad them."""
    pixels = np.asarray(Images.open(scene[0] / f"tiles/{ZOOM}/{WEST + x}/{NORTH}.jpg"))
    pixels = pixels[:, :, ::-1] if encoding == "bgr8" else pixels
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
    return Image(Header(Time(stamp)), *pixels.shape[:2], encoding, rows.shape[1], rows.tobytes())


@pytest.mark.parametrize("form", [{}, {"encoding": "bgr8"}, {"padding": 7}])
def test_an_image_is_answered_with_the_centre_of_its_tile(node, scene, form):
    node.heard["heading_deg"](Float64(0.0))
    node.heard["image"](frame(scene, 1, **form))
    ((topic, fix),) = node.published
    centre = tile_centre(ZOOM, WEST + 1, NORTH)
    assert (topic, fix.latitude, fix.longitude) == ("~/match", centre.lat_e7 / 1e7, centre.lon_e7 / 1e7)
    assert (fix.status.status, fix.header.stamp.sec) == (NavSatStatus.STATUS_FIX, 100)
    side_m = 40_075_017 * math.cos(math.radians(fix.latitude)) / 2**ZOOM
    assert fix.position_covariance[0] == pytest.approx(side_m**2 / 12, rel=0.01)


def prior(x, *, stamp, deviation_m=10.0, status=NavSatStatus.STATUS_FIX):
    centre = tile_centre(ZOOM, WEST + x, NORTH)
    variances = [deviation_m**2, 0, 0, 0, deviation_m**2, 0, 0, 0, 1.0]
    place = centre.lat_e7 / 1e7, centre.lon_e7 / 1e7
    return NavSatFix(Header(Time(stamp)), NavSatStatus(status), *place, 0.0, variances)


@pytest.mark.parametrize(
    ("given", "tile"),
    [
        ({"stamp": 99}, 0),  # another place's image is answered with what is in the circle
        ({"stamp": 97}, 2),  # too old: everything is searched
        ({"stamp": 101}, 2),  # of the future
        ({"stamp": 99, "status": NavSatStatus.STATUS_NO_FIX}, 2),
    ],
)
def test_a_prior_limits_the_search_as_long_as_it_holds(node, scene, given, tile):
    node.heard["heading_deg"](Float64(0.0))
    node.heard["prior"](prior(0, **given))
    node.heard["image"](frame(scene, 2))
    assert node.published[0][1].longitude == tile_centre(ZOOM, WEST + tile, NORTH).lon_e7 / 1e7


def test_a_match_that_is_not_to_be_relied_on_is_no_fix(node, module, scene, monkeypatch):
    found = {
        "matches": [{"tile": f"{ZOOM}/{WEST}/{NORTH}", "lat": 46.9, "lon": 8.6}],
        "doubt": "another place is as like",
    }
    monkeypatch.setattr(module, "look_up", lambda *_, **__: found)
    node.heard["image"](frame(scene, 0))
    assert node.published[0][1].status.status == NavSatStatus.STATUS_NO_FIX


@pytest.mark.parametrize("broken", [{"encoding": "yuv422"}, {"data": b"short"}, {"step": 5}])
def test_an_image_that_cannot_be_read_is_said_and_the_next_is_answered(node, scene, broken):
    message = frame(scene, 0)
    vars(message).update(broken)
    node.heard["image"](message)
    assert node.published == []
    node.heard["image"](frame(scene, 0))
    assert len(node.published) == 1
    assert len(node.said) == 2  # that it is loaded, and what was wrong


def test_a_cache_that_is_refused_ends_the_process(module, scene, monkeypatch, capsys):
    root, cache = scene
    expect = f"--public-key {quote(root / 'key.pub.pem')} --flight F-2 --floor {quote(root / 'floor')}"
    monkeypatch.setattr(Node, "given", {"cache": str(cache), "expect": expect})
    assert module.main() == VerificationError.exit_code
    assert "expected F-2" in capsys.readouterr().err
