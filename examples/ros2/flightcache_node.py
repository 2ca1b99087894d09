r"""A ROS 2 node that verifies a cache at start-up and then says which place each image looks like.

    PYTHONPATH=examples/flight:$PYTHONPATH python flightcache_node.py --ros-args -p cache:=/var/lib/flightcache \
        -p expect:="--public-key operator.pub.pem --flight F-118 --floor /var/lib/flightcache.vehicle/floor"

Subscribes `image` (sensor_msgs/Image), `heading_deg` (std_msgs/Float64, clockwise from true north) and `prior`
(sensor_msgs/NavSatFix of the estimator: the search is limited to three deviations around it). Publishes `~/match`, a
NavSatFix with the image's header. It is evidence for a filter, never a position by itself: STATUS_NO_FIX says that the
match is not to be relied on. The process ends with exit code 22 where the cache is refused: it never flies without one.
"""

from __future__ import annotations

import math
import shlex
import sys
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, NavSatFix, NavSatStatus
from startup import arguments, expectations, look_up, start
from std_msgs.msg import Float64

from provisioning.base.errors import Error
from provisioning.base.geometry.angles import Origin
from provisioning.quality.locate import Photo, Prior

CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
"""Where red, green and blue are in a pixel of each encoding that is understood."""
BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
LEAST_RADIUS_M = 50.0


class FlightCache(Node):  # type: ignore[misc] # rclpy has no types
    """Looks images up in a cache that was verified when the node was made."""

    def __init__(self) -> None:
        """Verify and load; VerificationError where the cache may not be flown."""
        super().__init__("flightcache")
        words = [self.declare_parameter("cache", "").value, *shlex.split(self.declare_parameter("expect", "").value)]
        self.oldest_s = float(self.declare_parameter("oldest_prior_s", 2.0).value)
        args = arguments().parse_args(words)
        self.ready = start(args.cache, expectations(args))
        self.heading_deg: float | None = None
        self.prior: NavSatFix | None = None
        self.matches = self.create_publisher(NavSatFix, "~/match", 10)
        self.create_subscription(Float64, "heading_deg", self.on_heading, 1)
        self.create_subscription(NavSatFix, "prior", self.on_prior, 1)
        self.create_subscription(Image, "image", self.on_image, 1)  # depth 1: late frames are dropped, not queued
        self.get_logger().info(f"cache {args.cache} verified and loaded: {self.ready.locator.index.ntotal} rows")

    def on_heading(self, message: Any) -> None:
        """Remember where the image's top points."""
        self.heading_deg = message.data if math.isfinite(message.data) else None

    def on_prior(self, message: Any) -> None:
        """Remember where the estimator thinks that the aircraft is."""
        self.prior = message

    def on_image(self, message: Any) -> None:
        """Look an image up and publish the best match; an image that cannot be looked up is said, not fatal."""
        try:
            photo = Photo(pixels_of(message), None, None)
            found = look_up(self.ready, photo, heading_deg=self.heading_deg, near=self.near(message.header.stamp))
        except (Error, ValueError) as error:
            self.get_logger().warning(str(error).splitlines()[0])
            return
        if found["matches"]:
            self.matches.publish(self.fix(found, message.header))

    def near(self, stamp: Any) -> Prior | None:
        """Return the circle of the last prior; None where there is none, or it is too old to hold the aircraft."""
        fix = self.prior
        if fix is None or fix.status.status < NavSatStatus.STATUS_FIX:
            return None
        if not 0 <= seconds(stamp) - seconds(fix.header.stamp) <= self.oldest_s:
            return None
        variance = max(fix.position_covariance[0], fix.position_covariance[4])  # east, north
        radius_m = max(LEAST_RADIUS_M, 3 * math.sqrt(variance))
        return Prior(Origin(round(fix.latitude * 1e7), round(fix.longitude * 1e7)), radius_m)

    def fix(self, found: dict[str, Any], header: Any) -> Any:
        """Return the best match as a message: anywhere in its tile, so a variance of side² / 12."""
        best = found["matches"][0]
        side_m = self.ready.locator.places.side_m(int(best["tile"].split("/")[0]), best["lat"])
        fix = NavSatFix(header=header, latitude=best["lat"], longitude=best["lon"], altitude=math.nan)
        fix.status.status = NavSatStatus.STATUS_NO_FIX if found["doubt"] else NavSatStatus.STATUS_FIX
        fix.position_covariance = [side_m**2 / 12, 0.0, 0.0, 0.0, side_m**2 / 12, 0.0, 0.0, 0.0, 1e12]
        fix.position_covariance_type = NavSatFix.COVARIANCE_TYPE_APPROXIMATED
        return fix


def seconds(stamp: Any) -> float:
    """Return a builtin_interfaces/Time as seconds."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def pixels_of(message: Any) -> np.ndarray[Any, Any]:
    """Return a sensor_msgs/Image as uint8 [H, W, 3] RGB; ValueError for another encoding or a wrong size."""
    if message.encoding not in CHANNELS:
        raise ValueError(f"encoding {message.encoding!r}: one of {', '.join(CHANNELS)} is understood")
    height, width, depth = message.height, message.width, BYTES[message.encoding]
    data = np.frombuffer(bytes(message.data), np.uint8)
    if message.step < width * depth or data.size < height * message.step:
        raise ValueError(f"an image of {width} x {height} has {data.size} bytes in rows of {message.step}")
    rows = data[: height * message.step].reshape(height, message.step)[:, : width * depth]
    return rows.reshape(height, width, depth)[:, :, CHANNELS[message.encoding]]


def main() -> int:
    """Run the node until ROS ends; exit code 22 where the cache is refused."""
    rclpy.init()
    try:
        rclpy.spin(FlightCache())
    except Error as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
