"""The corpus: the tiles of all sources inside the area, found, hashed, inspected and remembered in a catalogue.

`scan` brings the catalogue up to date; everything else reads it. Nothing here imports numpy or Pillow until a tile
has to be decoded, so that a build with nothing to do does not pay for them; nor what few commands ask for:
`inventory` tells zooms and sources, `surveying` looks at tiles before there is a cache.
"""

from typing import TYPE_CHECKING

from provisioning.base.demand import on_demand
from provisioning.catalogue.reading import (
    TileReader,
    corpus_table,
    count_changed,
    dated_places,
    distinct_digests,
    flat_ids,
    iter_placed,
    iter_tiles,
    last_corpus,
    open_reader,
    source_places,
    source_rows,
    states,
    tile_of,
)
from provisioning.catalogue.scanning.scan import scan
from provisioning.catalogue.values import Corpus, Skipped, Tile, ZoomCount, not_scanned
from provisioning.sources.pixels.facts import decoder_facts

if TYPE_CHECKING:
    from provisioning.catalogue.archive import PMTILES_FORMAT, write_pmtiles
    from provisioning.catalogue.coverage import area_of, measure_coverage
    from provisioning.catalogue.cuts import Piece, cut_key, distinct_keys, pieces, pieces_table
    from provisioning.catalogue.gaps import CoverageFigures
    from provisioning.sources.pixels.image import decode
else:
    __getattr__ = on_demand(
        __name__,
        {
            "provisioning.catalogue.archive": ["PMTILES_FORMAT", "write_pmtiles"],
            "provisioning.catalogue.coverage": ["area_of", "measure_coverage"],
            "provisioning.catalogue.cuts": ["Piece", "cut_key", "distinct_keys", "pieces", "pieces_table"],
            "provisioning.catalogue.gaps": ["CoverageFigures"],
            "provisioning.sources.pixels.image": ["decode"],
        },
    )

__all__ = [
    "PMTILES_FORMAT",
    "Corpus",
    "CoverageFigures",
    "Piece",
    "Skipped",
    "Tile",
    "TileReader",
    "ZoomCount",
    "area_of",
    "corpus_table",
    "count_changed",
    "cut_key",
    "dated_places",
    "decode",
    "decoder_facts",
    "distinct_digests",
    "distinct_keys",
    "flat_ids",
    "iter_placed",
    "iter_tiles",
    "last_corpus",
    "measure_coverage",
    "not_scanned",
    "open_reader",
    "pieces",
    "pieces_table",
    "scan",
    "source_places",
    "source_rows",
    "states",
    "tile_of",
    "write_pmtiles",
]
