"""Points and boxes in 1e-7 degree, the unit of MAVLink: integers, so that no float is ever hashed."""

from __future__ import annotations

from typing import Literal

from provisioning.base.named import NamedTuple

AltDatum = Literal["ellipsoid", "amsl", "relative"]
"""What an altitude is above: the WGS 84 ellipsoid, mean sea level (up to 107 m apart), or the take-off point."""

TURN_E7 = 3_600_000_000
HALF_TURN_E7 = TURN_E7 // 2


def wrapped_e7(lon_e7: int) -> int:
    """Return the longitude of a meridian within -180 (included) to 180 (excluded) degrees, 1e-7 degree."""
    return (lon_e7 + HALF_TURN_E7) % TURN_E7 - HALF_TURN_E7


class Origin(NamedTuple):
    """A take-off point: 1e-7 degree, and millimetres above what `alt_datum` names.

    alt_datum: `ellipsoid` (WGS 84) or `amsl` (mean sea level, EGM96); None where it is not known or there is no height.
    """

    lat_e7: int
    lon_e7: int
    alt_mm: int | None = None
    alt_datum: str | None = None


class BBox(NamedTuple):
    """A bounding box in 1e-7 degree. `west > east` means that it crosses the antimeridian."""

    west: int
    south: int
    east: int
    north: int

    @property
    def width_e7(self) -> int:
        """Width from west to east, 1e-7 degree; a whole turn where the two name the same meridian by two numbers."""
        return (self.east - self.west) % TURN_E7 or TURN_E7 * (self.east != self.west)

    @property
    def middle(self) -> Origin:
        """The point half way between the sides, in degrees."""
        return Origin((self.south + self.north) // 2, wrapped_e7(self.west + self.width_e7 // 2))

    def holds(self, origin: Origin) -> bool:
        """Return whether `origin` is inside, edges included."""
        if not self.south <= origin.lat_e7 <= self.north:
            return False
        if self.west <= self.east:
            return self.west <= origin.lon_e7 <= self.east
        return origin.lon_e7 >= self.west or origin.lon_e7 <= self.east


def overlap(a: BBox, b: BBox) -> bool:
    """Return whether two boxes share ground; either may cross the antimeridian."""
    apart = (b.west - a.west) % TURN_E7
    across = apart < a.width_e7 or TURN_E7 - apart < b.width_e7
    return across and a.south < b.north and b.south < a.north
