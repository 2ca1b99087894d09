"""PMTiles v3, read with its directories cached; every number in a file is checked before it is followed.

https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md
"""

from __future__ import annotations

import json
import os
import time
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from provisioning.area.cover import Cover
from provisioning.base.disk.files import open_regular
from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import tileid_to_zxy, zxy_to_tileid
from provisioning.config import TileSource
from provisioning.sources.containers.idranges import LIMIT, are_inside, cells_inside, tiles_of_ids, tiles_of_run
from provisioning.sources.containers.pmtiles_format import (
    GZIP,
    HEADER,
    MAGIC,
    NO_COMPRESSION,
    ROOT_END,
    Directory,
    Header,
    parse_directory,
)
from provisioning.sources.placement.evidence import Statement, from_metadata
from provisioning.sources.source import file_stamp, head_of, reading, reading_source
from provisioning.sources.store import StoredTile, TileQuery, with_bytes
from provisioning.sources.tile_file import MOST_TILE_BYTES

MOST_DIRECTORY_BYTES = 8 << 20
MOST_METADATA_BYTES = 1 << 20
MOST_DEPTH = 4
MOST_OF_A_RUN = 1 << 20
"""Tiles with one image that are listed; a listing of all says that they are no imagery."""
CACHED_DIRECTORIES = 256
Address = tuple[int, int, int]
COMPRESSIONS = {0: "unknown", 3: "Brotli", 4: "Zstandard"}
VECTOR = {1: "MVT", 6: "MLT"}


def stamp(path: Path, *, now_ns: int) -> str:
    """Return what tells whether an archive has changed: its stat and its header."""
    own = file_stamp(path, now_ns=now_ns)
    return f"{own} {head_of(path, HEADER.size).hex()}" if own else ""


def head(path: Path) -> str:
    """Return size and header of an archive."""
    return f"{os.stat(path).st_size} {head_of(path, HEADER.size).hex()}"


