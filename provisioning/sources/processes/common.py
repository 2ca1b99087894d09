"""What processes that read tiles do alike. It imports little: that is what starting them costs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provisioning.config import TileSource
    from provisioning.sources.store import TileStore

GDAL_CACHE_MB = "128"
KEPT_BYTES = 8 << 20
MEMORY_BYTES, PIXEL_BYTES = 1 << 30, 40
"""Memory for anything, and for one pixel of the largest tile: decoded in 16 bits with alpha, turned, resized."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of parameters in glibc's malloc.h."""


def opened(sources: Sequence[TileSource], beside: Sequence[TileSource]) -> dict[str, TileStore]:
    """Open the containers among `sources`, each of which comes with its kind; `beside` are all of the flight."""
    os.environ["GDAL_CACHEMAX"] = GDAL_CACHE_MB  # of what is allocated beyond a block; its default grows with the host
    from provisioning.sources.source import source_name
    from provisioning.sources.stores import open_tiles

    return {source_name(each): open_tiles(each, beside) for each in sources if each.kind != "xyz"}


def memory_bytes(max_pixels: int) -> int:
    """Return the limit on the memory of a process that decodes tiles of at most `max_pixels`."""
    return MEMORY_BYTES + PIXEL_BYTES * max_pixels


def keep_memory() -> None:
    """Have glibc keep what a tile took for the next one: giving it back costs a page fault for each of its pages.

    A fifth of all that reading, decoding and fitting take (measured at 256 px: 1,020 µs without, 820 with).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
