"""What odometry would have said between photos whose positions are known: the truth with drift and noise, seeded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import E7
from provisioning.quality.locate.places import EARTH_RADIUS_M


class Leg(NamedTuple):
    """The way from one photo to the next, metre: to the east and to the north."""

    east_m: float
    north_m: float

    @property
    def length_m(self) -> float:
        """Its length."""
        return math.hypot(self.east_m, self.north_m)


def leg_between(a: Origin, b: Origin) -> Leg:
    """Return the way from `a` to `b` on the sphere of `distances_m`, the shorter way around; for some kilometres."""
    lon_e7 = (b.lon_e7 - a.lon_e7 + 180 * 10_000_000) % (360 * 10_000_000) - 180 * 10_000_000
    middle = math.radians((a.lat_e7 + b.lat_e7) / 2 / E7)
    east = math.radians(lon_e7 / E7) * math.cos(middle) * EARTH_RADIUS_M
    return Leg(east, math.radians((b.lat_e7 - a.lat_e7) / E7) * EARTH_RADIUS_M)


def simulated(places: Sequence[Origin], *, noise: float, seed: int) -> tuple[Leg, ...]:
    """Return the legs between `places` as an odometer measures them that is wrong by `noise` of a leg's length.

    noise is one standard deviation along and across. Half of the variance is one error of scale and of heading for the
    whole flight, as of a wrong height or compass; half is drawn anew for each leg. The same seed gives the same legs.
    """
    rng = np.random.default_rng([seed, len(places)])
    whole = rng.normal(0, noise / math.sqrt(2), 2)
    legs = [leg_between(a, b) for a, b in itertools.pairwise(places)]
    errors = whole + rng.normal(0, noise / math.sqrt(2), (len(legs), 2))
    return tuple(_wrong(leg, along, across) for leg, (along, across) in zip(legs, errors.tolist(), strict=True))


def _wrong(leg: Leg, along: float, across: float) -> Leg:
    return Leg(
        leg.east_m * (1 + along) + leg.north_m * across,
        leg.north_m * (1 + along) - leg.east_m * across,
    )
