"""A tile store that an integrator wrote: found by its name, and checked in all that it says.

Its code runs in builds and scans alone: whoever looks at a cache or verifies it never imports this module.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from provisioning.base.errors import TileError
from provisioning.base.geometry.geo import MAX_ZOOM
from provisioning.base.printable import printable
from provisioning.config import TileSource
from provisioning.sources.source import source_name
from provisioning.sources.store import StoredTile, TileQuery, TileStore

GROUP = "flightcache.tiles"
"""Entry points of this group may be named in flight.toml."""
MOST_CHARACTERS = 4096
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
PARTS = ("stamp", "query", "read", "close")
Address = tuple[int, int, int]


class PluginStore:
    """The store that a source names or holds, behind the same protocol. TileError names it, and the tile."""

    def __init__(self, source: TileSource) -> None:
        self._source = source
        self._name = source_name(source)
        self.title = f"the tile store {source.plugin or type(source.store).__name__}"
        self._store = cast("TileStore", source.store) if source.store is not None else self._made()
        self._check_parts()
        self.identity = self._text("its identity", self._store.identity)
        if not self.identity:
            raise self.error("its identity is empty", "give it a version, or the name of its data set")

    def error(self, what: str, next_step: str, at: Address | None = None, **facts: object) -> TileError:
        """Return the error that names this store, and the tile."""
        tile = {"tile": "{}/{}/{}".format(*at)} if at else {}
        key = "tiles.source.plugin" if self._source.plugin else None
        shown = {"source": self._name, **tile, **facts}
        return TileError(f"{self.title} cannot be used: {what}", key=key, facts=shown, next_step=next_step)

    @contextmanager
    def _guarded(self, doing: str, at: Address | None = None) -> Iterator[None]:
        """Turn whatever the integrator's code raises into a TileError; signals pass."""
        try:
            yield
        except (Exception, SystemExit) as error:
            said = printable(str(error))[:500]
            raise self.error(
                f"it raised {type(error).__name__} {doing}", "look at the store's own code, options and connection", at,
                **({"it said": said} if said else {}),
            ) from error  # fmt: skip

    def _made(self) -> TileStore:
        factory = self._factory()
        with self._guarded("when it was made with root and tiles.source.options"):
            return cast("TileStore", factory(root=self._source.root, **_plain(self._source.options)))

    def _factory(self) -> Callable[..., object]:
        module, colon, name = self._source.plugin.partition(":")
        entry = None if colon else self._entry_point(module)
        with self._guarded("when it was imported"):
            factory: Any = entry.load() if entry else self._imported(module)
            for part in name.split(".") if colon else ():
                factory = getattr(factory, part)
        if not callable(factory):
            raise self.error("what it names cannot be called", "name the class of the store")
        return cast("Callable[..., object]", factory)

    def _entry_point(self, name: str) -> EntryPoint:
        known = entry_points(group=GROUP)
        found = [entry for entry in known if entry.name == name]
        if len(found) == 1:
            return found[0]
        raise self.error(
            f"{len(found) or 'no'} entry points of the group {GROUP} have its name",
            "install the package that has it into this Python, or name it as package.module:Class",
            known=", ".join(sorted(entry.name for entry in known)) or "none",
        )

    def _imported(self, module: str) -> object:
        """Import a module: as Python finds it, or from the directory of flight.toml."""
        root = str(self._source.root)
        if root not in sys.path:
            sys.path.append(root)
        return importlib.import_module(module)

    def _check_parts(self) -> None:
        missing = [name for name in PARTS if not callable(getattr(self._store, name, None))]
        if not hasattr(self._store, "identity"):
            missing.append("identity")
        if missing:
            raise self.error(
                f"it has no {', '.join(missing)}", "implement provisioning.sources.store.TileStore (docs/tiles.md)"
            )

    def _text(self, what: str, value: object) -> str:
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise self.error(f"{what} is no text of at most {MOST_CHARACTERS} characters", "correct the store")
        return value

    def stamp(self) -> str:
        """Return what the store says of its state; empty if it does not know."""
        with self._guarded("when it was asked for its stamp"):
            stamp = self._store.stamp()
        return self._text("its stamp", stamp)

    def query(self, query: TileQuery) -> Iterator[StoredTile]:
        """Yield what the store lists of a query, checked. What it lists twice is found by the scan."""
        with self._guarded("when it was queried"):
            rows = iter(self._store.query(query))
        while True:
            with self._guarded("while it listed its tiles"):
                row = next(rows, None)
            if row is None:
                return
            yield self._checked(row, query)

    def _checked(self, row: object, query: TileQuery) -> StoredTile:
        fields = tuple(row) if isinstance(row, tuple) else ()
        if not 3 <= len(fields) <= len(StoredTile._fields) or not all(type(n) is int for n in fields[:3]):
            raise self.error("it lists what is no StoredTile", "correct its query", found=printable(repr(row)[:200]))
        tile = StoredTile(*fields)
        wrong = self._wrong(tile, query)
        if wrong:
            raise self.error(wrong, "correct its query or its data", tile[:3])
        return tile

    def _wrong(self, tile: StoredTile, query: TileQuery) -> str | None:
        z, x, y, data, source, digest, captured = tile
        if not (0 <= z <= MAX_ZOOM and 0 <= x < 1 << z and 0 <= y < 1 << z):
            return "it lists an address that is no tile"
        if not query.holds(z, x, y):
            return "it lists a tile outside the area that it was asked for"
        if source not in ("", query.source):
            return f"it lists a tile of the source {source!r}, asked for {query.source!r}"
        if data is not None and not isinstance(data, bytes):
            return "the bytes of a tile are no bytes"
        if digest != "" and not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
            return f"the digest {digest!r} is not 64 lower-case hex digits"
        if captured is not None and not isinstance(captured, date):
            return f"the capture date {captured!r} is no datetime.date"
        return None

    def read(self, z: int, x: int, y: int) -> bytes | None:
        """Return the bytes of one tile."""
        with self._guarded("when a tile was read", (z, x, y)):
            data = self._store.read(z, x, y)
        if data is not None and not isinstance(data, bytes):
            raise self.error(f"it returned a {type(data).__name__}, no bytes", "correct its read", (z, x, y))
        return data

    def bytes_of(self, tile: StoredTile) -> bytes | None:
        """Return the bytes of a listed tile. TileError if they are not those of the digest that was listed."""
        data = tile.data if tile.data is not None else self.read(*tile[:3])
        if data is not None and tile.sha256 and sha256(data).hexdigest() != tile.sha256:
            raise self.error(
                "its bytes are not those of the digest that it lists", "correct the digests in the store", tile[:3],
                listed=tile.sha256, found=sha256(data).hexdigest(),
            )  # fmt: skip
        return data

    def close(self) -> None:
        """Close a store that was made here; one that was given belongs to whoever gave it."""
        if self._source.store is None:
            with self._guarded("when it was closed"):
                self._store.close()


def _plain(options: Mapping[str, object]) -> dict[str, Any]:
    """Return options with TOML's numbers as Python's own."""
    return {name: _plain_value(value) for name, value in options.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return _plain(value)
    return [_plain_value(item) for item in value] if isinstance(value, list) else value
