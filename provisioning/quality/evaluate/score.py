"""From answers to figures: recall with its confidence, and what guessing would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median
from typing import NamedTuple

RANKS = (1, 5, 10)


class Answer(NamedTuple):
    """One query answered: distance of each tile named, metre, the best first; how many tiles would have been right.

    near: tiles of the index within the distance asked for. tiles: all of them.
    """

    name: str
    distances_m: tuple[float, ...]
    near: int
    tiles: int


class Recall(NamedTuple):
    """Share of queries with a right tile among the first `rank`; the 95 % interval; what guessing gives."""

    rank: int
    share: float
    low: float
    high: float
    chance: float


class Score(NamedTuple):
    """The figures of one setting.

    reachable: share of queries for which the cache holds a right tile at all. median_error_m: of the first place named,
    infinite where half of the queries have no answer. median_found_m: of those whose first place is right; infinite
    where none is.
    """

    queries: int
    within_m: float
    recalls: tuple[Recall, ...]
    reachable: float
    median_error_m: float
    median_found_m: float


def wilson(hits: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927): sound for few trials and near 0 and 1."""
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, submit = hits / trials, z * z / trials
    centre = (share + submit / 2) / (1 + submit)
    half = z / (1 + submit) * math.sqrt(share * (1 - share) / trials + submit / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def chance(near: int, tiles: int, rank: int) -> float:
    """Return the probability that `rank` tiles drawn blindly from `tiles` hold one of the `near` right ones."""
    if near <= 0:
        return 0.0
    missed = 1.0
    for drawn in range(min(rank, tiles)):
        missed *= max(0, tiles - near - drawn) / (tiles - drawn)
    return 1 - missed


def is_hit(answer: Answer, rank: int, within_m: float) -> bool:
    """Return whether one of the first `rank` tiles lies within the distance."""
    return any(distance <= within_m for distance in answer.distances_m[:rank])


def score(answers: Sequence[Answer], *, within_m: float) -> Score:
    """Return the figures of one setting; `answers` must not be empty."""
    errors = [answer.distances_m[0] if answer.distances_m else math.inf for answer in answers]
    return Score(
        queries=len(answers),
        within_m=within_m,
        recalls=recalls(answers, within_m=within_m),
        reachable=sum(answer.near > 0 for answer in answers) / len(answers),
        median_error_m=median(errors),
        median_found_m=median([error for error in errors if error <= within_m] or [math.inf]),
    )


def recalls(answers: Sequence[Answer], *, within_m: float) -> tuple[Recall, ...]:
    """Return the recall at each of RANKS; `answers` must not be empty."""
    return tuple(_recall(answers, rank, within_m) for rank in RANKS)


def _recall(answers: Sequence[Answer], rank: int, within_m: float) -> Recall:
    total = len(answers)
    hits = sum(is_hit(answer, rank, within_m) for answer in answers)
    guessed = math.fsum(chance(answer.near, answer.tiles, rank) for answer in answers) / total
    return Recall(rank, hits / total, *wilson(hits, total), guessed)
