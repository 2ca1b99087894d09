"""Figures of a flight: share of the time within a distance, time to the first fix, stretches that were lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import median
from typing import NamedTuple

from provisioning.base.geometry.geo import E7
from provisioning.quality.locate import distance_m
from provisioning.quality.track.fly import Flown, Step

SURE = 0.95
"""From this probability on the filter claims a position: a fix."""


class Stretch(NamedTuple):
    """Photos in a row whose estimate is off by more than the distance: numbers of the first and last, metres flown."""

    first: int
    last: int
    flown_m: float


class Figures(NamedTuple):
    """What the filter made of a flight, and odometry and single photos without it. Shares are of all photos.

    first_fix: number of the first photo at which the filter is sure, None if there is none; what it says may be wrong:
    sure_and_wrong is the share of photos at which it is sure and off by more than the distance.
    """

    photos: int
    share: float
    median_m: float
    most_m: float
    first_fix: int | None
    sure_and_wrong: float
    lost: tuple[Stretch, ...]
    reckoned_share: float
    reckoned_median_m: float
    single_share: float


def figures(flown: Flown) -> Figures:
    """Return the figures of a flight."""
    steps, within_m = flown.steps, flown.settings.within_m
    errors = [step.error_m for step in steps]
    reckoned = [step.reckoned_error_m for step in steps]
    sure = [number for number, step in enumerate(steps) if step.sure >= SURE]
    alone = [step.answered is not None and distance_m(step.answered, step.truth) <= within_m for step in steps]
    return Figures(
        photos=len(steps),
        share=_share(errors, within_m),
        median_m=median(errors),
        most_m=max(errors),
        first_fix=sure[0] if sure else None,
        sure_and_wrong=sum(errors[number] > within_m for number in sure) / len(steps),
        lost=tuple(_lost(steps, within_m)),
        reckoned_share=_share(reckoned, within_m),
        reckoned_median_m=median(reckoned),
        single_share=sum(alone) / len(steps),
    )


def _share(errors: Sequence[float], within_m: float) -> float:
    return sum(error <= within_m for error in errors) / len(errors)


def _lost(steps: Sequence[Step], within_m: float) -> Iterator[Stretch]:
    for is_lost, group in groupby(enumerate(steps), key=lambda each: each[1].error_m > within_m):
        numbers = [number for number, _ in group]
        if is_lost:
            first, last = numbers[0], numbers[-1]
            yield Stretch(first, last, steps[last].flown_m - steps[max(0, first - 1)].flown_m)


def as_text(flights: Sequence[Flown]) -> str:
    """Return a paragraph for each flight."""
    return "\n".join(line for flown in flights for line in _lines(flown, figures(flown)))


def _lines(flown: Flown, found: Figures) -> Iterator[str]:
    settings, within = flown.settings, f"{flown.settings.within_m:,.0f} m"
    way = flown.steps[-1].flown_m
    yield (
        f"{flown.name}: {found.photos} photos along {way / 1000:,.1f} km, start known to {settings.radius_m:,.0f} m, "
        f"odometry to {settings.noise:.0%} of the way, seed {settings.seed}"
    )
    errors = f"median {found.median_m:,.0f} m, most {found.most_m:,.0f} m"
    yield f"  filter          within {within} {found.share:.0%}, {errors}"
    yield f"  dead reckoning  within {within} {found.reckoned_share:.0%}, median {found.reckoned_median_m:,.0f} m"
    yield f"  single photos   within {within} {found.single_share:.0%}"
    yield f"  first fix       {_first_fix(flown, found)}; sure and wrong {found.sure_and_wrong:.0%}"
    longest = max((stretch.flown_m for stretch in found.lost), default=0.0)
    yield f"  lost            {len(found.lost)} stretches, the longest {longest:,.0f} m"


def _first_fix(flown: Flown, found: Figures) -> str:
    if found.first_fix is None:
        return f"none: the filter is never sure to {SURE:.0%}"
    step = flown.steps[found.first_fix]
    when = f"after {step.time_s:,.0f} s" if flown.timed else f"at photo {found.first_fix + 1}"
    return f"{when}, {step.flown_m:,.0f} m flown, off by {step.error_m:,.0f} m"


def as_json(flown: Flown) -> dict[str, object]:
    """Return the figures of a flight as JSON values; keys are stable."""
    found, settings = figures(flown), flown.settings
    fix = None if found.first_fix is None else flown.steps[found.first_fix]
    return {
        "setting": flown.name,
        "photos": found.photos,
        "flown_m": round(flown.steps[-1].flown_m, 1),
        "within_m": settings.within_m,
        "radius_m": settings.radius_m,
        "odometry": settings.noise,
        "seed": settings.seed,
        "share_within": round(found.share, 4),
        "median_error_m": round(found.median_m, 1),
        "largest_error_m": round(found.most_m, 1),
        "dead_reckoning": {
            "share_within": round(found.reckoned_share, 4),
            "median_error_m": round(found.reckoned_median_m, 1),
        },
        "single_photos": {"share_within": round(found.single_share, 4)},
        "first_fix": fix
        and {
            "photo": fix.name,
            "time_s": round(fix.time_s, 3) if flown.timed else None,
            "flown_m": round(fix.flown_m, 1),
            "error_m": round(fix.error_m, 1),
        },
        "sure_and_wrong": round(found.sure_and_wrong, 4),
        "lost": [
            {
                "first": flown.steps[stretch.first].name,
                "last": flown.steps[stretch.last].name,
                "flown_m": round(stretch.flown_m, 1),
            }
            for stretch in found.lost
        ],
    }


def per_step(flights: Sequence[Flown]) -> Iterator[dict[str, object]]:
    """Yield a row for each photo of each flight."""
    for flown in flights:
        for step in flown.steps:
            yield {
                "setting": flown.name,
                "file": step.name,
                "time_s": round(step.time_s, 3),
                "flown_m": round(step.flown_m, 1),
                "lat": step.truth.lat_e7 / E7,
                "lon": step.truth.lon_e7 / E7,
                "estimated_lat": step.estimated.lat_e7 / E7,
                "estimated_lon": step.estimated.lon_e7 / E7,
                "error_m": round(step.error_m, 1),
                "sigma_m": round(step.sigma_m, 1),
                "sure": round(step.sure, 4),
                "dead_reckoning_error_m": round(step.reckoned_error_m, 1),
                "single_photo_error_m": "" if step.answered is None
                else round(distance_m(step.answered, step.truth), 1),
            }  # fmt: skip
