"""When the imagery of a tile was captured, as the source is configured to say."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from provisioning.config import TileSource
from provisioning.tiles.writer import Day

DAY_NS = 86_400 * 10**9
EPOCH_DAY = date(1970, 1, 1).toordinal()


def day_rule(source: TileSource, root: Path) -> Day:
    """Return the function that dates a tile of `source`."""
    if source.captured == "mtime":
        return lambda _z, _x, _y, mtime_ns: EPOCH_DAY + mtime_ns // DAY_NS
    day = date.fromisoformat(source.captured).toordinal() if source.captured[:1].isdigit() else None
    return lambda _z, _x, _y, _mtime_ns: day
