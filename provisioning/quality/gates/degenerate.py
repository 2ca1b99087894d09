"""Tiles that cannot be distinguished: without texture, or with a twin far away."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from provisioning.index.ids import HEADING_BITS, SOURCE_BITS, Floats, Int64s, cuts_of, is_upright_tile
from provisioning.index.read import search
from provisioning.index.transform.space import into_space
from provisioning.quality.gates.subject import Subject
from provisioning.quality.gates.values import Figure, decimal

Flags = NDArray[np.bool_]

FLAT_LEVELS = 4.0
"""Standard deviation of grey levels below which a tile has no texture to be found by."""
TWIN_COSINE = 0.9995
SEARCHED = 10
MOST_LISTED = 1000


def degenerate(subject: Subject) -> tuple[Figure, tuple[str, ...]]:
    """Return the share of tiles that have no texture, or look like another place, and their names.

    Texture and bytes are known of every tile; whether unlike bytes have the same descriptor is asked of the sample.
    """
    upright = np.flatnonzero(is_upright_tile(subject.rows.ids))
    flat, copied = np.isin(subject.rows.ids[upright], subject.flat), _is_copied(subject, upright)
    known = upright[flat | copied]
    asked = subject.sample[~np.isin(subject.sample, known)]
    twins = asked[_has_twin(subject, asked)] if len(asked) else asked
    share = len(known) / len(upright)
    share += (1 - share) * len(twins) / max(1, len(asked))
    detail = (
        f"of {len(upright)} tiles {int(flat.sum())} without texture, {int((copied & ~flat).sum())} with the bytes of "
        f"another; of {len(asked)} others sampled {len(twins)} with a twin"
    )
    why = {"no texture": upright[flat], "same bytes elsewhere": upright[copied & ~flat], "has a twin": twins}
    return Figure(decimal(share), detail), listed(subject, why)


def listed(subject: Subject, why: Mapping[str, Int64s]) -> tuple[str, ...]:
    """Return `z/x/y reason` for the rows of each reason, ascending, MOST_LISTED at most; a last line counts more."""
    reasons = {int(row): reason for reason, rows in why.items() for row in rows[:MOST_LISTED]}
    names = [f"{'/'.join(map(str, subject.tile(row)[:3]))} {reasons[row]}" for row in sorted(reasons)[:MOST_LISTED]]
    more = sum(map(len, why.values())) - len(names)
    return (*names, f"and {more} more") if more else tuple(names)


def _places(subject: Subject, rows: Int64s) -> Int64s:
    places: Int64s = subject.rows.ids[rows] >> (SOURCE_BITS + HEADING_BITS)
    return places


def _is_copied(subject: Subject, rows: Int64s) -> Flags:
    """Return for each row whether another place has the very bytes of its tile: a server's placeholder, for one."""
    starts = np.ascontiguousarray(subject.rows.shas[rows, :8]).view(np.uint64).ravel()
    _, group = np.unique(starts, return_inverse=True)
    places = _places(subject, rows)
    low, high = np.full(len(rows), np.iinfo(np.int64).max), np.full(len(rows), -1)
    np.minimum.at(low, group, places)
    np.maximum.at(high, group, places)
    return np.asarray(low != high)[group]


def _has_twin(subject: Subject, rows: Int64s) -> Flags:
    """Return for each row whether another tile has almost its descriptor; cuts show ground that some tile shows."""
    vectors = subject.gather(rows)
    cuts = cuts_of(subject.rows.ids, subject.rows.rotations).max(initial=0)
    _, ids = search(subject.index, vectors, SEARCHED * (1 + int(cuts)))
    tiles = (ids >= 0) & (cuts_of(ids, subject.rows.rotations) == 0)
    other = tiles & ((ids >> (SOURCE_BITS + HEADING_BITS)) != _places(subject, rows)[:, None])
    at = np.searchsorted(subject.rows.ids, np.maximum(ids, 0).ravel()).astype(np.int64)
    near = _unit(into_space(subject.index, subject.gather(at))).reshape(*ids.shape, -1)
    cosines = np.einsum("qd,qkd->qk", _unit(into_space(subject.index, vectors)), near)
    found: Flags = (other & (cosines >= TWIN_COSINE)).any(axis=1)
    return found


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def distinct(subject: Subject) -> Figure:
    """Return 1 - median cosine between sampled tiles: 0 where the network answers the same for all."""
    vectors = _unit(subject.gather(subject.sample)).astype(np.float64)
    if len(vectors) < 2:
        return Figure(None, "a corpus of one tile has nothing to be confused with")
    above = np.triu_indices(len(vectors), 1)
    return Figure(decimal(float(1 - np.median((vectors @ vectors.T)[above])), 6), "1 - median cosine of unlike tiles")
