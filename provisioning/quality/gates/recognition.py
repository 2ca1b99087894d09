"""Will a flight be found? Tiles seen as flights see them, and one source asked for by another, in three words.

`recognises`: at any heading. `needs a known heading`: only with the heading known. `will not localise`: neither. What
chance finds is taken off first, so that a small corpus or a wide tolerance passes for nothing. Asked as `locate` asks:
tiles of one zoom level, within the circle in which the aircraft knows itself to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from provisioning.base.geometry.geo import CUTS, row_edge_deg, tileid_to_zxy
from provisioning.index.among import scores_among
from provisioning.index.ids import HEADING_BITS, SOURCE_BITS, Floats, Int64s, Rows, cuts_of, is_upright_tile, mixed
from provisioning.quality.gates.perturb import ANY_HEADING, HEADING_ERROR_DEG, KNOWN_HEADING, MOST_TILT_DEG
from provisioning.quality.gates.retrieval import Views
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import Figure, Mistaken, decimal
from provisioning.quality.locate.places import EQUATOR_M, encoded

RECOGNISED = 0.5
"""Share of views, above chance, from which a network is said to recognise."""
CONFIDENT = 2.58
"""Standard deviations: 99 in 100 times the share of all lies within."""
PRIOR_M = 1000.0
LEAST_REACH = 8
"""Tiles to each side that are compared at least: within a kilometre a coarse zoom level has too few to mistake."""
LEAST_PAIRS = 8
PLACE = SOURCE_BITS + HEADING_BITS
Flags = NDArray[np.bool_]


class Asked(NamedTuple):
    """One tile asked for: the best row for each query, whether it lies at the tile, how likely a guess would."""

    best: Int64s
    found: Flags
    guessed: float


class Recognition(NamedTuple):
    """Figures of the gates, what was measured, and the tiles that the views did not find."""

    figures: Mapping[str, Figure]
    table: Mapping[str, str]
    missed: tuple[Mistaken, ...]


def recognition(subject: Subject, views: Views) -> Recognition:
    """Return recall@1 above chance with the heading known, in words, and at any heading; and the tiles not found."""
    asked = [_asked(subject, int(truth), views.queries[:, column]) for column, truth in enumerate(views.truth)]
    guessed = float(np.mean([each.guessed for each in asked]))
    shares = np.mean([each.found for each in asked], axis=0).tolist()
    recall = dict(zip(views.names, shares, strict=True))
    table = {name: decimal(share) for name, share in recall.items()}
    known, free = (_above(recall[name], guessed) for name in (KNOWN_HEADING, ANY_HEADING))
    across, pairs = across_sources(subject)
    detail = _expected(recall, guessed, len(asked))
    if pairs >= LEAST_PAIRS:
        table["one source asked for by another"] = f"{decimal(across)} of {pairs}"
        detail += f"; one source or date asked for by another: {across:.0%} of {pairs} tiles"
        known = min(known, across)
    free = min(free, known)
    table["chance"] = decimal(guessed)
    too_few = guessed > 1 - 1e-9
    figures = {
        "recognition": Figure(None if too_few else decimal(known), f"{word(known, free)}: {detail}"),
        "recognition.any_heading": Figure(None if too_few else decimal(free), "the same at any heading, above chance"),
    }
    return Recognition(figures, table, _missed(subject, views, asked))


def is_decided(subject: Subject, views: Views) -> bool:
    """Return whether more tiles would, with confidence `CONFIDENT`, leave the words and the verdict as they are."""
    asked = [_asked(subject, int(truth), views.queries[:, column]) for column, truth in enumerate(views.truth)]
    guessed = float(np.mean([each.guessed for each in asked]))
    shares = dict(zip(views.names, np.mean([each.found for each in asked], axis=0).tolist(), strict=True))
    known, free = (
        [_above(each, guessed) for each in likely(shares[name], len(asked))] for name in (KNOWN_HEADING, ANY_HEADING)
    )
    across, pairs = across_sources(subject)
    if pairs >= LEAST_PAIRS:
        known = [min(each, across) for each in known]
    free = [min(each, most) for each, most in zip(free, known, strict=True)]
    edges = (RECOGNISED, float(subject.asked.gates.recognition))
    return all(low >= edge or high < edge for low, high in (known, free) for edge in edges)


def likely(share: float, count: int) -> tuple[float, float]:
    """Return the interval in which the share of all lies that is `share` of `count` (Wilson 1927)."""
    square = CONFIDENT**2 / count
    middle = (share + square / 2) / (1 + square)
    half = CONFIDENT * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _missed(subject: Subject, views: Views, asked: Sequence[Asked]) -> tuple[Mistaken, ...]:
    """Return the tiles of the sample that were not found, in the order of their ids, and what each was taken for.

    A tile that only the turned view misses is none where flights know their heading.
    """
    known, free = (views.names.index(name) for name in (KNOWN_HEADING, ANY_HEADING))
    need_not_know = subject.asked.gates.heading != "known"
    missed = []
    for row, tile in zip(np.searchsorted(subject.rows.ids, views.truth).tolist(), asked, strict=True):
        if not tile.found[known]:
            missed.append((row, int(tile.best[known]), "not found, even with the heading known"))
        elif need_not_know and not tile.found[free]:
            missed.append((row, int(tile.best[free]), "found only with the heading known"))
    return tuple(Mistaken(subject.address(row), subject.address(best), why) for row, best, why in sorted(missed))


def _expected(recall: Mapping[str, float], guessed: float, count: int) -> str:
    return (
        f"expect {recall[KNOWN_HEADING]:.0%} of photos found at once, heading known to {HEADING_ERROR_DEG:.0f}°, "
        f"{recall[ANY_HEADING]:.0%} at any heading, by chance {guessed:.0%}; for one tile's width of ground seen 0 to "
        f"{MOST_TILT_DEG:.0f}° aside on another day, position known to {PRIOR_M / 1000:.0f} km; from {count} tiles"
    )


def word(known: float, free: float) -> str:
    """Return what a network can do, from its recall above chance with the heading known and at any heading."""
    if free >= RECOGNISED:
        return "recognises"
    return "needs a known heading" if known >= RECOGNISED else "will not localise"


def _above(share: float, guessed: float) -> float:
    """Return `share` with what guessing finds taken off, 0 to 1."""
    return max(0.0, (share - guessed) / (1 - guessed)) if guessed < 1 else 0.0


def _asked(subject: Subject, truth: int, queries: Floats) -> Asked:
    """Ask for the tile of the id `truth` with `queries`, float32 [q, d], among the tiles around it."""
    """Ask for the tile of the id `truth` with `queries`, float32 [q, d], among the tiles around it."""
    rows, beside = around(subject.rows, *place_of(truth))
    best = scores_among(subject.index, queries, rows, subject.rows.ids).argmax(axis=1)
    ids = subject.rows.ids[rows]
    places = (ids >> PLACE) * len(CUTS) + cuts_of(ids, subject.rows.rotations)
    _, first = np.unique(places, return_index=True)
    return Asked(rows[best], beside[best], float(beside[first].mean()))


def around(index: Rows, z: int, x: int, y: int) -> tuple[Int64s, Flags]:
    """Return the rows of zoom z within the prior of a tile, ascending, and which are of it or beside it.

    Beside it is what has its centre no farther than a side away.
    """
    ids = index.ids
    side = 1 << z
    lat = math.radians(row_edge_deg(z, y + 0.5))
    reach = max(LEAST_REACH, math.ceil(PRIOR_M / (EQUATOR_M * math.cos(lat) / side)))
    across = np.arange(-min(reach, (side - 1) // 2), min(reach, side // 2) + 1)  # once around the world at most
    dx, dy = (each.ravel() for each in np.meshgrid(across, np.arange(max(-reach, -y), min(reach, side - 1 - y) + 1)))
    inside = dx * dx + dy * dy <= reach * reach
    dx, dy = dx[inside], dy[inside]
    tiles = encoded(z, (x + dx) % side, y + dy)
    first, end = np.searchsorted(ids, tiles << PLACE), np.searchsorted(ids, (tiles + 1) << PLACE)
    order = np.argsort(first, kind="stable")
    count = (end - first)[order]
    starts = np.repeat(first[order] - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    rows = (starts + np.arange(len(starts))).astype(np.int64)
    east, south = np.array(CUTS)[cuts_of(ids[rows], index.rotations)].T
    half_x, half_y = (2 * np.repeat(each[order], count) for each in (dx, dy))
    return rows, np.maximum(np.abs(half_x + east), np.abs(half_y + south)) <= 2


def across_sources(subject: Subject) -> tuple[float, int]:
    """Return how often a tile's best match in other sources is the same place, and for how many tiles that is known.

    Two sources or two dates of one place are the only pictures of different days that can be had before a flight.
    """
    asked = paired(subject)
    if not len(asked):
        return 0.0, 0
    vectors = subject.gather(asked)
    found = [_other(subject, int(subject.rows.ids[row]), vectors[n : n + 1]) for n, row in enumerate(asked)]
    return float(np.mean(found)), len(asked)


def paired(subject: Subject) -> Int64s:
    """Return the rows of tiles that several sources show: of all such places those whose hashed ids are smallest."""
    ids = subject.rows.ids
    upright = np.flatnonzero(is_upright_tile(ids))
    places = ids[upright] >> PLACE
    again = np.flatnonzero(places[1:] == places[:-1])
    several: Int64s = upright[np.unique(np.concatenate([again, again + 1]))]
    return several[np.argsort(mixed(ids[several]), kind="stable")[: subject.asked.gates.samples]]


def rows_elsewhere(subject: Subject, truth: int) -> tuple[Int64s, Flags]:
    """Return the rows of tiles of other sources around that of the id `truth`, and which show its place.

    Cuts are left out: one half a tile off would be neither right nor wrong.
    """
    rows, _ = around(subject.rows, *place_of(truth))
    rows = rows[cuts_of(subject.rows.ids[rows], subject.rows.rotations) == 0]
    rows = rows[(subject.rows.ids[rows] ^ truth) >> HEADING_BITS & ((1 << SOURCE_BITS) - 1) != 0]
    return rows, np.asarray(subject.rows.ids[rows] >> PLACE == truth >> PLACE)


def place_of(packed: int) -> tuple[int, int, int]:
    """Return z, x, y of an id."""
    return tileid_to_zxy(packed >> PLACE)


def _other(subject: Subject, truth: int, query: Floats) -> bool:
    """Return whether the tile of another source that is most like `query` shows the place of `truth`."""
    rows, right = rows_elsewhere(subject, truth)
    return bool(right[scores_among(subject.index, query, rows, subject.rows.ids)[0].argmax()])
