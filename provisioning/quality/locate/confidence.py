"""Whether an answer says anything: a photo of nothing gets its best tiles too, and two places may be as like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from provisioning.base.angles import Origin
from provisioning.base.geo import E7
from provisioning.index.ids import Int64s, evenly
from provisioning.quality.locate.places import Places, distances_m

LEAST_MARGIN = 0.2
"""Standard deviations by which the first place must stand out from the next (docs/evaluation.md says what it costs)."""
UNLIKE = 0.05
"""Of a hundred tiles, five are less like any other place than a photo must be like some tile."""
ASKED = 128
LEAST_ASKED = 8
APART_SIDES = 2.0


def least_likeness(index: Any, places: Places) -> float | None:
    """Return the similarity below which a photo is unlike all tiles, from tiles compared with those of other places.

    None where the index keeps no vectors to compare, or holds too few places.
    """
    import faiss

    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if not hasattr(inner, "id_map"):
        return None
    rows = evenly(len(places.ids), ASKED)
    vectors = inner.index.reconstruct_batch(np.ascontiguousarray(rows))
    scores = np.where(_elsewhere(places, rows), vectors @ vectors.T, -np.inf).max(axis=1)
    known = scores[np.isfinite(scores)]
    return float(np.quantile(known, UNLIKE)) if len(known) >= LEAST_ASKED else None


def _elsewhere(places: Places, rows: Int64s) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell for each pair of rows whether they show places apart, bool [n, n]."""
    lat, lon = places.lat_deg[rows], places.lon_deg[rows]
    sides = np.array([places.side_m(int(z), float(at)) for z, at in zip(places.z[rows], lat, strict=True)])
    away = distances_m(lat[:, None], lon[:, None], lat[None, :], lon[None, :])
    return np.asarray(away > APART_SIDES * np.maximum(sides[:, None], sides[None, :]))


def doubt_of(
    standings: Sequence[float], positions: Sequence[Origin], *, side_m: float, likeness: float, least: float | None
) -> str | None:
    """Return why the first of some answers, the best first, is not to be relied on; None where nothing speaks against.

    standings: how far each stands out, standard deviations. side_m: of the first one's tile. likeness: how like some
    tile the photo is. least: as `least_likeness` returns it.
    """
    if least is not None and likeness < least:
        return f"no tile is like it: similarity {likeness:.2f}, tiles of different places reach {least:.2f}"
    first = positions[0]
    away = distances_m(
        np.array([each.lat_e7 for each in positions]) / E7, np.array([each.lon_e7 for each in positions]) / E7,
        first.lat_e7 / E7, first.lon_e7 / E7,
    )  # fmt: skip
    others = [standing for standing, apart in zip(standings, away > APART_SIDES * side_m, strict=True) if apart]
    if others and standings[0] - others[0] < LEAST_MARGIN:
        return f"another place is as like: it stands out by {standings[0]:.1f} deviations, the next by {others[0]:.1f}"
    return None
