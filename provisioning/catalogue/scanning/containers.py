"""Bring the catalogue up to date with a container: one file that holds many tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from provisioning.area.cover import Cover
from provisioning.base.errors import TileError
from provisioning.catalogue.scanning.inspecting import Candidate, Inspector
from provisioning.catalogue.scanning.writer import Writer
from provisioning.config import TileSource
from provisioning.sources.source import Container
from provisioning.sources.stores import open_container, store_stamp

SEEN = """CREATE TEMP TABLE IF NOT EXISTS seen(z INTEGER, x INTEGER, y INTEGER, PRIMARY KEY(z, x, y)) WITHOUT ROWID"""
"""Columns without a type would not be looked up by their key, but read from end to end for each tile."""


def update_container(
    source: TileSource,
    cover: Cover,
    inspector: Inspector,
    writer: Writer,
    *,
    beside: Sequence[TileSource],
    mode: str,
    now_ns: int,
) -> None:
    """Record every tile of `cover` in a container, unless it is as it was. TileError if it is damaged.

    `beside` are all sources of the flight: rasters fill each other's seams.
    """
    stamp = store_stamp(source, beside, now_ns=now_ns)
    (before,) = writer.db.execute("SELECT stamp FROM source WHERE number = ?", (writer.source,)).fetchone()
    if stamp and stamp == before and mode != "full":
        return
    container = open_container(source, beside)
    db = writer.db
    try:
        db.execute(SEEN)
        db.execute("DELETE FROM seen")
        for found in inspector.inspected(_candidates(container, source, cover, writer)):
            writer.tile(found, settled=True)
        left = db.execute(
            "SELECT z, x, y FROM tile t WHERE source = ? AND NOT EXISTS"
            " (SELECT 1 FROM seen s WHERE s.z = t.z AND s.x = t.x AND s.y = t.y)",
            (writer.source,),
        )
        writer.remove([at for at in left if cover.holds(*at)])
        writer.stamp(stamp or None)
    finally:
        writer.flush()
        container.close()


def _candidates(container: Container, source: TileSource, cover: Cover, writer: Writer) -> Iterator[Candidate]:
    for stored in container.tiles(cover):
        z, x, y, _ = stored
        if not writer.db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (z, x, y)).rowcount:
            raise TileError(
                f"the container holds tile {z}/{x}/{y} twice", file=source.path, next_step="make or copy it anew"
            )
        yield Candidate(z, x, y, "", 0, 0, 0, 0, writer.known(z, x, y), stored)
