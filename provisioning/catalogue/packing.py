"""`geo.pack_id` of very many tiles at once: one by one, a million take as long as writing their index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from provisioning.base.geometry.geo import pack_id

Int64s = NDArray[np.int64]


def pack_ids(z: Int64s, x: Int64s, y: Int64s, source: Int64s) -> Int64s:
    """Return the index ids of tiles at heading 0, int64 [n]."""
    ids = np.empty(len(z), np.int64)
    for zoom in np.unique(z):
        here = z == zoom
        ids[here] = pack_id(int(zoom), 0, 0, 0, 0) + (_along_curve(int(zoom), x[here], y[here]) << 14)
    return ids + (source << 6)


def _along_curve(z: int, x: NDArray[np.integer], y: NDArray[np.integer]) -> Int64s:
    """Return the places of tiles along the Hilbert curve of their zoom level, as `geo.zxy_to_tileid` finds them."""
    places = np.zeros(len(x), np.int64)
    x, y = x.astype(np.int32), y.astype(np.int32)  # half the bytes to move, less than half the time
    for bit in range(z - 1, -1, -1):
        right, down = x >> bit & 1, y >> bit & 1
        places = places << 2 | (3 * right ^ down)
        turned = -(right & ~down & 1)
        x, y = x ^ turned, y ^ turned
        swapped = (x ^ y) & -(~down & 1)
        x, y = x ^ swapped, y ^ swapped
    return places
