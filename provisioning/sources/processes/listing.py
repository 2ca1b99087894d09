"""What a process does that lists the tiles of a container (`base/process`): addresses, bytes and their digests.

SQLite, the directories of PMTiles and GDAL run here, not where the build is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from provisioning.base.errors import Error, TileError
from provisioning.base.process.workers import Items, Limits, Workers
from provisioning.config import TileSource
from provisioning.sources.processes.common import opened
from provisioning.sources.tile_file import MOST_TILE_BYTES

if TYPE_CHECKING:
    from provisioning.sources.store import StoredTile, TileQuery

MOST_LISTED, ENOUGH_BYTES = 1024, 4 << 20
"""Tiles in one answer, and bytes after which no more are added to it."""
ROOM_BYTES = MOST_TILE_BYTES
RECORD = struct.Struct("<BIIQ32s")
"""Zoom, x, y; where in the room its bytes are, times 2^32, and how many; their SHA-256."""
Record = tuple[int, int, int, int, bytes]
NO_BYTES = 0xFFFFFFFF
"""In place of the number of bytes: there are none that could be an image."""
LIMITS = Limits(cpu_s=300.0, clock_s=1800.0, memory_bytes=2 << 30)
"""Of one answer: a table without an index, most of it outside of the area, is read to its end for a few tiles."""


class ContainerTile(NamedTuple):
    """A tile that a container lists; its bytes, None where none of them could be an image, and their SHA-256."""

    z: int
    x: int
    y: int
    data: memoryview | None
    digest: bytes | None


class ContainerBatch(NamedTuple):
    """Some tiles of a container: a RECORD of each, and the memory that their bytes are in."""

    records: list[Record]
    room: memoryview

    def tile(self, record: Record) -> ContainerTile:
        """Return the tile that a record is of."""
        z, x, y, span, digest = record
        start, size = span >> 32, span & NO_BYTES
        return ContainerTile(
            z, x, y, *((None, None) if size == NO_BYTES else (self.room[start : start + size], digest))
        )


class Listing:
    """Lists the tiles of a query from a position on, a batch at a time. It begins again where it is asked to."""

    def __init__(self, source: TileSource, beside: Sequence[TileSource], query: TileQuery) -> None:
        self._store = opened([source], beside)[query.source]
        self._query = query
        self._begin(0)

    def _begin(self, position: int) -> None:
        self._tiles: Iterator[StoredTile] = islice(iter(self._store.query(self._query)), position, None)
        self._position = position

    def __call__(self, position: int, room: memoryview) -> bytes:
        """Write the bytes of tiles into `room` and return their RECORDs; none where there are no more."""
        if position != self._position:
            self._begin(position)
        records = self._records(room)
        self._position += len(records)
        return b"".join(records)

    def _records(self, room: memoryview) -> list[bytes]:
        records: list[bytes] = []
        start = end = 0
        digest, last = b"", None
        for tile in islice(self._tiles, MOST_LISTED):
            z, x, y, data, *_ = tile
            if data is None:
                records.append(RECORD.pack(z, x, y, NO_BYTES, b""))
                continue
            if data is not last:
                if end and end + len(data) > ENOUGH_BYTES:
                    self._tiles = chain((tile,), self._tiles)
                    break
                start, end = end, end + len(data)
                room[start:end] = data
                digest, last = sha256(data).digest(), data
            records.append(RECORD.pack(z, x, y, start << 32 | end - start, digest))
        return records


class Lister:
    """A process that lists the tiles of one container. Close it in the end."""

    def __init__(self, source: TileSource, beside: Sequence[TileSource], query: TileQuery) -> None:
        from provisioning.sources.stores import opened_files

        self._workers = Workers(
            Listing,
            source,
            beside,
            query,
            items=Items("the container", lambda _: str(source.path), TileError),
            reads=opened_files(source, beside),
            room_bytes=ROOM_BYTES,
            rooms=2,
            limits=LIMITS,
            needs_scratch=source.kind not in ("pmtiles", "geotiff"),
        )
        self._worker = self._workers.worker()

    def batches(self) -> Iterator[ContainerBatch]:
        """Yield the tiles in batches, whose bytes are there until the next one; the next but one is read meanwhile.

        TileError if the container is damaged or cannot be used.
        """
        with ThreadPoolExecutor(1) as ahead:
            try:
                position = turn = 0
                coming = ahead.submit(self._batch, position, turn)
                while (batch := coming.result()).records:
                    position += len(batch.records)
                    turn = 1 - turn
                    coming = ahead.submit(self._batch, position, turn)
                    yield batch
            finally:
                self._workers.stop.set()

    def _batch(self, position: int, turn: int) -> ContainerBatch:
        (answer,) = self._worker.read([position], first=turn)
        if isinstance(answer, Error):
            raise answer
        room = self._worker.rooms[turn * ROOM_BYTES : (turn + 1) * ROOM_BYTES]
        return ContainerBatch(list(RECORD.iter_unpack(answer[: len(answer) // RECORD.size * RECORD.size])), room)

    def close(self) -> None:
        """End the process."""
        self._workers.close()
