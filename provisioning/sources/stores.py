"""A source's kind, and the store of that kind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import ConfigError, TileError
from provisioning.base.named import NamedTuple
from provisioning.config import Tiles, TileSource
from provisioning.config.check import check_tiles
from provisioning.sources.source import SHEET_SUFFIXES, Container, reading_source, source_name
from provisioning.sources.store import TileStore
from provisioning.sources.xyz import Directory

if TYPE_CHECKING:
    from provisioning.sources.plugins import PluginStore

MOST_NAMES = 1000
"""Names of a directory that are looked at to tell sheets from tiles."""


def kind_of(source: TileSource) -> str:
    """Return the kind of a source, from the configuration or else from the first bytes."""
    if source.plugin or source.store is not None:
        return "plugin"
    if source.kind != "auto":
        return source.kind
    with reading_source(source.path):
        if os.path.isdir(source.path):
            return "geotiff" if _holds_sheets(source.path) else "xyz"
        with open_regular(source.path) as stream:
            head = stream.read(64)
        found = os.stat(source.path)
    if head[:16] == b"SQLite format 3\0":
        return _database_kind(source.path, (found.st_size, found.st_mtime_ns, found.st_ino))
    if head[:7] == b"PMTiles":
        return "pmtiles"
    from provisioning.sources.containers.geotiff import raster_kind

    if raster_kind(head):
        return "geotiff"
    raise TileError(
        "tile source is not an XYZ directory, MBTiles, GeoPackage, .sqlitedb, PMTiles, GeoTIFF, JPEG 2000 or VRT",
        file=source.path,
        next_step="convert it (docs/tiles.md lists the formats), or name its kind in tiles.source.kind",
    )


def _holds_sheets(path: os.PathLike[str]) -> bool:
    with os.scandir(path) as entries:
        names = [entry.name.lower() for entry, _ in zip(entries, range(MOST_NAMES), strict=False)]
    return any(name.endswith(SHEET_SUFFIXES) for name in names) and not any(name.isdigit() for name in names)


@lru_cache(maxsize=64)
def _database_kind(path: Path, stat: tuple[int, int, int]) -> str:  # noqa: ARG001 - part of the key
    from provisioning.sources.containers.tables import database_kind

    return database_kind(path)


class SourceState(NamedTuple):
    """What decides the bytes of a store beside its settings, and what differs when its content does.

    An empty stamp tells nothing: the store may have changed, or is too young to be trusted. `head` is size and header
    of a single file: where these are as they were its digest may be, too, though it was touched or copied.
    """

    identity: str
    stamp: str
    head: str = ""


def source_state(source: TileSource, beside: Sequence[TileSource] = (), *, now_ns: int) -> SourceState:
    """Return how a container or plugin looks now, without listing a tile. `beside` are all sources of the flight."""
    kind = kind_of(source)
    if kind == "plugin":
        with closing(plugin(source)) as store:
            return SourceState(store.identity, store.stamp())
    if kind == "xyz":
        return SourceState("", "")
    if kind == "geotiff":
        from provisioning.sources.containers import geotiff

        return SourceState("", geotiff.stamp(source, _rasters(source, beside), now_ns=now_ns))
    if kind == "pmtiles":
        from provisioning.sources.containers import pmtiles

        return SourceState("", pmtiles.stamp(source.path, now_ns=now_ns), pmtiles.head(source.path))
    from provisioning.sources.containers import sqlite_file

    return SourceState("", sqlite_file.stamp(source.path, now_ns=now_ns), sqlite_file.head(source.path))


def plugin(source: TileSource) -> PluginStore:
    """Return the store that an integrator wrote. Its module is imported here alone."""
    from provisioning.sources.plugins import PluginStore

    return PluginStore(source)


def open_container(source: TileSource, beside: Sequence[TileSource] = ()) -> Container:
    """Open a container; TileError if it is damaged or holds no imagery. `beside` are all sources of the flight."""
    kind = kind_of(source)
    if kind == "geotiff":
        from provisioning.sources.containers.geotiff import GeoTIFF

        return GeoTIFF(source, _rasters(source, beside))
    if kind == "pmtiles":
        from provisioning.sources.containers.pmtiles import PMTiles

        return PMTiles(source)
    from provisioning.sources.containers.tables import open_table

    return open_table(source, kind)


def open_tiles(source: TileSource, beside: Sequence[TileSource] = ()) -> TileStore:
    """Open a source of any kind as a tile store."""
    kind = kind_of(source)
    if kind == "plugin":
        return plugin(source)
    return Directory(source) if kind == "xyz" else open_container(source, beside)


def with_kinds(sources: Sequence[TileSource]) -> tuple[TileSource, ...]:
    """Return the sources that another process can read, each with its kind and whole path: all but plugins."""
    kinds: list[tuple[TileSource, Any]] = [(source, kind_of(source)) for source in sources]
    return tuple(replace(each, kind=kind, path=each.path.absolute()) for each, kind in kinds if kind != "plugin")


def _rasters(source: TileSource, beside: Sequence[TileSource]) -> list[TileSource]:
    return [other for other in beside if other is source or kind_of(other) == "geotiff"]


def opened_files(source: TileSource, beside: Sequence[TileSource] = ()) -> list[Path]:
    """Return what reading tiles of a source opens: its directory, or the files that there are of it."""
    kind = kind_of(source)
    if kind == "geotiff":
        from provisioning.sources.containers import geotiff

        return [source.path, *geotiff.files_of(source, _rasters(source, beside))]
    real = os.path.realpath(source.path)
    logs = (
        [Path(f"{real}{suffix}") for suffix in ("-wal", "-shm", "-journal")] if kind not in ("xyz", "pmtiles") else []
    )
    return [source.path, *(log for log in logs if log.exists())]


def open_store(source: TileSource) -> Container | Directory:
    """Open a source of any kind to list its tiles and read some."""
    return Directory(source) if kind_of(source) == "xyz" else open_container(source)


def with_stores(tiles: Tiles, stores: TileStore | Mapping[str, TileStore]) -> Tiles:
    """Return `tiles` with stores that a program holds in place of sources of flight.toml.

    One store takes the place of the only source, or is one where there is none. Of several, by name, each takes the
    place of the source of its name, or is added. Name, priority, zooms and capture date of a source are kept.
    ConfigError if one store is given for several sources, or a name cannot stand in a Manifest.
    """
    known = {source_name(source): source for source in tiles.source}
    if not isinstance(stores, Mapping):
        if len(known) > 1:
            raise _refused({"tiles.source": f"one store is given for {', '.join(known)}: give tiles={{name: store}}"})
        stores = {next(iter(known), "tiles"): stores}
    held = {name: _held(name, store, known.get(name, TileSource())) for name, store in stores.items()}
    result = replace(tiles, source=tuple({**known, **held}.values()))
    if issues := dict(check_tiles(result)):
        raise _refused(issues)
    return result


def _refused(issues: Mapping[str, str]) -> ConfigError:
    return ConfigError("the tile stores that the program gives cannot be used", facts=issues)


def _held(name: str, store: TileStore, source: TileSource) -> TileSource:
    """Return the source `source` with its tiles in `store`; how its file was read has no meaning any more."""
    captured = "" if source.captured in ("metadata", "mtime") else source.captured
    return TileSource(
        name=name, store=store, priority=source.priority, zoom_priority=source.zoom_priority, zooms=source.zooms,
        captured=captured,
    )  # fmt: skip
