"""What a store of tiles holds: the start of a flight.toml.

Names alone are counted, unless a sample shows images that may be transparent: an edge tile that is mostly empty would
be expected ever after and never found.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provisioning.area.area import enclosing
from provisioning.area.cover import Band, Cover, count
from provisioning.base.angles import BBox
from provisioning.base.errors import EmptyCorpusError
from provisioning.base.geo import MAX_ZOOM, tile_bounds_e7, tiles_in_bbox
from provisioning.catalogue.scanning.columns import packed_runs, unpacked_runs
from provisioning.catalogue.scanning.containers import open_container
from provisioning.catalogue.values import ZoomCount
from provisioning.config import Tiles, TileSource
from provisioning.sources.image import inspect_tile, may_be_transparent
from provisioning.sources.source import Container, kind_of
from provisioning.sources.xyz import Layout, names_in, read_file

EVERYTHING = Cover({z: (Band(0, (1 << z) - 1, ((0, (1 << z) - 1),)),) for z in range(MAX_ZOOM + 1)})
SAMPLE = 64
"""Tiles looked at to learn whether images may be transparent."""

Columns = dict[int, dict[int, "array[int]"]]
"""Rows by zoom and column."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The box around a store's finest tiles, and per zoom what of that box it holds."""

    kind: str
    bbox: BBox
    per_zoom: Mapping[int, ZoomCount]


def survey(path: Path) -> Survey:
    """Return what the store at `path` holds. Raises TileError if it cannot be read, EmptyCorpusError if it is empty."""
    source = TileSource(path=path.absolute())
    store = _Directory(source) if kind_of(source) == "xyz" else open_container(source)
    try:
        columns: Columns = {}
        for z, x, y in store.addresses():
            columns.setdefault(z, {}).setdefault(x, array("I")).append(y)
        columns = _imagery(store, columns)
    finally:
        store.close()
    if not columns:
        raise EmptyCorpusError(
            "the source holds no tiles", file=path, next_step="add tiles first, as {z}/{x}/{y} files"
        )
    finest = max(columns)
    bbox = _box_around(finest, columns[finest])
    per_zoom = {z: _counted(z, bbox, columns[z]) for z in sorted(columns)}
    return Survey(kind=kind_of(source), bbox=bbox, per_zoom={z: c for z, c in per_zoom.items() if c.present})


class _Directory:
    """An XYZ directory, as far as a survey needs it."""

    def __init__(self, source: TileSource) -> None:
        self._layout = Layout(source)
        self._suffixes: set[str] = set()

    def addresses(self) -> Iterator[tuple[int, int, int]]:
        for folder in self._layout.folders(EVERYTHING):
            tile_of = self._layout.tile_of(folder, EVERYTHING)
            for found in filter(None, map(tile_of, names_in(self._layout.root / folder.path))):
                self._suffixes.add(found[3])
                yield found[:3]

    def read(self, z: int, x: int, y: int) -> bytes | None:
        for suffix in self._suffixes:
            with suppress(OSError):
                return read_file(self._layout.path(z, x, y, suffix))
        return None

    def close(self) -> None:
        pass


def _imagery(store: Container | _Directory, columns: Columns) -> Columns:
    """Return the tiles that `tiles.max_empty` lets pass; those that cannot be decoded stay, to be complained of."""
    total = sum(len(ys) for found in columns.values() for ys in found.values())
    places = [(z, x, y) for z in columns for x in columns[z] for y in columns[z][x][:: 1 + total // SAMPLE]]
    if not any(may_be_transparent(store.read(*at) or b"") for at in places[:: 1 + len(places) // SAMPLE]):
        return columns
    from concurrent.futures import ThreadPoolExecutor

    def kept(at: tuple[int, int]) -> array[int]:
        return array("I", (y for y in columns[at[0]][at[1]] if _is_imagery(store.read(*at, y))))

    result: Columns = {}
    order = [(z, x) for z in columns for x in columns[z]]
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        for (z, x), ys in zip(order, pool.map(kept, order), strict=True):
            if ys:
                result.setdefault(z, {})[x] = ys
    return result


def _is_imagery(data: bytes | None) -> bool:
    limits = Tiles()
    if data is None or not may_be_transparent(data):
        return data is not None
    return inspect_tile(data, max_pixels=limits.max_pixels, nodata=()).empty_ppm <= limits.max_empty * 1_000_000


def _box_around(z: int, columns: Mapping[int, Iterable[int]]) -> BBox:
    rows = [y for ys in columns.values() for y in (min(ys), max(ys))]
    boxes = []
    for left, right in unpacked_runs(packed_runs(sorted(columns))):
        north_west, south_east = tile_bounds_e7(z, left, min(rows)), tile_bounds_e7(z, right, max(rows))
        boxes.append(BBox(north_west.west, south_east.south, south_east.east, north_west.north))
    return enclosing(boxes)


def _counted(z: int, bbox: BBox, columns: Mapping[int, Iterable[int]]) -> ZoomCount:
    """Return how many of the box's tiles are there; holes are not measured."""
    ranges, (top, bottom) = tiles_in_bbox(bbox, z)
    inside = (set(ys) for x, ys in columns.items() if any(left <= x <= right for left, right in ranges))
    present = sum(sum(top <= y <= bottom for y in ys) for ys in inside)
    return ZoomCount(present, count(ranges) * (bottom - top + 1), 0)
