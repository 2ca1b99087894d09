"""Metres and degrees as a map's legend writes them."""

from __future__ import annotations

import math

EARTH_CIRCUMFERENCE_M = 40_075_016.686
"""Of the WGS 84 equator."""


def metres_per_tile(lat_e7: int, level: int) -> float:
    """Return the width of a tile on the ground."""
    return EARTH_CIRCUMFERENCE_M * math.cos(math.radians(lat_e7 / 1e7)) / (1 << level)


def degrees(e7: int, positive: str, negative: str) -> str:
    """Return `12.3456700° N` and the like, exact, with a space that does not break."""
    whole, fraction = divmod(abs(e7), 10_000_000)
    return f"{whole}.{fraction:07}°\u00a0{negative if e7 < 0 else positive}"


def round_below(metres: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not above `metres`."""
    power = 10.0 ** math.floor(math.log10(metres))
    return max(step * power for step in (1, 2, 5) if step * power <= metres)


def distance(metres: float) -> str:
    """Return a length for reading: `350 m`, `1.25 km`, `120 km`."""
    if metres < 1000:
        return f"{metres:.0f} m" if metres >= 10 else f"{metres:.2g} m"
    return f"{metres / 1000:.0f} km" if metres >= 20_000 else f"{metres / 1000:.2f}".rstrip("0").rstrip(".") + " km"
