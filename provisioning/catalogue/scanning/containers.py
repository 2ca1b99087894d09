"""Bring the catalogue up to date with a store that lists its tiles: a file that holds many, or one in Python."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from provisioning.base.batches import batches_of
from provisioning.base.errors import TileError
from provisioning.catalogue.scanning.inspecting import Candidate, Inspector
from provisioning.catalogue.scanning.writer import Address, Writer
from provisioning.config import TileSource
from provisioning.config.schema import NO_PATH
from provisioning.sources.store import StoredTile, TileQuery, TileStore
from provisioning.sources.stores import open_tiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 256
"""Tiles listed in one go; their bytes are in memory together."""
BITS = 25
"""Of a column or row in an address that is packed into 64 bits."""


class StoreUpdate:
    """One visit to a store whose stamp is not the remembered one.

    A tile whose bytes have the digest that is catalogued is not judged again, and its row is not written. With `full`
    its bytes are hashed whatever digest the store lists.
    """

    def __init__(self, source: TileSource, query: TileQuery, writer: Writer, *, full: bool) -> None:
        self._source, self._query, self._writer, self._full = source, query, writer, full
        self._catalogued = writer.count()
        self._met = 0
        self._seen = array("Q")
        self._most = sum(query.cover.expected(z) for z in query.zooms)

    def run(self, inspector: Inspector, *, beside: Sequence[TileSource], stamp: str) -> None:
        """Record every tile of the query. TileError if the store is damaged or holds a tile twice.

        `beside` are all sources of the flight: rasters fill each other's seams.
        """
        with closing(open_tiles(self._source, beside)) as store:
            try:
                for found in inspector.inspected(self._candidates(store)):
                    if found.is_changed or self._writer.is_dated_anew(found.candidate):
                        self._writer.tile(found, settled=True)
                self._remove_the_others()
                self._writer.stamp(stamp or None)
            finally:
                self._writer.flush()

    def _candidates(self, store: TileStore) -> Iterator[Candidate]:
        bytes_of: Callable[[StoredTile], bytes | None] = getattr(store, "bytes_of", partial(_bytes_of, store))
        for batch in batches_of(store.query(self._query), BATCH):
            known = self._writer.known_of(tile[:3] for tile in batch) if self._catalogued else {}
            self._met += len(known)
            for tile in batch:
                z, x, y, data, _, listed, captured = tile
                self._seen.append(z << 2 * BITS | x << BITS | y)
                digest = bytes.fromhex(listed) if listed and not self._full else None
                day = captured.toordinal() if captured else None
                size, row = len(data or b""), known.get((z, x, y))
                yield Candidate(z, x, y, "", size, 0, 0, 0, row, partial(bytes_of, tile), digest, day)
            if len(self._seen) > self._most:
                self._distinct()

    def _distinct(self) -> NDArray[np.uint64]:
        """Return the addresses that were listed, ascending; TileError if one is there twice."""
        import numpy as np

        seen = np.sort(np.frombuffer(self._seen, np.uint64))
        twice = seen[1:][seen[1:] == seen[:-1]]
        if len(twice):
            z, x, y = _unpacked(int(twice[0]))
            plugin, path = self._source.plugin or type(self._source.store).__name__, self._source.path
            title = "the container" if path != NO_PATH else f"the tile store {plugin}"
            raise TileError(
                f"{title} holds tile {z}/{x}/{y} twice", file=None if path == NO_PATH else path,
                next_step="make or copy it anew" if path != NO_PATH else "correct its query or its data",
            )  # fmt: skip
        return seen

    def _remove_the_others(self) -> None:
        """Forget the tiles of the query that are catalogued and were not listed."""
        seen = self._distinct()
        if self._met == self._catalogued:
            return
        self._writer.flush()
        select = "SELECT z, x, y FROM tile WHERE source = ?"
        catalogued = self._writer.db.execute(select, (self._writer.source,)).fetchall()
        are_listed = _are_in(seen, catalogued)
        left = (at for at, is_listed in zip(catalogued, are_listed, strict=True) if not is_listed)
        self._writer.remove(at for at in left if self._query.holds(*at))


def _bytes_of(store: TileStore, tile: StoredTile) -> bytes | None:
    return tile.data if tile.data is not None else store.read(*tile[:3])


def _are_in(seen: NDArray[np.uint64], tiles: Sequence[Address]) -> list[bool]:
    """Tell of each tile whether it is among the packed addresses `seen`."""
    import numpy as np

    z, x, y = np.array(tiles, np.uint64).reshape(-1, 3).T
    found: list[bool] = np.isin(z << np.uint64(2 * BITS) | x << np.uint64(BITS) | y, seen).tolist()
    return found


def _unpacked(packed: int) -> Address:
    return packed >> 2 * BITS, packed >> BITS & (1 << BITS) - 1, packed & (1 << BITS) - 1
