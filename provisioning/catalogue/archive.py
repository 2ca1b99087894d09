"""The corpus itself as one PMTiles v3 archive, for flight software that looks at the tile it has found.

The tiles' own bytes, each once, in the order of their ids. Directories are gzip without compression: readers in the
field know nothing but gzip, and bytes that zlib has pressed depend on its version. Lengths are known from the
catalogue, so that the archive is written from front to back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from provisioning.base import events
from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import TileError
from provisioning.base.geometry.angles import HALF_TURN_E7
from provisioning.base.geometry.geo import tileid_to_zxy
from provisioning.base.hashing import Sha256
from provisioning.catalogue.reading import corpus_table, last_corpus, open_reader, tile_lengths
from provisioning.catalogue.values import Corpus, Tile, not_scanned
from provisioning.config import Selection, TileSource
from provisioning.sources.containers.pmtiles_format import (
    GZIP,
    HEADER,
    MAGIC,
    NO_COMPRESSION,
    ROOT_END,
    Header,
    gzip_stored,
    serialise_directory,
)
from provisioning.sources.pixels.image import image_format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

PMTILES_FORMAT = 1
"""Counted up when the same corpus gives other bytes."""
LEAF_ENTRIES = 4096
TILE_TYPES = {"png": 2, "jpeg": 3, "webp": 4, "avif": 5}
UNKNOWN_TYPE = 0


def write_pmtiles(selection: Selection, build_dir: Path, output: Path) -> None:
    """Write the corpus of the last scan to `output`; where sources share a tile, the first by name is taken.

    Raises EmptyCorpusError without a corpus, TileError if a tile has changed since the scan, FilesystemError.
    """
    corpus = last_corpus(selection, build_dir)
    if corpus is None or not corpus.count:
        raise not_scanned()
    plan = _Plan(build_dir, corpus)
    with wrap_os_errors("write the imagery", output), open(output, "wb") as stream:
        stream.write(bytes(HEADER.size) + plan.root + plan.metadata + plan.leaves)
        kinds = plan.write_data(selection.tiles.source, build_dir, stream)
        stream.seek(0)
        stream.write(HEADER.pack(*plan.header(kinds.pop() if len(kinds) == 1 else UNKNOWN_TYPE)))


class _Plan:
    """All of the archive but the tiles' bytes: 80 bytes of memory a tile."""

    def __init__(self, build_dir: Path, corpus: Corpus) -> None:
        import numpy as np

        packed, digests = corpus_table(build_dir)
        ids, first = np.unique(packed >> 14, return_index=True)
        lengths = tile_lengths(build_dir)[first]
        self.corpus = corpus
        self.digests = digests[first]
        self.sources = (packed[first] >> 6 & 0xFF).tolist()
        self.ids = ids
        self.kept, offsets = _stored_once(self.digests, lengths)
        self.data_bytes = int(lengths[self.kept].sum())
        self.entries = _entries(ids, lengths, offsets)
        self.metadata = gzip_stored(json.dumps({"name": "flightcache", "type": "baselayer"}, sort_keys=True).encode())
        self.root, self.leaves = _directories(self.entries)

    def write_data(self, sources: Sequence[TileSource], build_dir: Path, stream: BinaryIO) -> set[int]:
        """Write each distinct tile once and return the PMTiles types of the images."""
        kinds: set[int] = set()
        kept = self.kept.tolist()
        with open_reader(sources, build_dir) as reader:
            for done, i in enumerate(kept):
                source = self.corpus.sources[self.sources[i]]
                data = reader.read(
                    Tile(*tileid_to_zxy(int(self.ids[i])), source, Sha256(self.digests[i].tobytes().hex()))
                )
                kinds.add(_tile_type(data))
                stream.write(data)
                events.progress("imagery", done, len(kept), unit="tiles")
        return kinds

    def header(self, tile_type: int) -> Header:
        """Return the archive's header."""
        metadata_offset = HEADER.size + len(self.root)
        leaf_offset = metadata_offset + len(self.metadata)
        bbox = self.corpus.bbox
        west, east = (bbox.west, bbox.east) if bbox.west <= bbox.east else (-HALF_TURN_E7, HALF_TURN_E7)
        zooms = [z for z, count in self.corpus.per_zoom.items() if count.present]
        return Header(
            magic=MAGIC, version=3, root_offset=HEADER.size, root_length=len(self.root),
            metadata_offset=metadata_offset, metadata_length=len(self.metadata),
            leaf_offset=leaf_offset, leaf_length=len(self.leaves),
            data_offset=leaf_offset + len(self.leaves), data_length=self.data_bytes,
            addressed_tiles=len(self.ids), tile_entries=len(self.entries[0]), tile_contents=len(self.kept),
            clustered=1, internal_compression=GZIP, tile_compression=NO_COMPRESSION, tile_type=tile_type,
            min_zoom=min(zooms), max_zoom=max(zooms),
            min_lon_e7=west, min_lat_e7=bbox.south, max_lon_e7=east, max_lat_e7=bbox.north,
            center_zoom=min(zooms), center_lon_e7=bbox.middle.lon_e7, center_lat_e7=bbox.middle.lat_e7,
        )  # fmt: skip


def _tile_type(data: bytes) -> int:
    try:
        return TILE_TYPES[image_format(data)]
    except TileError:
        return UNKNOWN_TYPE


def _stored_once(digests: NDArray[np.uint8], lengths: Ints) -> tuple[Ints, Ints]:
    """Return which tiles are written, ascending, and the offset of every tile's bytes."""
    import numpy as np

    _, first, same = np.unique(digests.view("V32").ravel(), return_index=True, return_inverse=True)
    kept = np.sort(first)
    starts = np.concatenate(([0], np.cumsum(lengths[kept])[:-1]))
    return kept, starts[np.searchsorted(kept, first[same])]


def _entries(ids: Ints, lengths: Ints, offsets: Ints) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return ids, runs, lengths, offsets of the entries: neighbours with the same bytes are one run."""
    import numpy as np

    begins = np.concatenate(([True], (np.diff(ids) != 1) | (np.diff(offsets) != 0)))
    at = np.flatnonzero(begins)
    runs = np.diff(np.concatenate((at, [len(ids)])))
    return ids[at].tolist(), runs.tolist(), lengths[at].tolist(), offsets[at].tolist()


def _directories(entries: tuple[list[int], list[int], list[int], list[int]]) -> tuple[bytes, bytes]:
    """Return the root directory and the leaves one after another; leaves grow until the root fits its 16 KiB."""
    count = len(entries[0])
    root = serialise_directory(*entries) if count <= ROOT_END else b""
    if root and len(root) <= ROOT_END - HEADER.size:
        return root, b""
    size = LEAF_ENTRIES
    while True:
        leaves = [serialise_directory(*(column[at : at + size] for column in entries)) for at in range(0, count, size)]
        ends = accumulate(map(len, leaves))
        starts = [end - len(leaf) for end, leaf in zip(ends, leaves, strict=True)]
        root = serialise_directory(entries[0][::size], [0] * len(leaves), [len(leaf) for leaf in leaves], starts)
        if len(root) <= ROOT_END - HEADER.size:
            return root, b"".join(leaves)
        size *= 2
