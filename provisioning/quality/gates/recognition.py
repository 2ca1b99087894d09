"""Will a flight be found? Tiles seen as flights see them, and one source asked for by another, in three words.

`recognises`: at any heading. `needs a known heading`: only with the heading known. `will not localise`: neither. What
chance finds is taken off first, so that a small corpus or a wide tolerance passes for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from provisioning.index.ids import HEADING_BITS, SOURCE_BITS, Int64s
from provisioning.index.read import search
from provisioning.quality.gates.perturb import ANY_HEADING, KNOWN_HEADING
from provisioning.quality.gates.retrieval import Views
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import Figure, decimal
from provisioning.quality.locate.places import decoded

RECOGNISED = 0.5
"""Share of views, above chance, from which a network is said to recognise."""
LEAST_PAIRS = 8
SEARCHED = 64
PLACE = SOURCE_BITS + HEADING_BITS


def recognition(subject: Subject, views: Views) -> tuple[Figure, Mapping[str, str]]:
    """Return recall@1 above chance with the heading known, in words, and the table of what was measured.

    A view is found where the best tile is the one in which its middle lies, or one beside it.
    """
    tiles = np.unique(subject.rows.ids >> PLACE)
    guessed = float(np.mean([_near(tiles, truth).sum() for truth in views.truth >> PLACE]) / len(tiles))
    known, free = (_above(_found(views, names), guessed) for names in (KNOWN_HEADING, ANY_HEADING))
    across, pairs = across_sources(subject)
    table = {"flight, heading known": decimal(known), "flight, any heading": decimal(free)}
    if pairs >= LEAST_PAIRS:
        table["one source asked for by another"] = f"{decimal(across)} of {pairs}"
        known = min(known, across)
    word = _word(known, min(free, known))
    detail = (
        f"{word}: recall@1 above chance of {len(views.truth)} tiles seen as in flight, heading known "
        f"{table['flight, heading known']}, any heading {table['flight, any heading']} (chance {decimal(guessed)})"
    )
    if pairs >= LEAST_PAIRS:
        detail += f"; one source or date asked for by another {decimal(across)} of {pairs}"
    return Figure(decimal(known) if len(tiles) > 1 else None, detail), table


def _word(known: float, free: float) -> str:
    if free >= RECOGNISED:
        return "recognises"
    return "needs a known heading" if known >= RECOGNISED else "will not localise"


def _above(share: float, guessed: float) -> float:
    """Return `share` with what guessing finds taken off, 0 to 1."""
    return max(0.0, (share - guessed) / (1 - guessed)) if guessed < 1 else 0.0


def _found(views: Views, names: Sequence[str]) -> float:
    which = [views.names.index(name) for name in names]
    best = views.found[which, :, 0]
    right = [_near(best[:, column] >> PLACE, truth) for column, truth in enumerate(views.truth >> PLACE)]
    return float(np.mean(right))


def _near(tiles: Int64s, truth: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell which tile ids are that of `truth` or of a tile beside it at the same zoom; -1 is none."""
    z, x, y = decoded(np.maximum(np.append(tiles, truth), 0).astype(np.int64))
    near = (z[:-1] == z[-1]) & (np.abs(x[:-1] - x[-1]) <= 1) & (np.abs(y[:-1] - y[-1]) <= 1)
    return np.asarray(near & (tiles >= 0))


def across_sources(subject: Subject) -> tuple[float, int]:
    """Return how often a tile's best match in another source is the same place, and for how many tiles that is known.

    Two sources or two dates of one place are the only pictures of different days that can be had before a flight.
    """
    ids = subject.rows.ids
    upright = ids[(ids & ((1 << HEADING_BITS) - 1)) == 0]
    places, counts = np.unique(upright >> PLACE, return_counts=True)
    asked = subject.sample[np.isin(ids[subject.sample] >> PLACE, places[counts > 1])]
    if not len(asked):
        return 0.0, 0
    _, found = search(subject.index, subject.gather(asked), min(SEARCHED, len(ids)))
    own = ids[asked]
    other = (found >= 0) & ((found >> HEADING_BITS & 0xFF) != (own >> HEADING_BITS & 0xFF)[:, None])
    best = np.take_along_axis(found, other.argmax(axis=1)[:, None], axis=1)[:, 0]
    right = other.any(axis=1) & (best >> PLACE == own >> PLACE)
    return float(right.mean()), len(asked)
