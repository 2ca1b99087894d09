"""What is measured: a corpus with its index, its network, and a sample that changes little when the corpus does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provisioning.base.errors import TileError
from provisioning.base.geometry import geo
from provisioning.base.hashing import Sha256
from provisioning.catalogue import Corpus, Tile
from provisioning.engines import Network
from provisioning.index.ids import HEADING_BITS, SOURCE_BITS, Gather, Int64s, Rows, cuts_of, is_upright_tile, mixed
from provisioning.quality.gates.values import Address, Figure, Requirements
from provisioning.sources.pixels.fitting import fit

Pixels = NDArray[np.uint8]
REMEMBERED = 64
"""Decoded tiles kept, 50 MB at 512 pixels."""
AROUND = tuple((dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


@dataclass(frozen=True, eq=False)
class Subject:
    """A corpus with its index, ready to be measured.

    `gather` gives the descriptors in the order of `rows`; `decode` a tile, uint8 [H, W, 3]; `fit` is how a tile is
    brought to the size that `network` takes; `index` is loaded. `key` is the descriptor key at heading 0: with it,
    what the network said of perturbed tiles is kept in the directory `kept`, and an added tile costs the views that
    show it. `threads` describe the views, 0: one for each core. `flat` are the ids of all tiles without texture.
    `transform`: how index.transform = "auto" was decided, which goes on record and is held to nothing.
    """

    asked: Requirements
    corpus: Corpus
    rows: Rows
    gather: Gather
    index: Any
    network: Network
    decode: Callable[[Tile], Pixels]
    fit: str
    key: Sha256 | None = None
    kept: Path = Path()
    threads: int = 0
    flat: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    transform: Figure | None = None

    @cached_property
    def sample(self) -> Int64s:
        """Row numbers (heading 0) of the tiles measured: those whose hashed ids are the smallest.

        A tile that comes or goes changes at most one member of the sample.
        """
        upright = np.flatnonzero(is_upright_tile(self.rows.ids))
        order = np.argsort(mixed(self.rows.ids[upright]), kind="stable")
        return upright[order[: self.asked.gates.samples]]

    def tile(self, row: int) -> Tile:
        """Return the tile of a row."""
        z, x, y, source, *_ = geo.unpack_id(int(self.rows.ids[row]))
        return Tile(z, x, y, self.corpus.sources[source], Sha256(self.rows.shas[row].tobytes().hex()))

    def address(self, row: int) -> Address:
        """Return where the tile of a row lies, and its source."""
        return Address(*self.tile(row)[:4])

    def pixels(self, row: int) -> Pixels:
        """Return the decoded tile of a row, uint8 [H, W, 3], which nobody may write to."""
        return self._decoded(row)

    @cached_property
    def _decoded(self) -> Callable[[int], Pixels]:
        """Decoding that remembers the last tiles: a tile is seen from each of its neighbours."""

        @lru_cache(REMEMBERED)
        def decoded(row: int) -> Pixels:
            return self.decode(self.tile(row))

        return decoded

    def seen(self, image: Pixels) -> Pixels:
        """Return `image` as the network takes it."""
        return fit(image, self.network.size, self.fit)

    @cached_property
    def images(self) -> Pixels:
        """The sample as the network takes it, uint8 [n, H, W, 3]."""
        return self.first_images(len(self.sample))

    def first_images(self, count: int) -> Pixels:
        """Return the first tiles of the sample as the network takes them, uint8 [n, H, W, 3]."""
        return np.stack([self.seen(self.pixels(row)) for row in self.sample[:count]])

    def neighbours(self, row: int) -> list[int | None]:
        """Return the rows of the nine tiles around that of `row`, itself in the middle; None where there is none."""
        z, x, y, source, *_ = geo.unpack_id(int(self.rows.ids[row]))
        side = 1 << z
        return [self._row_of(z, (x + dx) % side, y + dy, source) if 0 <= y + dy < side else None for dx, dy in AROUND]

    def _row_of(self, z: int, x: int, y: int, source: int) -> int | None:
        wanted = geo.pack_id(z, x, y, source, 0)
        row = int(np.searchsorted(self.rows.ids, wanted))
        return row if row < len(self.rows.ids) and self.rows.ids[row] == wanted else None

    def scene(self, row: int) -> Pixels:
        """Return the tile of `row` with half a tile around it, from its neighbours or, where none is, mirrored."""
        middle = self.pixels(row)
        height, width = middle.shape[:2]
        canvas = np.empty((3 * height, 3 * width, 3), np.uint8)
        for (dx, dy), near in zip(AROUND, self.neighbours(row), strict=True):
            beside = self.pixels_or_none(near) if near is not None and (dx or dy) else None
            if beside is None or beside.shape != middle.shape:
                beside = middle[:: -1 if dy else 1, :: -1 if dx else 1]
            canvas[(dy + 1) * height : (dy + 2) * height, (dx + 1) * width : (dx + 2) * width] = beside
        top, left = height // 2, width // 2
        return np.ascontiguousarray(canvas[top : top + 2 * height, left : left + 2 * width])

    def number(self, row: int) -> int:
        """Return the number that decides what the tile of `row` is seen like: its hashed id, whatever the sample."""
        return int(mixed(self.rows.ids[row : row + 1])[0])

    @cached_property
    def _sources(self) -> Mapping[int, Int64s]:
        """Rows of tiles by source number, where there are several sources."""
        numbers = (self.rows.ids >> HEADING_BITS & ((1 << SOURCE_BITS) - 1)).astype(np.uint8)
        present = np.unique(numbers).tolist()
        tiles = cuts_of(self.rows.ids, self.rows.rotations) == 0
        return {each: np.flatnonzero((numbers == each) & tiles) for each in present} if len(present) > 1 else {}

    def lender(self, row: int) -> int | None:
        """Return the row of a tile of another source, whose colours a view of `row` gets; None with one source."""
        own, number = int(self.rows.ids[row] >> HEADING_BITS & ((1 << SOURCE_BITS) - 1)), self.number(row)
        others = [rows for source, rows in self._sources.items() if source != own]
        if not others:
            return None
        rows = others[number % len(others)]
        return int(rows[number // len(others) % len(rows)])

    def pixels_or_none(self, row: int) -> Pixels | None:
        """Return the decoded tile of a row, or None where it is damaged."""
        try:
            return self.pixels(row)
        except TileError:
            return None
