"""A flight over some tiles, scanned, for tests of what is described."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provisioning.catalogue import scan
from provisioning.config import Area, Backbone, BBox, Engine, Flight, Tiles, TileSource
from provisioning.config.schema import Descriptors


def scanned_flight(root: Path, sources: Sequence[TileSource], bbox: BBox, zooms: Sequence[int], **tiles: Any) -> Flight:
    """Return a flight over `sources`, whose catalogue is made; `tiles` are further keys of [tiles]."""
    flight = Flight(
        root=root,
        area=Area(bbox=bbox, zooms=tuple(zooms)),
        tiles=Tiles(source=tuple(sources), **tiles),
        backbone=(Backbone(name="m"),),
        engine=Engine(batch=4),
        descriptors=Descriptors(threads=2),
    )
    flight.build_dir.mkdir(exist_ok=True)
    scan(flight)
    return flight
