"""Tiles of the corpus for calibrating and measuring a network before any descriptor exists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from provisioning.catalogue import open_reader
from provisioning.config import Backbone, Tiles
from provisioning.descriptors.pipeline.decoders import Decoders
from provisioning.descriptors.pipeline.loader import Unit
from provisioning.descriptors.pipeline.sampling import chosen_tiles
from provisioning.network import apart
from provisioning.network.backbone import OnnxSource, resolved
from provisioning.sources.pixels.fitting import Pixels
from provisioning.sources.processes.decoding import View


def sample_images(
    tiles: Tiles, build_dir: Path, backbone: Backbone, source: OnnxSource, count: int
) -> Iterator[Pixels]:
    """Yield at most `count` tiles uint8 [H, W, 3] as `backbone` takes them: those of `sampling.chosen_tiles`.

    BackboneError if the model's size is unknown, TileError if a tile cannot be read.
    """
    size, how = apart.image_size(backbone, source), resolved(backbone).fit_how
    view = View((Fraction(0),), size, how, tiles.max_pixels)
    with open_reader(tiles.source, build_dir) as reader, closing(Decoders(reader, view)) as decoders:
        for tile in chosen_tiles(build_dir, count):
            yield decoders.image(Unit(tile, 0))
