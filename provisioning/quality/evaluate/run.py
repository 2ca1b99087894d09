"""Asking a cache where photos were taken, and comparing its answers with the truth."""

from __future__ import annotations

import hashlib
import math
import os
import queue
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from provisioning.base.events import progress
from provisioning.base.geometry.angles import Origin
from provisioning.base.process import confined
from provisioning.index.write.parallel import in_order
from provisioning.quality.evaluate.conditions import Conditions, conditions, off_centre
from provisioning.quality.evaluate.queries import Query
from provisioning.quality.evaluate.score import Answer
from provisioning.quality.locate import Assumed, Locator, Match, Places, Prior, Question, distance_m
from provisioning.quality.locate.asking import ask_file
from provisioning.quality.locate.places import moved
from provisioning.quality.locate.running import RunningMean
from provisioning.quality.matching import Fix
from provisioning.quality.query import Viewing


class Asked(NamedTuple):
    """A query with the places that were named, how its photo was rendered, or why it was not, and its conditions.

    fix: where features gave the first position. doubt: why the first place is not to be relied on. assumed: what the
    photo and the list did not say.
    """

    query: Query
    matches: tuple[Match, ...]
    answer: Answer
    viewing: Viewing | str = "not asked to"
    conditions: Conditions = Conditions()
    fix: Fix | None = None
    doubt: str | None = None
    assumed: Assumed = Assumed()


@dataclass(frozen=True)
class Trial:
    """How queries are asked: `question` for each; `radius_m` limits the search to a circle that holds the truth.

    The circle is not centred on the truth: where the truth lies in it is drawn evenly, from the photo's name.
    """

    question: Question
    within_m: float
    radius_m: float | None = None


def ask(locator: Locator, queries: Sequence[Query], trial: Trial) -> tuple[Asked, ...]:
    """Look every query up as `trial` says, one for each core at a time; PhotoError for an unreadable photo.

    One after another where each answer depends on the ones before (`RunningMean`), and with a second stage, which
    reads the imagery.
    """
    in_turn = isinstance(locator.network, RunningMean) or trial.question.second_stage is not None
    threads = 1 if in_turn else min(len(os.sched_getaffinity(0)), len(queries))
    if threads < 2:
        return tuple(_counted((_asked(locator, query, trial) for query in queries), len(queries)))
    free: queue.SimpleQueue[Locator] = queue.SimpleQueue()
    for each in (locator, *(locator.clone() for _ in range(threads - 1))):
        free.put(each)
    with confined.processes(threads) as one:

        def asked(query: Query) -> Asked:
            mine = free.get()
            try:
                with one():
                    return _asked(mine, query, trial)
            finally:
                free.put(mine)

        return tuple(_counted(in_order(asked, queries, threads), len(queries)))


def _counted(asked: Iterable[Asked], count: int) -> Iterator[Asked]:
    for number, each in enumerate(asked, 1):
        progress("evaluate", number, count, unit="photos")
        yield each


def _asked(locator: Locator, query: Query, trial: Trial) -> Asked:
    near = None if trial.radius_m is None else prior_around(query.place, trial.radius_m, query.name)
    photo, found = ask_file(locator, query.path, trial.question, near=near, position=query.place, known=query.known)
    zoom = found.matches[0].z if found.matches and not isinstance(found.viewing, str) else None
    right, held = right_tiles(locator.places, query.place, trial.within_m, near=near, zoom=zoom)
    away = tuple(distance_m(match.position, query.place) for match in found.matches)
    seen = conditions(
        photo,
        found.viewing,
        heading_deg=query.known.angles.yaw_deg if trial.question.heading_deg is None else trial.question.heading_deg,
        height_m=query.known.relative_m if query.known.height_m is None else query.known.height_m,
        off_centre=off_centre(locator.places, query.place, locator.places.zooms[-1] if zoom is None else zoom),
    )
    said = Answer(query.name, away, right, held)
    return Asked(query, found.matches, said, found.viewing, seen, found.fix, found.doubt, found.assumed)


def right_tiles(
    places: Places, truth: Origin, within_m: float, *, near: Prior | None = None, zoom: int | None = None
) -> tuple[int, int]:
    """Return how many tiles and cuts have their centre within `within_m` of `truth`, and of how many compared.

    Each of a source counts once, whatever the headings at which it is indexed.
    """
    rows = places.rows(zoom=zoom, near=near)
    rows = rows[places.upright[rows]]
    return int((places.distances_m(truth)[rows] <= within_m).sum()), len(rows)


def prior_around(truth: Origin, radius_m: float, name: str) -> Prior:
    """Return a circle of `radius_m` that holds `truth` at a place drawn evenly, the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    far, way = (int.from_bytes(digest[at : at + 8], "big") / 2**64 for at in (0, 8))
    away, turn = radius_m * 0.999 * math.sqrt(far), 2 * math.pi * way
    return Prior(moved(truth, east_m=away * math.sin(turn), north_m=away * math.cos(turn)), radius_m)


def usual_distance_m(locator: Locator, queries: Sequence[Query]) -> float:
    """Return the side of a tile of the deepest zoom where the first query was taken, rounded up to a metre.

    A point in a tile is never farther than 0.71 sides from its centre, so the tile itself and its nearest
    neighbours count.
    """
    places = locator.places
    return float(math.ceil(places.side_m(places.zooms[-1], queries[0].place.lat_e7 / 1e7)))
