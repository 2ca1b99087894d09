"""A decoded tile as the image that a network takes (`sources/pixels/fitting.py`), at the headings that are indexed."""

from __future__ import annotations

from fractions import Fraction

from provisioning.sources.pixels.fitting import KEEP_ASPECT, Pixels, fit, turn

__all__ = ["KEEP_ASPECT", "Pixels", "fit", "headings", "turn"]


def headings(rotations: int) -> tuple[Fraction, ...]:
    """Return the headings at which a tile is indexed `rotations` times, as fractions of a turn."""
    return tuple(Fraction(n, rotations) for n in range(rotations))