class PMTiles:
    """An archive, opened read-only; may be read from several threads."""

    identity = ""

    def __init__(self, source: TileSource) -> None:
        self.path = source.path
        if source.scheme == "tms":
            raise TileError(
                "PMTiles archives have one row order", file=self.path, key="tiles.source.scheme",
                next_step="remove the key; if the place is wrong, convert the archive's source again",
            )  # fmt: skip
        with reading_source(self.path), open_regular(self.path) as file:
            self._fd = os.dup(file.fileno())
        try:
            self._size = os.fstat(self._fd).st_size
            self.header = self._header()
            self._check_header()
        except BaseException:
            os.close(self._fd)
            raise
        self._leaf = lru_cache(CACHED_DIRECTORIES)(self._read_leaf)
        self._root = lru_cache(1)(self._read_root)

    def _error(self, what: str) -> TileError:
        return TileError(f"PMTiles archive cannot be used: {what}", file=self.path, next_step="make or copy it anew")

    def _header(self) -> Header:
        head = os.pread(self._fd, HEADER.size, 0)
        if head[:7] != MAGIC:
            raise self._error("it does not begin with PMTiles")
        if len(head) < HEADER.size:
            raise self._error(f"it ends within its header ({len(head)} bytes)")
        return Header._make(HEADER.unpack(head))

    def _check_header(self) -> None:
        h = self.header
        if h.version != 3:
            raise self._error(f"its version is {h.version}; version 3 is needed")
        if h.tile_type in VECTOR:
            raise self._error(f"it holds vector tiles ({VECTOR[h.tile_type]}); imagery is needed")
        if h.internal_compression not in (NO_COMPRESSION, GZIP):
            name = COMPRESSIONS.get(h.internal_compression, str(h.internal_compression))
            raise self._error(f"its directories are compressed with {name}; gzip or none is needed (`pmtiles convert`)")
        if h.tile_compression not in (0, NO_COMPRESSION):
            name = COMPRESSIONS.get(
                h.tile_compression, "gzip" if h.tile_compression == GZIP else str(h.tile_compression)
            )
            raise self._error(f"its tiles are compressed with {name} over their image format")
        if not (HEADER.size <= h.root_offset and h.root_length > 0 and h.root_offset + h.root_length <= ROOT_END):
            raise self._error("its root directory is not within the first 16 KiB")
        for name in ("root", "metadata", "leaf", "data"):
            offset, length = getattr(h, f"{name}_offset"), getattr(h, f"{name}_length")
            if offset + length > self._size:
                raise self._error(f"its {name} section ends beyond the end of the file: it is cut off or damaged")

    def _inflated(self, offset: int, length: int, limit: int, what: str) -> bytes:
        """Return a section's bytes, decompressed, at most `limit` of them."""
        if length > limit:
            raise self._error(f"{what} is larger than {limit} bytes")
        raw = os.pread(self._fd, length, offset)
        if self.header.internal_compression == NO_COMPRESSION:
            return raw
        inflater = zlib.decompressobj(31)
        try:
            data = inflater.decompress(raw, limit + 1)
        except zlib.error as error:
            raise self._error(f"{what} is not gzip data: {error}") from error
        if len(data) > limit:
            raise self._error(f"{what} is larger than {limit} bytes when decompressed")
        if not inflater.eof:
            raise self._error(f"{what} is cut off")
        return data

    def _read_root(self) -> Directory:
        h = self.header
        data = self._inflated(h.root_offset, h.root_length, MOST_DIRECTORY_BYTES, "its root directory")
        return self._checked(data, 0, LIMIT)

    def _read_leaf(self, offset: int, length: int, low: int, high: int) -> Directory:
        data = self._inflated(self.header.leaf_offset + offset, length, MOST_DIRECTORY_BYTES, "a leaf directory")
        return self._checked(data, low, high)

    def _checked(self, data: bytes, low: int, high: int) -> Directory:
        """Return a directory whose entries lie in [low, high), ascend, do not overlap and stay in their sections."""
        try:
            directory = parse_directory(data)
        except ValueError as error:
            raise self._error("a directory is damaged") from error
        if not directory.ids:
            raise self._error("a directory is empty")
        if directory.ids[0] < low:
            raise self._error("a leaf directory holds tiles that belong to another (a loop?)")
        if not self._is_sound(directory, high):
            self._refuse(directory, high)
        return directory

    def _is_sound(self, directory: Directory, high: int) -> bool:
        """Return whether no entry overlaps its successor and each lies in its section: many at a time."""
        import numpy as np

        ids, runs, lengths, offsets = (np.frombuffer(column, np.uint64) for column in directory)
        if ids[-1] >= high or high > LIMIT:
            return False
        ends = np.append(ids[1:], np.uint64(high))
        limits = np.where(runs > 0, np.uint64(self.header.data_length), np.uint64(self.header.leaf_length))
        is_outside = (lengths == 0) | (offsets > limits) | (lengths > limits) | (offsets + lengths > limits)
        return not (is_outside | (ids + np.maximum(runs, np.uint64(1)) > ends)).any()

    def _refuse(self, directory: Directory, high: int) -> None:
        """Raise TileError that names the first entry that is not sound."""
        ends, h = [*directory.ids[1:], high], self.header
        for first, run, length, offset, end in zip(*directory, ends, strict=True):
            if first + max(run, 1) > end:
                raise self._error(f"the entries of tile id {first} and its successor overlap")
            if not length or offset + length > (h.data_length if run else h.leaf_length):
                raise self._error(f"the entry of tile id {first} points beyond its section")

    def _directories(self, cover: Cover | None) -> Iterator[Directory]:
        """Yield all directories, passing over leaves without tiles of `cover`."""
        stack = [(self._root(), LIMIT, 1)]
        while stack:
            directory, high, depth = stack.pop()
            yield directory
            leaves = []
            for i in [i for i, run in enumerate(directory.runs) if not run]:
                first, end = directory.ids[i], directory.ids[i + 1] if i + 1 < len(directory.ids) else high
                if depth == MOST_DEPTH:
                    raise self._error(f"its directories are more than {MOST_DEPTH} deep")
                if cover is None or any(True for _ in cells_inside(first, end, cover)):
                    leaves.append((directory.lengths[i], directory.offsets[i], first, end))
            for length, offset, first, end in reversed(leaves):
                stack.append((self._leaf(offset, length, first, end), end, depth + 1))

    def _reading(self) -> AbstractContextManager[None]:
        return reading("PMTiles archive", self.path, next_step="make or copy it anew")

    def query(self, query: TileQuery) -> Iterator[StoredTile]:
        """Yield the tiles of a query; TileError if a directory is damaged."""
        with self._reading():
            for ids, runs, lengths, offsets in self._directories(query.cover):
                for first, run, length, offset, tile in zip(
                    ids, runs, lengths, offsets, _tiles_inside(ids, query.cover), strict=True
                ):
                    if run == 1 and tile:
                        yield with_bytes(*tile, self._data(offset, length))
                    elif run > 1:
                        data: bytes | None = None
                        for n, (z, x, y) in enumerate(tiles_of_run(first, run, query.cover)):
                            if n == 0:
                                data = self._data(offset, length)
                            yield with_bytes(z, x, y, data)

    def _data(self, offset: int, length: int) -> bytes | None:
        if length > MOST_TILE_BYTES:
            return None
        return os.pread(self._fd, length, self.header.data_offset + offset)

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        """Yield z, x, y of every tile; a run longer than any imagery's is an error."""
        with self._reading():
            for ids, runs, _, _ in self._directories(None):
                for first, run, tile in zip(ids, runs, _tiles_of(ids), strict=True):
                    if run == 1:
                        yield tile
                        continue
                    yield from map(tileid_to_zxy, range(first, first + min(run, MOST_OF_A_RUN)))
                    if run > MOST_OF_A_RUN:
                        raise self._error(f"{run} tiles from id {first} share one image")

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the bytes of one tile."""
        tileid = zxy_to_tileid(z, x, y)
        with self._reading():
            directory = self._root()
            high = LIMIT
            for _ in range(MOST_DEPTH):
                at = bisect_right(directory.ids, tileid) - 1
                if at < 0:
                    return None
                first, run, length, offset = (column[at] for column in directory)
                if run:
                    return self._data(offset, length) if tileid < first + run else None
                high = directory.ids[at + 1] if at + 1 < len(directory.ids) else high
                directory = self._leaf(offset, length, first, high)
        raise self._error(f"its directories are more than {MOST_DEPTH} deep")

    def metadata(self) -> dict[str, object]:
        """Return the JSON metadata, empty if there is none that can be read."""
        h = self.header
        try:
            found = json.loads(
                self._inflated(h.metadata_offset, h.metadata_length, MOST_METADATA_BYTES, "its metadata")
            )
        except (TileError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def statements(self) -> list[Statement]:
        """Return what header and metadata say of where the tiles are."""
        h = self.header
        said = from_metadata("the PMTiles header", {"bounds": [side / 1e7 for side in h[19:23]]})
        more = from_metadata("the PMTiles metadata", {k: v for k, v in self.metadata().items() if k in ("crs", "srs")})
        zooms = (h.min_zoom, h.max_zoom)
        return [replace(said, zooms=zooms if zooms != (0, 0) else None), more]

    def stamp(self) -> str:
        """Return what tells whether the archive has changed."""
        return stamp(self.path, now_ns=time.time_ns())

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _tiles_of(ids: array[int]) -> Iterator[Address]:
    import numpy as np

    return zip(*(column.tolist() for column in tiles_of_ids(np.array(ids, np.int64))), strict=True)


def _tiles_inside(ids: array[int], cover: Cover) -> Iterator[Address | None]:
    """Yield the tile of each id, None for one that does not belong to `cover`."""
    import numpy as np

    columns = tiles_of_ids(np.array(ids, np.int64))
    are_of_it = are_inside(cover, *columns).tolist()
    for tile, is_inside in zip(zip(*(column.tolist() for column in columns), strict=True), are_of_it, strict=True):
        yield tile if is_inside else None
