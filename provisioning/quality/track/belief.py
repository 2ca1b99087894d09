"""A histogram filter over the error of dead reckoning: exact, without random numbers.

The grid moves with the dead-reckoned position, so odometry costs nothing but its uncertainty, and the size of the grid
is bounded by how far dead reckoning can be wrong. Source of the scheme: S. Thrun, W. Burgard, D. Fox, "Probabilistic
Robotics" (2005), chapter 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
MOST_CELLS = 1024
"""Cells along a side of the grid; where these do not suffice the cells are larger."""
CELLS_OF_A_TILE = 6
OUTLIERS = 0.7
"""Probability that none of the places named is the right one. At a half and below, places named at random were
taken for agreement in one photo of ten; above, a network right in three photos of ten is followed as quickly."""


class Estimate(NamedTuple):
    """Where dead reckoning is off: metres to add to it, east and north; how sure, 0 to 1; standard deviation, metre.

    sure: probability that the aircraft is within the distance asked for of this place.
    """

    east_m: float
    north_m: float
    sure: float
    sigma_m: float


@dataclass(frozen=True, eq=False)
class Belief:
    """Probability of each offset from the dead-reckoned position.

    mass: float64 [n, n], south to north, west to east, summing to 1. axis_m: float64 [n], the offsets of the cells.
    """

    mass: Doubles
    axis_m: Doubles

    @classmethod
    def within(cls, radius_m: float, *, reach_m: float, side_m: float) -> Belief:
        """Return the belief of a start known to a circle; the grid reaches `reach_m` and resolves tiles of `side_m`."""
        cell = max(side_m / CELLS_OF_A_TILE, 2 * reach_m / MOST_CELLS)
        half = math.ceil(reach_m / cell)
        axis = np.arange(-half, half + 1, dtype=np.float64) * cell
        inside = (np.hypot(axis[:, None], axis[None, :]) <= max(radius_m, cell)).astype(np.float64)
        return cls(inside / inside.sum(), axis)

    @property
    def cell_m(self) -> float:
        """Side of a cell, metre."""
        return float(self.axis_m[1] - self.axis_m[0])

    def spread(self, sigma_m: float) -> Belief:
        """Return the belief after a leg whose odometry has the standard deviation `sigma_m` along each axis."""
        kernel = _kernel(sigma_m / self.cell_m)
        mass = _along(_along(self.mass, kernel).T, kernel).T
        return Belief(mass / mass.sum(), self.axis_m)

    def updated(
        self, offsets_m: Sequence[tuple[float, float]], sigma_m: float, *, new: float = 1.0, wrong: float = OUTLIERS
    ) -> Belief:
        """Return the belief after places were named, the likeliest first; each is right to `sigma_m` if it is right.

        offsets_m: east and north of the dead-reckoned position. The n-th place weighs 1/n; all together 1 - wrong.
        new: share of the photo that the one before did not show. Photos of the same ground are wrong in the same way,
        so the likelihood is raised to this power.
        """
        if not offsets_m:
            return self
        total = sum(1 / rank for rank in range(1, len(offsets_m) + 1))
        density = np.full_like(self.mass, wrong / (len(self.axis_m) * self.cell_m) ** 2)
        for rank, (east, north) in enumerate(offsets_m, 1):
            across, up = (np.exp(-(((self.axis_m - at) / sigma_m) ** 2) / 2) for at in (east, north))
            density += (1 - wrong) / rank / total / (2 * math.pi * sigma_m**2) * up[:, None] * across[None, :]
        mass = self.mass * density**new
        return Belief(mass / mass.sum(), self.axis_m)

    def estimate(self, within_m: float) -> Estimate:
        """Return the mean of what lies within `within_m` of where most probability is near, and how much that is."""
        smooth = self.spread(within_m / 2).mass
        row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
        north, east = self.axis_m[row], self.axis_m[column]
        away = np.hypot(self.axis_m[:, None] - north, self.axis_m[None, :] - east)
        near = np.where(away <= within_m, self.mass, 0.0)
        sure = float(near.sum())
        across, up = near.sum(axis=0) / sure, near.sum(axis=1) / sure
        mean = float(across @ self.axis_m), float(up @ self.axis_m)
        variance = float(across @ (self.axis_m - mean[0]) ** 2 + up @ (self.axis_m - mean[1]) ** 2) / 2
        return Estimate(*mean, sure, math.sqrt(variance))


def _kernel(sigma: float) -> Doubles:
    """Return weights of the neighbours along an axis with the standard deviation `sigma`, in cells.

    Below one cell three weights have that variance exactly; a sampled Gaussian would not spread at all.
    """
    if sigma < 1:
        return np.array([sigma**2 / 2, 1 - sigma**2, sigma**2 / 2])
    steps = np.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    weights = np.exp(-((steps / sigma) ** 2) / 2)
    return np.asarray(weights / weights.sum(), np.float64)


def _along(mass: Doubles, kernel: Doubles) -> Doubles:
    """Return each row convolved with `kernel`; what leaves the grid is lost."""
    half, width = len(kernel) // 2, mass.shape[1]
    padded = np.pad(mass, ((0, 0), (half, half)))
    found = np.zeros_like(mass)
    for step, weight in enumerate(kernel.tolist()):
        found += weight * padded[:, step : step + width]
    return found
