"""Bring the catalogue up to date with a store that lists its tiles: a file that holds many, or one in Python."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from provisioning.base.batches import batches_of
from provisioning.base.errors import TileError
from provisioning.base.events import warn
from provisioning.base.geometry.geo import ADDRESS_BITS, pack_address, unpack_address
from provisioning.base.hashing import sha256_file
from provisioning.base.named import NamedTuple
from provisioning.catalogue.scanning.inspecting import Candidate, Digest, Inspector
from provisioning.catalogue.scanning.settings import MOVING
from provisioning.catalogue.scanning.writer import Address, Writer
from provisioning.config import TileSource
from provisioning.config.schema import NO_PATH
from provisioning.sources.source import reading_source, source_name
from provisioning.sources.store import StoredTile, TileQuery
from provisioning.sources.stores import SourceState, plugin, source_state

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from provisioning.sources.plugins import PluginStore
    from provisioning.sources.processes.listing import ContainerBatch

BATCH = 512
"""Tiles compared with the catalogue in one go."""
WINDOW_BITS = 9
"""Of a row: so many tiles of a column are read from the catalogue at a time."""
MOST_KEPT = 1 << 18
"""Tiles of the corpus that are held while a container is listed, or a batch's more."""
SCATTERED = 4
"""Fewer tiles than so many of each column in a batch: then those of the whole column are not worth reading."""


class Content(NamedTuple):
    """What a store holds, as size, header and SHA-256 of its file, and whether all its tiles are recorded."""

    now: str
    is_known: bool


def content_of(source: TileSource, state: SourceState, writer: Writer, *, is_new: bool) -> Content:
    """Return a store's content where it costs little to know: that of a file that was only touched, or is new.

    With `is_new` nothing that is remembered counts.
    """
    before = writer.content()
    if writer.is_as_it_was(state.stamp) and not is_new:
        return Content(before, is_known=False)
    if not state.head or (before.rpartition(" ")[0] != state.head and writer.count()):
        return Content("", is_known=False)
    now = _content(source, state)
    return Content(now, is_known=now == before and not is_new)


def _content(source: TileSource, state: SourceState) -> str:
    with reading_source(source.path):
        return f"{state.head} {sha256_file(source.path)}"


class Listed(NamedTuple):
    """A tile that a store lists.

    `where` is its bytes, or what gives them; None: there are none. `digest` is the SHA-256 of its bytes if that is
    believed to be known, `day` the date that the store lists.
    """

    z: int
    x: int
    y: int
    where: memoryview | Digest | Callable[[], Digest | None] | None
    digest: Digest | None = None
    day: int | None = None


class Batch(NamedTuple):
    """Some tiles that a store lists, by their number: packed addresses; digest and date of one; some as a whole.

    Their bytes are there until others are asked for. `identities`: address and digest of each (`Writer.corpus_of`), of
    tiles without a date.
    """

    addresses: array[int]
    listed_of: Callable[[int], tuple[Digest | None, int | None]]
    listed: Callable[[Sequence[int]], Iterable[Listed]]
    identities: Sequence[bytes] = ()


