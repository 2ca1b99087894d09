"""Points and boxes in 1e-7 degree, the unit of MAVLink: integers, so that no float is ever hashed."""

from __future__ import annotations

from typing import NamedTuple


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

    def holds(self, origin: Origin) -> bool:
        """Tell whether `origin` is inside, edges included."""
        if not self.south <= origin.lat_e7 <= self.north:
            return False
        if self.west <= self.east:
            return self.west <= origin.lon_e7 <= self.east
        return origin.lon_e7 >= self.west or origin.lon_e7 <= self.east
