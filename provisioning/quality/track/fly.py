"""A flight over photos with known positions: what odometry alone, one photo alone, and the filter make of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from provisioning.base.errors import PhotoError
from provisioning.base.events import progress
from provisioning.base.geometry.angles import Origin
from provisioning.quality.evaluate.queries import Query
from provisioning.quality.evaluate.run import prior_around
from provisioning.quality.locate import Answered, Locator, Prior, Question, distance_m
from provisioning.quality.locate.asking import ask_file
from provisioning.quality.locate.places import moved
from provisioning.quality.track.belief import Belief
from provisioning.quality.track.odometry import Leg, leg_between, simulated

ASSUMED = 3.0
"""Standard deviations that dead reckoning is granted: the search and the grid reach that far."""
RIGHT_TO = 0.35
"""Standard deviation of a right answer, in sides of its tile: its centre stands for all of the tile."""
LEAST_SIGMA_M = 1.0
WRONG_FIXES = 0.05
"""Share of the second stage's fixes that are granted to be wrong. Of those measured none was (docs/evaluation.md)."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a flight is simulated.

    radius_m: where the start is known to. noise: standard deviation of odometry, as a share of the way. within_m: a
    position off by more is lost. seed: of start and odometry.
    """

    radius_m: float = 100.0
    noise: float = 0.1
    within_m: float = 100.0
    seed: int = 0


class Step(NamedTuple):
    """One photo of the flight: the truth, dead reckoning, the filter's estimate, the best answer to this photo alone.

    time_s: seconds since the first photo, or the photo's number where no time is known. flown_m: way so far.
    """

    name: str
    time_s: float
    flown_m: float
    truth: Origin
    reckoned: Origin
    estimated: Origin
    sure: float
    sigma_m: float
    answered: Origin | None

    @property
    def error_m(self) -> float:
        """How far the estimate is off."""
        return distance_m(self.estimated, self.truth)

    @property
    def reckoned_error_m(self) -> float:
        """How far dead reckoning is off."""
        return distance_m(self.reckoned, self.truth)


class Flown(NamedTuple):
    """A flight under one setting. timed: whether `time_s` counts seconds and not photos."""

    name: str
    steps: tuple[Step, ...]
    settings: Settings
    timed: bool


def fly(name: str, locator: Locator, queries: Sequence[Query], question: Question, settings: Settings) -> Flown:
    """Return the flight over `queries` in their order. The same seed gives the same flight, whatever the cache.

    Each photo is asked for within the circle that dead reckoning can be off by. PhotoError for an unreadable photo, or
    fewer than two.
    """
    if len(queries) < 2:
        raise PhotoError("a track needs two photos at least", next_step="give the photos of a flight, in their order")
    places = [query.place for query in queries]
    legs = simulated(places, noise=settings.noise, seed=settings.seed)
    start = prior_around(places[0], settings.radius_m, f"start {settings.seed}").position
    times = tuple(query.time_s for query in queries)
    timed = None not in times
    steps = tuple(_steps(locator, queries, question, settings, start, legs))
    if timed:
        steps = tuple(s._replace(time_s=(t or 0.0) - (times[0] or 0.0)) for s, t in zip(steps, times, strict=True))
    return Flown(name, steps, settings, timed)


def _steps(
    locator: Locator,
    queries: Sequence[Query],
    question: Question,
    settings: Settings,
    start: Origin,
    legs: Sequence[Leg],
) -> Iterator[Step]:
    reckoned, flown = start, 0.0
    reach = _reach_m(settings, sum(leg.length_m for leg in legs))
    side_m = locator.places.side_m(locator.places.zooms[-1], start.lat_e7 / 1e7)
    belief = Belief.within(settings.radius_m, reach_m=reach + side_m, side_m=side_m)
    for number, (query, leg) in enumerate(zip(queries, (Leg(0, 0), *legs), strict=True)):
        reckoned, flown = moved(reckoned, east_m=leg.east_m, north_m=leg.north_m), flown + leg.length_m
        belief = belief.spread(max(LEAST_SIGMA_M, settings.noise * leg.length_m))
        near = Prior(reckoned, _reach_m(settings, flown))
        answered = ask_file(locator, query.path, question, near=near, known=query.known)[1]
        matches = answered.matches
        belief = _updated(locator, belief, reckoned, answered, leg.length_m if number else math.inf)
        found = belief.estimate(settings.within_m)
        yield Step(
            query.name,
            float(number),
            flown,
            query.place,
            reckoned,
            moved(reckoned, east_m=found.east_m, north_m=found.north_m),
            found.sure,
            found.sigma_m,
            matches[0].position if matches else None,
        )
        progress("track", number + 1, len(queries), unit="photos")


def _reach_m(settings: Settings, flown_m: float) -> float:
    """Return how far dead reckoning can be off after a way: the start's circle and what odometry is granted."""
    return settings.radius_m + ASSUMED * (settings.noise * flown_m + LEAST_SIGMA_M)


def _updated(locator: Locator, belief: Belief, reckoned: Origin, answered: Answered, leg_m: float) -> Belief:
    """Return the belief after the answers to a photo, taken `leg_m` after the one before; a fix counts alone."""
    if not answered.matches:
        return belief
    ways = [leg_between(reckoned, match.position) for match in answered.matches]
    offsets = [(way.east_m, way.north_m) for way in ways]
    side_m = locator.places.side_m(answered.matches[0].z, reckoned.lat_e7 / 1e7)
    new = min(1.0, leg_m / side_m)
    if answered.fix is None:
        return belief.updated(offsets, RIGHT_TO * side_m, new=new)
    sigma_m = math.sqrt(max(answered.fix.east_m2, answered.fix.north_m2))
    return belief.updated(offsets[:1], max(belief.cell_m, sigma_m), new=new, wrong=WRONG_FIXES)