class StoreUpdate:
    """One visit to a store whose stamp is not the remembered one.

    A tile whose bytes have the digest that is catalogued is not inspected again, and its row is not written. With
    `full` its bytes are hashed whatever digest the store lists.
    """

    def __init__(self, source: TileSource, query: TileQuery, writer: Writer, *, full: bool) -> None:
        self._source, self._query, self._writer, self._full = source, query, writer, full
        self._catalogued = writer.count()
        self._met = 0
        self._is_changed = False
        self.has_other_addresses = False
        """Whether a tile is new, or one is gone; known when it has run."""
        self._seen = array("Q")
        self._corpus: set[bytes] = set()
        self._windows: set[int] = set()
        self._most = sum(query.cover.expected(z) for z in query.zooms)

    def run(self, inspector: Inspector, beside: Sequence[TileSource], state: SourceState, content: str) -> None:
        """Record every tile of the query. TileError if the store is damaged or holds a tile twice.

        `beside` are the containers of the flight, each with its kind: rasters fill each other's seams. `content` is the
        store's, if known; of one in which nothing was found to have changed it is looked for, so that it is known next
        time.
        """
        with closing(self._batches(beside)) as batches:
            try:
                for found in inspector.inspected(self._candidates(batches, inspector)):
                    if found.is_changed or self._is_dated_anew(found.candidate):
                        self._writer.tile(found, settled=True)
                        self._is_changed = True
                self._remove_the_others()
                if self._has_moved_on(beside, state):
                    state, content = SourceState(state.identity, ""), ""
                if not content and state.head and not self._is_changed:
                    content = _content(self._source, state)
                self._writer.stamp(state.stamp, content)
            finally:
                self._writer.flush()

    def _batches(self, beside: Sequence[TileSource]) -> Generator[Batch]:
        """Yield what the store lists: a container from another process, a store in Python from here."""
        source = next((each for each in beside if source_name(each) == self._query.source), None)
        if source is None:
            with closing(plugin(self._source)) as store:
                for tiles in batches_of((self._of_plugin(store, each) for each in store.query(self._query)), BATCH):
                    yield _of_plugin_tiles(tiles)
            return
        from provisioning.sources.processes.listing import Lister

        with closing(Lister(source, beside, self._query)) as lister:
            for batch in lister.batches():
                yield _of_container(batch)

    def _of_plugin(self, store: PluginStore, tile: StoredTile) -> Listed:
        z, x, y, data, _, listed, captured = tile
        day = captured.toordinal() if captured else None
        if listed:
            return Listed(z, x, y, partial(store.bytes_of, tile), None if self._full else bytes.fromhex(listed), day)
        if data is None:
            return Listed(z, x, y, partial(store.bytes_of, tile), None, day)
        return Listed(z, x, y, data, sha256(data).digest(), day)

    def _has_moved_on(self, beside: Sequence[TileSource], state: SourceState) -> bool:
        """Return whether the store changed while it was read: said, and looked at again by the next scan.

        What was read may be of two states; bytes that are not those that were hashed are refused when they are used.
        """
        if not state.stamp or source_state(self._source, beside, now_ns=time.time_ns()).stamp == state.stamp:
            return False
        warn(
            "tiles.moving", source=source_name(self._source), tiles=len(self._seen),
            note=MOVING,
        )  # fmt: skip
        return True

    def _candidates(self, batches: Iterator[Batch], inspector: Inspector) -> Iterator[Candidate]:
        """Yield the tiles that are not known to be as they are catalogued."""
        for batch in batches:
            self._note(batch.addresses)
            every = range(len(batch.addresses))
            changed = self._changed(batch) if self._catalogued else every
            inspector.pass_over(len(every) - len(changed))
            known = (
                self._writer.known_of(unpack_address(batch.addresses[n]) for n in changed) if self._catalogued else {}
            )
            for z, x, y, where, digest, day in batch.listed(changed):
                held = bytes(where) if isinstance(where, memoryview) else where
                size = len(held) if isinstance(held, bytes) else 0
                yield Candidate(z, x, y, "", size, 0, 0, 0, known.get((z, x, y)), held, digest, day)

    def _is_dated_anew(self, at: Candidate) -> bool:
        return self._writer.takes_listed_dates and at.known is not None and at.known.day != at.day

    def _note(self, addresses: array[int]) -> None:
        """Remember the addresses of a batch; TileError if so many are listed that some must be there twice."""
        self._seen.extend(addresses)
        if len(self._seen) > self._most:
            self._distinct()

    def _changed(self, batch: Batch) -> list[int]:
        """Return the tiles of a batch that are new, have another digest or date, or no digest before they are read."""
        numbers = self._unlike_corpus(batch) if batch.identities else range(len(batch.addresses))
        columns: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for n in numbers:
            z, x, y = unpack_address(batch.addresses[n])
            columns.setdefault((z, x), []).append((y, n))
        changed: list[int] = []
        for (z, x), column in columns.items():
            ys = [y for y, _ in column]
            digests = self._writer.digests_of(z, x, ys)
            days = self._writer.days_of(z, x, ys) if self._writer.takes_listed_dates else None
            self._met += sum(map(digests.__contains__, ys))
            for y, n in column:
                digest, day = batch.listed_of(n)
                if digest is None or digests.get(y) != digest or (days is not None and days.get(y) != day):
                    changed.append(n)
        return changed

    def _unlike_corpus(self, batch: Batch) -> list[int]:
        """Return the tiles of a batch that are not in the corpus with the digest that is listed."""
        windows = {address >> WINDOW_BITS for address in batch.addresses}
        if len(windows) * SCATTERED > len(batch.addresses):
            return list(range(len(batch.addresses)))
        if len(self._corpus) > MOST_KEPT:
            self._corpus, self._windows = set(), set()
        for window in windows - self._windows:
            first = window << WINDOW_BITS
            self._corpus.update(self._writer.corpus_of(*unpack_address(first), 1 << WINDOW_BITS))
        self._windows |= windows
        left = [n for n, tile in enumerate(batch.identities) if tile not in self._corpus]
        self._met += len(batch.addresses) - len(left)
        return left

    def _distinct(self) -> NDArray[np.uint64]:
        """Return the addresses that were listed, ascending; TileError if one is there twice."""
        import numpy as np

        seen = np.sort(np.frombuffer(self._seen, np.uint64))
        twice = seen[1:][seen[1:] == seen[:-1]]
        if len(twice):
            z, x, y = unpack_address(int(twice[0]))
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
        self.has_other_addresses = self._met < len(seen)
        if self._met == self._catalogued:
            return
        self._writer.flush()
        select = "SELECT z, x, y FROM tile WHERE source = ?"
        catalogued = self._writer.db.execute(select, (self._writer.source,)).fetchall()
        are_listed = _are_in(seen, catalogued)
        left = (at for at, is_listed in zip(catalogued, are_listed, strict=True) if not is_listed)
        gone = [at for at in left if self._query.holds(*at)]
        self._is_changed |= bool(gone)
        self.has_other_addresses |= bool(gone)
        self._writer.remove(gone)


def _of_plugin_tiles(tiles: Sequence[Listed]) -> Batch:
    return Batch(
        array("Q", [pack_address(*tile[:3]) for tile in tiles]),
        lambda n: (tiles[n].digest, tiles[n].day),
        lambda numbers: [tiles[n] for n in numbers],
    )


def _of_container(batch: ContainerBatch) -> Batch:
    addresses = array("Q", batch.addresses())
    return Batch(addresses, lambda n: (batch.digest(n), None), partial(_tiles_of, batch), batch.identities())


def _tiles_of(batch: ContainerBatch, numbers: Sequence[int]) -> Iterator[Listed]:
    return (Listed(*tile) for tile in batch.with_bytes(numbers))


def _are_in(seen: NDArray[np.uint64], tiles: Sequence[Address]) -> list[bool]:
    """Return for each tile whether it is among the packed addresses `seen`."""
    import numpy as np

    z, x, y = np.array(tiles, np.uint64).reshape(-1, 3).T
    found: list[bool] = np.isin(z << np.uint64(2 * ADDRESS_BITS) | x << np.uint64(ADDRESS_BITS) | y, seen).tolist()
    return found
