"""Tiles of the corpus for calibrating and measuring a network before any descriptor exists."""

from __future__ import annotations

from collections.abc import Iterator

from provisioning.backbone import OnnxSource, resolved
from provisioning.backbone.image import Pixels, fit
from provisioning.backbone.wrap import tile_size
from provisioning.config import Backbone, Flight
from provisioning.tiles import decode, iter_tiles, last_corpus, open_reader


def sample_images(flight: Flight, backbone: Backbone, source: OnnxSource, count: int) -> Iterator[Pixels]:
    """Yield at most `count` tiles uint8 [H, W, 3] as `backbone` takes them, evenly spaced in the corpus's order.

    BackboneError if the model's size is unknown, TileError if a tile cannot be read.
    """
    corpus = last_corpus(flight)
    size, how = tile_size(backbone, source), resolved(backbone).fit
    total = corpus.count if corpus else 0
    chosen = {n * total // count for n in range(count)} if total > count else set(range(total))
    with open_reader(flight) as reader:
        for position, tile in enumerate(iter_tiles(flight)):
            if position in chosen:
                yield fit(decode(reader.read(tile), max_pixels=flight.tiles.max_pixels), size, how)
