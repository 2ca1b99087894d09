"""What a process does that lists the tiles of a container (`base/process`): addresses, bytes and their digests.

SQLite, the directories of PMTiles and GDAL run here, not where the build is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from provisioning.base.errors import Error, TileError
from provisioning.base.geometry.geo import ADDRESS_BITS, unpack_address
from provisioning.base.process.workers import Items, Limits, Workers
from provisioning.config import TileSource
from provisioning.sources.processes.common import opened
from provisioning.sources.tile_file import MOST_TILE_BYTES

if TYPE_CHECKING:
    from provisioning.sources.store import StoredTile, TileQuery

MOST_LISTED, ENOUGH_BYTES = 1024, 4 << 20
"""Tiles in one answer, and bytes after which no more are added to it."""
HELD = 2
"""Batches whose bytes are kept: the one that is looked at, and the one that is read meanwhile."""
ROOM_BYTES = MOST_TILE_BYTES
RECORD = struct.Struct("<Q32sQ")
"""Packed address of a tile, the SHA-256 of its bytes, and where in the room these are, times 2^32, and how many."""
SPAN = struct.Struct("<Q")
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
    """Some tiles of a container: a RECORD of each, and what reads the bytes of those of some numbers."""

    records: bytes
    with_bytes: Callable[[Sequence[int]], Iterator[ContainerTile]]

    def __len__(self) -> int:
        return len(self.records) // RECORD.size

    def identities(self) -> list[bytes]:
        """Return address and digest of each, as they are packed."""
        size = RECORD.size - SPAN.size
        return [self.records[at : at + size] for at in range(0, len(self.records), RECORD.size)]

    def addresses(self) -> list[int]:
        """Return the packed address of each."""
        return [address for address, _, _ in RECORD.iter_unpack(self.records)]

    def digest(self, number: int) -> bytes | None:
        """Return the SHA-256 of a tile, None if it has no bytes."""
        _, digest, span = RECORD.unpack_from(self.records, number * RECORD.size)
        return None if span == NO_BYTES else digest


class Listing:
    """Lists the tiles of a query from a position on, a batch at a time. It begins again where it is asked to.

    The bytes of most tiles are known to whoever asks by their digest: they are copied only where that asks for them.
    """

    def __init__(self, source: TileSource, beside: Sequence[TileSource], query: TileQuery) -> None:
        self._store = opened([source], beside)[query.source]
        self._query = query
        self._held: dict[int, tuple[list[bytes], list[bytes | None]]] = {}
        self._begin(0)

    def _begin(self, position: int) -> None:
        self._tiles: Iterator[StoredTile] = islice(iter(self._store.query(self._query)), position, None)
        self._position = position

    def __call__(self, asked: tuple[int, Sequence[int]], room: memoryview) -> bytes:
        """Return the RECORDs of tiles from a position on, none where there are no more; or write the bytes of some.

        These are given by their numbers in the batch of that position; then only their RECORDs are returned.
        """
        position, numbers = asked
        if position not in self._held:
            self._hold(position)
        records, data = self._held[position]
        return self._with_bytes(records, data, numbers, room) if numbers else b"".join(records)

    def _hold(self, position: int) -> None:
        if position != self._position:
            self._begin(position)
        if len(self._held) == HELD:
            del self._held[min(self._held)]
        self._held[position] = self._batch()
        self._position += len(self._held[position][0])

    def _batch(self) -> tuple[list[bytes], list[bytes | None]]:
        records: list[bytes] = []
        held: list[bytes | None] = []
        size, digest, last = 0, b"", None
        for tile in islice(self._tiles, MOST_LISTED):
            z, x, y, data, *_ = tile
            if data is not None and data is not last:
                if size and size + len(data) > ENOUGH_BYTES:
                    self._tiles = chain((tile,), self._tiles)
                    break
                size += len(data)
                digest, last = sha256(data).digest(), data
            held.append(data)
            # `pack_address` written out: a call of it takes as long as the rest
            address = z << 2 * ADDRESS_BITS | x << ADDRESS_BITS | y
            records.append(RECORD.pack(address, b"", NO_BYTES) if data is None else RECORD.pack(address, digest, 0))
        return records, held

    def _with_bytes(
        self, records: Sequence[bytes], held: Sequence[bytes | None], numbers: Sequence[int], room: memoryview
    ) -> bytes:
        answer: list[bytes] = []
        start = end = 0
        last = None
        for n in (n for n in numbers if n < len(held)):  # the container may have changed
            data = held[n]
            if data is not None and data is not last:
                start, end, last = end, end + len(data), data
                room[start:end] = data
            span = NO_BYTES if data is None else start << 32 | end - start
            answer += records[n][: -SPAN.size], SPAN.pack(span)
        return b"".join(answer)


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
            limits=LIMITS,
            needs_scratch=source.kind not in ("pmtiles", "geotiff"),
        )
        self._worker = self._workers.worker()

    def batches(self) -> Iterator[ContainerBatch]:
        """Yield the tiles in batches; the next but one is read meanwhile.

        TileError if the container is damaged or cannot be used.
        """
        with ThreadPoolExecutor(1) as ahead:
            try:
                position, coming = 0, ahead.submit(self._records, 0)
                while records := coming.result():
                    batch = ContainerBatch(records, partial(self._with_bytes, position))
                    position += len(batch)
                    coming = ahead.submit(self._records, position)
                    yield batch
            finally:
                self._workers.stop.set()

    def _records(self, position: int, numbers: Sequence[int] = ()) -> bytes:
        (answer,) = self._worker.read([(position, numbers)])
        if isinstance(answer, Error):
            raise answer
        return answer[: len(answer) // RECORD.size * RECORD.size]

    def _with_bytes(self, position: int, numbers: Sequence[int]) -> Iterator[ContainerTile]:
        """Yield tiles of the batch of a position; their bytes are there until others are asked for."""
        for address, digest, span in RECORD.iter_unpack(self._records(position, numbers) if numbers else b""):
            start, size = span >> 32, span & NO_BYTES
            data = None if size == NO_BYTES else self._worker.rooms[start : start + size]
            yield ContainerTile(*unpack_address(address), data, None if data is None else digest)

    def close(self) -> None:
        """End the process."""
        self._workers.close()
