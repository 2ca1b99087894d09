"""Tiles that cannot be told apart: without texture, or with a twin far away."""

from __future__ import annotations

import numpy as np

from provisioning.gates.subject import Subject
from provisioning.gates.values import Figure, decimal
from provisioning.index.ids import HEADING_BITS, SOURCE_BITS, Floats, Int64s
from provisioning.index.read import search
from provisioning.index.space import into_space

FLAT_LEVELS = 4.0
"""Standard deviation of grey levels below which a tile has no texture to be found by."""
TWIN_COSINE = 0.9995
SEARCHED = 10
MOST_LISTED = 32


def degenerate(subject: Subject) -> tuple[Figure, tuple[str, ...]]:
    """Return the share of sampled tiles that have no texture, or a twin that is another place, and their names."""
    rows = subject.sample
    flat = np.array([_is_flat(subject, int(row)) for row in rows])
    twins = _has_twin(subject, rows)
    bad = np.flatnonzero(flat | twins)
    names = tuple(
        f"{'/'.join(map(str, subject.tile(int(rows[n]))[:3]))} {'no texture' if flat[n] else 'has a twin'}" for n in bad
    )
    detail = f"share of {len(rows)} tiles: {int(flat.sum())} without texture, {int((twins & ~flat).sum())} with a twin"
    return Figure(decimal(len(bad) / len(rows)), detail), tuple(sorted(names)[:MOST_LISTED])


def _is_flat(subject: Subject, row: int) -> bool:
    return bool(subject.pixels(row).mean(axis=2).std() < FLAT_LEVELS)


def _has_twin(subject: Subject, rows: Int64s) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Tell for each row whether another place has almost its descriptor."""
    vectors = subject.gather(rows)
    _, ids = search(subject.index, vectors, SEARCHED)
    place = SOURCE_BITS + HEADING_BITS
    other = (ids >= 0) & ((ids >> place) != (subject.rows.ids[rows] >> place)[:, None])
    at = np.searchsorted(subject.rows.ids, np.maximum(ids, 0).ravel()).astype(np.int64)
    near = _unit(into_space(subject.index, subject.gather(at))).reshape(*ids.shape, -1)
    cosines = np.einsum("qd,qkd->qk", _unit(into_space(subject.index, vectors)), near)
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (other & (cosines >= TWIN_COSINE)).any(axis=1)
    return found


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def distinct(subject: Subject) -> Figure:
    """Return 1 - median cosine between sampled tiles: 0 where the network answers the same for all."""
    vectors = _unit(subject.gather(subject.sample)).astype(np.float64)
    if len(vectors) < 2:
        return Figure(None, "a corpus of one tile cannot be told apart")
    above = np.triu_indices(len(vectors), 1)
    return Figure(decimal(float(1 - np.median((vectors @ vectors.T)[above])), 6), "1 - median cosine of unlike tiles")
