"""A flight over some tiles, scanned, for tests of what is described."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provisioning.base.hashing import Sha256
from provisioning.catalogue import last_corpus, scan
from provisioning.config import Area, Backbone, BBox, Engine, Flight, Tiles, TileSource
from provisioning.config.schema import Descriptors
from provisioning.descriptors.pipeline import update
from provisioning.engines import Backend
from provisioning.network.backbone import model_file


def describe(
    flight: Flight, *, engine: bytes, backend: Backend, keys: Sequence[Sha256], overlap: int = 1
) -> update.Described:
    """Compute the descriptors that the corpus of a flight lacks."""
    corpus = last_corpus(flight.selection, flight.build_dir)
    assert corpus is not None
    wanted = update.Wanted(flight.descriptor_store, keys, corpus.coverage_sha256, overlap)
    backbone = flight.descriptor_backbone
    loaded = update.Engine(engine, backend, backbone, model_file(flight.root, backbone), flight.engine.batch)
    return update.describe(wanted, loaded, flight.tiles, flight.build_dir, flight.descriptors)


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
    scan(flight.selection, flight.build_dir)
    return flight
