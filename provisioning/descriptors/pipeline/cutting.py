"""A cut is made of the pixels of the tiles that it shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from provisioning.base.geo import CUTS
from provisioning.network.backbone.image import Pixels


def cut(tiles: Sequence[Pixels], number: int) -> Pixels:
    """Return cut `number` of the mosaic of `tiles`, uint8 [H, W, 3] each, in the order of `geo.cut_parts`.

    It has the size of one tile and begins half a tile (rounded down) from the mosaic's corner. Tiles of different
    sizes are brought to the largest first, bilinear.
    """
    east, south = CUTS[number]
    height, width = (max(tile.shape[side] for tile in tiles) for side in (0, 1))
    same = [tile if tile.shape[:2] == (height, width) else _scaled(tile, height, width) for tile in tiles]
    columns = east + 1
    rows = [np.concatenate(same[at : at + columns], axis=1) for at in range(0, len(same), columns)]
    left, top = east * (width // 2), south * (height // 2)
    mosaic = np.concatenate(rows, axis=0)
    return np.ascontiguousarray(mosaic[top : top + height, left : left + width])


def _scaled(tile: Pixels, height: int, width: int) -> Pixels:
    return np.asarray(Image.fromarray(tile).resize((width, height), Image.Resampling.BILINEAR))
